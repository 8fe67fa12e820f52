//! A listener: registered with every one of its servers, and host to the sessions that come of it.

use alloc::{collections::VecDeque, vec::Vec};
use core::net::SocketAddr;

use super::{
    ListenRequest, ListenerId, PeerEvent, Transport,
    context::Context,
    session::StreamNews,
    sockets::Wanted,
    uplink::{UplinkNews, Uplinks},
};
use crate::{
    Error, ErrorKind,
    machine::{BoundSocket, Level, NextWake, PortId, SocketId, StreamId},
    rendezvous::{
        client::{From, Listing, Registration, RegistrationResult, Stranger, Via},
        keys::{KeyPair, Secret},
        most_telling,
    },
    wire::stun::{Message, SessionId, WireCandidate},
};

/// A listener of a peer.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) id: ListenerId,
    pub(super) sockets: Vec<SocketId>,
    pub(super) key_pair: KeyPair,
    pub(super) phase: Phase,
    request: ListenRequest,
    registrations: Vec<Registration>,
    /// Connections to servers that UDP does not get through to.
    uplinks: Uplinks,
    failures: Vec<Error>,
    /// Sessions that were introduced, so that each is answered once.
    remembered: VecDeque<SessionId>,
}

/// How far a listener is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Its sockets are not bound yet.
    Binding,
    /// Registered, or about to be.
    Listening,
    /// The servers are told that it leaves.
    Leaving,
    /// Over, to be forgotten.
    Gone,
}

impl Listener {
    pub(super) fn new(id: ListenerId, request: ListenRequest, sockets: Vec<SocketId>, key_pair: KeyPair) -> Self {
        Self {
            id,
            sockets,
            key_pair,
            phase: Phase::Binding,
            uplinks: Uplinks::new(&request.bind),
            request,
            registrations: Vec::new(),
            failures: Vec::new(),
            remembered: VecDeque::new(),
        }
    }

    pub(super) fn secret(&self) -> Option<&Secret> {
        self.request.secret.as_ref()
    }

    /// Where a stream of such a family is to be punched from.
    pub(super) fn stream_port(&self, ipv6: bool) -> Option<Wanted> {
        let wanted = Wanted::all(&self.request.bind, self.request.prefer_port);
        wanted.into_iter().find(|wanted| wanted.address.is_ipv6() == ipv6)
    }

    /// Whether every stream must be punched from the same port: it was chosen by number.
    pub(super) fn has_one_port(&self) -> bool {
        self.request.bind.iter().any(|address| address.port() != 0)
    }

    /// Its sockets are bound, as far as they could be: registers with every server over each family.
    pub(super) fn start(&mut self, cx: &mut Context<'_>, sockets: &[BoundSocket], candidates: &[WireCandidate]) {
        self.phase = Phase::Listening;
        for server in &self.request.servers {
            let listing = Listing {
                name: self.request.name.clone(),
                public_key: *self.key_pair.public(),
                transports: self.request.transports,
                candidates: candidates.to_vec(),
                legacy: self.request.legacy,
            };
            let label = server.label.clone();
            let mut registration = Registration::new(cx.config.retransmission, label, listing, cx.random);
            for socket in sockets {
                let address = if socket.is_ipv6() { server.ipv6 } else { server.ipv4 };
                if let Some(address) = address {
                    registration.add_family(cx.now, Via::Udp(socket.id), address, cx.random);
                }
            }
            if registration.has_family() {
                self.registrations.push(registration);
            } else {
                let message =
                    alloc::format!("the server {} has no address of a family that is in use here", server.label);
                self.failures.push(Error::new(ErrorKind::ServerUnreachable, message));
            }
        }
        self.handle_timeout(cx);
        self.fail_if_alone(cx);
    }

    /// Our addresses as the servers see our datagrams come from them, each once.
    pub(super) fn mapped_over_udp(&self) -> Vec<SocketAddr> {
        let mut mapped = Vec::new();
        for address in self.registrations.iter().flat_map(Registration::mapped_over_udp) {
            if !mapped.contains(&address) {
                mapped.push(address);
            }
        }
        mapped
    }

    /// The way by which the server at this address has us.
    pub(super) fn via(&self, server: SocketAddr) -> Option<Via> {
        self.registrations.iter().find_map(|registration| registration.via(server))
    }

