//! How a connection's socket becomes the application's own: each side says, once and signed with the session's
//! control key, that from now on it takes nothing but data (BARE), and the other falls silent.
//!
//! A side that wants its socket sends BARE and repeats it at most three times. Whoever gets one acknowledges it and sends that
//! peer no check and no END any more: it may stay as it is, without consent, or want its own socket too, at once or
//! later. The exchange is over for the side that wants
//!
//! - when its latest BARE is acknowledged: the peer knows, and is silent; where an earlier one is, the others are waited
//!   for a little, since a busy peer may answer all at once;
//! - when the peer's BARE has come and was not repeated for a while: the peer is silent too, and has the acknowledgement.
//!   Its BARE stands for the acknowledgement of ours, which is repeated no more;
//! - when three repetitions were not acknowledged: then a peer that never got one may send checks until its consent
//!   expires.
//!
//! Every repetition has a transaction id of its own, and each is acknowledged once: a driver that leaves messages where
//! they are until the application reads there hands them in twice, and the second acknowledgement would come too late.
//!
//! So the socket holds data only, save one repeated BARE of a peer that misses its acknowledgement for longer
//! than we wait.

use alloc::{boxed::Box, vec::Vec};
use core::time::Duration;

use super::{
    PeerEvent,
    context::Context,
    farewell::FROM_CONNECTOR,
    session::{Introduction, Phase, Session},
};
use crate::{
    Error, ErrorKind,
    machine::{Instant, NextWake, Random, Timer, Transmit},
    punch::Arrival,
    wire::stun::{Builder, Class, Message, Method, SessionId, TransactionId},
};

/// A message and three repetitions.
const MESSAGES: u8 = 4;

/// Repetitions are one and a half round trips apart, and within these: a busy host takes some milliseconds to answer,
/// and nobody wants to wait for longer than four seconds in all.
const INTERVALS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Our wish.
#[derive(Debug)]
struct Ours {
    /// What the transaction ids of all our messages are, but for the last byte.
    id: TransactionId,
    interval: Duration,
    next: Instant,
    sent: u8,
    /// It is acknowledged: what is left to come has come by then.
    acknowledged: Option<Instant>,
}

/// How far both sides are.
#[derive(Debug, Default)]
pub(super) struct Bare {
    ours: Option<Box<Ours>>,
    theirs: Option<Box<Theirs>>,
}

/// What the peer has said.
#[derive(Debug)]
struct Theirs {
    /// When it has said last that it takes nothing but data.
    heard: Instant,
    /// Its messages that were acknowledged.
    seen: Vec<TransactionId>,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Wait,
    Send(TransactionId),
    Done,
}

impl Bare {
    /// Whether the peer takes nothing but data any more.
    pub(super) const fn peer_is_bare(&self) -> bool {
        self.theirs.is_some()
    }

    fn begin(&mut self, now: Instant, rtt: Duration, random: &mut Random) {
        let interval = (rtt * 3 / 2).clamp(INTERVALS.0, INTERVALS.1);
        let id = TransactionId(random.bytes());
        self.ours.get_or_insert(Box::new(Ours { id, interval, next: now, sent: 0, acknowledged: None }));
    }

    fn acknowledge(&mut self, now: Instant, id: TransactionId) {
        if let Some(ours) = self.ours.as_mut().filter(|ours| ours.id.0.starts_with(&id.0[..11])) {
            let latest = ours.id == id;
            ours.acknowledged = if latest { Some(now) } else { ours.acknowledged.or(Some(now + ours.interval)) };
        }
    }

    /// Notes a message of the peer's; whether it is news.
    fn hear(&mut self, now: Instant, id: TransactionId) -> bool {
        let theirs = self.theirs.get_or_insert_with(|| Box::new(Theirs { heard: now, seen: Vec::new() }));
        let news = !theirs.seen.contains(&id) && theirs.seen.len() < usize::from(MESSAGES);
        if news {
            theirs.seen.push(id);
            theirs.heard = now;
        }
        news
    }

