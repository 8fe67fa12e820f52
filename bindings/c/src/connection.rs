//! The connection handle: datagrams to and from one peer.

use std::{
    ffi::c_char,
    mem::{MaybeUninit, offset_of, size_of},
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd, IntoRawFd as _},
    slice,
    time::Duration,
};

use holepunch_core::{Connection, Error, ErrorKind, Result, peer::Path};
use libc::{sockaddr_in, sockaddr_in6, sockaddr_storage};

use crate::{
    cancel::holepunch_cancel_t,
    deadline,
    error::holepunch_error_t,
    guard::{self, Handle, Out, Poison},
    holepunch_socket_t,
    sized_struct::check_size,
    slot::Slot,
};

/// The largest datagram that can be sent, in bytes.
pub const HOLEPUNCH_MAX_DATAGRAM: usize = 1200;

const _: () = assert!(HOLEPUNCH_MAX_DATAGRAM == holepunch_core::config::MAX_DATAGRAM);

/// No datagram is longer, so that a buffer's end beyond this is never needed, in bytes.
const LONGEST_DATAGRAM: usize = 65_536;

/// The smallest size of holepunch_path_t that was ever right: that of the first release.
const FIRST_PATH_SIZE: usize = offset_of!(holepunch_path_t, sockets) + size_of::<u32>();

/// A direct path to one peer that carries datagrams: each arrives whole or not at all, in any order.
pub struct holepunch_connection_t {
    /// Gone once the program has the socket.
    inner: Slot<Connection>,
    poison: Poison,
}

impl holepunch_connection_t {
    pub(crate) fn new(inner: Connection) -> Self {
        Self { inner: Slot::new(inner, Self::NAME), poison: Poison::default() }
    }

    fn close(&self) {
        if let Ok(connection) = self.inner.get() {
            connection.close();
        }
    }
}

impl Handle for holepunch_connection_t {
    const NAME: &'static str = "connection";

    fn poison(&self) -> &Poison {
        &self.poison
    }
}

/// What is known of a connection's path. Set size before the call; the rest is written.
#[repr(C)]
pub struct holepunch_path_t {
    /// sizeof(holepunch_path_t), as the caller's compiler sees it; never changed by the library.
    pub size: usize,
    /// Our address and port. The address is unspecified where it is not known.
    pub local: sockaddr_storage,
    /// The peer's address and port.
    pub remote: sockaddr_storage,
    /// How the peer's address was learned (RFC 8839): "host", "srflx", "prflx" or "relay".
    pub kind: [c_char; 16],
    /// Which way the path was found, such as "udp_simultaneous" or "tcp_simultaneous_open".
    pub strategy: [c_char; 32],
    /// The round-trip time of the check or the connect that found the path, in microseconds.
    pub rtt_us: u64,
    /// From the introduction, as this side learned of it, to the connection, in microseconds.
    pub since_introduction_us: u64,
    /// Datagrams that this side sent to the peer until the path was found, or connects that it attempted.
    pub packets_sent: u32,
    /// Sockets that this side used.
    pub sockets: u32,
}

/// Sends one datagram of at most HOLEPUNCH_MAX_DATAGRAM bytes.
///
/// Does not wait for the peer, only while the system's buffer is full; a datagram may be lost on its way. data stays
/// the caller's; NULL only with length 0. Never raises SIGPIPE.
///
/// Errors: HOLEPUNCH_ERROR_INVALID_ARGUMENT, also where it would wait in a callback of the endpoint;
/// HOLEPUNCH_ERROR_MESSAGE_TOO_LARGE; HOLEPUNCH_ERROR_CLOSED, also after holepunch_connection_end();
/// HOLEPUNCH_ERROR_LOST; HOLEPUNCH_ERROR_FORKED; HOLEPUNCH_ERROR_IO.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn holepunch_connection_send(
    connection: *mut holepunch_connection_t,
    data: *const u8,
    length: usize,
    error: *mut *mut holepunch_error_t,
) -> i32 {
    // SAFETY: every pointer is NULL or what the header asks for.
    unsafe {
        guard::call(connection, error, |connection| {
            let bytes = datagram(data, length)?;
            connection.inner.get()?.send(bytes)
        })
    }
}

