//! What one listen and one connect may be asked for, beyond whom: structs that may grow.

use std::mem::{offset_of, size_of};

use holepunch_core::{ConnectOptions, Result};

use crate::{
    deadline,
    endpoint::HOLEPUNCH_FOREVER,
    error::holepunch_error_t,
    guard,
    sized_struct::{self, SizedStruct},
};

/// The default of wait_ms in holepunch_connect_options_t, in milliseconds.
pub const HOLEPUNCH_CONNECT_WAIT_MS: i64 = 10000;
/// The default of timeout_ms in holepunch_connect_options_t, in milliseconds.
pub const HOLEPUNCH_CONNECT_TIMEOUT_MS: i64 = 30000;

/// How holepunch_endpoint_listen() registers.
///
/// Set it with holepunch_listen_options_init() and then change what is to differ: a time of 0 does not wait here
/// either, so zero is not the default of timeout_ms. Later versions append fields, whose default is zero. The struct
/// is used only until the call returns.
#[repr(C)]
pub struct holepunch_listen_options_t {
    /// sizeof(holepunch_listen_options_t), as the caller's compiler sees it.
    pub size: usize,
    /// How long a server may take to have the registration. Default: HOLEPUNCH_FOREVER; a server that is silent for
    /// 5 seconds still ends the call.
    pub timeout_ms: i64,
}

// SAFETY: it is repr(C), starts with its size, and has only integers.
unsafe impl SizedStruct for holepunch_listen_options_t {
    const NAME: &'static str = "options";
    const FIRST_SIZE: usize = offset_of!(Self, timeout_ms) + size_of::<i64>();
    const DEFAULT: Self = Self { size: size_of::<Self>(), timeout_ms: HOLEPUNCH_FOREVER };
}

/// How holepunch_endpoint_connect_datagram() connects.
///
/// Set it with holepunch_connect_options_init() and then change what is to differ: a time of 0 does not wait here
/// either, so zero is not the default of wait_ms and timeout_ms. Later versions append fields, whose default is zero.
/// The struct is used only until the call returns.
#[repr(C)]
pub struct holepunch_connect_options_t {
    /// sizeof(holepunch_connect_options_t), as the caller's compiler sees it.
    pub size: usize,
    /// How long to keep asking for a listener that is not registered yet; 0 asks once. Default:
    /// HOLEPUNCH_CONNECT_WAIT_MS.
    pub wait_ms: i64,
    /// How long the two peers may take from their introduction on. Default: HOLEPUNCH_CONNECT_TIMEOUT_MS.
    pub timeout_ms: i64,
}

// SAFETY: it is repr(C), starts with its size, and has only integers.
unsafe impl SizedStruct for holepunch_connect_options_t {
    const NAME: &'static str = "options";
    const FIRST_SIZE: usize = offset_of!(Self, timeout_ms) + size_of::<i64>();
    const DEFAULT: Self =
        Self { size: size_of::<Self>(), wait_ms: HOLEPUNCH_CONNECT_WAIT_MS, timeout_ms: HOLEPUNCH_CONNECT_TIMEOUT_MS };
}

/// Sets every field to its default and size to the size given.
///
/// size is sizeof(holepunch_listen_options_t) as the caller's compiler sees it. The struct stays the caller's.
///
/// Errors: HOLEPUNCH_ERROR_INVALID_ARGUMENT, options is NULL or size cannot be right.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn holepunch_listen_options_init(
    options: *mut holepunch_listen_options_t,
    size: usize,
    error: *mut *mut holepunch_error_t,
) -> i32 {
    // SAFETY: `options` is NULL or has `size` writable bytes and `error` is NULL or writable, as the header asks.
    unsafe { guard::call_free_standing(error, || sized_struct::init(options, size)) }
}

/// Sets every field to its default and size to the size given.
///
/// size is sizeof(holepunch_connect_options_t) as the caller's compiler sees it. The struct stays the caller's.
///
/// Errors: HOLEPUNCH_ERROR_INVALID_ARGUMENT, options is NULL or size cannot be right.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn holepunch_connect_options_init(
    options: *mut holepunch_connect_options_t,
    size: usize,
    error: *mut *mut holepunch_error_t,
) -> i32 {
    // SAFETY: `options` is NULL or has `size` writable bytes and `error` is NULL or writable, as the header asks.
    unsafe { guard::call_free_standing(error, || sized_struct::init(options, size)) }
}

/// Reads the options of a connect; NULL is all defaults.
///
/// # Safety
/// `options` is NULL or what the header asks for.
pub(crate) unsafe fn connect(options: *const holepunch_connect_options_t) -> Result<ConnectOptions> {
    // SAFETY: the caller's promise is the one asked for.
    let options = unsafe { sized_struct::read(options) }?;
    Ok(ConnectOptions::default()
        .wait(deadline::bounded(options.wait_ms, "wait_ms")?)
        .timeout(deadline::bounded(options.timeout_ms, "timeout_ms")?))
}
