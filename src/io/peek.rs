//! Answers the peer of a connection that the program is not reading, and leaves the data where it is.
//!
//! The receive queue is peeked at: with `SO_PEEK_OFF` each peek sees the datagram after the last one peeked at, and each
//! real read moves that place back by what it took (Linux since 4.8 for UDP; seen: empty and truncated datagrams are
//! stepped over rightly when the real length is asked for). Messages of the peer's are handed to the endpoint. Those at the
//! head of the queue are taken out, for of a connection that is idle they would fill it; that a later read meets the others
//! again is harmless. A read during the peeking may move the place wrongly, so after such a one peeking starts again at
//! the head of the queue; while messages are taken out there is none.
//!
//! Data that nobody reads must not keep the peer's checks out. The queue is twice as large as the system's default
//! ([`prepare`]). When more than half of it is used, where other programs' sockets would be full, a filter in the system keeps
//! further data out ([`super::filter`]), and the oldest is dropped until a quarter of the queue is free for messages; the
//! filter goes when the program has read most of it. Datagrams may be lost; the connection may not.
//!
//! A program that reads is left alone as long as it would come to everything that waits within about a second.
//!
//! Where there is no `SO_PEEK_OFF` only the head is seen: messages there are taken out, and data ends the look.

use std::{io, net::SocketAddr};

use socket2::Socket;

#[cfg(target_os = "linux")]
use super::{
    control::{get_option, set_option},
    link::as_uninit,
};
use super::{
    filter,
    link::{Link, Taken},
};
use crate::{machine::Instant, wire::demux::is_stun_with_fingerprint};

/// The least that the system counts for one datagram in a queue, in bytes (832 was seen for one byte of data on Linux 6.18).
const DATAGRAM: u64 = 512;

/// Datagrams taken in one look at most: a peer that sends as fast as this reads must not hold the lock.
const ROUND: usize = 1024;

/// A reader keeps up when what waits is no more than so many times what it took since the last look.
const PATIENCE: u64 = 10;

/// Looks at one connection's unread datagrams.
#[derive(Debug)]
pub(super) struct Look {
    /// The number of reads when last looked.
    reads: u64,
    /// The number of sends when it was last left alone.
    pub(super) sends: u32,
    /// When it was looked at last; at first when it was opened.
    pub(super) last: Instant,
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
}

impl Look {
    pub(super) fn new(now: Instant) -> Self {
        Self { reads: 0, sends: 0, last: now, due: None }
    }

    /// Looks at what is new, unless the program is reading, and passes the messages among it to `message`.
    pub(super) fn look(&mut self, link: &Link, buffer: &mut [u8], mut message: impl FnMut(SocketAddr, &[u8])) -> Found {
        if link.is_closed() {
            return empty(link, buffer, message);
        }
        let (reads, reading) = link.readers();
        let taken = reads.saturating_sub(self.reads) + u64::from(reading);
        self.reads = reads;
        let fill = Fill::of(link.socket());
        if taken > 0 && !link.is_leaving() && u64::from(fill.used) / DATAGRAM <= taken * PATIENCE {
            return Found::Reader;
        }
        if fill.is_over_half() {
            keep_data_out(link, buffer, &mut message);
        }
        let found = peek(link, buffer, &mut message);
        if found == Found::New && link.readers() != (reads, reading) {
            restart(link.socket());
        }
        found
    }
}

