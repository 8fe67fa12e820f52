//! The cancel handle: stops blocking calls of other threads.

use holepunch_core::Cancel;

use crate::{
    error::holepunch_error_t,
    guard::{self, Handle, Out, Poison},
};

/// A token that stops blocking calls from another thread.
///
/// It may be given to any number of calls, one after the other or at once. It is sticky: once cancelled, every call
/// that has it, and every later one, returns HOLEPUNCH_ERROR_CANCELLED. It closes nothing: the handles that were
/// waited on can be used again with another token.
pub struct holepunch_cancel_t {
    inner: Cancel,
    poison: Poison,
}

impl holepunch_cancel_t {
    pub(crate) fn inner(&self) -> &Cancel {
        &self.inner
    }
}

impl Handle for holepunch_cancel_t {
    const NAME: &'static str = "cancel";

    fn poison(&self) -> &Poison {
        &self.poison
    }
}

/// Makes a token that is not cancelled.
///
/// On success *cancel belongs to the caller, who frees it with holepunch_cancel_free().
///
/// Errors: HOLEPUNCH_ERROR_INVALID_ARGUMENT, cancel is NULL; HOLEPUNCH_ERROR_IO, such as no descriptor left.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn holepunch_cancel_new(
    cancel: *mut *mut holepunch_cancel_t,
    error: *mut *mut holepunch_error_t,
) -> i32 {
    // SAFETY: the out-parameters are NULL or writable, as the header asks.
    unsafe {
        guard::call_free_standing(error, || {
            let out = Out::new(cancel, "cancel")?;
            out.set(guard::into_raw(holepunch_cancel_t { inner: Cancel::new()?, poison: Poison::default() }));
            Ok(())
        })
    }
}

/// Cancels every call that has the token, now and later. Does not block; cancelling again changes nothing.
///
/// Errors: HOLEPUNCH_ERROR_INVALID_ARGUMENT, cancel is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn holepunch_cancel_cancel(
    cancel: *mut holepunch_cancel_t,
    error: *mut *mut holepunch_error_t,
) -> i32 {
    // SAFETY: the handle is NULL or alive and `error` NULL or writable, as the header asks.
    unsafe {
        guard::call(cancel, error, |cancel| {
            cancel.inner.cancel();
            Ok(())
        })
    }
}

/// Frees the token; it does not cancel. Calls that have it must have returned. NULL is ignored.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn holepunch_cancel_free(cancel: *mut holepunch_cancel_t) {
    // SAFETY: NULL or alive and not used again, as the header asks.
    unsafe { guard::free(cancel, |_| {}) }
}