/// As holepunch_connection_send(), but waits for at most timeout_ms while the system's buffer is full.
///
/// Where it fails the datagram was not sent. cancel may be NULL.
///
/// Errors: HOLEPUNCH_ERROR_TIMEOUT; HOLEPUNCH_ERROR_CANCELLED; those of holepunch_connection_send().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn holepunch_connection_send_within(
    connection: *mut holepunch_connection_t,
    data: *const u8,
    length: usize,
    timeout_ms: i64,
    cancel: *mut holepunch_cancel_t,
    error: *mut *mut holepunch_error_t,
) -> i32 {
    // SAFETY: every pointer is NULL or what the header asks for.
    unsafe {
        guard::call(connection, error, |connection| {
            let bytes = datagram(data, length)?;
            let wait = deadline::wait(timeout_ms, cancel)?;
            connection.inner.get()?.send_within(bytes, wait)
        })
    }
}

/// The bytes that are to be sent.
///
/// # Safety
/// There are as many as `length` says, or `data` is NULL.
unsafe fn datagram<'a>(data: *const u8, length: usize) -> Result<&'a [u8]> {
    match (data.is_null(), length) {
        (true, 0) => Ok(&[]),
        (true, _) => Err(guard::null("data")),
        (false, _) if length > HOLEPUNCH_MAX_DATAGRAM => {
            let message = format!("{length} bytes are more than one datagram carries");
            Err(Error::new(ErrorKind::MessageTooLarge, message))
        }
        // SAFETY: the caller's promise is the one asked for.
        (false, _) => Ok(unsafe { slice::from_raw_parts(data, length) }),
    }
}

/// Waits for one datagram and writes it to the buffer, its length, which may be 0, to *length.
///
/// Datagrams have at most HOLEPUNCH_MAX_DATAGRAM bytes; one that is longer than the buffer is lost, with
/// HOLEPUNCH_ERROR_MESSAGE_TOO_LARGE. What came before the peer's end is received first. buffer stays the caller's;
/// NULL only with capacity 0. What it holds after a failure is undefined. cancel may be NULL.
///
/// Errors: HOLEPUNCH_ERROR_INVALID_ARGUMENT; HOLEPUNCH_ERROR_TIMEOUT; HOLEPUNCH_ERROR_CANCELLED;
/// HOLEPUNCH_ERROR_CLOSED, the peer has ended its data or this side has closed; HOLEPUNCH_ERROR_LOST;
/// HOLEPUNCH_ERROR_MESSAGE_TOO_LARGE; HOLEPUNCH_ERROR_FORKED; HOLEPUNCH_ERROR_IO.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn holepunch_connection_recv(
    connection: *mut holepunch_connection_t,
    buffer: *mut u8,
    capacity: usize,
    length: *mut usize,
    timeout_ms: i64,
    cancel: *mut holepunch_cancel_t,
    error: *mut *mut holepunch_error_t,
) -> i32 {
    // SAFETY: every pointer is NULL or what the header asks for.
    unsafe {
        guard::call(connection, error, |connection| {
            let out = Out::new(length, "length")?;
            let buffer = guard::buffer(buffer, capacity, LONGEST_DATAGRAM)?;
            let wait = deadline::wait(timeout_ms, cancel)?;
            out.set(connection.inner.get()?.recv(buffer, wait)?);
            Ok(())
        })
    }
}

/// Announces the end of this side's data and waits until the peer has acknowledged it, for at most 3 seconds.
///
/// Receiving goes on until the peer ends too. cancel may be NULL.
///
/// Errors: HOLEPUNCH_ERROR_INVALID_ARGUMENT, HOLEPUNCH_ERROR_TIMEOUT, HOLEPUNCH_ERROR_CANCELLED,
/// HOLEPUNCH_ERROR_CLOSED, HOLEPUNCH_ERROR_LOST; HOLEPUNCH_ERROR_UNSUPPORTED, the peer has taken its socket
/// (holepunch_connection_into_socket()) and hears of no end.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn holepunch_connection_end(
    connection: *mut holepunch_connection_t,
    timeout_ms: i64,
    cancel: *mut holepunch_cancel_t,
    error: *mut *mut holepunch_error_t,
) -> i32 {
    // SAFETY: every pointer is NULL or what the header asks for.
    unsafe {
        guard::call(connection, error, |connection| connection.inner.get()?.end(deadline::wait(timeout_ms, cancel)?))
    }
}

