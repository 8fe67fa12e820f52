//! How long a call may block.

use std::time::{Duration, Instant};

use super::cancel::Cancel;

/// How long a call may block, and what may cancel it.
///
/// A time is counted from the beginning of each call that is given the `Wait`, so that one may be made once and used
/// often. A [`Duration`] converts to one.
///
/// ```
/// use holepunch::{Cancel, Wait};
/// use std::time::Duration;
///
/// let cancel = Cancel::new()?;
/// let patient = Wait::forever().or_cancelled(&cancel);
/// let poll = Wait::at_most(Duration::ZERO);
/// let second: Wait = Duration::from_secs(1).into();
/// # drop((patient, poll, second));
/// # Ok::<(), holepunch::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Wait {
    time: Option<Duration>,
    cancel: Option<Cancel>,
}

impl Wait {
    /// As long as it takes. The same as `Wait::default()`.
    #[must_use]
    pub fn forever() -> Self {
        Self::default()
    }

    /// At most so long, then the call fails with [`ErrorKind::Timeout`](crate::ErrorKind::Timeout); zero only looks.
    #[must_use]
    pub fn at_most(time: Duration) -> Self {
        Self { time: Some(time), cancel: None }
    }

    /// Also until `cancel` is cancelled; then the call fails with [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled).
    #[must_use]
    pub fn or_cancelled(self, cancel: &Cancel) -> Self {
        Self { cancel: Some(cancel.clone()), ..self }
    }

    /// The same, but not longer than `time`.
    pub(crate) fn but_at_most(&self, time: Duration) -> Self {
        Self { time: Some(self.time.map_or(time, |own| own.min(time))), cancel: self.cancel.clone() }
    }

    pub(crate) fn cancel(&self) -> Option<&Cancel> {
        self.cancel.as_ref()
    }

    /// When the call has to give up, if it begins now.
    pub(crate) fn deadline(&self) -> Deadline {
        Deadline(self.time.and_then(|time| Instant::now().checked_add(time)))
    }

    /// Whether nothing but the call's own success or failure ends it.
    pub(crate) fn is_endless(&self) -> bool {
        self.time.is_none() && self.cancel.is_none()
    }
}

impl From<Duration> for Wait {
    fn from(time: Duration) -> Self {
        Self::at_most(time)
    }
}

/// The end of a wait that has begun; a time beyond what the clock can count is never.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(Option<Instant>);

impl Deadline {
    /// What is left; `None` for ever, zero when it has passed.
    pub(crate) fn left(self) -> Option<Duration> {
        self.0.map(|time| time.saturating_duration_since(Instant::now()))
    }

    pub(crate) fn has_passed(self) -> bool {
        self.left() == Some(Duration::ZERO)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_too_long_to_count_is_for_ever() {
        assert_eq!(Wait::at_most(Duration::MAX).deadline().left(), None);
        assert!(Wait::at_most(Duration::ZERO).deadline().has_passed());
        assert!(!Wait::forever().deadline().has_passed());
        let bounded = Wait::forever().but_at_most(Duration::from_secs(1));
        assert_eq!(bounded.but_at_most(Duration::from_secs(2)).time, Some(Duration::from_secs(1)));
    }
}
