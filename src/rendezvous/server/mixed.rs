//! Peers of 2015 and current ones, introduced to each other.
//!
//! A client says LEGACY when it can meet a peer of 2015. A listener that does, and has no name, waits for clients of
//! 2015 beside their own listeners; a connector that does, and asks for an IPv4 address, may be given a listener of 2015.
//! To the peer of 2015 all is as ever: `*(host, port)`. The current one is told LEGACY, with the port that both punch
//! from, and the other's address.
//!
//! # Whom a connector gets
//!
//! One that said LEGACY gets whom a client of 2015 would get: the oldest that waits at the address and can mean
//! anything to it, once. Only when none does is it given a listener that did not say LEGACY, as any other connector.
//! For a listener of 2015 that is the one chance it has, so a repeated CONNECT must not take a second one: which session
//! got whom is remembered for [`MEMORY`].
//!
//! # What a client of 2015 does not do
//!
//! It asks once. A current listener hears of it by a datagram that may be lost, so the server repeats that one, as it is,
//! at the times in [`REPEATS`]; the listener's window of sequence numbers takes it once.

use alloc::{
    collections::{BTreeMap, VecDeque},
    vec::Vec,
};
use core::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use super::{
    At, Server,
    legacy::ipv4,
    registry::{Found, Registry, Seen},
    stream_of,
    waiting::Waiter,
};
use crate::{
    machine::{Instant, StreamId},
    rendezvous::codes,
    wire::{
        compat,
        stun::{
            AttributeType, Builder, CandidateKind, CandidateTransport, Class, Message, Method, RegistrationId,
            SessionId, TransactionId, Transports, WireCandidate,
        },
    },
};

/// When an introduction to a client of 2015 is sent again, after the first time: three datagrams, so that a loss of one
/// in ten costs one introduction of a thousand.
const REPEATS: [Duration; 2] = [Duration::from_millis(100), Duration::from_millis(300)];

/// Introductions that are to be sent again, at most; beyond that they are sent once.
const MAX_REPEATS: usize = 4096;

/// Which session got whom is remembered for so long: twice what a session has to get connected.
const MEMORY: Duration = Duration::from_secs(60);

/// Sessions that are remembered, and one more, at most; the oldest makes room.
const MAX_MEMORY: usize = 4096;

/// Whom a session got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Met {
    /// A current listener, whatever it said.
    Current(RegistrationId),
    /// A listener of 2015, by its address.
    Old(Ipv4Addr),
}

/// Which session got whom.
#[derive(Debug, Default)]
pub(super) struct Memory {
    by_session: BTreeMap<SessionId, Met>,
    by_age: VecDeque<(Instant, SessionId)>,
}

impl Memory {
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        assert_eq!(self.by_session.len(), self.by_age.len());
        self.by_age.len()
    }

    fn get(&mut self, now: Instant, session: SessionId) -> Option<Met> {
        while let Some((since, oldest)) = self.by_age.front().copied()
            && (now >= since + MEMORY || self.by_age.len() > MAX_MEMORY)
        {
            self.by_age.pop_front();
            self.by_session.remove(&oldest);
        }
        self.by_session.get(&session).copied()
    }

    /// Remembers a session that is not remembered yet.
    fn insert(&mut self, now: Instant, session: SessionId, met: Met) {
        self.by_session.insert(session, met);
        self.by_age.push_back((now, session));
    }
}

/// An introduction that is to be sent again.
#[derive(Debug)]
struct Repeat {
    to: RegistrationId,
    payload: Vec<u8>,
}

/// Introductions that are to be sent again, by time and number.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    due: BTreeMap<(Instant, u64), Repeat>,
    next: u64,
}

impl Repeats {
    pub(super) fn next_wake(&self) -> Option<Instant> {
        self.due.first_key_value().map(|((time, _), _)| *time)
    }

    fn add(&mut self, now: Instant, to: RegistrationId, payload: &[u8]) {
        for delay in REPEATS {
            if self.due.len() < MAX_REPEATS {
                self.due.insert((now + delay, self.next), Repeat { to, payload: payload.to_vec() });
                self.next += 1;
            }
        }
    }

    fn take(&mut self, now: Instant) -> Option<Repeat> {
        self.due.first_entry().filter(|first| first.key().0 <= now).map(|first| first.remove())
    }
}

/// Whether two addresses can mean anything to each other: one on this host says nothing to who is elsewhere.
const fn can_meet(one: Ipv4Addr, other: Ipv4Addr) -> bool {
    one.is_loopback() == other.is_loopback()
}

/// A peer of 2015 as a candidate: where the server saw it, and the port that it punches from.
const fn candidate(host: Ipv4Addr, port: u16) -> WireCandidate {
    WireCandidate {
        kind: CandidateKind::ServerReflexiveObserved,
        transport: CandidateTransport::Udp,
        priority: 0,
        address: SocketAddr::new(IpAddr::V4(host), port),
    }
}

