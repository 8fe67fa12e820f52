//! The end of a connection: each side announces the end of its data with END, signed with the session's control key,
//! and repeats it until it is acknowledged or 3 s have passed.
//!
//! An END may close the connection in both directions (a flag): then its sender hears nothing more. Both carry the
//! role of their sender, so that neither can be reflected to it.

use alloc::{boxed::Box, vec::Vec};
use core::time::Duration;

use crate::{
    config::PeerConfig,
    machine::{Instant, NextWake, Random, Timer},
    wire::stun::{Builder, Class, Integrity, Message, Method, SessionId, TransactionId},
};

/// The longest time between two repetitions: a dozen in the 3 s that there are, so that loss hardly matters.
const MAX_INTERVAL: Duration = Duration::from_millis(250);

/// FLAGS of END: its sender neither sends nor receives any more.
pub(super) const CLOSES: u32 = 1;
/// FLAGS of END, TRICKLE and BARE: its sender is the connector.
pub(super) const FROM_CONNECTOR: u32 = 2;

/// The announcement of the end of our data.
#[derive(Debug)]
struct Ours {
    id: TransactionId,
    closes: bool,
    next: Instant,
    interval: Duration,
    until: Instant,
    acknowledged: bool,
}

/// How far both sides are with ending.
#[derive(Debug, Default)]
pub(super) struct Farewell {
    ours: Option<Box<Ours>>,
    theirs: bool,
    they_closed: bool,
}

impl Farewell {
    /// Begins to announce the end of our data; with `closes`, that we hear nothing more either.
    pub(super) fn begin(
        &mut self,
        now: Instant,
        closes: bool,
        first_interval: Duration,
        config: &PeerConfig,
        random: &mut Random,
    ) {
        if self.ours.as_ref().is_some_and(|ours| ours.closes || !closes) {
            return;
        }
        self.ours = Some(Box::new(Ours {
            id: TransactionId(random.bytes()),
            closes,
            next: now,
            interval: first_interval,
            until: now + config.farewell,
            acknowledged: false,
        }));
    }

    pub(super) fn has_begun(&self) -> bool {
        self.ours.is_some()
    }

    /// The peer hears of no end any more: what it has not acknowledged is not repeated.
    pub(super) fn abandon(&mut self) {
        self.ours.take_if(|ours| !ours.acknowledged);
    }

    pub(super) fn is_closing(&self) -> bool {
        self.ours.as_ref().is_some_and(|ours| ours.closes)
    }

    pub(super) fn is_acknowledged(&self) -> bool {
        self.ours.as_ref().is_some_and(|ours| ours.acknowledged)
    }

    pub(super) fn they_ended(&self) -> bool {
        self.theirs
    }

    pub(super) fn they_closed(&self) -> bool {
        self.they_closed
    }

    /// Whether both have said all that they had to.
    pub(super) fn is_complete(&self) -> bool {
        self.is_acknowledged() && (self.theirs || self.is_closing())
    }

    /// Notes the peer's END; whether it is news.
    pub(super) fn handle_request(&mut self, message: &Message<'_>) -> bool {
        let closes = message.flags() & CLOSES != 0;
        let news = !self.theirs || closes && !self.they_closed;
        self.theirs = true;
        self.they_closed |= closes;
        news
    }

    /// Notes an acknowledgement; whether it is news.
    pub(super) fn handle_success(&mut self, id: TransactionId) -> bool {
        match &mut self.ours {
            Some(ours) if ours.id == id && !ours.acknowledged => {
                ours.acknowledged = true;
                true
            }
            _ => false,
        }
    }

    /// The message to send now, if one is due; `Err` when it was repeated for long enough.
    pub(super) fn poll(
        &mut self,
        now: Instant,
        session: SessionId,
        connector: bool,
        control: &[u8; 32],
    ) -> Result<Option<Vec<u8>>, GaveUp> {
        let Some(ours) = self.ours.as_mut().filter(|ours| !ours.acknowledged) else { return Ok(None) };
        if now >= ours.until {
            // Whether the peer knows will never be known; what can be done was done.
            ours.acknowledged = true;
            return Err(GaveUp);
        }
        if now < ours.next {
            return Ok(None);
        }
        ours.next = now + ours.interval;
        ours.interval = (ours.interval * 2).min(MAX_INTERVAL);
        let flags = if ours.closes { CLOSES } else { 0 } | if connector { FROM_CONNECTOR } else { 0 };
        Ok(Some(end(Class::Request, ours.id, session, flags, control)))
    }

    pub(super) fn next_wake(&self) -> NextWake {
        let mut wake = NextWake::never();
        if let Some(ours) = self.ours.as_ref().filter(|ours| !ours.acknowledged) {
            wake.at(Some(ours.next.min(ours.until)), Timer::Acknowledgement);
        }
        wake
    }
}

/// The end was not acknowledged in time.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct GaveUp;

/// The acknowledgement of an END.
pub(super) fn acknowledgement(
    request: &Message<'_>,
    session: SessionId,
    connector: bool,
    control: &[u8; 32],
) -> Vec<u8> {
    let flags = if connector { FROM_CONNECTOR } else { 0 };
    end(Class::Success, request.transaction_id(), session, flags, control)
}

fn end(class: Class, id: TransactionId, session: SessionId, flags: u32, control: &[u8; 32]) -> Vec<u8> {
    Builder::new(class, Method::END, id)
        .session_id(session)
        .flags(flags)
        .integrity_sha256(control)
        .fingerprint()
        .finish()
}

/// Whether a message beside the checks is authentic and from the other role.
pub(super) fn is_from_peer(message: &Message<'_>, we_are_connector: bool, control: &[u8; 32]) -> bool {
    let from_connector = message.flags() & FROM_CONNECTOR != 0;
    from_connector != we_are_connector && message.verify_integrity_sha256(control) == Integrity::Valid
}
