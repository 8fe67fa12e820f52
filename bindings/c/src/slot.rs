//! What a handle holds until the program takes it: used by any number of calls at once, taken by one that is alone.
//!
//! There is no lock, so that two calls never wait for each other, and a forked child never for a thread that exists
//! only in its parent: one number counts the calls that are under way, and its highest bit says that it was taken.

use std::{
    cell::UnsafeCell,
    fmt,
    ops::Deref,
    sync::atomic::{AtomicUsize, Ordering},
};

use holepunch_core::{Error, ErrorKind, Result};

const TAKEN: usize = 1 << (usize::BITS - 1);

/// See the module.
pub(crate) struct Slot<T> {
    /// Never read while [`TAKEN`] is set, but by who set it; never written otherwise.
    value: UnsafeCell<Option<T>>,
    users: AtomicUsize,
    /// What error messages call it.
    name: &'static str,
}

// SAFETY: threads share the value only as `&T`, and it goes from one to another when it is taken.
unsafe impl<T: Send + Sync> Sync for Slot<T> {}

impl<T> Slot<T> {
    pub(crate) const fn new(value: T, name: &'static str) -> Self {
        Self { value: UnsafeCell::new(Some(value)), users: AtomicUsize::new(0), name }
    }

    /// Uses the value, unless it was taken.
    pub(crate) fn get(&self) -> Result<InUse<'_, T>> {
        // The guard takes the number back also where the value is gone.
        let taken = self.users.fetch_add(1, Ordering::Acquire) & TAKEN != 0;
        let guard = Counted(&self.users);
        if taken {
            return Err(self.gone());
        }
        // SAFETY: it was not taken before this call was counted, and cannot be while it is.
        let value = unsafe { (*self.value.get()).as_ref() }.ok_or_else(|| self.gone())?;
        Ok(InUse { value, _counted: guard })
    }

    /// Takes the value out, unless another call uses it.
    pub(crate) fn take(&self) -> Result<T> {
        match self.users.compare_exchange(0, TAKEN, Ordering::AcqRel, Ordering::Acquire) {
            // SAFETY: nobody used it, and nobody can any more.
            Ok(_) => unsafe { (*self.value.get()).take() }.ok_or_else(|| self.gone()),
            Err(users) if users & TAKEN != 0 => Err(self.gone()),
            Err(_) => {
                let text = format!("another call uses the {}", self.name);
                Err(Error::new(ErrorKind::InvalidArgument, text).with_hint("end the calls on it first"))
            }
        }
    }

    fn gone(&self) -> Error {
        Error::new(ErrorKind::Closed, format!("the {}'s socket was given away", self.name))
    }
}

impl<T> fmt::Debug for Slot<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The value, in use until this is dropped.
pub(crate) struct InUse<'a, T> {
    value: &'a T,
    _counted: Counted<'a>,
}

impl<T> Deref for InUse<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value
    }
}

/// A call that is counted until this is dropped.
struct Counted<'a>(&'a AtomicUsize);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
}
