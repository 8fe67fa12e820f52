//! The endpoint handle: makes listeners and connections, and drives them.

use std::{ffi::c_char, os::fd::AsFd, os::fd::AsRawFd, sync::Arc, time::Duration};

use holepunch_core::Endpoint;

use crate::{
    cancel::holepunch_cancel_t,
    config::{self, Log, holepunch_config_t},
    connection::holepunch_connection_t,
    deadline,
    error::holepunch_error_t,
    guard::{self, Handle, Out, Poison},
    holepunch_socket_t,
    listener::holepunch_listener_t,
    options::{self, holepunch_connect_options_t, holepunch_listen_options_t},
    sized_struct,
    stream::holepunch_stream_t,
};

/// As a time limit: as long as it takes.
pub const HOLEPUNCH_FOREVER: i64 = -1;

/// Makes listeners and connections, and drives them: by a thread of its own, or by the program (see no_thread).
pub struct holepunch_endpoint_t {
    inner: Endpoint,
    log: Arc<Log>,
    /// The process that made it.
    process: u32,
    poison: Poison,
}

impl holepunch_endpoint_t {
    pub(crate) const fn inner(&self) -> &Endpoint {
        &self.inner
    }
}

impl Handle for holepunch_endpoint_t {
    const NAME: &'static str = "endpoint";

    fn poison(&self) -> &Poison {
        &self.poison
    }
}

/// Makes an endpoint.
///
/// config may be NULL: all defaults. On success *endpoint belongs to the caller, who frees it with
/// holepunch_endpoint_free(). Does not block: it binds nothing and asks nobody yet.
///
/// Errors: HOLEPUNCH_ERROR_INVALID_ARGUMENT, the message says which field; HOLEPUNCH_ERROR_UNSUPPORTED, the config
/// has fields that this library does not know; HOLEPUNCH_ERROR_IO, no descriptors or threads left.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn holepunch_endpoint_new(
    config: *const holepunch_config_t,
    endpoint: *mut *mut holepunch_endpoint_t,
    error: *mut *mut holepunch_error_t,
) -> i32 {
    // SAFETY: every pointer is NULL or what the header asks for.
    unsafe {
        guard::call_free_standing(error, || {
            let out = Out::new(endpoint, "endpoint")?;
            let (builder, log) = config::read(config)?;
            let inner = builder.build()?;
            let process = std::process::id();
            out.set(guard::into_raw(holepunch_endpoint_t { inner, log, process, poison: Poison::default() }));
            Ok(())
        })
    }
}

/// Registers a listener and returns when a server has the registration.
///
/// name is 1 to 64 of the characters a-z, 0-9, '.', '_' and '-'; NULL for a listener that is found by its public
/// address. options may be NULL: all defaults; cancel may be NULL. On success *listener belongs to the caller, who
/// frees it with holepunch_listener_free().
///
/// Errors: HOLEPUNCH_ERROR_INVALID_ARGUMENT, HOLEPUNCH_ERROR_ADDRESS_IN_USE, HOLEPUNCH_ERROR_UNRESOLVABLE,
/// HOLEPUNCH_ERROR_SERVER_UNREACHABLE, HOLEPUNCH_ERROR_SERVER_SILENT, HOLEPUNCH_ERROR_SERVER_REFUSED,
/// HOLEPUNCH_ERROR_NAME_TAKEN, HOLEPUNCH_ERROR_TIMEOUT, HOLEPUNCH_ERROR_CANCELLED, HOLEPUNCH_ERROR_CLOSED;
/// HOLEPUNCH_ERROR_UNSUPPORTED, the options have fields that this library does not know.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn holepunch_endpoint_listen(
    endpoint: *mut holepunch_endpoint_t,
    name: *const c_char,
    options: *const holepunch_listen_options_t,
    cancel: *mut holepunch_cancel_t,
    listener: *mut *mut holepunch_listener_t,
    error: *mut *mut holepunch_error_t,
) -> i32 {
    // SAFETY: every pointer is NULL or what the header asks for.
    unsafe {
        guard::call(endpoint, error, |endpoint| {
            let out = Out::new(listener, "listener")?;
            let name = if name.is_null() { None } else { Some(guard::text(name, "name")?) };
            let options = sized_struct::read(options)?;
            let wait = deadline::wait(options.timeout_ms, cancel)?;
            let listener = endpoint.inner.listen(name, wait)?;
            out.set(guard::into_raw(holepunch_listener_t::new(listener)));
            Ok(())
        })
    }
}

