//! The error handle: what a failed call left in its last argument.

use std::ffi::{CString, c_char, c_int};

use holepunch_core::Error;

use crate::status::HOLEPUNCH_OK;

/// What failed, to whom, and what to try.
///
/// A failed call makes one and gives it to the caller, who frees it with holepunch_error_free(). It never changes,
/// so any threads may read it at once.
pub struct holepunch_error_t {
    code: i32,
    os_errno: c_int,
    message: CString,
    hint: CString,
}

impl holepunch_error_t {
    /// Makes an error for C.
    pub(crate) fn into_raw(error: &Error) -> *mut Self {
        Box::into_raw(Box::new(Self {
            code: error.kind().code(),
            os_errno: error.os_code().unwrap_or(0),
            message: c_string(error.message()),
            hint: c_string(error.hint()),
        }))
    }
}

/// Copies a text for C, which cannot hold NUL within one.
pub(crate) fn c_string(text: &str) -> CString {
    CString::new(text.replace('\0', "\u{FFFD}")).unwrap_or_default()
}

/// Returns the status that the failed call returned, one of HOLEPUNCH_ERROR_*. NULL gives HOLEPUNCH_OK.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn holepunch_error_code(error: *const holepunch_error_t) -> i32 {
    // SAFETY: NULL or alive, as the header asks.
    unsafe { error.as_ref() }.map_or(HOLEPUNCH_OK, |error| error.code)
}

/// Returns the operating system's error number (errno) where that was the cause, else 0. NULL gives 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn holepunch_error_os_errno(error: *const holepunch_error_t) -> c_int {
    // SAFETY: NULL or alive, as the header asks.
    unsafe { error.as_ref() }.map_or(0, |error| error.os_errno)
}

/// Returns what failed, and to whom: one line of UTF-8 without a final full stop, for people.
///
/// The text belongs to the error and lives as long as it. Never NULL; a NULL error gives "".
#[unsafe(no_mangle)]
pub unsafe extern "C" fn holepunch_error_message(error: *const holepunch_error_t) -> *const c_char {
    // SAFETY: NULL or alive, as the header asks.
    unsafe { error.as_ref() }.map_or(c"".as_ptr(), |error| error.message.as_ptr())
}

/// Returns what to try: one line of UTF-8 without a final full stop, for people.
///
/// The text belongs to the error and lives as long as it. Never NULL; a NULL error gives "".
#[unsafe(no_mangle)]
pub unsafe extern "C" fn holepunch_error_hint(error: *const holepunch_error_t) -> *const c_char {
    // SAFETY: NULL or alive, as the header asks.
    unsafe { error.as_ref() }.map_or(c"".as_ptr(), |error| error.hint.as_ptr())
}

/// Frees an error and its texts. NULL is ignored.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn holepunch_error_free(error: *mut holepunch_error_t) {
    if !error.is_null() {
        // SAFETY: it is not NULL, so it came from `into_raw`, and the caller does not use it again.
        drop(unsafe { Box::from_raw(error) });
    }
}
