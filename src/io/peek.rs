//! Answers the peer of a connection that the program is not reading, and leaves the data where it is.
//!
//! The receive queue is peeked at: with `SO_PEEK_OFF` each peek sees the datagram after the last one peeked at, and each
//! real read moves that place back by what it took (Linux since 4.8 for UDP; seen: empty and truncated datagrams are
//! stepped over rightly when the real length is asked for). Messages of the peer's are handed to the endpoint;
//! that a later read meets them again is harmless. A read during the peeking may move the place wrongly, so after such a
//! one peeking starts again at the head of the queue.
//!
//! Data that nobody reads must not keep the peer's checks out: when the queue is more than half full its oldest datagrams
//! are dropped. Datagrams may be lost; the connection may not.
//!
//! Where there is no `SO_PEEK_OFF` only the head is seen: messages there are taken out, and data ends the look.

use std::{io, net::SocketAddr};

use socket2::Socket;

use super::link::{Link, Taken};
#[cfg(target_os = "linux")]
use super::{control::set_option, link::as_uninit};
use crate::{machine::Instant, wire::demux::is_stun_with_fingerprint};

/// Looks at one connection's unread datagrams.
#[derive(Debug)]
pub(super) struct Look {
    /// The number of reads when last looked.
    reads: u64,
    /// When to look again; the socket is not watched until then.
    pub(super) due: Option<Instant>,
}

/// What a look found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// The program reads.
    Reader,
    /// Nothing that was not seen before.
    Nothing,
    /// Something new.
    New,
    /// So much that some was dropped.
    Flood,
}

impl Look {
    pub(super) fn new() -> Self {
        Self { reads: 0, due: None }
    }

    /// Looks at what is new, unless the program is reading, and passes the messages among it to `message`.
    pub(super) fn look(&mut self, link: &Link, buffer: &mut [u8], message: impl FnMut(SocketAddr, &[u8])) -> Found {
        let (reads, reading) = link.readers();
        let read_since = reads != self.reads;
        self.reads = reads;
        if (reading || read_since) && !link.is_closed() {
            return Found::Reader;
        }
        if link.is_closed() {
            return empty(link, buffer, message);
        }
        let found = peek(link, buffer, message);
        if found == Found::Nothing {
            return found;
        }
        if link.readers() != (reads, reading) {
            restart(link.socket());
        }
        if relieve(link, buffer) { Found::Flood } else { found }
    }
}

/// Peeks at every datagram that was not peeked at before.
#[cfg(target_os = "linux")]
fn peek(link: &Link, buffer: &mut [u8], mut message: impl FnMut(SocketAddr, &[u8])) -> Found {
    let mut found = Found::Nothing;
    loop {
        let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT | libc::MSG_TRUNC;
        match link.socket().recv_from_with_flags(as_uninit(buffer), flags) {
            Ok((length, from)) => {
                let Some(from) = from.as_socket() else { return found };
                found = Found::New;
                if let Some(bytes) = buffer.get(..length)
                    && is_stun_with_fingerprint(bytes)
                {
                    message(from, bytes);
                }
            }
            Err(error) if super::fault::is_loss(&error) => {}
            Err(_) => return found,
        }
    }
}

/// Takes messages from the head of the queue until there is data.
#[cfg(not(target_os = "linux"))]
fn peek(link: &Link, buffer: &mut [u8], mut message: impl FnMut(SocketAddr, &[u8])) -> Found {
    let mut found = Found::Nothing;
    loop {
        let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
        let head = link.socket().recv_from_with_flags(super::link::as_uninit(buffer), flags);
        match head {
            Ok((length, _)) if buffer.get(..length).is_some_and(is_stun_with_fingerprint) => {
                found = Found::New;
                match link.take(buffer, libc::MSG_DONTWAIT) {
                    Ok(Taken::Other(from, length)) => message(from, &buffer[..length]),
                    // A read of the program's came between.
                    Ok(Taken::Data(length)) if length <= buffer.len() => link.push(buffer[..length].to_vec()),
                    Ok(_) | Err(_) => return found,
                }
            }
            Ok(_) => return found,
            Err(error) if super::fault::is_loss(&error) => {}
            Err(_) => return found,
        }
    }
}

/// Has peeks go through the queue instead of seeing its head only.
#[cfg(target_os = "linux")]
pub(super) fn prepare(socket: &Socket) -> io::Result<()> {
    set_option(socket, libc::SOL_SOCKET, libc::SO_PEEK_OFF, 0)
}

#[cfg(not(target_os = "linux"))]
pub(super) fn prepare(_socket: &Socket) -> io::Result<()> {
    Ok(())
}

/// Has the next peek see the head of the queue.
fn restart(socket: &Socket) {
    // It worked when the socket was opened.
    let _ = prepare(socket);
}

/// Takes everything out of a connection that the program has closed.
fn empty(link: &Link, buffer: &mut [u8], mut message: impl FnMut(SocketAddr, &[u8])) -> Found {
    let mut found = Found::Nothing;
    while let Ok(taken) = link.take(buffer, libc::MSG_DONTWAIT) {
        match taken {
            Taken::Other(from, length) => message(from, &buffer[..length]),
            Taken::Data(_) | Taken::Nothing => {}
            Taken::End => return found,
        }
        found = Found::New;
    }
    found
}

/// Drops the oldest datagrams while the queue is more than half full.
fn relieve(link: &Link, buffer: &mut [u8]) -> bool {
    let mut dropped = false;
    while is_half_full(link.socket()) {
        // The system counts the memory as free only when the reader's own part of the queue is used up.
        for _ in 0..16 {
            if link.take(buffer, libc::MSG_DONTWAIT).is_err() {
                return dropped;
            }
            dropped = true;
        }
    }
    dropped
}

/// Whether the receive queue holds more than half of what it may.
#[cfg(target_os = "linux")]
fn is_half_full(socket: &Socket) -> bool {
    use std::os::fd::AsRawFd as _;
    // `SK_MEMINFO_RMEM_ALLOC` and `SK_MEMINFO_RCVBUF` are the first two of nine numbers.
    let mut info = [0_u32; 9];
    let mut length = size_of_val(&info) as libc::socklen_t;
    // SAFETY: the array is live, writable and as long as told.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    let [used, room, ..] = info;
    result == 0 && used > room / 2
}

#[cfg(not(target_os = "linux"))]
fn is_half_full(_socket: &Socket) -> bool {
    false
}
