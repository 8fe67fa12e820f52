//! The stream handle: bytes to and from one peer.

use std::{
    os::fd::{AsFd, AsRawFd, IntoRawFd as _},
    slice,
};

use holepunch_core::{Error, ErrorKind, Result, Stream, Wait};

use crate::{
    cancel::holepunch_cancel_t,
    connection::{holepunch_path_t, microseconds, write_path},
    deadline,
    error::holepunch_error_t,
    guard::{self, Handle, Out, Poison},
    holepunch_socket_t,
    slot::Slot,
};

/// More is never received at once, whatever there is room for, in bytes.
const MOST_AT_ONCE: usize = 1 << 24;

/// No slice of memory is longer (Rust's own limit), in bytes.
const LONGEST: usize = isize::MAX as usize;

/// A direct path to one peer that carries a stream of bytes each way, complete and in order.
pub struct holepunch_stream_t {
    /// Gone once the program has the socket.
    inner: Slot<Stream>,
    poison: Poison,
}

impl holepunch_stream_t {
    pub(crate) fn new(inner: Stream) -> Self {
        Self { inner: Slot::new(inner, Self::NAME), poison: Poison::default() }
    }

    fn close(&self) {
        if let Ok(stream) = self.inner.get() {
            stream.close();
        }
    }
}

impl Handle for holepunch_stream_t {
    const NAME: &'static str = "stream";

    fn poison(&self) -> &Poison {
        &self.poison
    }
}

/// Sends some of the bytes, as many as the system takes, and writes how many to *sent; 0 only for none.
///
/// Waits while the system's buffer is full. data stays the caller's; NULL only with length 0. cancel may be NULL.
/// Never raises SIGPIPE. That bytes were sent does not mean that they arrive.
///
/// Errors: HOLEPUNCH_ERROR_INVALID_ARGUMENT; HOLEPUNCH_ERROR_TIMEOUT, not one byte could be sent;
/// HOLEPUNCH_ERROR_CANCELLED; HOLEPUNCH_ERROR_CLOSED, also after holepunch_stream_shutdown();
/// HOLEPUNCH_ERROR_LOST; HOLEPUNCH_ERROR_FORKED; HOLEPUNCH_ERROR_IO.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn holepunch_stream_send(
    stream: *mut holepunch_stream_t,
    data: *const u8,
    length: usize,
    sent: *mut usize,
    timeout_ms: i64,
    cancel: *mut holepunch_cancel_t,
    error: *mut *mut holepunch_error_t,
) -> i32 {
    // SAFETY: every pointer is NULL or what the header asks for.
    unsafe {
        guard::call(stream, error, |stream| {
            let out = Out::new(sent, "sent")?;
            let (bytes, wait) = (bytes(data, length)?, deadline::wait(timeout_ms, cancel)?);
            out.set(stream.inner.get()?.send(bytes, wait)?);
            Ok(())
        })
    }
}

/// Sends all of the bytes. Otherwise as holepunch_stream_send(); after a failure it is not known how many were sent.
///
/// Errors: those of holepunch_stream_send().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn holepunch_stream_send_all(
    stream: *mut holepunch_stream_t,
    data: *const u8,
    length: usize,
    timeout_ms: i64,
    cancel: *mut holepunch_cancel_t,
    error: *mut *mut holepunch_error_t,
) -> i32 {
    // SAFETY: every pointer is NULL or what the header asks for.
    unsafe {
        guard::call(stream, error, |stream| {
            let (bytes, wait): (_, Wait) = (bytes(data, length)?, deadline::wait(timeout_ms, cancel)?);
            stream.inner.get()?.send_all(bytes, wait)
        })
    }
}

/// Waits for bytes, writes some to the buffer, and how many to *length; 0 at the end of the peer's data.
///
/// buffer stays the caller's; NULL only with capacity 0, which gives 0. cancel may be NULL.
///
/// Errors: HOLEPUNCH_ERROR_INVALID_ARGUMENT; HOLEPUNCH_ERROR_TIMEOUT; HOLEPUNCH_ERROR_CANCELLED;
/// HOLEPUNCH_ERROR_CLOSED, this side has closed; HOLEPUNCH_ERROR_LOST, the peer has broken the connection off or
/// answers no more; HOLEPUNCH_ERROR_FORKED; HOLEPUNCH_ERROR_IO.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn holepunch_stream_recv(
    stream: *mut holepunch_stream_t,
    buffer: *mut u8,
    capacity: usize,
    length: *mut usize,
    timeout_ms: i64,
    cancel: *mut holepunch_cancel_t,
    error: *mut *mut holepunch_error_t,
) -> i32 {
    // SAFETY: every pointer is NULL or what the header asks for.
    unsafe {
        guard::call(stream, error, |stream| {
            let out = Out::new(length, "length")?;
            let buffer = guard::buffer(buffer, capacity, MOST_AT_ONCE)?;
            let wait = deadline::wait(timeout_ms, cancel)?;
            out.set(stream.inner.get()?.recv(buffer, wait)?);
            Ok(())
        })
    }
}