/// Connects to a listener for a stream of bytes and returns when a direct path was found.
///
/// Otherwise as holepunch_endpoint_connect_datagram(). On success *stream belongs to the caller, who frees it with
/// holepunch_stream_free().
///
/// Errors: those of holepunch_endpoint_connect_datagram().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn holepunch_endpoint_connect(
    endpoint: *mut holepunch_endpoint_t,
    target: *const c_char,
    options: *const holepunch_connect_options_t,
    cancel: *mut holepunch_cancel_t,
    stream: *mut *mut holepunch_stream_t,
    error: *mut *mut holepunch_error_t,
) -> i32 {
    // SAFETY: every pointer is NULL or what the header asks for.
    unsafe {
        guard::call(endpoint, error, |endpoint| {
            let out = Out::new(stream, "stream")?;
            let target = guard::text(target, "target")?;
            let mut options = options::connect(options)?;
            if !cancel.is_null() {
                options = options.cancel(guard::share(cancel)?.inner());
            }
            let stream = endpoint.inner.connect(target, &options)?;
            out.set(guard::into_raw(holepunch_stream_t::new(stream)));
            Ok(())
        })
    }
}

/// Connects to a listener for datagrams and returns when a direct path was found.
///
/// target is the listener's name, or the public address of an unnamed one. options may be NULL: all defaults; cancel
/// may be NULL. On success *connection belongs to the caller, who frees it with holepunch_connection_free().
///
/// Errors: HOLEPUNCH_ERROR_INVALID_ARGUMENT, HOLEPUNCH_ERROR_ADDRESS_IN_USE, HOLEPUNCH_ERROR_UNRESOLVABLE,
/// HOLEPUNCH_ERROR_SERVER_UNREACHABLE, HOLEPUNCH_ERROR_SERVER_SILENT, HOLEPUNCH_ERROR_SERVER_REFUSED,
/// HOLEPUNCH_ERROR_NOT_FOUND, HOLEPUNCH_ERROR_AMBIGUOUS, HOLEPUNCH_ERROR_WRONG_SECRET,
/// HOLEPUNCH_ERROR_TRANSPORT_MISMATCH, HOLEPUNCH_ERROR_VERSION_MISMATCH, HOLEPUNCH_ERROR_NO_PATH,
/// HOLEPUNCH_ERROR_TIMEOUT, HOLEPUNCH_ERROR_CANCELLED, HOLEPUNCH_ERROR_CLOSED; HOLEPUNCH_ERROR_UNSUPPORTED, the options
/// have fields that this library does not know.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn holepunch_endpoint_connect_datagram(
    endpoint: *mut holepunch_endpoint_t,
    target: *const c_char,
    options: *const holepunch_connect_options_t,
    cancel: *mut holepunch_cancel_t,
    connection: *mut *mut holepunch_connection_t,
    error: *mut *mut holepunch_error_t,
) -> i32 {
    // SAFETY: every pointer is NULL or what the header asks for.
    unsafe {
        guard::call(endpoint, error, |endpoint| {
            let out = Out::new(connection, "connection")?;
            let target = guard::text(target, "target")?;
            let mut options = options::connect(options)?;
            if !cancel.is_null() {
                options = options.cancel(guard::share(cancel)?.inner());
            }
            let connection = endpoint.inner.connect_datagram(target, &options)?;
            out.set(guard::into_raw(holepunch_connection_t::new(connection)));
            Ok(())
        })
    }
}