/// Peeks at every datagram that was not peeked at before, and takes messages from the head of the queue.
#[cfg(target_os = "linux")]
fn peek(link: &Link, buffer: &mut [u8], mut message: impl FnMut(SocketAddr, &[u8])) -> Found {
    let mut found = Found::Nothing;
    let alone = link.keep_readers_out();
    // What is queued beside the socket needs something in it that is readable.
    let mut at_head = alone.is_some() && !link.has_queued() && is_at_head(link.socket());
    loop {
        let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT | libc::MSG_TRUNC;
        match link.socket().recv_from_with_flags(as_uninit(buffer), flags) {
            Ok((length, from)) => {
                let Some(from) = from.as_socket() else { return found };
                found = Found::New;
                match buffer.get(..length).filter(|bytes| is_stun_with_fingerprint(bytes)) {
                    Some(bytes) => {
                        message(from, bytes);
                        at_head = at_head && link.take(&mut [], libc::MSG_DONTWAIT).is_ok();
                    }
                    None => at_head = false,
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

/// Doubles the queue, as far as the system allows, and has peeks go through it instead of seeing its head only.
pub(super) fn prepare(socket: &Socket) -> io::Result<()> {
    if cfg!(target_os = "linux") {
        // Linux tells twice what was asked for, and takes half of what it tells.
        socket.set_recv_buffer_size(socket.recv_buffer_size()?)?;
    }
    start(socket)
}

#[cfg(target_os = "linux")]
fn start(socket: &Socket) -> io::Result<()> {
    set_option(socket, libc::SOL_SOCKET, libc::SO_PEEK_OFF, 0)
}

/// Whether the next peek sees the head of the queue.
#[cfg(target_os = "linux")]
fn is_at_head(socket: &Socket) -> bool {
    get_option(socket, libc::SOL_SOCKET, libc::SO_PEEK_OFF).is_ok_and(|offset| offset == 0)
}

/// Has peeks see the head of the queue, as the system has them.
#[cfg(target_os = "linux")]
pub(super) fn stop(socket: &Socket) -> io::Result<()> {
    set_option(socket, libc::SOL_SOCKET, libc::SO_PEEK_OFF, -1)
}

#[cfg(not(target_os = "linux"))]
pub(super) fn stop(_socket: &Socket) -> io::Result<()> {
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn start(_socket: &Socket) -> io::Result<()> {
    Ok(())
}

/// Has the next peek see the head of the queue.
pub(super) fn restart(socket: &Socket) {
    // It worked when the socket was opened.
    let _ = start(socket);
}

/// Takes everything out of a connection that the program has closed.
fn empty(link: &Link, buffer: &mut [u8], mut message: impl FnMut(SocketAddr, &[u8])) -> Found {
    let mut found = Found::Nothing;
    for _ in 0..ROUND {
        let Ok(taken) = link.take(buffer, libc::MSG_DONTWAIT) else { return found };
        match taken {
            Taken::Other(from, length) => message(from, &buffer[..length]),
            Taken::Data(_) | Taken::Nothing => {}
            Taken::End => return found,
        }
        found = Found::New;
    }
    found
}

/// Keeps further data out, and drops the oldest datagrams while more than three quarters of the queue are full.
fn keep_data_out(link: &Link, buffer: &mut [u8], mut message: impl FnMut(SocketAddr, &[u8])) {
    if filter::attach(link.socket()).is_err() {
        return;
    }
    link.set_filtered(true);
    for _ in 0..ROUND / 16 {
        if !Fill::of(link.socket()).is_nearly_full() {
            return;
        }
        // The system counts the memory as free only when the reader's own part of the queue is used up.
        for _ in 0..16 {
            match link.take(buffer, libc::MSG_DONTWAIT) {
                Ok(Taken::Other(from, length)) => message(from, &buffer[..length]),
                Ok(Taken::Data(_) | Taken::Nothing) => {}
                Ok(Taken::End) | Err(_) => return,
            }
        }
    }
}

/// The program has read from a connection that data is kept out of: lets it in again when most was read.
pub(super) fn let_data_in(link: &Link) {
    if Fill::of(link.socket()).is_under_third() && filter::detach(link.socket()).is_ok() {
        link.set_filtered(false);
    }
}

/// How full a receive queue is, in bytes as the system counts them.
#[derive(Clone, Copy, Debug, Default)]
struct Fill {
    used: u32,
    room: u32,
}

impl Fill {
    const fn is_over_half(self) -> bool {
        self.used > self.room / 2
    }

    const fn is_nearly_full(self) -> bool {
        self.used > self.room / 4 * 3
    }

    const fn is_under_third(self) -> bool {
        self.used <= self.room / 3
    }

    #[cfg(target_os = "linux")]
    fn of(socket: &Socket) -> Self {
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
        if result == 0 { Self { used, room } } else { Self::default() }
    }

    #[cfg(not(target_os = "linux"))]
    fn of(_socket: &Socket) -> Self {
        Self::default()
    }
}
