//! The clock of consent (RFC 7675): a check every few seconds at random, and an end when none is answered for long.

use core::time::Duration;

use crate::{
    config::Consent,
    machine::{Instant, NextWake, Random, Timer},
};

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    Check,
    Expired,
}

/// When consent is to be renewed, and when it is over.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConsentClock {
    config: Consent,
    next: Instant,
    expires: Instant,
}

impl ConsentClock {
    /// The peer has just answered.
    pub(super) fn start(now: Instant, config: Consent, random: &mut Random) -> Self {
        Self { config, next: now + interval(&config, random), expires: now + config.expiry }
    }

    /// The peer has answered again.
    pub(super) fn renew(&mut self, now: Instant) {
        self.expires = now + self.config.expiry;
    }

    /// What is due now; a check that is due counts as sent.
    pub(super) fn poll(&mut self, now: Instant, random: &mut Random) -> Due {
        if now >= self.expires {
            return Due::Expired;
        }
        if now < self.next {
            return Due::Nothing;
        }
        self.next = now + interval(&self.config, random);
        Due::Check
    }

    pub(super) fn next_wake(&self) -> NextWake {
        let mut wake = NextWake::never();
        wake.at(Some(self.next.min(self.expires)), Timer::Consent);
        wake
    }
}

/// RFC 7675 section 5.1: between 0.8 and 1.2 times the mean, so that many connections do not beat in time.
fn interval(config: &Consent, random: &mut Random) -> Duration {
    random.duration(config.interval * 4 / 5, config.interval * 6 / 5)
}
