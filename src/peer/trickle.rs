//! Candidates found after the introduction (RFC 8838), told through the server: numbered, signed with the session's
//! control key, repeated until acknowledged, for at most 30 s after the introduction.
//!
//! One message is under way at a time; it carries every candidate that was not acknowledged yet.

use alloc::vec::Vec;
use core::{net::SocketAddr, time::Duration};

use super::farewell::FROM_CONNECTOR;
use crate::{
    machine::{Instant, NextWake, Random, Timer},
    rendezvous::client::{ToServer, Via},
    wire::stun::{
        AttributeType, Builder, CandidateTransport, Class, Message, Method, SessionId, TransactionId, WireCandidate,
    },
};

/// The first interval between repetitions; each later one is twice as long.
const INTERVAL: Duration = Duration::from_millis(200);

/// Where messages for the peer go: a server, with the route that it sealed.
#[derive(Clone, Debug)]
pub(super) struct Relay {
    pub(super) via: Via,
    pub(super) server: SocketAddr,
    pub(super) route: Vec<u8>,
}

/// What the peer knows, or is being told. One address may be ours over UDP, and over TCP too.
pub(super) type Told = Vec<(SocketAddr, CandidateTransport)>;

/// A candidate as far as it differs from others.
pub(super) const fn address(candidate: &WireCandidate) -> (SocketAddr, CandidateTransport) {
    (candidate.address, candidate.transport)
}

#[derive(Debug)]
struct UnderWay {
    id: TransactionId,
    since: Instant,
    next: Instant,
    interval: Duration,
    candidates: Vec<WireCandidate>,
}

/// One session's trickle, both ways.
#[derive(Debug)]
pub(super) struct Trickle {
    session: SessionId,
    connector: bool,
    relay: Relay,
    until: Instant,
    told: Told,
    sequence: u64,
    under_way: Option<UnderWay>,
}

impl Trickle {
    pub(super) const fn new(session: SessionId, connector: bool, relay: Relay, until: Instant, told: Told) -> Self {
        Self { session, connector, relay, until, told, sequence: 0, under_way: None }
    }

    /// The server that messages go by.
    pub(super) const fn server(&self) -> SocketAddr {
        self.relay.server
    }

    /// Messages go this way from now on.
    pub(super) const fn set_via(&mut self, via: Via) {
        self.relay.via = via;
    }

    /// Messages go by this from now on: the peers were introduced again.
    pub(super) fn set_relay(&mut self, relay: Relay) {
        self.relay = relay;
    }

    /// Tells the peer of those candidates that it does not know yet.
    pub(super) fn tell(&mut self, now: Instant, candidates: &[WireCandidate], random: &mut Random) {
        let told = &self.told;
        let fresh: Vec<_> =
            candidates.iter().filter(|candidate| !told.contains(&address(candidate))).copied().collect();
        if fresh.is_empty() || now >= self.until {
            return;
        }
        self.told.extend(fresh.iter().map(address));
        let mut all = self.under_way.take().map_or_else(Vec::new, |under_way| under_way.candidates);
        all.extend(fresh);
        self.sequence += 1;
        self.under_way = Some(UnderWay {
            id: TransactionId(random.bytes()),
            since: now,
            next: now,
            interval: INTERVAL,
            candidates: all,
        });
    }

    /// The message to send now, if one is due.
    pub(super) fn poll(&mut self, now: Instant, control: &[u8; 32]) -> Option<ToServer> {
        if now >= self.until {
            self.under_way = None;
        }
        let under_way = self.under_way.as_mut().filter(|under_way| now >= under_way.next)?;
        under_way.next = now + under_way.interval;
        under_way.interval *= 2;
        let builder = Builder::new(Class::Request, Method::TRICKLE, under_way.id).candidates(&under_way.candidates);
        let sequence = self.sequence;
        Some(self.message(builder, sequence, control))
    }

    /// Acknowledges the peer's message.
    pub(super) fn acknowledge(&self, request: &Message<'_>, control: &[u8; 32]) -> ToServer {
        let builder = Builder::new(Class::Success, Method::TRICKLE, request.transaction_id());
        self.message(builder, request.sequence().unwrap_or_default(), control)
    }

    /// Notes an acknowledgement; how long it took to come, which is a round trip to the peer by way of the server, or more.
    pub(super) fn handle_success(&mut self, now: Instant, id: TransactionId) -> Option<Duration> {
        let acknowledged = self.under_way.take_if(|under_way| under_way.id == id)?;
        Some(now.saturating_since(acknowledged.since))
    }

    fn message(&self, builder: Builder, sequence: u64, control: &[u8; 32]) -> ToServer {
        let payload = builder
            .session_id(self.session)
            .attribute(AttributeType::ROUTE, &self.relay.route)
            .sequence(sequence)
            .flags(if self.connector { FROM_CONNECTOR } else { 0 })
            .integrity_sha256(control)
            .fingerprint()
            .finish();
        ToServer { via: self.relay.via, server: self.relay.server, payload }
    }

    pub(super) fn next_wake(&self) -> NextWake {
        let mut wake = NextWake::never();
        wake.at(self.under_way.as_ref().map(|under_way| under_way.next), Timer::Acknowledgement);
        wake
    }
}
