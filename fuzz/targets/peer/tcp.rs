//! The TCP of the two peers and their server: ports, connects that the input answers, connections whose bytes arrive in
//! any pieces, strangers who connect and say anything.

use super::{Fields, World};
use crate::targets::{
    records::{address, canonical},
    server::{CLIENTS, SOCKETS},
};
use holepunch::{
    Error, ErrorKind,
    machine::{Input, PortId, StreamId, TcpRequest},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

/// Connections of a node at a time that the input may make.
const MAX_STREAMS: usize = 64;
/// Rounds in which everything that is sent arrives, and is answered.
const MAX_ROUNDS: usize = 8;
/// Connects to a public address that is only claimed, for each session.
const CLAIMED_ATTEMPTS: u32 = 2;

/// Where the other end of a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Nowhere yet: the connect is under way.
    Pending,
    /// At the other node, or at somebody who is no part of this.
    Peer(StreamId),
    Server(StreamId),
    Stranger,
}

#[derive(Debug)]
struct Stream {
    local: SocketAddr,
    remote: SocketAddr,
    end: End,
    /// What has been sent to it and has not arrived.
    under_way: Vec<u8>,
    /// What has arrived and was not taken.
    unread: Vec<u8>,
}

/// The ports and connections of a node.
#[derive(Debug, Default)]
pub(super) struct Tcp {
    ports: BTreeMap<PortId, SocketAddr>,
    listening: BTreeSet<PortId>,
    streams: BTreeMap<StreamId, Stream>,
    /// Those that are the application's.
    given: BTreeSet<StreamId>,
    /// Every number that was used.
    used: BTreeSet<StreamId>,
    /// Ports that were not to be had.
    refused: BTreeSet<PortId>,
    accepted: u32,
    attempts: BTreeMap<SocketAddr, u32>,
}

impl Tcp {
    pub(super) fn give(&mut self, stream: StreamId) {
        let known = self.streams.get(&stream).expect("a connection that is there");
        assert_ne!(known.end, End::Pending, "given before it was there");
        assert!(self.given.insert(stream), "given twice");
    }

    /// Everything is closed.
    pub(super) fn check_rest(&self) {
        assert!(self.ports.is_empty(), "{:?} were left reserved", self.ports);
        let left: Vec<_> = self.streams.keys().filter(|stream| !self.given.contains(stream)).collect();
        assert!(left.is_empty(), "{left:?} were left open");
    }

    /// Connects to addresses that nobody but the peer has told of.
    pub(super) fn check_attempts(&self, sessions: u32, is_only_claimed: impl Fn(&SocketAddr) -> bool) {
        for (remote, count) in self.attempts.iter().filter(|(remote, _)| is_only_claimed(remote)) {
            assert!(*count <= sessions * CLAIMED_ATTEMPTS, "{count} connects to {remote}");
        }
    }

    fn accept(&mut self, local: SocketAddr, remote: SocketAddr, end: End) -> StreamId {
        let stream = StreamId(StreamId::FIRST_ACCEPTED + self.accepted);
        self.accepted += 1;
        self.used.insert(stream);
        self.streams.insert(stream, Stream { local, remote, end, under_way: Vec::new(), unread: Vec::new() });
        stream
    }

    fn nth(&self, index: u8) -> Option<StreamId> {
        let alive: Vec<_> = self.streams.keys().filter(|stream| !self.given.contains(stream)).copied().collect();
        alive.get(usize::from(index) % alive.len().max(1)).copied()
    }
}

impl World {
    pub(super) fn do_tcp(&mut self, index: usize, request: TcpRequest) {
        let now = self.now;
        let node = &mut self.nodes[index];
        let tcp = &mut node.tcp;
        match request {
            // Some ports are not to be had.
            TcpRequest::Reserve { port, .. } if port.0 % 7 == 6 => {
                tcp.refused.insert(port);
                let error = Error::new(ErrorKind::AddressInUse, "in use");
                node.peer.handle_input(now, Input::TcpReserveFailed { port, error });
            }
            TcpRequest::Reserve { port, address: mut local } => {
                if local.port() == 0 {
                    local.set_port(50_000 + port.0 as u16);
                }
                assert!(tcp.ports.insert(port, local).is_none(), "{port:?} is asked for twice");
                node.peer.handle_input(now, Input::TcpReserved { port, local });
            }
            TcpRequest::Listen { port } => {
                assert!(tcp.ports.contains_key(&port), "listens on a port that is not there");
                tcp.listening.insert(port);
            }
            TcpRequest::Release { port } => {
                let is_known = tcp.ports.remove(&port).is_some() || tcp.refused.remove(&port);
                assert!(is_known, "{port:?} is released twice");
                tcp.listening.remove(&port);
            }
            TcpRequest::Connect { port, stream, remote } => {
                let local = *tcp.ports.get(&port).expect("connects from a port that is there");
                assert!(stream.0 < StreamId::FIRST_ACCEPTED && tcp.used.insert(stream), "{stream:?} is used twice");
                assert_eq!(local.is_ipv6(), remote.is_ipv6(), "connects to the wrong family");
                *tcp.attempts.entry(canonical(remote)).or_default() += 1;
                if tcp.streams.len() >= MAX_STREAMS {
                    node.peer.handle_input(now, Input::TcpFailed { stream, at_once: true });
                    return;
                }
                let (under_way, unread) = (Vec::new(), Vec::new());
                tcp.streams.insert(stream, Stream { local, remote, end: End::Pending, under_way, unread });
            }
            TcpRequest::Send { stream, bytes } => {
                assert!(!tcp.given.contains(&stream), "sent on a connection that was given away");
                let known = tcp.streams.get(&stream).expect("sent on a connection that is there");
                let end = known.end;
                assert_ne!(end, End::Pending, "sent before it was there");
                self.carry(index, end, &bytes);
            }
            TcpRequest::Close { stream } | TcpRequest::Abort { stream } => {
                assert!(!tcp.given.contains(&stream), "closed a connection that was given away");
                let known = tcp.streams.remove(&stream).expect("closed a connection that is there");
                self.hang_up(index, known.end);
            }
        }
    }