/// Ends this side's data: the peer receives what was sent, then the end. Receiving goes on. Does not block.
///
/// Errors: HOLEPUNCH_ERROR_INVALID_ARGUMENT, stream is NULL; HOLEPUNCH_ERROR_CLOSED; HOLEPUNCH_ERROR_LOST;
/// HOLEPUNCH_ERROR_FORKED; HOLEPUNCH_ERROR_IO.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn holepunch_stream_shutdown(
    stream: *mut holepunch_stream_t,
    error: *mut *mut holepunch_error_t,
) -> i32 {
    // SAFETY: the handle is NULL or alive and `error` NULL or writable, as the header asks.
    unsafe { guard::call(stream, error, |stream| stream.inner.get()?.shutdown_write()) }
}

/// Tells what is known of the path. Set path->size first.
///
/// The struct stays the caller's. The texts within it end with NUL. packets_sent counts the connects that were
/// attempted.
///
/// Errors: HOLEPUNCH_ERROR_INVALID_ARGUMENT, stream or path is NULL, or path->size cannot be right;
/// HOLEPUNCH_ERROR_CLOSED, the socket was given away.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn holepunch_stream_path(
    stream: *mut holepunch_stream_t,
    path: *mut holepunch_path_t,
    error: *mut *mut holepunch_error_t,
) -> i32 {
    // SAFETY: every pointer is NULL or what the header asks for.
    unsafe { guard::call(stream, error, |stream| write_path(&stream.inner.get()?.path(), path)) }
}

/// Gives the smoothed round-trip time to the peer, in microseconds, as the system measures it.
///
/// Errors: HOLEPUNCH_ERROR_INVALID_ARGUMENT, stream or rtt_us is NULL; HOLEPUNCH_ERROR_CLOSED, the socket was given
/// away.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn holepunch_stream_rtt(
    stream: *mut holepunch_stream_t,
    rtt_us: *mut u64,
    error: *mut *mut holepunch_error_t,
) -> i32 {
    // SAFETY: every pointer is NULL or what the header asks for.
    unsafe {
        guard::call(stream, error, |stream| {
            let out = Out::new(rtt_us, "rtt_us")?;
            out.set(microseconds(stream.inner.get()?.rtt()));
            Ok(())
        })
    }
}

/// Gives the stream's socket, to wait until bytes may be received or sent.
///
/// Only for poll(), select(), epoll and their like. It stays the stream's: never read from it, never close it, and
/// forget it before holepunch_stream_free().
///
/// Errors: HOLEPUNCH_ERROR_INVALID_ARGUMENT, stream or fd is NULL; HOLEPUNCH_ERROR_CLOSED, the socket was given away.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn holepunch_stream_fd(
    stream: *mut holepunch_stream_t,
    fd: *mut holepunch_socket_t,
    error: *mut *mut holepunch_error_t,
) -> i32 {
    // SAFETY: every pointer is NULL or what the header asks for.
    unsafe {
        guard::call(stream, error, |stream| {
            let out = Out::new(fd, "fd")?;
            out.set(stream.inner.get()?.as_fd().as_raw_fd());
            Ok(())
        })
    }
}

/// Gives the stream's socket away: a plain TCP socket of the system's, connected and blocking, with nothing of this
/// library on it. It is the caller's, who closes it; it outlives the endpoint.
///
/// Calls on the stream must have returned. Every later one but holepunch_stream_free(), which must follow, returns
/// HOLEPUNCH_ERROR_CLOSED.
///
/// Errors: HOLEPUNCH_ERROR_INVALID_ARGUMENT, stream or socket is NULL, or a call has not returned;
/// HOLEPUNCH_ERROR_CLOSED; HOLEPUNCH_ERROR_FORKED; HOLEPUNCH_ERROR_IO.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn holepunch_stream_into_socket(
    stream: *mut holepunch_stream_t,
    socket: *mut holepunch_socket_t,
    error: *mut *mut holepunch_error_t,
) -> i32 {
    // SAFETY: every pointer is NULL or what the header asks for.
    unsafe {
        guard::call(stream, error, |stream| {
            let out = Out::new(socket, "socket")?;
            out.set(stream.inner.take()?.into_socket()?.into_raw_fd());
            Ok(())
        })
    }
}

/// Closes the stream: the peer receives what was sent, then the end, and blocked calls return HOLEPUNCH_ERROR_CLOSED
/// within 100 ms. From any thread, at any time; closing again changes nothing.
///
/// Errors: HOLEPUNCH_ERROR_INVALID_ARGUMENT, stream is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn holepunch_stream_close(
    stream: *mut holepunch_stream_t,
    error: *mut *mut holepunch_error_t,
) -> i32 {
    // SAFETY: the handle is NULL or alive and `error` NULL or writable, as the header asks.
    unsafe {
        guard::call(stream, error, |stream| {
            stream.close();
            Ok(())
        })
    }
}

/// Closes the stream, if it is not, and frees it. Calls on it must have returned. NULL is ignored. A socket that was
/// given away stays.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn holepunch_stream_free(stream: *mut holepunch_stream_t) {
    // SAFETY: NULL or alive and not used again, as the header asks.
    unsafe { guard::free(stream, holepunch_stream_t::close) }
}

/// What the caller sends.
unsafe fn bytes<'a>(data: *const u8, length: usize) -> Result<&'a [u8]> {
    match (data.is_null(), length) {
        (true, 0) => Ok(&[]),
        (true, _) => Err(guard::null("data")),
        (false, _) if length > LONGEST => {
            Err(Error::new(ErrorKind::InvalidArgument, format!("there cannot be {length} bytes")))
        }
        // SAFETY: the caller says that there are so many bytes, and not more than can be.
        (false, _) => Ok(unsafe { slice::from_raw_parts(data, length) }),
    }
}