/// Tells what is known of the path. Set path->size first.
///
/// The struct stays the caller's. The texts within it end with NUL.
///
/// Errors: HOLEPUNCH_ERROR_INVALID_ARGUMENT, connection or path is NULL, or path->size cannot be right.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn holepunch_connection_path(
    connection: *mut holepunch_connection_t,
    path: *mut holepunch_path_t,
    error: *mut *mut holepunch_error_t,
) -> i32 {
    // SAFETY: every pointer is NULL or what the header asks for.
    unsafe { guard::call(connection, error, |connection| write_path(&connection.inner.get()?.path(), path)) }
}

/// Gives the smoothed round-trip time to the peer, in microseconds, as the latest checks showed it.
///
/// Errors: HOLEPUNCH_ERROR_INVALID_ARGUMENT, connection or rtt_us is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn holepunch_connection_rtt(
    connection: *mut holepunch_connection_t,
    rtt_us: *mut u64,
    error: *mut *mut holepunch_error_t,
) -> i32 {
    // SAFETY: every pointer is NULL or what the header asks for.
    unsafe {
        guard::call(connection, error, |connection| {
            let out = Out::new(rtt_us, "rtt_us")?;
            out.set(microseconds(connection.inner.get()?.rtt()));
            Ok(())
        })
    }
}

/// Gives the connection's socket, to wait until a datagram may be there.
///
/// Only for poll(), select(), epoll and their like; readable may be a false alarm, and then
/// holepunch_connection_recv() with timeout_ms 0 returns HOLEPUNCH_ERROR_TIMEOUT. It stays the connection's: never
/// read from it, never close it, and forget it before holepunch_connection_free().
///
/// Errors: HOLEPUNCH_ERROR_INVALID_ARGUMENT, connection or fd is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn holepunch_connection_fd(
    connection: *mut holepunch_connection_t,
    fd: *mut holepunch_socket_t,
    error: *mut *mut holepunch_error_t,
) -> i32 {
    // SAFETY: every pointer is NULL or what the header asks for.
    unsafe {
        guard::call(connection, error, |connection| {
            let out = Out::new(fd, "fd")?;
            out.set(connection.inner.get()?.as_fd().as_raw_fd());
            Ok(())
        })
    }
}

/// Gives the connection's socket away: a plain UDP socket of the system's, connected to the peer and blocking, that
/// holds nothing but data and has nothing of this library on it. It is the caller's, who closes it; it outlives the
/// endpoint.
///
/// Blocks for a round trip, in which the peer learns that it must send no checks any more; where it does not answer,
/// for 0.2 to 4 seconds, and then a peer that never heard of it may send checks for 30 seconds more. What had come and
/// was not received is in the socket; recvfrom() tells this side's own address as the source of these datagrams. From
/// then on nobody keeps NAT bindings alive, notices when the peer is gone, or tells it of the end. The peer may do the
/// same, or go on with its connection. SO_REUSEADDR must stay set: connections of one listener share its port.
///
/// Calls on the connection must have returned. Every later one but holepunch_connection_free(), which must follow,
/// returns HOLEPUNCH_ERROR_CLOSED; also after a failure, which closes the connection, unless it is
/// HOLEPUNCH_ERROR_INVALID_ARGUMENT. Closing the endpoint from another thread ends the call.
///
/// Errors: HOLEPUNCH_ERROR_INVALID_ARGUMENT, connection or socket is NULL, or a call has not returned;
/// HOLEPUNCH_ERROR_CLOSED, either side has ended or closed; HOLEPUNCH_ERROR_LOST; HOLEPUNCH_ERROR_UNSUPPORTED, on
/// systems other than Linux; HOLEPUNCH_ERROR_FORKED; HOLEPUNCH_ERROR_IO.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn holepunch_connection_into_socket(
    connection: *mut holepunch_connection_t,
    socket: *mut holepunch_socket_t,
    error: *mut *mut holepunch_error_t,
) -> i32 {
    // SAFETY: every pointer is NULL or what the header asks for.
    unsafe {
        guard::call(connection, error, |connection| {
            let out = Out::new(socket, "socket")?;
            out.set(connection.inner.take()?.into_socket()?.into_raw_fd());
            Ok(())
        })
    }
}

