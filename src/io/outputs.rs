//! What the peer wants, done: datagrams sent, sockets bound and closed, events turned into states.

use std::{collections::VecDeque, net::SocketAddr, os::fd::AsRawFd as _, sync::Arc};

use mio::{Interest, unix::SourceFd};

use super::{
    core::{Channel, Core, Listening, Notice, Pending, Source, Watched, socket_token},
    fault::{is_loss, is_unreachable, os_error, would_block},
    link::Link,
    peek::Look,
    udp::UdpSocket,
};
use crate::{
    Error, ErrorKind, Result,
    config::MAX_DATAGRAM,
    machine::{Disposition, Input, Level, Output, SocketId, Transmit, UdpRequest},
    peer::{Carrier, CloseReason, ListenerId, Path, PeerEvent},
    wire::{demux::is_stun_with_fingerprint, stun::SessionId},
};

/// Connections of one listener that may wait to be accepted; further ones are closed at once.
const MAX_UNACCEPTED: usize = 128;

/// Early datagrams kept for one session; as many as a connection keeps beside its socket.
const MAX_EARLY: usize = 64;

/// Datagrams taken at once from a socket that is superseded or closed: as many small ones as its buffer holds, and more.
const MAX_COLLECTED: usize = 1024;

impl Core {
    /// Does all that the peer wants, until it waits.
    pub(super) fn drain(&mut self) {
        loop {
            match self.peer.poll_output() {
                Output::Transmit(transmit) => self.transmit(&transmit),
                Output::Udp(UdpRequest::Bind { socket, address }) => self.bind(socket, address),
                Output::Tcp(request) => self.handle_tcp(request),
                Output::Udp(UdpRequest::Close { socket }) => self.unbind(socket),
                Output::Event(event) => self.handle_event(event),
                Output::Log(level, line) => self.log(level, || line),
                Output::Timeout(time, timer) => {
                    (self.timeout, self.timer) = (time, timer);
                    let Some(pending) = self.pending.pop_front() else { return };
                    self.handle_pending(pending);
                }
            }
        }
    }

    fn handle_pending(&mut self, pending: Pending) {
        let now = self.clock.now();
        let input = match &pending {
            Pending::Datagram { socket, local, remote, payload } => {
                Input::Datagram { socket: *socket, local: *local, remote: *remote, payload }
            }
            Pending::Bound { socket, local } => Input::UdpBound { socket: *socket, local: *local },
            Pending::SendFailed { socket, destination, error } => {
                Input::SendFailed { socket: *socket, destination: *destination, error: error.clone() }
            }
            Pending::Failed { socket, error } => Input::UdpFailed { socket: *socket, error: error.clone() },
            Pending::Reserved { port, local } => Input::TcpReserved { port: *port, local: *local },
            Pending::ReserveFailed { port, error } => Input::TcpReserveFailed { port: *port, error: error.clone() },
            Pending::StreamFailed { stream, at_once } => Input::TcpFailed { stream: *stream, at_once: *at_once },
            Pending::Close(session) => return self.peer.close(now, *session),
        };
        let disposition = self.peer.handle_input(now, input);
        if let (Disposition::Data(session), Pending::Datagram { payload, .. }) = (disposition, pending) {
            self.deliver(session, payload);
        }
    }

    /// Gives a datagram to the peer, and drains; data goes to its session.
    pub(super) fn handle_datagram(&mut self, socket: SocketId, local: SocketAddr, remote: SocketAddr, payload: &[u8]) {
        let input = Input::Datagram { socket, local, remote, payload };
        if let Disposition::Data(session) = self.peer.handle_input(self.clock.now(), input) {
            self.deliver(session, payload.to_vec());
        }
        self.drain();
    }

    /// Gives a peeked datagram to the peer, and drains. What is data after all stays where it was seen.
    pub(super) fn handle_peeked(&mut self, link: &Link, remote: SocketAddr, payload: &[u8]) {
        let input = Input::Datagram { socket: link.path.udp_socket(), local: link.local(), remote, payload };
        self.peer.handle_input(self.clock.now(), input);
        self.drain();
    }

    /// Keeps data that came by another socket than its connection's.
    fn deliver(&mut self, session: SessionId, payload: Vec<u8>) {
        if let Some(watched) = self.links.get(&session) {
            watched.link.push(payload);
            return;
        }
        let early = self.early.entry(session).or_default();
        if early.len() < MAX_EARLY && payload.len() <= MAX_DATAGRAM {
            early.push(payload);
        }
    }