    fn poll(&mut self, now: Instant) -> Step {
        let due = self.due();
        let Some(ours) = &mut self.ours else { return Step::Wait };
        if due.is_none_or(|due| now < due) {
            return Step::Wait;
        }
        if ours.acknowledged.is_some() || self.theirs.is_some() || ours.sent == MESSAGES {
            return Step::Done;
        }
        ours.sent += 1;
        ours.next = now + ours.interval;
        ours.id.0[11] = ours.sent;
        Step::Send(ours.id)
    }

    fn due(&self) -> Option<Instant> {
        let ours = self.ours.as_ref()?;
        Some(match (ours.acknowledged, &self.theirs) {
            (Some(done), _) => done,
            // A peer that missed the acknowledgement would have said it again.
            (None, Some(theirs)) => theirs.heard + ours.interval * 2,
            (None, None) => ours.next,
        })
    }

    pub(super) fn next_wake(&self) -> NextWake {
        let mut wake = NextWake::never();
        wake.at(self.due(), Timer::Acknowledgement);
        wake
    }
}

impl Session {
    /// Begins to ask for the socket.
    pub(super) fn go_bare(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        let ended = self.farewell.they_ended() || self.farewell.has_begun();
        let (Phase::Connected, false, Some(introduction)) = (self.phase, ended, &mut self.introduction) else {
            let what = if ended { "the connection is being ended" } else { "there is no connection of this session" };
            return Err(Error::new(ErrorKind::Closed, what));
        };
        introduction.negotiation.end_consent();
        if introduction.kin.is_none() {
            // An agent that the program has told us of knows nothing of this.
            self.become_bare(cx);
            return Ok(());
        }
        let rtt = introduction.negotiation.rtt().unwrap_or_default();
        self.bare.begin(cx.now, rtt, cx.random);
        self.handle_timeout(cx);
        Ok(())
    }

    /// Takes in an authentic BARE, or the acknowledgement of ours.
    pub(super) fn handle_bare(&mut self, cx: &mut Context<'_>, at: Arrival, message: &Message<'_>) {
        // One that is not connected yet hears of it again; one that closes says so, and the other can take it in.
        if self.phase != Phase::Connected || self.farewell.is_closing() {
            return;
        }
        let connector = self.is_connector();
        let Some(Introduction { kin: Some(kin), negotiation, .. }) = &mut self.introduction else { return };
        if message.class() == Class::Success {
            return self.bare.acknowledge(cx.now, message.transaction_id());
        }
        let id = message.transaction_id();
        let was_bare = self.bare.peer_is_bare();
        if !self.bare.hear(cx.now, id) {
            return;
        }
        let payload = build(Class::Success, id, self.id, connector, &kin.control);
        let source = Some(at.local.ip()).filter(|ip| !ip.is_unspecified());
        cx.transmit(Transmit { socket: at.socket, source, destination: at.remote, payload });
        if !was_bare {
            negotiation.fall_silent();
            self.farewell.abandon();
            cx.event(PeerEvent::PeerBare { session: self.id });
        }
    }

    pub(super) fn run_bare(&mut self, cx: &mut Context<'_>) {
        if self.phase != Phase::Connected {
            return;
        }
        let connector = self.is_connector();
        let (Some(Introduction { kin: Some(kin), .. }), Some(pair)) = (&self.introduction, self.path()) else {
            return;
        };
        match self.bare.poll(cx.now) {
            Step::Wait => {}
            Step::Send(id) => {
                let payload = build(Class::Request, id, self.id, connector, &kin.control);
                let source = Some(pair.local).filter(|ip| !ip.is_unspecified());
                cx.transmit(Transmit { socket: pair.socket, source, destination: pair.remote, payload });
            }
            Step::Done => self.become_bare(cx),
        }
    }

    fn become_bare(&mut self, cx: &mut Context<'_>) {
        if let Some(introduction) = &mut self.introduction {
            introduction.negotiation.fall_silent();
        }
        self.phase = Phase::Bare(cx.now);
        cx.event(PeerEvent::Bare { session: self.id });
    }
}

fn build(class: Class, id: TransactionId, session: SessionId, connector: bool, control: &[u8; 32]) -> Vec<u8> {
    Builder::new(class, Method::BARE, id)
        .session_id(session)
        .flags(if connector { FROM_CONNECTOR } else { 0 })
        .integrity_sha256(control)
        .fingerprint()
        .finish()
}