    /// Puts bytes on the way to the other end.
    fn carry(&mut self, from: usize, end: End, bytes: &[u8]) {
        match end {
            End::Peer(stream) => {
                if let Some(known) = self.nodes[1 - from].tcp.streams.get_mut(&stream) {
                    known.under_way.extend_from_slice(bytes);
                }
            }
            End::Server(stream) => {
                // The server takes all that is whole.
                let unread = self.server_unread.entry(stream).or_default();
                unread.extend_from_slice(bytes);
                let offered = unread.clone();
                let taken = self.server.handle_stream_data(self.now, stream, &offered);
                if let Some(unread) = self.server_unread.get_mut(&stream) {
                    unread.drain(..taken);
                }
                self.drain_server();
            }
            End::Stranger | End::Pending => {}
        }
    }

    /// The other end learns that the connection is over.
    fn hang_up(&mut self, from: usize, end: End) {
        match end {
            End::Peer(stream) => self.over[1 - from].push(stream),
            End::Server(stream) => {
                self.server_unread.remove(&stream);
                self.server_streams.remove(&stream);
                self.server.handle_input(self.now, Input::TcpFailed { stream, at_once: false });
                self.drain_server();
            }
            End::Stranger | End::Pending => {}
        }
    }

    /// A peer is told that the other end of a connection is closed, where it has not closed its own or given it away.
    pub(super) fn stream_is_over(&mut self, index: usize, stream: StreamId) {
        let node = &mut self.nodes[index];
        if !node.tcp.given.contains(&stream) && node.tcp.streams.remove(&stream).is_some() {
            node.peer.handle_input(self.now, Input::TcpFailed { stream, at_once: false });
            self.settle(index);
        }
    }

    /// What the server does about TCP.
    pub(super) fn do_tcp_of_server(&mut self, request: TcpRequest) {
        match request {
            TcpRequest::Send { stream, bytes } => {
                if let Some((node, known)) = self.server_streams.get(&stream)
                    && let Some(known) = self.nodes[*node].tcp.streams.get_mut(known)
                {
                    known.under_way.extend_from_slice(&bytes);
                }
            }
            TcpRequest::Close { stream } | TcpRequest::Abort { stream } => {
                self.server_unread.remove(&stream);
                if let Some((index, stream)) = self.server_streams.remove(&stream) {
                    self.over[index].push(stream);
                }
            }
            _ => {}
        }
    }

    /// The server has forgotten everything, and its connections are gone.
    pub(super) fn break_server_streams(&mut self) {
        self.server_unread.clear();
        for (index, stream) in std::mem::take(&mut self.server_streams).into_values() {
            self.stream_is_over(index, stream);
        }
    }

    /// Answers for one of the connects of a node: it fails, at once or not, or comes about.
    pub(super) fn answer_connect(&mut self, index: usize, mut fields: Fields<'_>) {
        let (which, how) = (fields.u8(), fields.u8());
        let pending: Vec<_> =
            self.nodes[index].tcp.streams.iter().filter(|(_, known)| known.end == End::Pending).collect();
        let Some((stream, _)) = pending.get(usize::from(which) % pending.len().max(1)) else { return };
        let stream = **stream;
        match how {
            0 => self.connect_through(index, stream),
            _ => {
                let node = &mut self.nodes[index];
                node.tcp.streams.remove(&stream);
                node.peer.handle_input(self.now, Input::TcpFailed { stream, at_once: how & 1 == 1 });
                self.settle(index);
            }
        }
    }