    fn transmit(&mut self, transmit: &Transmit) {
        let Transmit { socket, source, destination, payload } = transmit;
        let session = self.peer.session_at(*socket, *destination);
        let watched = session.and_then(|session| self.links.get(&session));
        let link = watched.filter(|watched| watched.link.remote() == *destination);
        let sent = match (link, self.sockets.get(socket)) {
            (Some(watched), _) => match watched.link.transmit(payload) {
                Err(error) if is_unreachable(&error) && watched.link.take_new_address() => {
                    watched.link.transmit(payload)
                }
                sent => sent,
            },
            (None, Some(bound)) => bound.send(*source, *destination, payload),
            (None, None) => return,
        };
        match sent {
            Err(error) if is_unreachable(&error) && link.is_none() => {
                let message = format!("cannot send to {destination}: {error}");
                let error = Error::new(ErrorKind::ServerUnreachable, message).with_os_code(error.raw_os_error());
                let (socket, destination) = (*socket, *destination);
                self.pending.push_back(Pending::SendFailed { socket, destination, error });
            }
            Err(error) if !is_loss(&error) && !would_block(&error) => {
                self.log(Level::Debug, || format!("cannot send to {destination}: {error}"));
            }
            Ok(()) | Err(_) => {}
        }
    }

    fn bind(&mut self, socket: SocketId, address: SocketAddr) {
        let token = socket_token(socket);
        let bound = UdpSocket::bind(address).and_then(|bound| {
            self.registry
                .register(&mut SourceFd(&bound.as_raw_fd()), token, Interest::READABLE)
                .map_err(|error| os_error("cannot watch a socket", &error))?;
            Ok(bound)
        });
        self.pending.push_back(match bound {
            Ok(bound) => {
                let local = bound.local();
                self.sockets.insert(socket, bound);
                Pending::Bound { socket, local }
            }
            Err(error) => Pending::Failed { socket, error },
        });
    }

    /// Closes a socket, and lets what it still holds go in.
    fn unbind(&mut self, socket: SocketId) {
        let Some(bound) = self.sockets.remove(&socket) else { return };
        collect(socket, &bound, &mut self.buffer, &mut self.pending);
        self.unfinished.remove(&socket);
        // Closing would do it too.
        let _ = self.registry.deregister(&mut SourceFd(&bound.as_raw_fd()));
    }

    fn handle_event(&mut self, event: PeerEvent) {
        self.changed = true;
        match &event {
            PeerEvent::Registered { listener, server, mapped, .. } => {
                if let Some(state) = self.listeners.get_mut(listener) {
                    state.mapped.insert(server.clone(), mapped.clone());
                }
            }
            PeerEvent::ListenFailed { listener, error } => {
                if let Some(state) = self.listeners.get_mut(listener) {
                    state.failed = Some(error.clone());
                }
            }
            PeerEvent::Introduced { .. } => {}
            PeerEvent::LocalCandidate { session, candidate } => {
                if let Some(negotiation) = self.negotiations.get_mut(session) {
                    negotiation.candidates.push(candidate.to_string());
                }
            }
            PeerEvent::Gathered { session } => {
                if let Some(negotiation) = self.negotiations.get_mut(session) {
                    negotiation.is_gathered = true;
                }
            }
            PeerEvent::LegacyIntroduced { session, listener: None, peer } => {
                self.early.remove(session);
                if let Some(outcome) = self.connects.get_mut(session) {
                    *outcome = Some(Err(Error::of_legacy_peer(*peer)));
                }
            }
            PeerEvent::LegacyIntroduced { listener: Some(listener), peer, .. } => {
                if let Some(state) = self.listeners.get_mut(listener)
                    && state.legacy.len() < MAX_UNACCEPTED
                {
                    state.legacy.push_back(*peer);
                }
            }
            PeerEvent::Connected { session, listener, path } => self.handle_connected(*session, *listener, *path),
            PeerEvent::Failed { session, error, .. } => {
                self.early.remove(session);
                if let Some(outcome) = self.connects.get_mut(session) {
                    *outcome = Some(Err(error.clone()));
                }
            }
            PeerEvent::Moved { session, remote } => self.follow(*session, *remote),
            PeerEvent::PeerEnded { session } => {
                if let Some(watched) = self.links.get(session) {
                    watched.link.set_peer_ended();
                }
            }
            PeerEvent::EndAcknowledged { session } => {
                if let Some(watched) = self.links.get(session) {
                    watched.link.set_end_acknowledged();
                }
            }
            PeerEvent::PeerBare { session } => {
                if let Some(watched) = self.links.get(session) {
                    watched.link.set_peer_bare();
                }
            }
            PeerEvent::Bare { session } => self.handle_bare(*session),
            PeerEvent::Closed { session, reason } => self.handle_closed(*session, *reason),
        }
        if self.wanted.events {
            self.notices.push_back(Notice::Event(event));
        }
    }

