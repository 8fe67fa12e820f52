//! A listener: registered with every one of its servers, and host to the sessions that come of it.

use alloc::{collections::VecDeque, vec::Vec};
use core::net::SocketAddr;

use super::{ListenRequest, ListenerId, PeerEvent, session::Context};
use crate::{
    Error, ErrorKind,
    machine::{BoundSocket, Level, NextWake, Output, SocketId},
    rendezvous::{
        client::{From, Introduced, Listing, Registration, RegistrationResult},
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
    pub(super) const fn new(id: ListenerId, request: ListenRequest, sockets: Vec<SocketId>, key_pair: KeyPair) -> Self {
        Self {
            id,
            sockets,
            key_pair,
            phase: Phase::Binding,
            request,
            registrations: Vec::new(),
            failures: Vec::new(),
            remembered: VecDeque::new(),
        }
    }

    pub(super) fn secret(&self) -> Option<&Secret> {
        self.request.secret.as_ref()
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
            };
            let label = server.label.clone();
            let mut registration = Registration::new(cx.config.retransmission, label, listing, cx.random);
            for socket in sockets {
                let address = if socket.is_ipv6() { server.ipv6 } else { server.ipv4 };
                if let Some(address) = address {
                    registration.add_family(cx.now, socket.id, address, cx.random);
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

    /// Our addresses as the servers see them, each once.
    pub(super) fn mapped(&self) -> Vec<SocketAddr> {
        let mut mapped = Vec::new();
        for address in self.registrations.iter().flat_map(Registration::mapped) {
            if !mapped.contains(&address) {
                mapped.push(address);
            }
        }
        mapped
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
                    });
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
    }

    /// Reads an introduction of a session that was not introduced before, or whose repetition brings more candidates.
    pub(super) fn handle_introduction<'a>(&mut self, from: From, message: &Message<'a>) -> Option<Introduced<'a>> {
        if self.phase != Phase::Listening {
            return None;
        }
        self.registrations.iter_mut().find_map(|registration| registration.handle_introduction(from, message))
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
        let mut index = 0;
        while index < self.registrations.len() {
            let before = self.registrations.len();
            let mut transmits = Vec::new();
            let results = self.registrations[index].handle_timeout(cx.now, cx.random, &mut transmits);
            cx.outputs.extend(transmits.into_iter().map(Output::Transmit));
            self.handle_results(cx, index, results);
            if self.registrations.len() == before {
                index += 1;
            }
        }
        if self.phase == Phase::Leaving && self.registrations.iter().all(Registration::has_left) {
            self.phase = Phase::Gone;
        }
    }

    pub(super) fn next_wake(&self) -> NextWake {
        let mut wake = NextWake::never();
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
