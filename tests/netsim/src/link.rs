//! Links: what happens to a datagram on its way between a host or site and the network it attaches to.

use crate::{random::Random, time::Time};
use std::time::Duration;

/// The properties of a link, the same in both directions, each direction drawing its own luck.
///
/// The default is perfect: no delay, no loss. Delays are real time spent on the wire; there is no bandwidth and so no queue.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Link {
    /// Time a datagram always takes, one way.
    pub delay: Duration,
    /// Upper end of the uniform extra time, `0..jitter`, drawn for each datagram; jitter alone can reorder.
    pub jitter: Duration,
    /// Probability, 0.0 to 1.0, that a datagram is lost.
    pub loss: f64,
    /// Probability, 0.0 to 1.0, that a datagram arrives twice.
    pub duplicate: f64,
    /// Probability, 0.0 to 1.0, that a datagram takes `reorder_delay` more.
    pub reorder: f64,
    /// Extra time of a datagram chosen by `reorder`.
    pub reorder_delay: Duration,
    /// Times of heavy loss; none for a link whose losses are independent.
    pub bursts: Option<Bursts>,
}

/// Loss in bursts, after Gilbert and Elliott, in time rather than in datagrams, so that who sends seldom meets as long ones as
/// who sends often: good and bad times take turns, each of random (exponential) length.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bursts {
    /// The mean length of a good time, in which only [`Link::loss`] is lost.
    pub good: Duration,
    /// The mean length of a bad time.
    pub bad: Duration,
    /// Probability, 0.0 to 1.0, that a datagram is lost in a bad time.
    pub loss: f64,
}

/// How one direction of a link is, and until when.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Weather {
    bad: bool,
    until: Time,
}

impl Weather {
    /// Whether a datagram is lost to a burst now.
    pub(crate) fn loses(&mut self, now: Time, bursts: Bursts, random: &mut Random) -> bool {
        while self.until <= now {
            self.bad = !self.bad;
            let mean = if self.bad { bursts.bad } else { bursts.good };
            let length = mean.mul_f64(-(1.0 - random.unit()).ln()).max(Duration::from_nanos(1));
            self.until += length;
        }
        self.bad && random.chance(bursts.loss)
    }
}

impl Link {
    /// A link that takes no time and loses nothing.
    pub const PERFECT: Self = Self {
        delay: Duration::ZERO,
        jitter: Duration::ZERO,
        loss: 0.0,
        duplicate: 0.0,
        reorder: 0.0,
        reorder_delay: Duration::from_millis(10),
        bursts: None,
    };

    /// Returns a link with a delay in milliseconds one way, and no fault.
    #[must_use]
    pub const fn delay_ms(millis: u64) -> Self {
        Self { delay: Duration::from_millis(millis), ..Self::PERFECT }
    }

    /// Returns the same link with a probability of loss.
    #[must_use]
    pub const fn with_loss(self, loss: f64) -> Self {
        Self { loss, ..self }
    }

    /// Returns the same link with jitter.
    #[must_use]
    pub const fn with_jitter(self, jitter: Duration) -> Self {
        Self { jitter, ..self }
    }

    /// Returns the same link with bursts of loss.
    #[must_use]
    pub const fn with_bursts(self, bursts: Bursts) -> Self {
        Self { bursts: Some(bursts), ..self }
    }

    /// Draws how long one datagram takes.
    pub(crate) fn transit(&self, random: &mut Random) -> Duration {
        let mut transit = self.delay;
        if !self.jitter.is_zero() {
            let jitter = u64::try_from(self.jitter.as_nanos()).unwrap_or(u64::MAX);
            transit += Duration::from_nanos(random.below(jitter));
        }
        if random.chance(self.reorder) {
            transit += self.reorder_delay;
        }
        transit
    }
}

impl Default for Link {
    fn default() -> Self {
        Self::PERFECT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bursts_have_their_share_of_the_time_and_their_length() {
        let bursts = Bursts { good: Duration::from_millis(1500), bad: Duration::from_millis(500), loss: 1.0 };
        for seed in 0..20 {
            let (mut weather, mut random) = (Weather::default(), Random::new(seed));
            let (mut lost, mut bursts_seen, mut before) = (0, 0, false);
            for millis in 0..1_000_000 {
                let loses = weather.loses(Time::from_millis(millis), bursts, &mut random);
                lost += u32::from(loses);
                bursts_seen += u32::from(loses && !before);
                before = loses;
            }
            assert!((200_000..300_000).contains(&lost), "seed {seed}: {lost}");
            assert!((400..600).contains(&bursts_seen), "seed {seed}: {bursts_seen}");
        }
    }
}
