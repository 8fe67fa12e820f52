//! A request that is repeated until it is answered: after 100, 200, 400, ... ms (RFC 8489 section 6.2.1, faster).

use core::time::Duration;

use crate::{
    config::Retransmission,
    machine::{Instant, Random},
    wire::stun::TransactionId,
};

/// The timing of one request; the bytes are made anew for each transmission, with the same id.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Transaction {
    pub(crate) id: TransactionId,
    next: Instant,
    interval: Duration,
    silent: Instant,
}

/// What a transaction wants at some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// Nothing yet.
    Nothing,
    /// To be sent, for the first time or again.
    Send,
    /// Nothing was answered for so long that nothing will be.
    Silent,
}

impl Transaction {
    /// A request that is due at once.
    pub(crate) fn new(now: Instant, config: &Retransmission, random: &mut Random) -> Self {
        Self { id: TransactionId(random.bytes()), next: now, interval: config.initial, silent: now + config.silence }
    }

    /// The same request under a new id, since it says more now: due at once, but the time of silence goes on. A server
    /// that only ever challenges is no better than a silent one.
    pub(crate) fn again(&self, now: Instant, config: &Retransmission, random: &mut Random) -> Self {
        Self { silent: self.silent, ..Self::new(now, config, random) }
    }

    /// Is due at once, and as often as in the beginning: the answer has become urgent.
    pub(crate) const fn hurry(&mut self, now: Instant, config: &Retransmission) {
        self.next = now;
        self.interval = config.initial;
    }

    /// What is due now; a transmission that is due counts as sent.
    pub(crate) fn poll(&mut self, now: Instant, config: &Retransmission) -> Due {
        if now >= self.silent {
            return Due::Silent;
        }
        if now < self.next {
            return Due::Nothing;
        }
        self.next = now + self.interval;
        self.interval = (self.interval * 2).min(config.maximum);
        Due::Send
    }

    /// When something is due.
    pub(crate) fn next(&self) -> Instant {
        self.next.min(self.silent)
    }
}
