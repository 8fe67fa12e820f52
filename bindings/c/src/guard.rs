//! What happens around every call from C: is the handle there, is it sound, did the call panic, what is its status.
//!
//! A handle is the raw pointer of an `Arc`. A call takes a share of it for as long as it runs, so that a handle that
//! another thread frees meanwhile, against the rules, goes only when the call returns. A panic never crosses into C:
//! it becomes the status "poisoned", and so does every later call on the same handle, because a panic may have left
//! half a change behind. Only freeing is still possible.

use std::{
    any::Any,
    ffi::{CStr, c_char},
    panic::{AssertUnwindSafe, catch_unwind},
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use holepunch_core::{Error, ErrorKind, Result};

use crate::{error::holepunch_error_t, status::HOLEPUNCH_OK};

/// Remembers whether a call on a handle has panicked.
#[derive(Debug, Default)]
pub(crate) struct Poison(AtomicBool);

/// Something that C holds a pointer to.
pub(crate) trait Handle {
    /// What error messages call it.
    const NAME: &'static str;

    fn poison(&self) -> &Poison;
}

/// Runs `body` on a handle and returns its status.
///
/// # Safety
/// `handle` is NULL or came from [`into_raw`] and was not freed; `error` is NULL or writable.
pub(crate) unsafe fn call<H: Handle>(
    handle: *mut H,
    error: *mut *mut holepunch_error_t,
    body: impl FnOnce(&H) -> Result<()>,
) -> i32 {
    // SAFETY: the caller's promise about `handle` is the one asked for.
    let handle = match unsafe { share(handle) } {
        Ok(handle) => handle,
        // SAFETY: the caller's promise about `error` is the one asked for.
        Err(failure) => return unsafe { report(error, failure) },
    };
    let poison = Arc::clone(&handle);
    let result = catch(move || body(&handle)).unwrap_or_else(|panic| {
        poison.poison().0.store(true, Ordering::SeqCst);
        Err(panic)
    });
    // SAFETY: the caller's promise about `error` is the one asked for.
    unsafe { status(error, result) }
}

/// Runs `body`, which needs no handle, and returns its status.
///
/// # Safety
/// `error` is NULL or writable.
pub(crate) unsafe fn call_free_standing(error: *mut *mut holepunch_error_t, body: impl FnOnce() -> Result<()>) -> i32 {
    let result = catch(body).unwrap_or_else(Err);
    // SAFETY: the caller's promise about `error` is the one asked for.
    unsafe { status(error, result) }
}

/// Takes a share of a handle that is there and sound.
///
/// # Safety
/// `handle` is NULL or came from [`into_raw`] and was not freed.
pub(crate) unsafe fn share<H: Handle>(handle: *mut H) -> Result<Arc<H>> {
    if handle.is_null() {
        return Err(null(H::NAME));
    }
    // SAFETY: it is not NULL, so it is the pointer of an Arc that is alive.
    let handle = unsafe {
        Arc::increment_strong_count(handle);
        Arc::from_raw(handle)
    };
    if handle.poison().0.load(Ordering::SeqCst) {
        return Err(Error::new(ErrorKind::Poisoned, format!("an earlier call on this {} panicked", H::NAME)));
    }
    Ok(handle)
}

/// Makes a handle for C.
pub(crate) fn into_raw<H: Handle>(handle: H) -> *mut H {
    Arc::into_raw(Arc::new(handle)).cast_mut()
}

/// Frees a handle, poisoned or not, after `close`. NULL is ignored.
///
/// # Safety
/// `handle` is NULL or came from [`into_raw`], was not freed and is not used again.
pub(crate) unsafe fn free<H: Handle>(handle: *mut H, close: impl FnOnce(&H)) {
    if handle.is_null() {
        return;
    }
    // SAFETY: it is not NULL, so it is the pointer of an Arc, and this is the share that `into_raw` gave to C.
    let handle = unsafe { Arc::from_raw(handle) };
    // A panic has nowhere to be told here, and freeing what can be freed is all that is left to do.
    let _ = catch(|| {
        close(&handle);
        Ok(())
    });
    let _ = catch(|| {
        drop(handle);
        Ok(())
    });
}

/// A pointer that a result is written to.
pub(crate) struct Out<T>(NonNull<T>);

impl<T> Out<T> {
    /// Takes the pointer, which is called `name` in the header.
    ///
    /// # Safety
    /// `pointer` is NULL or writable for as long as this lives.
    pub(crate) unsafe fn new(pointer: *mut T, name: &str) -> Result<Self> {
        NonNull::new(pointer).map(Self).ok_or_else(|| null(name))
    }

    pub(crate) fn set(self, value: T) {
        // SAFETY: `new` was promised that it is writable, and it is not NULL.
        unsafe { self.0.write(value) }
    }
}

/// Reads a string of C; NULL is an error.
///
/// # Safety
/// `text` is NULL or NUL-terminated, and does not change while the result is used.
pub(crate) unsafe fn text<'a>(text: *const c_char, name: &str) -> Result<&'a str> {
    if text.is_null() {
        return Err(null(name));
    }
    // SAFETY: it is not NULL, so it is NUL-terminated.
    let bytes = unsafe { CStr::from_ptr(text) };
    bytes.to_str().map_err(|_| Error::new(ErrorKind::InvalidArgument, format!("{name} is not UTF-8")))
}

/// The error for an argument that must not be NULL.
pub(crate) fn null(name: &str) -> Error {
    Error::new(ErrorKind::InvalidArgument, format!("{name} is NULL"))
}

/// Where the caller wants to receive, of which no more than `most` bytes are used. NULL with capacity 0 is no room.
///
/// # Safety
///
/// What is not NULL must be `capacity` bytes that nobody else uses during the call.
pub(crate) unsafe fn buffer<'a>(buffer: *mut u8, capacity: usize, most: usize) -> Result<&'a mut [u8]> {
    match (buffer.is_null(), capacity) {
        (true, 0) => Ok(&mut []),
        (true, _) => Err(null("buffer")),
        // SAFETY: the caller says so.
        (false, _) => Ok(unsafe { std::slice::from_raw_parts_mut(buffer, capacity.min(most)) }),
    }
}

/// Runs `body`; a panic becomes the outer error.
fn catch(body: impl FnOnce() -> Result<()>) -> Result<Result<()>> {
    catch_unwind(AssertUnwindSafe(body)).map_err(|panic| {
        let what = describe(&*panic);
        // Dropping what a panic carries may panic once more, and that has to be left alone.
        if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
            std::mem::forget(again);
        }
        Error::new(ErrorKind::Poisoned, format!("the library panicked: {what}"))
            .with_hint("report this as a bug; the handle can only be freed")
    })
}

fn describe(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}

unsafe fn status(error: *mut *mut holepunch_error_t, result: Result<()>) -> i32 {
    match result {
        Ok(()) => HOLEPUNCH_OK,
        // SAFETY: the caller's promise about `error` is the one asked for.
        Err(failure) => unsafe { report(error, failure) },
    }
}

/// Hands an error to C, if it wants one, and returns its status.
unsafe fn report(error: *mut *mut holepunch_error_t, failure: Error) -> i32 {
    let code = failure.kind().code();
    if let Some(error) = NonNull::new(error) {
        // SAFETY: it is not NULL, so the caller promised that it is writable.
        unsafe { error.write(holepunch_error_t::into_raw(&failure)) }
    }
    code
}