    /// A connect comes about where somebody listens, and at strangers.
    fn connect_through(&mut self, index: usize, stream: StreamId) {
        let now = self.now;
        let known = &self.nodes[index].tcp.streams[&stream];
        let (mut local, remote) = (known.local, known.remote);
        if local.ip().is_unspecified() {
            let own = super::host(index).find(|ip| ip.is_ipv6() == remote.is_ipv6());
            local.set_ip(own.unwrap_or(local.ip()));
        }
        let is_other = super::host(1 - index).any(|ip| ip == remote.ip());
        let port_of_other = self.nodes[1 - index].tcp.ports.iter().find(|(id, known)| {
            let tcp = &self.nodes[1 - index].tcp;
            known.port() == remote.port() && known.is_ipv6() == remote.is_ipv6() && tcp.listening.contains(id)
        });
        let port_of_other = port_of_other.map(|(id, _)| *id);
        let mut end = End::Stranger;
        if SOCKETS.iter().any(|own| address(own) == remote) {
            let accepted = StreamId(StreamId::FIRST_ACCEPTED + self.server_accepted);
            self.server_accepted += 1;
            self.server_streams.insert(accepted, (index, stream));
            let input = Input::TcpAccepted { port: PortId(0), stream: accepted, local: remote, remote: local };
            self.server.handle_input(now, input);
            end = End::Server(accepted);
        } else if let Some(port) = port_of_other.filter(|_| is_other) {
            let accepted = self.nodes[1 - index].tcp.accept(remote, local, End::Peer(stream));
            let input = Input::TcpAccepted { port, stream: accepted, local: remote, remote: local };
            self.nodes[1 - index].proven.insert(canonical(local));
            self.nodes[1 - index].peer.handle_input(now, input);
            end = End::Peer(accepted);
        }
        let node = &mut self.nodes[index];
        node.tcp.streams.get_mut(&stream).expect("it was there").end = end;
        node.peer.handle_input(now, Input::TcpConnected { stream, local });
        self.drain_server();
        self.settle(index);
        self.settle(1 - index);
    }

    /// Somebody connects to a port of a node.
    pub(super) fn stranger_connects(&mut self, index: usize, mut fields: Fields<'_>) {
        let which = fields.u8();
        let mut remote = address(fields.pick(&CLIENTS));
        remote.set_port(u16::from(fields.u8()) + 1);
        let now = self.now;
        let node = &mut self.nodes[index];
        let listening: Vec<_> = node.tcp.listening.iter().copied().collect();
        let Some(port) = listening.get(usize::from(which) % listening.len().max(1)).copied() else { return };
        let local = node.tcp.ports[&port];
        if node.tcp.streams.len() >= MAX_STREAMS || local.is_ipv6() != canonical(remote).is_ipv6() {
            return;
        }
        let stream = node.tcp.accept(local, remote, End::Stranger);
        node.peer.handle_input(now, Input::TcpAccepted { port, stream, local, remote });
        self.settle(index);
    }

    /// A connection is over.
    pub(super) fn stream_fails(&mut self, index: usize, which: u8) {
        let Some(stream) = self.nodes[index].tcp.nth(which) else { return };
        let known = self.nodes[index].tcp.streams.remove(&stream).expect("it was there");
        self.hang_up(index, known.end);
        self.nodes[index].peer.handle_input(self.now, Input::TcpFailed { stream, at_once: false });
        self.settle(index);
        self.settle(1 - index);
    }

    /// Bytes that nobody sent, or a piece of what is under way where there are none, arrive on a connection.
    pub(super) fn stream_brings(&mut self, index: usize, mut fields: Fields<'_>) {
        let (which, most) = (fields.u8(), fields.u8());
        let Some(stream) = self.nodes[index].tcp.nth(which) else { return };
        let known = self.nodes[index].tcp.streams.get_mut(&stream).expect("it was there");
        if known.end == End::Pending {
            return;
        }
        let bytes = match fields.rest() {
            [] => {
                let length = known.under_way.len().min(usize::from(most));
                known.under_way.drain(..length).collect()
            }
            bytes => bytes.to_vec(),
        };
        known.unread.extend(bytes);
        self.offer(index, stream);
    }

    /// Every connect is answered, and everything that was sent arrives.
    pub(super) fn tcp_all(&mut self) {
        for _ in 0..MAX_ROUNDS {
            let mut is_quiet = true;
            for index in 0..2 {
                let all: Vec<_> = self.nodes[index].tcp.streams.keys().copied().collect();
                for stream in all {
                    let Some(known) = self.nodes[index].tcp.streams.get_mut(&stream) else { continue };
                    if known.end == End::Pending {
                        is_quiet = false;
                        self.connect_through(index, stream);
                    } else if !known.under_way.is_empty() {
                        is_quiet = false;
                        let bytes = std::mem::take(&mut known.under_way);
                        known.unread.extend(bytes);
                        self.offer(index, stream);
                    }
                }
            }
            if is_quiet {
                return;
            }
        }
    }

    /// Shows a peer what is unread until it takes no more.
    fn offer(&mut self, index: usize, stream: StreamId) {
        loop {
            let node = &mut self.nodes[index];
            if node.tcp.given.contains(&stream) {
                return;
            }
            let Some(unread) = node.tcp.streams.get(&stream).map(|known| known.unread.clone()) else { return };
            let taken = node.peer.handle_stream_data(self.now, stream, &unread);
            assert!(taken <= unread.len(), "took more than there was");
            if let Some(known) = node.tcp.streams.get_mut(&stream) {
                known.unread.drain(..taken);
            }
            self.settle(index);
            if taken == 0 {
                return;
            }
        }
    }
}
