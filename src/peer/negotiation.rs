//! The part of a session that finds its path: an [`Agent`] for datagrams, a [`StreamAgent`] for a stream.

use alloc::{boxed::Box, sync::Arc};
use core::{net::SocketAddr, time::Duration};

use super::context::Context;
use crate::{
    config::PeerConfig,
    machine::{BoundSocket, Instant, NextWake, Output, SocketId},
    punch::{
        Agent, AgentEvent, Arrival, Candidate, CandidateKind, Provenance, Role, SelectedPair, SelectedStream, Settings,
        StreamAgent, StreamEvent,
    },
    wire::stun::{self, CandidateTransport, Credentials, Message, WireCandidate},
};

/// What a session looks for a path with.
#[derive(Debug)]
pub(super) enum Negotiation {
    Datagrams(Box<Agent>),
    Stream(Box<StreamAgent>),
}

/// What a negotiation tells.
#[derive(Debug)]
pub(super) enum Outcome {
    Pair(SelectedPair),
    Moved(SelectedPair),
    Stream(SelectedStream),
    WrongSecret,
    ConsentExpired,
}

impl Negotiation {
    pub(super) fn datagrams(
        cx: &mut Context<'_>,
        settings: Arc<Settings>,
        role: Role,
        local: Credentials,
        remote: Credentials,
        tag: [u8; 4],
        sockets: &[BoundSocket],
    ) -> Self {
        let seed = cx.random.bytes();
        let agent = Agent::sharing(settings, role, local, remote, seed);
        let mut agent = agent.with_tag(tag);
        for socket in sockets {
            agent.add_socket(cx.now, socket.id, socket.local);
        }
        Self::Datagrams(Box::new(agent))
    }

    pub(super) fn stream(cx: &mut Context<'_>, role: Role, local: Credentials, remote: Credentials) -> Self {
        Self::Stream(Box::new(StreamAgent::new(role, local, remote, cx.random.bytes())))
    }

    pub(super) const fn is_stream(&self) -> bool {
        matches!(self, Self::Stream(_))
    }

    pub(super) const fn as_stream(&mut self) -> Option<&mut StreamAgent> {
        match self {
            Self::Stream(agent) => Some(agent),
            Self::Datagrams(_) => None,
        }
    }

    /// Adds a candidate of the peer as it came; one that this session must not try, or cannot, changes nothing.
    pub(super) fn add_remote(&mut self, now: Instant, candidate: &WireCandidate, config: &PeerConfig) {
        let is_observed = candidate.kind == stun::CandidateKind::ServerReflexiveObserved;
        let candidate = match (self.is_stream(), candidate.transport) {
            (false, CandidateTransport::Udp) => from_wire(candidate),
            (true, CandidateTransport::Tcp) if !is_observed => from_wire(candidate),
            // Where the server sees a peer's messages come from, there the peer is; but not at the port of a connection
            // to the server, or of its datagrams.
            (_, CandidateTransport::Tcp) | (true, CandidateTransport::Udp) => {
                if is_observed {
                    self.believe(now, from_wire(candidate).address.ip());
                }
                return;
            }
        };
        let is_believed = self.believes(candidate.address.ip());
        if !is_believed && !is_wanted(&candidate, config) {
            return;
        }
        match self {
            Self::Datagrams(agent) => agent.add_remote(now, candidate),
            Self::Stream(agent) => agent.add_remote(now, candidate),
        }
    }

    /// Adds a candidate that the program has told us of, which it vouches for.
    pub(super) fn add_told(&mut self, now: Instant, candidate: Candidate) {
        if let Self::Datagrams(agent) = self {
            agent.add_remote(now, candidate);
        }
    }

    fn believe(&mut self, now: Instant, host: core::net::IpAddr) {
        match self {
            Self::Datagrams(agent) => agent.believe(now, host),
            Self::Stream(agent) => agent.believe(now, host),
        }
    }

    fn believes(&self, host: core::net::IpAddr) -> bool {
        match self {
            Self::Datagrams(agent) => agent.believes(host),
            Self::Stream(agent) => agent.believes(host),
        }
    }

    /// The username fragment that the peer's checks name us by.
    pub(super) fn local_ufrag(&self) -> &str {
        match self {
            Self::Datagrams(agent) => agent.local_ufrag(),
            Self::Stream(agent) => agent.local_ufrag(),
        }
    }

    /// Where authenticated datagrams came from.
    pub(super) fn heard(&self) -> &[(SocketId, SocketAddr)] {
        match self {
            Self::Datagrams(agent) => agent.heard(),
            Self::Stream(_) => &[],
        }
    }

    /// Whether the peer may send elsewhere than along the pair that was selected.
    pub(super) const fn has_renominated(&self) -> bool {
        match self {
            Self::Datagrams(agent) => agent.has_renominated(),
            Self::Stream(_) => false,
        }
    }

