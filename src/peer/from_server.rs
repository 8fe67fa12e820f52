//! What servers say, whichever way it came: answers to registrations and lookups, introductions, and what a peer has said by
//! way of them.

use alloc::{boxed::Box, vec::Vec};
use core::net::SocketAddr;

use super::{
    ListenerId, Peer, PeerEvent,
    gathering::Gathering,
    listener::Answered,
    session::{self, Session},
    sockets::Owner,
    trickle::{self, Relay},
};
use crate::{
    Error, ErrorKind,
    machine::{Instant, Output},
    punch::CandidateKind,
    rendezvous::{
        client::{From, Stranger, Via},
        keys::SessionKeys,
    },
    wire::stun::{self, CandidateTransport, Class, Message, Method, WireCandidate},
};

impl Peer {
    /// Takes in what only servers say, or pass on, whichever way it came; false when it is none of that.
    pub(super) fn handle_server_message(&mut self, now: Instant, from: From, message: &Message<'_>) -> bool {
        match (message.method(), message.class()) {
            (Method::REGISTER | Method::CONNECT, Class::Success | Class::Error) => {
                self.handle_server_answer(now, from, message)
            }
            (Method::INTRODUCE, Class::Indication) => self.handle_introduction(now, from, message),
            (Method::TRICKLE, Class::Request | Class::Success) => {
                self.give(now, message.session_id(), |session, cx| session.handle_control(cx, None, message))
            }
            _ => false,
        }
    }

    /// Who talks to servers this way.
    fn owner(&self, via: Via) -> Option<Owner> {
        match via {
            Via::Udp(socket) => self.sockets.owner(socket),
            Via::Tcp(stream) => self.streams.owner(stream),
        }
    }

    fn handle_server_answer(&mut self, now: Instant, from: From, message: &Message<'_>) -> bool {
        match self.owner(from.via) {
            Some(Owner::Session(id)) => {
                let Some(session) = self.sessions.get(&id) else { return false };
                let bound = self.sockets.bound(&session.sockets);
                self.give(now, Some(id), |session, cx| session.handle_server_answer(cx, &bound, from, message))
            }
            Some(Owner::Listener(id)) => {
                let answered =
                    self.with_listener(now, id, |listener, cx| listener.handle_server_answer(cx, from, message));
                if answered == Some(Answered::AddressesChanged) {
                    self.tell_mapped(now, id);
                }
                answered.is_some_and(|answered| answered != Answered::NotOurs)
            }
            None => false,
        }
    }

    /// Tells the peers of a listener's young sessions where servers see it, as far as they were not told yet, and by the
    /// way that leads to the servers now.
    fn tell_mapped(&mut self, now: Instant, id: ListenerId) {
        let Some(listener) = self.listeners.get(&id) else { return };
        let candidates: Vec<_> = listener.mapped_over_udp().into_iter().map(mapped_candidate).collect();
        for session in self.sessions.values_mut().filter(|session| session.listener == Some(id)) {
            session.set_relay_via(|server| listener.via(server));
        }
        let is_meant = |session: &Session| session.listener == Some(id) && session.gathering.is_none();
        let sessions = self.sessions.values().filter(|session| is_meant(session));
        let sessions: Vec<_> = sessions.map(|session| session.id).collect();
        for session in sessions {
            self.with_session(now, session, |session, cx| session.tell_candidates(cx, &candidates));
        }
    }

