//! The listener handle: accepts peers.

use holepunch_core::Listener;

use crate::{
    cancel::holepunch_cancel_t,
    connection::holepunch_connection_t,
    deadline,
    error::holepunch_error_t,
    guard::{self, Handle, Out, Poison},
    stream::holepunch_stream_t,
};

/// A registration that peers find, and the peers that came to it. It accepts any number of peers.
pub struct holepunch_listener_t {
    inner: Listener,
    poison: Poison,
}

impl holepunch_listener_t {
    pub(crate) fn new(inner: Listener) -> Self {
        Self { inner, poison: Poison::default() }
    }
}

impl Handle for holepunch_listener_t {
    const NAME: &'static str = "listener";

    fn poison(&self) -> &Poison {
        &self.poison
    }
}

/// Waits for the next peer that a direct path for a stream was found to.
///
/// Streams and connections for datagrams wait apart. cancel may be NULL. On success *stream belongs to the caller, who
/// frees it with holepunch_stream_free(); it lives on when the listener is closed. A peer that no path is found to
/// never shows here.
///
/// Errors: those of holepunch_listener_accept_datagram().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn holepunch_listener_accept(
    listener: *mut holepunch_listener_t,
    timeout_ms: i64,
    cancel: *mut holepunch_cancel_t,
    stream: *mut *mut holepunch_stream_t,
    error: *mut *mut holepunch_error_t,
) -> i32 {
    // SAFETY: every pointer is NULL or what the header asks for.
    unsafe {
        guard::call(listener, error, |listener| {
            let out = Out::new(stream, "stream")?;
            let wait = deadline::wait(timeout_ms, cancel)?;
            let stream = listener.inner.accept(wait)?;
            out.set(guard::into_raw(holepunch_stream_t::new(stream)));
            Ok(())
        })
    }
}

/// Waits for the next peer that a direct path for datagrams was found to.
///
/// cancel may be NULL. On success *connection belongs to the caller, who frees it with holepunch_connection_free(); it
/// lives on when the listener is closed. A peer that no path is found to never shows here.
///
/// Errors: HOLEPUNCH_ERROR_INVALID_ARGUMENT, HOLEPUNCH_ERROR_TIMEOUT, HOLEPUNCH_ERROR_CANCELLED,
/// HOLEPUNCH_ERROR_CLOSED, and those of holepunch_endpoint_listen() when the registration was lost for good.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn holepunch_listener_accept_datagram(
    listener: *mut holepunch_listener_t,
    timeout_ms: i64,
    cancel: *mut holepunch_cancel_t,
    connection: *mut *mut holepunch_connection_t,
    error: *mut *mut holepunch_error_t,
) -> i32 {
    // SAFETY: every pointer is NULL or what the header asks for.
    unsafe {
        guard::call(listener, error, |listener| {
            let out = Out::new(connection, "connection")?;
            let wait = deadline::wait(timeout_ms, cancel)?;
            let connection = listener.inner.accept_datagram(wait)?;
            out.set(guard::into_raw(holepunch_connection_t::new(connection)));
            Ok(())
        })
    }
}

/// Ends the registration: its name is free again at once, blocked calls return HOLEPUNCH_ERROR_CLOSED within 100 ms,
/// and connections that were accepted live on. From any thread, at any time; closing again changes nothing.
///
/// Errors: HOLEPUNCH_ERROR_INVALID_ARGUMENT, listener is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn holepunch_listener_close(
    listener: *mut holepunch_listener_t,
    error: *mut *mut holepunch_error_t,
) -> i32 {
    // SAFETY: the handle is NULL or alive and `error` NULL or writable, as the header asks.
    unsafe {
        guard::call(listener, error, |listener| {
            listener.inner.close();
            Ok(())
        })
    }
}

/// Closes the listener, if it is not, and frees it. Calls on it must have returned. NULL is ignored.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn holepunch_listener_free(listener: *mut holepunch_listener_t) {
    // SAFETY: NULL or alive and not used again, as the header asks.
    unsafe { guard::free(listener, |listener| listener.inner.close()) }
}