    /// Whether anything authenticated came from the peer.
    pub(super) fn heard_peer(&self) -> bool {
        match self {
            Self::Datagrams(agent) => !agent.heard().is_empty(),
            Self::Stream(agent) => agent.heard_peer(),
        }
    }

    /// The pair that datagrams go by.
    pub(super) fn path(&self) -> Option<SelectedPair> {
        match self {
            Self::Datagrams(agent) => agent.path(),
            Self::Stream(_) => None,
        }
    }

    pub(super) fn rtt(&self) -> Option<Duration> {
        match self {
            Self::Datagrams(agent) => agent.rtt(),
            Self::Stream(_) => None,
        }
    }

    pub(super) fn role(&self) -> Role {
        match self {
            Self::Datagrams(agent) => agent.role(),
            Self::Stream(agent) => agent.role(),
        }
    }

    /// Asks for no consent any more, and needs none.
    pub(super) fn end_consent(&mut self) {
        if let Self::Datagrams(agent) = self {
            agent.end_consent();
        }
    }

    /// Sends no check any more.
    pub(super) fn fall_silent(&mut self) {
        if let Self::Datagrams(agent) = self {
            agent.fall_silent();
        }
    }

    /// Checks sent, or connects attempted.
    pub(super) fn packets_sent(&self) -> u32 {
        match self {
            Self::Datagrams(agent) => agent.packets_sent(),
            Self::Stream(agent) => agent.attempts(),
        }
    }

    pub(super) fn handle_request(&mut self, now: Instant, at: Arrival, message: &Message<'_>) -> bool {
        match self {
            Self::Datagrams(agent) => agent.handle_request(now, at, message),
            Self::Stream(_) => false,
        }
    }

    pub(super) fn handle_response(&mut self, now: Instant, at: Arrival, message: &Message<'_>) -> bool {
        match self {
            Self::Datagrams(agent) => agent.handle_response(now, at, message),
            Self::Stream(_) => false,
        }
    }

    pub(super) fn handle_timeout(&mut self, cx: &mut Context<'_>) {
        match self {
            Self::Datagrams(agent) => agent.handle_timeout(cx.now),
            Self::Stream(agent) => agent.handle_timeout(cx.now, || cx.new_stream()),
        }
    }

    /// Passes on what is to be sent or done.
    pub(super) fn drain(&mut self, cx: &mut Context<'_>) {
        match self {
            Self::Datagrams(agent) => {
                while let Some(transmit) = agent.poll_transmit() {
                    cx.outputs.push_back(Output::Transmit(transmit));
                }
            }
            Self::Stream(agent) => {
                while let Some(request) = agent.poll_request() {
                    cx.tcp(request);
                }
            }
        }
    }

    pub(super) fn poll_outcome(&mut self) -> Option<Outcome> {
        match self {
            Self::Datagrams(agent) => agent.poll_event().map(|event| match event {
                AgentEvent::Selected(pair) => Outcome::Pair(pair),
                AgentEvent::Moved(pair) => Outcome::Moved(pair),
                AgentEvent::WrongSecret => Outcome::WrongSecret,
                AgentEvent::ConsentExpired => Outcome::ConsentExpired,
            }),
            Self::Stream(agent) => agent.poll_event().map(|event| match event {
                StreamEvent::Selected(stream) => Outcome::Stream(stream),
                StreamEvent::WrongSecret => Outcome::WrongSecret,
            }),
        }
    }

    pub(super) fn next_wake(&self) -> NextWake {
        match self {
            Self::Datagrams(agent) => agent.next_wake(),
            Self::Stream(agent) => agent.next_wake(),
        }
    }
}

/// A candidate as it came.
fn from_wire(candidate: &WireCandidate) -> Candidate {
    let (kind, provenance) = match candidate.kind {
        stun::CandidateKind::Host => (CandidateKind::Host, Provenance::Claimed),
        stun::CandidateKind::ServerReflexiveObserved => (CandidateKind::ServerReflexive, Provenance::Observed),
        stun::CandidateKind::ServerReflexiveClaimed => (CandidateKind::ServerReflexive, Provenance::Claimed),
        stun::CandidateKind::Relay => (CandidateKind::Relayed, Provenance::Claimed),
    };
    let parsed = Candidate::new(kind, candidate.address, provenance);
    if candidate.priority == 0 { parsed } else { parsed.with_priority(candidate.priority) }
}

/// Whether a candidate of the peer may be checked: a private one only where that was not opted out of.
fn is_wanted(candidate: &Candidate, config: &PeerConfig) -> bool {
    config.private_candidates || candidate.provenance == Provenance::Observed || candidate.is_public()
}
