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

/// Checks leave at so many moments of a mean interval: 100 ms apart by default.
const BEATS: u32 = 50;

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
    pub(super) fn start(now: Instant, config: &Consent, random: &mut Random) -> Self {
        let interval = next_interval(now, config, random);
        Self { next: interval, interval, expires: now + config.expiry, sent: 0 }
    }

    /// The peer has answered again.
    pub(super) fn renew(&mut self, now: Instant, config: &Consent) {
        self.expires = now + config.expiry;
        self.next = self.interval;
    }

    /// Asks then at the latest, whatever was to be next.
    pub(super) fn ask_at(&mut self, time: Instant) {
        self.next = self.next.min(time);
    }

    /// When the peer has answered last.
    pub(super) fn answered(&self, config: &Consent) -> Instant {
        self.expires.checked_sub(config.expiry).unwrap_or_default()
    }

    /// What is due now; a check that is due counts as sent.
    pub(super) fn poll(&mut self, now: Instant, config: &Consent, random: &mut Random) -> Due {
        if now >= self.expires {
            return Due::Expired;
        }
        if now < self.next {
            return Due::Nothing;
        }
        if now >= self.interval {
            self.interval = next_interval(now, config, random);
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

/// RFC 7675 section 5.1: between 0.8 and 1.2 times the mean, so that many connections do not beat in time. Within that it is
/// put off until the next of [`BEATS`], which all connections of a peer share: one wake-up serves many.
fn next_interval(now: Instant, config: &Consent, random: &mut Random) -> Instant {
    let beat = config.interval / BEATS;
    let drawn = now + random.duration(config.interval * 4 / 5, config.interval * 6 / 5 - beat);
    let late = drawn.as_nanos() % u64::try_from(beat.as_nanos()).unwrap_or(u64::MAX).max(1);
    if late == 0 { drawn } else { drawn + (beat - Duration::from_nanos(late)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;

    #[test]
    fn intervals_are_as_rfc_7675_wants_them_and_end_on_beats_that_all_share() {
        let (config, mut random) = (Consent::default(), Random::new([1; 32]));
        let mut ends = BTreeSet::new();
        let mut total = Duration::ZERO;
        for number in 0..10_000 {
            let start = Instant::from_nanos(number * 1_234_567);
            let end = next_interval(start, &config, &mut random);
            let interval = end.saturating_since(start);
            assert!(interval >= config.interval * 4 / 5 && interval <= config.interval * 6 / 5, "{interval:?}");
            assert_eq!(end.as_nanos() % 100_000_000, 0);
            total += interval;
            ends.insert(end);
        }
        let mean = total / 10_000;
        assert!(mean.abs_diff(config.interval) < config.interval / 100, "{mean:?}");
        // Over 12 s of starts and 2 s that are drawn from.
        assert!(ends.len() > 130, "{}", ends.len());
    }
}