    fn handle_connected(&mut self, session: SessionId, listener: Option<ListenerId>, path: Path) {
        let waiting = |state: &Listening| match path.carrier {
            Carrier::Socket(_) => state.waiting.len(),
            Carrier::Stream(_) => state.waiting_streams.len(),
        };
        let wanted = match listener {
            Some(listener) => self.listeners.get(&listener).is_some_and(|state| waiting(state) < MAX_UNACCEPTED),
            None => self.connects.contains_key(&session),
        };
        let channel = match path.carrier {
            Carrier::Socket(_) if !wanted => Ok(None),
            Carrier::Socket(_) => self.open_link(session, path).map(|link| Some(Channel::Datagrams(link))),
            Carrier::Stream(stream) => {
                let link = self.give_stream(session, stream, path);
                if !wanted && let Ok(link) = &link {
                    link.close();
                }
                link.map(|link| wanted.then_some(Channel::Stream(link)))
            }
        };
        match channel {
            Ok(Some(channel)) => match listener.and_then(|listener| self.listeners.get_mut(&listener)) {
                Some(state) => match channel {
                    Channel::Datagrams(link) => state.waiting.push_back(link),
                    Channel::Stream(link) => state.waiting_streams.push_back(link),
                },
                None => {
                    if let Some(outcome) = self.connects.get_mut(&session) {
                        *outcome = Some(Ok(channel));
                    }
                }
            },
            Ok(None) => {
                self.log(Level::Warn, || format!("closing the connection from {}: nobody accepts it", path.remote));
                self.early.remove(&session);
                self.pending.push_back(Pending::Close(session));
            }
            Err(error) => {
                self.log(Level::Error, || error.to_string());
                self.early.remove(&session);
                if let Some(outcome) = self.connects.get_mut(&session) {
                    *outcome = Some(Err(error));
                }
                self.pending.push_back(Pending::Close(session));
            }
        }
    }

    /// Gives a session its own socket.
    fn open_link(&mut self, session: SessionId, path: Path) -> Result<Arc<Link>> {
        let failed = |error| os_error(format!("cannot open a socket for the connection to {}", path.remote), &error);
        let early = self.early.remove(&session).unwrap_or_default();
        let parent = self.sockets.get(&path.udp_socket());
        let address = parent.map_or(path.local, |bound| bound.local());
        let (buffer, pending) = (&mut self.buffer, &mut self.pending);
        let link = Link::open(session, path, address, || {
            let before = pending.len();
            if let Some(bound) = parent {
                collect(path.udp_socket(), bound, buffer, pending);
            }
            let may_be_data = |pending: &Pending| {
                matches!(pending, Pending::Datagram { remote, payload, .. }
                    if *remote == path.remote && !is_stun_with_fingerprint(payload))
            };
            !early.is_empty() || pending.iter().skip(before).any(may_be_data)
        });
        let link = Arc::new(link.map_err(failed)?);
        for datagram in early {
            link.push(datagram);
        }
        let token = self.token();
        let since = self.clock.now();
        self.links.insert(session, Watched { link: link.clone(), look: Look::new(since), token, since });
        if let Err(error) = self.watch(session) {
            self.links.remove(&session);
            return Err(failed(error));
        }
        self.sources.insert(token, Source::Link(session));
        Ok(link)
    }

    /// The peer of a connection is elsewhere now.
    fn follow(&mut self, session: SessionId, remote: SocketAddr) {
        let Some(link) = self.links.get(&session).map(|watched| watched.link.clone()) else { return };
        if let Err(error) = link.follow(remote) {
            self.log(Level::Warn, || format!("cannot follow the peer to {remote}: {error}"));
        }
    }

    fn handle_closed(&mut self, session: SessionId, reason: CloseReason) {
        self.early.remove(&session);
        let Some(link) = self.unwatch(session) else { return };
        if let Err(error) = link.retire(reason, &mut self.buffer) {
            self.log(Level::Warn, || format!("cannot give back the socket of a connection: {error}"));
        }
    }
}

/// Takes everything that a socket holds.
pub(super) fn collect(id: SocketId, socket: &UdpSocket, buffer: &mut [u8], pending: &mut VecDeque<Pending>) {
    for _ in 0..MAX_COLLECTED {
        match socket.receive(buffer) {
            Ok(received) => pending.push_back(Pending::Datagram {
                socket: id,
                local: received.local,
                remote: received.remote,
                payload: buffer[..received.length].to_vec(),
            }),
            Err(error) if is_loss(&error) => {}
            Err(_) => return,
        }
    }
}
