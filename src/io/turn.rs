//! One blocking call that works with plain sockets: what it waits for, until when, and what ends it.

use std::{
    borrow::Cow,
    time::{Duration, Instant},
};

use super::{
    cancel::Cancel,
    fault::os_error,
    ready::{self, Interest},
    wait::{Deadline, Wait},
};
use crate::{Error, ErrorKind, Result};

/// A call under way. It sleeps in poll(2) and nowhere else.
pub(crate) struct Turn {
    what: Cow<'static, str>,
    time: Option<Duration>,
    deadline: Deadline,
    cancel: Option<Cancel>,
}

impl Turn {
    /// Begins a call; `what` is for its errors, as "meeting 192.0.2.1".
    pub(crate) fn begin(wait: &Wait, what: impl Into<Cow<'static, str>>) -> Self {
        let deadline = wait.deadline();
        Self { what: what.into(), time: deadline.left(), deadline, cancel: wait.cancel().cloned() }
    }

    /// Fails when the call was cancelled, or its time has passed.
    pub(crate) fn check(&self) -> Result<()> {
        self.cancel.as_ref().map_or(Ok(()), Cancel::check)?;
        if !self.deadline.has_passed() {
            return Ok(());
        }
        let seconds = (self.time.unwrap_or_default().as_secs_f64() * 1e3).round() / 1e3;
        Err(Error::new(ErrorKind::Timeout, format!("{}: not done within {seconds} s", self.what)))
    }

    /// What is left of the call's time, or `at_most`.
    pub(crate) fn left(&self, at_most: Duration) -> Duration {
        self.deadline.left().map_or(at_most, |left| left.min(at_most))
    }

    /// Waits for the first of at most two interests that is ready, and says which; `None` at `until`.
    ///
    /// # Errors
    /// As [`check`](Self::check), and [`ErrorKind::Io`] when the system cannot wait.
    pub(crate) fn ready(&self, interests: &[Interest<'_>], until: Option<Instant>) -> Result<Option<usize>> {
        let mut polled = interests.to_vec();
        polled.extend(self.cancel.as_ref().map(|cancel| Interest::Readable(cancel)));
        loop {
            if let Some(cancel) = &self.cancel {
                cancel.check()?;
            }
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            let most = match (left, self.deadline.left()) {
                (Some(left), Some(own)) => Some(left.min(own)),
                (left, own) => left.or(own),
            };
            let failed = |error| os_error(format!("{}: cannot wait", self.what), &error);
            match ready::wait_first(&polled, most).map_err(failed)? {
                Some(which) if which < interests.len() => return Ok(Some(which)),
                Some(_) => {}
                None if until.is_some_and(|until| Instant::now() >= until) => return Ok(None),
                None => self.check()?,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{io::Write as _, os::unix::net::UnixStream};

    #[test]
    fn the_first_of_all_ends_it() {
        let (reader, mut writer) = UnixStream::pair().unwrap();
        let cancel = Cancel::new().unwrap();
        let turn = Turn::begin(&Wait::at_most(Duration::from_secs(60)).or_cancelled(&cancel), "a test");
        let interests = [Interest::Readable(&reader)];
        assert_eq!(turn.ready(&interests, Some(Instant::now())).unwrap(), None);
        assert_eq!(turn.ready(&[], Some(Instant::now() + Duration::from_millis(1))).unwrap(), None);
        writer.write_all(b"x").unwrap();
        assert_eq!(turn.ready(&interests, None).unwrap(), Some(0));
        cancel.cancel();
        assert_eq!(turn.ready(&interests, None).unwrap_err().kind(), ErrorKind::Cancelled);
        assert_eq!(turn.ready(&[], None).unwrap_err().kind(), ErrorKind::Cancelled);
        let turn = Turn::begin(&Wait::at_most(Duration::from_millis(1)), "a test");
        let error = turn.ready(&[], None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(error.message().starts_with("a test: "), "{error}");
        assert_eq!(turn.left(Duration::from_secs(1)), Duration::ZERO);
    }
}