    fn handle_introduction(&mut self, now: Instant, from: From, message: &Message<'_>) -> bool {
        let Some(Owner::Listener(listener_id)) = self.owner(from.via) else { return false };
        let stranger =
            self.with_listener(now, listener_id, |listener, cx| listener.handle_introduction(cx, from, message));
        let introduced = match stranger.flatten() {
            Some(Stranger::Peer(introduced)) => introduced,
            Some(Stranger::Legacy(peer)) => {
                let (session, listener, peer) = (peer.session, Some(listener_id), peer.address);
                self.outputs.push_back(Output::Event(PeerEvent::LegacyIntroduced { session, listener, peer }));
                return true;
            }
            None => return false,
        };
        let relay = Relay { via: from.via, server: from.remote, route: introduced.route.to_vec() };
        if let Some(session) = self.sessions.get(&introduced.session) {
            if session.listener.is_none() {
                let error = Error::new(ErrorKind::InvalidArgument, "the listener is one of this endpoint's own")
                    .with_hint("connect to it from another endpoint");
                self.with_session(now, introduced.session, |session, cx| session.fail(cx, error));
                return true;
            }
            let candidates = introduced.candidates;
            self.with_session(now, introduced.session, |session, cx| session.introduce_again(cx, &candidates, relay));
            return true;
        }
        let Some(listener) = self.listeners.get(&listener_id) else { return true };
        if listener.remembers(introduced.session) {
            return true;
        }
        let keys = SessionKeys::derive(
            &listener.key_pair,
            &introduced.public_key,
            listener.key_pair.public(),
            &introduced.session,
            listener.secret(),
        );
        let Some(keys) = keys else { return true };
        let is_stream = introduced.transports.tcp && !introduced.transports.udp;
        let max_streams = if listener.has_one_port() { 1 } else { self.config.max_pending_streams };
        if !self.has_room(now, listener_id, is_stream.then_some(max_streams)) {
            return true;
        }
        let Some(listener) = self.listeners.get_mut(&listener_id) else { return true };
        listener.remember(introduced.session, self.config.max_remembered_sessions);
        let sockets = listener.sockets.clone();
        let families = self.sockets.bound(&sockets);
        let ports: Vec<_> = families.iter().filter_map(|socket| listener.stream_port(socket.is_ipv6())).collect();
        // The peer may have but the family that this introduction did not come by.
        let servers = listener.addresses_of_server(from.remote);
        let mapped = listener.mapped_over_udp().into_iter().map(|address| (address, CandidateTransport::Udp));
        let hosts = self.sockets.host_candidates(&sockets, self.config.private_candidates);
        let told = mapped.chain(hosts.iter().map(trickle::address)).collect();
        for socket in &sockets {
            self.sockets.share(*socket);
        }
        let bound = self.sockets.bound(&sockets);
        let id = introduced.session;
        let tag = self.new_tag(id);
        let session = Session::new(id, Some(listener_id), sockets, tag);
        self.sessions.insert(id, Box::new(session));
        let timeout = self.config.session_timeout;
        self.with_session(now, id, |session, cx| {
            if is_stream {
                let mut gathering = Gathering::begin(cx, &ports, false);
                gathering.server_is_current(cx);
                gathering.ask(cx, &servers);
                session.gathering = Some(Box::new(gathering));
            }
            session.introduce(cx, keys, &bound, &introduced.candidates, relay, told, timeout);
        });
        true
    }

    /// Whether a listener may have one more session; where too many are pending, the oldest that has heard nothing for
    /// long makes room.
    fn has_room(&mut self, now: Instant, listener: ListenerId, max_streams: Option<usize>) -> bool {
        let sessions = || self.sessions.values().filter(|session| session.listener == Some(listener));
        let pending = || sessions().filter(|session| session.phase == session::Phase::Punching);
        let streams = || pending().filter(|session| session.gathering.is_some());
        if sessions().count() >= self.config.max_sessions {
            return false;
        }
        let too_many_streams = max_streams.is_some_and(|max| streams().count() >= max);
        if !too_many_streams && pending().count() < self.config.max_pending_sessions {
            return true;
        }
        let Some(since) = now.checked_sub(self.config.stalled_session) else { return false };
        let stalled = pending().filter(|session| !too_many_streams || session.gathering.is_some());
        let stalled = stalled.filter_map(|session| Some((session.stalled_since(since)?, session.id)));
        let Some((_, stalled)) = stalled.min() else { return false };
        self.with_session(now, stalled, |session, cx| {
            session.fail(cx, Error::new(ErrorKind::LimitReached, "a newer session took the place of this one"));
        });
        true
    }
}

fn mapped_candidate(address: SocketAddr) -> WireCandidate {
    WireCandidate {
        kind: stun::CandidateKind::ServerReflexiveClaimed,
        transport: CandidateTransport::Udp,
        priority: CandidateKind::ServerReflexive.priority(address.ip()),
        address,
    }
}