/// Closes the connection: the peer is told in the background, and blocked calls return HOLEPUNCH_ERROR_CLOSED within
/// 100 ms. From any thread, at any time; closing again changes nothing.
///
/// Errors: HOLEPUNCH_ERROR_INVALID_ARGUMENT, connection is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn holepunch_connection_close(
    connection: *mut holepunch_connection_t,
    error: *mut *mut holepunch_error_t,
) -> i32 {
    // SAFETY: the handle is NULL or alive and `error` NULL or writable, as the header asks.
    unsafe {
        guard::call(connection, error, |connection| {
            connection.close();
            Ok(())
        })
    }
}

/// Closes the connection, if it is not, and frees it. Calls on it must have returned. NULL is ignored.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn holepunch_connection_free(connection: *mut holepunch_connection_t) {
    // SAFETY: NULL or alive and not used again, as the header asks.
    unsafe { guard::free(connection, |connection| connection.close()) }
}

/// Writes as much of the path as the caller's struct has room for; what it has beyond that becomes zero.
pub(crate) unsafe fn write_path(path: &Path, out: *mut holepunch_path_t) -> Result<()> {
    if out.is_null() {
        return Err(guard::null("path"));
    }
    // SAFETY: it is not NULL, and every release starts with the size.
    let size = unsafe { (&raw const (*out).size).read() };
    check_size(size, FIRST_PATH_SIZE, "path")?;
    let filled = holepunch_path_t {
        size,
        local: storage(path.local),
        remote: storage(path.remote),
        kind: c_array(path.kind.name()),
        strategy: c_array(path.strategy.name()),
        rtt_us: microseconds(path.rtt),
        since_introduction_us: microseconds(path.since_introduction),
        packets_sent: path.packets_sent,
        sockets: path.sockets,
    };
    let known = size.min(size_of::<holepunch_path_t>());
    // SAFETY: the caller says that there are `size` bytes; the size itself is written back unchanged.
    unsafe {
        let bytes = out.cast::<u8>();
        (&raw const filled).cast::<u8>().copy_to_nonoverlapping(bytes, known);
        bytes.add(known).write_bytes(0, size - known);
    }
    Ok(())
}

/// A text as a fixed array that ends with NUL, cut where it is too long.
fn c_array<const N: usize>(text: &str) -> [c_char; N] {
    let mut array = [0; N];
    for (to, from) in array.iter_mut().take(N - 1).zip(text.bytes()) {
        *to = from.cast_signed() as c_char;
    }
    array
}

pub(crate) fn microseconds(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// An address as the system's calls take it.
fn storage(address: SocketAddr) -> sockaddr_storage {
    let mut storage = MaybeUninit::<sockaddr_storage>::zeroed();
    let start = storage.as_mut_ptr();
    match address {
        SocketAddr::V4(v4) => {
            // SAFETY: the storage has room and alignment for every kind of address, and zero is valid for its fields.
            let to = unsafe { &mut *start.cast::<sockaddr_in>() };
            to.sin_family = libc::AF_INET as libc::sa_family_t;
            to.sin_port = v4.port().to_be();
            to.sin_addr.s_addr = u32::from_ne_bytes(v4.ip().octets());
        }
        SocketAddr::V6(v6) => {
            // SAFETY: as above.
            let to = unsafe { &mut *start.cast::<sockaddr_in6>() };
            to.sin6_family = libc::AF_INET6 as libc::sa_family_t;
            to.sin6_port = v6.port().to_be();
            to.sin6_flowinfo = v6.flowinfo().to_be();
            to.sin6_addr.s6_addr = v6.ip().octets();
            to.sin6_scope_id = v6.scope_id();
        }
    }
    // SAFETY: zero is valid for every field that was not written.
    unsafe { storage.assume_init() }
}
