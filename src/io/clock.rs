//! Time for the machines: nanoseconds since the endpoint was made.

use std::time::{Duration, Instant as SystemInstant};

use crate::machine::Instant;

/// The monotonic clock of one endpoint; the machines' origin is one hour before it was made, so that no
/// subtraction from an early time is cut off at zero.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    origin: SystemInstant,
}

/// What the first reading is at least.
const HEAD_START: Duration = Duration::from_secs(3600);

impl Clock {
    pub(crate) fn start() -> Self {
        Self { origin: SystemInstant::now() }
    }

    pub(crate) fn now(&self) -> Instant {
        Instant::default() + HEAD_START + self.origin.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_goes_on_and_starts_late() {
        let clock = Clock::start();
        let first = clock.now();
        assert!(first >= Instant::default() + HEAD_START);
        assert!(clock.now() >= first);
    }
}
