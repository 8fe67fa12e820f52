//! A token that ends blocking calls from another thread.
//!
//! The token is a flag, a socket pair whose one end becomes readable for ever when the other is shut down (for calls that
//! sleep in poll), and a list of the endpoints whose condition variables calls sleep on.

use std::{
    fmt, io,
    net::Shutdown,
    os::{
        fd::{AsRawFd, RawFd},
        unix::net::UnixStream,
    },
    process, ptr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use super::fault::os_error;
use crate::{Error, ErrorKind, Result};

/// Cancels blocking calls from another thread, at once and for good.
///
/// Clones are the same token. A call that is given a cancelled token, before or while it blocks, fails with
/// [`ErrorKind::Cancelled`] within 100 ms. One token may be given to any number of calls of any number of endpoints; it
/// holds two descriptors.
///
/// ```
/// use holepunch::{Cancel, Wait};
///
/// let cancel = Cancel::new()?;
/// let wait = Wait::forever().or_cancelled(&cancel);
/// cancel.cancel(); // from any thread, any number of times
/// assert!(cancel.is_cancelled());
/// # drop(wait);
/// # Ok::<(), holepunch::Error>(())
/// ```
#[derive(Clone)]
pub struct Cancel(Arc<Token>);

struct Token {
    cancelled: AtomicBool,
    reader: UnixStream,
    writer: UnixStream,
    sleepers: Mutex<Vec<Weak<dyn Sleeper>>>,
    /// The pair is shared with a forked child, which must not use it up for its parent.
    process: u32,
}

/// Something that calls may sleep on other than the token's descriptor.
pub(super) trait Sleeper: Send + Sync {
    /// Makes every sleeping call look at its token again.
    fn wake_sleepers(&self);
}

impl Cancel {
    /// Makes a token.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] when no descriptors are left.
    pub fn new() -> Result<Self> {
        let pair = |error: io::Error| os_error("cannot make a token for cancellation", &error);
        let (reader, writer) = UnixStream::pair().map_err(pair)?;
        Ok(Self(Arc::new(Token {
            cancelled: AtomicBool::new(false),
            reader,
            writer,
            sleepers: Mutex::new(Vec::new()),
            process: process::id(),
        })))
    }

    /// Cancels every call that was or will be given this token. Never blocks for long; may be called from any thread.
    pub fn cancel(&self) {
        if self.0.cancelled.swap(true, Ordering::SeqCst) || self.0.process != process::id() {
            return;
        }
        // It fails only where the pair is shut down already.
        let _ = self.0.writer.shutdown(Shutdown::Both);
        let sleepers: Vec<_> = self.sleepers().iter().filter_map(Weak::upgrade).collect();
        for sleeper in sleepers {
            sleeper.wake_sleepers();
        }
    }

    /// Whether [`cancel`](Self::cancel) was called.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::SeqCst)
    }

    pub(crate) fn check(&self) -> Result<()> {
        if self.is_cancelled() { Err(Error::new(ErrorKind::Cancelled, "the call was cancelled")) } else { Ok(()) }
    }

    /// Has `sleeper` woken by [`cancel`](Self::cancel) until the guard is dropped.
    pub(super) fn watch(&self, sleeper: Weak<dyn Sleeper>) -> Watch<'_> {
        self.sleepers().push(sleeper.clone());
        Watch { cancel: self, sleeper }
    }

    fn sleepers(&self) -> MutexGuard<'_, Vec<Weak<dyn Sleeper>>> {
        self.0.sleepers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsRawFd for Cancel {
    /// Readable when cancelled.
    fn as_raw_fd(&self) -> RawFd {
        self.0.reader.as_raw_fd()
    }
}

impl fmt::Debug for Cancel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cancel").field("cancelled", &self.is_cancelled()).finish()
    }
}

/// See [`Cancel::watch`].
pub(super) struct Watch<'a> {
    cancel: &'a Cancel,
    sleeper: Weak<dyn Sleeper>,
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        let mut sleepers = self.cancel.sleepers();
        if let Some(index) = sleepers.iter().position(|other| ptr::addr_eq(other.as_ptr(), self.sleeper.as_ptr())) {
            sleepers.swap_remove(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::ready, *};
    use std::sync::atomic::AtomicUsize;

    struct Count(AtomicUsize);

    impl Sleeper for Count {
        fn wake_sleepers(&self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_cancelled_token_stays_readable_and_wakes_each_sleeper_once() {
        let cancel = Cancel::new().unwrap();
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let (kept, other) = (Arc::downgrade(&count), Arc::downgrade(&count));
        let _watch = cancel.watch(kept);
        drop(cancel.watch(other));
        assert!(cancel.check().is_ok());
        let clone = cancel.clone();
        let thread = std::thread::spawn(move || ready::wait(&[&clone], None));
        cancel.cancel();
        cancel.cancel();
        thread.join().unwrap().unwrap();
        ready::wait(&[&cancel], None).unwrap();
        assert_eq!(cancel.check().unwrap_err().kind(), ErrorKind::Cancelled);
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
    }
}
