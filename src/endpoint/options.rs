//! What one connect may take.

use std::time::Duration;

use super::{Cancel, Wait};

/// How long [`Endpoint::connect_datagram`](super::Endpoint::connect_datagram) may take, and what may cancel it.
///
/// ```
/// use holepunch::{Cancel, ConnectOptions};
/// use std::time::Duration;
///
/// let cancel = Cancel::new()?;
/// let options = ConnectOptions::default().wait(Duration::from_secs(60)).cancel(&cancel);
/// # drop(options);
/// # Ok::<(), holepunch::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    pub(super) wait: Duration,
    pub(super) timeout: Duration,
    pub(super) cancel: Option<Cancel>,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self { wait: Duration::from_secs(10), timeout: Duration::from_secs(30), cancel: None }
    }
}

impl ConnectOptions {
    /// How long to keep asking for a listener that is not registered yet, or a server that introduces no more for now
    /// (default 10 s); zero asks once.
    #[must_use]
    pub fn wait(self, time: Duration) -> Self {
        Self { wait: time, ..self }
    }

    /// How long the two peers may take from their introduction on (default 30 s).
    #[must_use]
    pub fn timeout(self, time: Duration) -> Self {
        Self { timeout: time, ..self }
    }

    /// Also ends the call when `cancel` is cancelled.
    #[must_use]
    pub fn cancel(self, cancel: &Cancel) -> Self {
        Self { cancel: Some(cancel.clone()), ..self }
    }

    /// The two limits are the machine's to keep; only the token can end a call from outside.
    pub(super) fn as_wait(&self) -> Wait {
        self.cancel.as_ref().map_or_else(Wait::forever, |cancel| Wait::forever().or_cancelled(cancel))
    }
}