/// Does everything that is due, without blocking. Needed only with no_thread; blocking calls do it themselves while
/// they block, and with a thread it does nothing.
///
/// Errors: HOLEPUNCH_ERROR_INVALID_ARGUMENT, endpoint is NULL; HOLEPUNCH_ERROR_FORKED; HOLEPUNCH_ERROR_IO.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn holepunch_endpoint_process(
    endpoint: *mut holepunch_endpoint_t,
    error: *mut *mut holepunch_error_t,
) -> i32 {
    // SAFETY: the handle is NULL or alive and `error` NULL or writable, as the header asks.
    unsafe { guard::call(endpoint, error, |endpoint| endpoint.inner.process()) }
}

/// Tells how long holepunch_endpoint_process() has nothing to do unless the endpoint's descriptor becomes readable.
///
/// On success *timeout_ms holds milliseconds, rounded up, or HOLEPUNCH_FOREVER; good as the timeout of poll(). Ask
/// again after every call on the endpoint or on what it made.
///
/// Errors: HOLEPUNCH_ERROR_INVALID_ARGUMENT, endpoint or timeout_ms is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn holepunch_endpoint_next_timeout_ms(
    endpoint: *mut holepunch_endpoint_t,
    timeout_ms: *mut i64,
    error: *mut *mut holepunch_error_t,
) -> i32 {
    // SAFETY: every pointer is NULL or what the header asks for.
    unsafe {
        guard::call(endpoint, error, |endpoint| {
            let out = Out::new(timeout_ms, "timeout_ms")?;
            out.set(endpoint.inner.next_timeout().map_or(HOLEPUNCH_FOREVER, milliseconds_up));
            Ok(())
        })
    }
}

/// Gives the descriptor that becomes readable when holepunch_endpoint_process() has something to do.
///
/// Needed only with no_thread, and only for poll(), select(), epoll and their like. It stays the endpoint's: never
/// read from it, never close it, and forget it before holepunch_endpoint_free().
///
/// Errors: HOLEPUNCH_ERROR_INVALID_ARGUMENT, endpoint or fd is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn holepunch_endpoint_fd(
    endpoint: *mut holepunch_endpoint_t,
    fd: *mut holepunch_socket_t,
    error: *mut *mut holepunch_error_t,
) -> i32 {
    // SAFETY: every pointer is NULL or what the header asks for.
    unsafe {
        guard::call(endpoint, error, |endpoint| {
            let out = Out::new(fd, "fd")?;
            out.set(endpoint.inner.as_fd().as_raw_fd());
            Ok(())
        })
    }
}

/// Closes the endpoint with its listeners and connections: blocked calls on any of them return
/// HOLEPUNCH_ERROR_CLOSED within 100 ms. From any thread, at any time; closing again changes nothing.
///
/// Does not block: peers and server are told in the background. The handles stay valid until each is freed.
///
/// Errors: HOLEPUNCH_ERROR_INVALID_ARGUMENT, endpoint is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn holepunch_endpoint_close(
    endpoint: *mut holepunch_endpoint_t,
    error: *mut *mut holepunch_error_t,
) -> i32 {
    // SAFETY: the handle is NULL or alive and `error` NULL or writable, as the header asks.
    unsafe {
        guard::call(endpoint, error, |endpoint| {
            endpoint.inner.close();
            Ok(())
        })
    }
}

/// Closes the endpoint, if it is not, and frees it. Calls on it must have returned. NULL is ignored.
///
/// Its listeners and connections are closed with it, and freed on their own, before or after. The log callback is
/// not called any more once this has returned; so it must not be called from within that callback.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn holepunch_endpoint_free(endpoint: *mut holepunch_endpoint_t) {
    // SAFETY: NULL or alive and not used again, as the header asks.
    unsafe {
        guard::free(endpoint, |endpoint| {
            endpoint.inner.close();
            // In a forked child nobody calls it, and a thread that was in it may be in the parent only.
            if endpoint.process == std::process::id() {
                endpoint.log.end();
            }
        });
    }
}

/// Whole milliseconds, never less than the time given.
fn milliseconds_up(time: Duration) -> i64 {
    i64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(i64::MAX)
}