/// Where a listener was seen with IPv4.
fn seen_with_ipv4(registry: &Registry, id: RegistrationId) -> Option<Seen> {
    registry.get(id)?.seen().find(|seen| seen.remote.is_ipv4())
}

impl Server {
    /// Whom a client of 2015 gets at an address.
    pub(super) fn oldest_for_text(&self, asking: StreamId, host: Ipv4Addr) -> Option<Waiter> {
        let own = self.streams.get(asking).and_then(|stream| ipv4(stream.remote.ip()))?;
        self.registry.waiting().at(host).find(|waiter| match waiter {
            Waiter::Text(listener) => *listener != asking,
            Waiter::Registration(_) => can_meet(own, host),
        })
    }

    /// Tells a current listener of a connector of 2015.
    pub(super) fn introduce_old(&mut self, now: Instant, id: RegistrationId, connector: Ipv4Addr) {
        self.registry.use_up(id);
        let Some(to) = seen_with_ipv4(&self.registry, id) else { return };
        let sequence = self.registry.next_sequence(id);
        let Some(registration) = self.registry.get(id) else { return };
        let port = self.config.punch_port;
        let payload = Builder::new(Class::Indication, Method::INTRODUCE, TransactionId(self.random.bytes()))
            .registration_id(id)
            .session_id(SessionId(self.random.bytes()))
            .sequence(sequence)
            .legacy(port)
            .candidate(&candidate(connector, port))
            .integrity_sha256(&registration.listing.key)
            .fingerprint()
            .finish();
        if stream_of(to.socket).is_none() {
            self.repeats.add(now, id, &payload);
        }
        self.send(to, payload);
    }

    /// Sends again what is due, to where the listener is now.
    pub(super) fn repeat_introductions(&mut self, now: Instant) {
        while let Some(Repeat { to, payload }) = self.repeats.take(now) {
            if let Some(to) = seen_with_ipv4(&self.registry, to) {
                self.send(to, payload);
            }
        }
    }

    /// Whom a connector that said LEGACY gets at an address, or the code of its refusal.
    pub(super) fn meet(
        &mut self,
        now: Instant,
        at: At,
        session: SessionId,
        target: IpAddr,
        wanted: Transports,
    ) -> Result<(Met, Option<StreamId>), u16> {
        if let Some(met) = self.memory.get(now, session) {
            return Ok((met, None));
        }
        let mut is_mismatch = false;
        let waiter = ipv4(target).and_then(|host| {
            let own = ipv4(at.remote.ip());
            self.registry.waiting().at(host).find(|waiter| match waiter {
                Waiter::Text(_) => own.is_some_and(|own| can_meet(own, host)),
                Waiter::Registration(id) => self.registry.get(*id).is_some_and(|registration| {
                    let offers = registration.listing.transports.intersects(wanted);
                    is_mismatch |= !offers;
                    offers && !registration.is_at(at.seen())
                }),
            })
        });
        let (met, text) = match waiter {
            Some(Waiter::Text(stream)) => (Met::Old(ipv4(target).ok_or(codes::NOT_FOUND)?), Some(stream)),
            Some(Waiter::Registration(id)) => {
                self.registry.use_up(id);
                (Met::Current(id), None)
            }
            None => match self.registry.by_address_without_legacy(target) {
                Found::One(id) => (Met::Current(id), None),
                Found::Several => return Err(codes::AMBIGUOUS),
                Found::None if is_mismatch => return Err(codes::TRANSPORT_MISMATCH),
                Found::None => return Err(codes::NOT_FOUND),
            },
        };
        self.memory.insert(now, session, met);
        Ok((met, text))
    }

    /// Introduces a current connector and a listener of 2015 to each other: the connector first. The listener is told
    /// once; it is not there when the session has got it before.
    pub(super) fn answer_old(
        &mut self,
        now: Instant,
        at: At,
        message: &Message<'_>,
        host: Ipv4Addr,
        listener: Option<StreamId>,
    ) {
        let port = self.config.punch_port;
        let answer = Builder::new(Class::Success, Method::CONNECT, message.transaction_id())
            .xor_address(AttributeType::XOR_MAPPED_ADDRESS, at.remote)
            .legacy(port)
            .candidate(&candidate(host, port))
            .fingerprint()
            .finish();
        self.reply(at, answer);
        if let (Some(listener), Some(own)) = (listener, ipv4(at.remote.ip())) {
            self.send_stream(listener, &compat::introduction(own, port));
            self.release_text(now, listener);
        }
        self.stats.introductions += 1;
    }
}