    /// This address of a server, then those of its other families.
    pub(super) fn addresses_of_server(&self, address: SocketAddr) -> Vec<SocketAddr> {
        let mut addresses = alloc::vec![address];
        for registration in &self.registrations {
            if registration.servers().any(|known| known == address) {
                addresses.extend(registration.servers().filter(|known| known.is_ipv6() != address.is_ipv6()));
            }
        }
        addresses
    }

    pub(super) fn set_candidates(&mut self, cx: &mut Context<'_>, candidates: &[WireCandidate]) {
        for registration in &mut self.registrations {
            registration.set_candidates(cx.now, candidates.to_vec(), cx.random);
        }
        self.handle_timeout(cx);
    }

    /// Takes in an answer of a server; whether it was one to this listener, and whether our addresses changed.
    pub(super) fn handle_server_answer(&mut self, cx: &mut Context<'_>, from: From, message: &Message<'_>) -> Answered {
        for index in 0..self.registrations.len() {
            let Some(registration) = self.registrations.get_mut(index) else { continue };
            if let Some(results) = registration.handle_answer(cx.now, cx.random, from, message) {
                let registered = results.contains(&RegistrationResult::Registered);
                self.handle_results(cx, index, results);
                self.handle_timeout(cx);
                return if registered { Answered::AddressesChanged } else { Answered::Ours };
            }
        }
        Answered::NotOurs
    }

    fn handle_results(&mut self, cx: &mut Context<'_>, index: usize, results: Vec<RegistrationResult>) {
        for result in results {
            match result {
                RegistrationResult::Registered => {
                    let Some(registration) = self.registrations.get(index) else { return };
                    cx.event(PeerEvent::Registered {
                        listener: self.id,
                        server: registration.label().into(),
                        mapped: registration.mapped().collect(),
                        via: if registration.is_over_tcp() { Transport::Tcp } else { Transport::Udp },
                    });
                    self.uplinks.persist();
                }
                RegistrationResult::Log(line) => cx.log(Level::Warn, line),
                RegistrationResult::Failed(error) => {
                    cx.log(Level::Warn, alloc::format!("{error}"));
                    self.failures.push(error);
                    self.registrations.remove(index);
                    return self.fail_if_alone(cx);
                }
            }
        }
    }

    /// A listener that no server has, and none will, is over.
    fn fail_if_alone(&mut self, cx: &mut Context<'_>) {
        if !self.registrations.is_empty() || self.phase != Phase::Listening {
            return;
        }
        let error = most_telling(self.failures.iter());
        let error =
            error.unwrap_or_else(|| Error::new(ErrorKind::ServerUnreachable, "there is no server to register with"));
        cx.event(PeerEvent::ListenFailed { listener: self.id, error });
        self.phase = Phase::Gone;
        self.uplinks.end(cx);
    }

