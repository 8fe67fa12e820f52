//! The clock of consent (RFC 7675): a check every few seconds at random, and an end when none is answered for long.
//!
//! A check that is not answered soon is followed by a few more before the next interval begins, so that heavy loss
//! hardly ends a connection that lives.

use core::time::Duration;

use crate::{
    config::Consent,
    machine::{Instant, NextWake, Random, Timer},
};

/// A check that was not answered within this time is repeated (not before the next is due anyway) ...
const PATIENCE: Duration = Duration::from_millis(500);

/// ... so many times in an interval; RFC 7675 section 5.1 asks for checks that are paced.
const REPEATS: u8 = 8;

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
    /// When the next check is due.
    next: Instant,
    /// When the next interval begins, answered or not.
    interval: Instant,
    expires: Instant,
    /// Checks of this interval that were sent.
    sent: u8,
}

impl ConsentClock {
    /// The peer has just answered.
    pub(super) fn start(now: Instant, config: Consent, random: &mut Random) -> Self {
        let interval = now + interval(&config, random);
        Self { config, next: interval, interval, expires: now + config.expiry, sent: 0 }
    }

    /// The peer has answered again.
    pub(super) fn renew(&mut self, now: Instant) {
        self.expires = now + self.config.expiry;
        self.next = self.interval;
    }

    /// Asks then at the latest, whatever was to be next.
    pub(super) fn ask_at(&mut self, time: Instant) {
        self.next = self.next.min(time);
    }

    /// When the peer has answered last.
    pub(super) fn answered(&self) -> Instant {
        self.expires.checked_sub(self.config.expiry).unwrap_or_default()
    }

    /// What is due now; a check that is due counts as sent.
    pub(super) fn poll(&mut self, now: Instant, random: &mut Random) -> Due {
        if now >= self.expires {
            return Due::Expired;
        }
        if now < self.next {
            return Due::Nothing;
        }
        if now >= self.interval {
            self.interval = now + interval(&self.config, random);
            self.sent = 0;
        }
        self.sent += 1;
        let repeat = now + PATIENCE;
        self.next = if self.sent <= REPEATS { repeat.min(self.interval) } else { self.interval };
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