    /// Reads an introduction of a session that was not introduced before, or whose repetition brings more candidates.
    pub(super) fn handle_introduction<'a>(
        &mut self,
        cx: &mut Context<'_>,
        from: From,
        message: &Message<'a>,
    ) -> Option<Stranger<'a>> {
        if self.phase != Phase::Listening {
            return None;
        }
        let (now, random) = (cx.now, &mut *cx.random);
        self.registrations.iter_mut().find_map(|it| it.handle_introduction(now, random, from, message))
    }

    pub(super) fn remembers(&self, session: SessionId) -> bool {
        self.remembered.contains(&session)
    }

    pub(super) fn remember(&mut self, session: SessionId, max: usize) {
        if self.remembered.len() >= max {
            self.remembered.pop_front();
        }
        self.remembered.push_back(session);
    }

    /// Tells the servers that it leaves.
    pub(super) fn leave(&mut self, cx: &mut Context<'_>) {
        match self.phase {
            Phase::Binding => self.phase = Phase::Gone,
            Phase::Listening => {
                self.phase = Phase::Leaving;
                for registration in &mut self.registrations {
                    registration.leave(cx.now, cx.random);
                }
                self.handle_timeout(cx);
            }
            Phase::Leaving | Phase::Gone => {}
        }
    }

    /// Something could not be sent to a server.
    pub(super) fn handle_send_failed(&mut self, cx: &mut Context<'_>, to: From, error: &Error) {
        for registration in &mut self.registrations {
            registration.handle_send_failed(to, error);
        }
        self.handle_timeout(cx);
    }

    /// Does everything that is due.
    pub(super) fn handle_timeout(&mut self, cx: &mut Context<'_>) {
        if !matches!(self.phase, Phase::Listening | Phase::Leaving) {
            return;
        }
        self.call_servers(cx);
        let mut index = 0;
        while index < self.registrations.len() {
            let before = self.registrations.len();
            let mut messages = Vec::new();
            let registration = &mut self.registrations[index];
            let calling = self.uplinks.is_calling(|server| registration.is_at(server));
            let results = registration.handle_timeout(cx.now, cx.random, calling, &mut messages);
            cx.tell_servers(messages);
            self.handle_results(cx, index, results);
            if self.registrations.len() == before {
                index += 1;
            }
        }
        self.hang_up(cx);
        if self.phase == Phase::Leaving && self.registrations.iter().all(Registration::has_left) {
            self.phase = Phase::Gone;
        }
        if self.phase == Phase::Gone {
            self.uplinks.end(cx);
        }
    }

    /// Calls the servers that say nothing over UDP.
    fn call_servers(&mut self, cx: &mut Context<'_>) {
        if self.phase != Phase::Listening {
            return;
        }
        for stream in self.uplinks.handle_timeout(cx) {
            self.registrations.iter_mut().for_each(|registration| registration.remove_connection(stream));
        }
        for registration in &mut self.registrations {
            for call in registration.take_calls(cx.now) {
                self.uplinks.call(cx, call);
            }
        }
    }

    /// Ends connections that are dead, or of no use any more.
    fn hang_up(&mut self, cx: &mut Context<'_>) {
        if self.phase != Phase::Listening {
            return;
        }
        for index in 0..self.registrations.len() {
            for stream in self.registrations[index].dead_connections() {
                self.uplinks.hang_up(cx, stream);
                self.registrations[index].remove_connection(stream);
            }
        }
        let registrations = &self.registrations;
        self.uplinks.retain(cx, |server| registrations.iter().any(|registration| registration.needs(server)));
    }

    /// The driver has answered for a port of an uplink.
    pub(super) fn handle_reserved(&mut self, cx: &mut Context<'_>, port: PortId, result: &Result<SocketAddr, Error>) {
        self.uplinks.handle_reserved(cx, port, result);
        self.handle_timeout(cx);
    }

    /// Takes in what became of an uplink.
    pub(super) fn handle_stream(&mut self, cx: &mut Context<'_>, stream: StreamId, news: StreamNews) {
        let news = self.uplinks.handle_stream(cx, stream, news);
        self.handle_uplink(cx, news);
    }

    /// Takes in what an uplink has brought: how much of it, and whether that is a message of a server's.
    pub(super) fn handle_stream_data(
        &mut self,
        cx: &mut Context<'_>,
        stream: StreamId,
        bytes: &[u8],
    ) -> (usize, Option<From>) {
        let (taken, news) = self.uplinks.handle_data(cx, stream, bytes);
        if let UplinkNews::Message(from) = news {
            return (taken, Some(from));
        }
        self.handle_uplink(cx, news);
        (taken, None)
    }

    fn handle_uplink(&mut self, cx: &mut Context<'_>, news: UplinkNews) {
        for registration in &mut self.registrations {
            match news {
                UplinkNews::Opened(stream, server) if self.phase == Phase::Listening => {
                    registration.add_connection(cx.now, stream, server, cx.random);
                }
                UplinkNews::Lost(stream) => registration.remove_connection(stream),
                UplinkNews::None | UplinkNews::Message(_) | UplinkNews::Opened(..) => {}
            }
        }
        self.handle_timeout(cx);
    }

    pub(super) fn next_wake(&self) -> NextWake {
        let mut wake = NextWake::never();
        if self.phase == Phase::Listening {
            wake.merge(self.uplinks.next_wake());
        }
        for registration in &self.registrations {
            wake.merge(registration.next_wake());
        }
        wake
    }
}

/// What an answer of a server was to a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answered {
    NotOurs,
    Ours,
    /// It also shows us where we were not seen before.
    AddressesChanged,
}
