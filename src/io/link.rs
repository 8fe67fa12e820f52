//! The socket of one connection, and what the calls that use it share with the endpoint.
//!
//! The socket has the address that the peer's packets come to and the port of the socket that found the path
//! (both have `SO_REUSEADDR`), and is connected to the peer; the system then tells datagrams apart by both addresses. Sending
//! and receiving are one call each on it, without a lock.
//!
//! Where the system chooses that address by itself the socket is not bound to it, so that it can take another when this host
//! has that one no more ([`Link::take_new_address`]): the peer follows, where packets from there get through.
//!
//! Three things can be in its receive queue that are not data of this connection: checks of the peer; datagrams of
//! others that arrived between bind and connect; and one empty datagram from its own address, the *marker*. Data that
//! arrived before the connection had a socket is kept in a queue beside it ([`Link::push`]), and a descriptor that was
//! handed out for poll must be readable while it waits: the marker, sent by the socket to itself before it is
//! connected, keeps it so.
//!
//! A call that sleeps in receive is woken by shutdown(2) of the receiving half, after the flag that says why was set;
//! sending, which the endpoint needs for its farewell, goes on. When the connection is over, what the socket still
//! holds moves to the queue, and the descriptor is replaced by one at end of file ([`Link::retire`]): its number, which the program may be
//! polling, stays valid and readable, while the port is free again.

use std::{
    collections::VecDeque,
    fmt, io,
    mem::{self, ManuallyDrop, MaybeUninit},
    net::{IpAddr, Shutdown, SocketAddr},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd as _, RawFd},
        unix::net::UnixStream,
    },
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
};

use socket2::Socket;

use super::{
    fault::{is_loss_in_sending, would_block},
    udp::new_socket,
};
use crate::{
    Error, ErrorKind, Result,
    address::canonical,
    peer::{CloseReason, Path},
    wire::{demux::is_stun_with_fingerprint, stun::SessionId},
};

/// Datagrams that a connection that is over keeps at most: more than its queue holds.
const MAX_KEPT: usize = 4096;

/// Datagrams kept beside the socket at most; the newest are dropped.
const MAX_QUEUED: usize = 64;

/// A connection is busy sending when so many datagrams left within one pause of the endpoint's.
const BUSY: u32 = 128;

/// Bits of [`Link::readers`]: the calls in receive now, whether the endpoint takes from the socket, and the number of calls
/// that there have been above.
mod reading {
    pub(super) const NOW: u64 = 0x7FFF;
    pub(super) const KEPT_OUT: u64 = 0x8000;
    pub(super) const CALL: u64 = 0x1_0000;
}

/// Why a connection no longer does something; bits of [`Link::flags`].
mod flag {
    /// The program has closed it.
    pub(super) const CLOSED: u8 = 1;
    /// The peer has closed it, or both have ended.
    pub(super) const OVER: u8 = 2;
    /// The peer has vanished.
    pub(super) const LOST: u8 = 4;
    /// The peer sends no more data.
    pub(super) const PEER_ENDED: u8 = 8;
    /// The program has said that it sends no more data.
    pub(super) const ENDED: u8 = 16;
    /// The peer knows that.
    pub(super) const END_ACKNOWLEDGED: u8 = 32;
    /// The peer has taken its socket for itself, and hears of no end.
    pub(super) const PEER_BARE: u8 = 64;
    /// The program has the socket itself.
    pub(super) const GIVEN_AWAY: u8 = 128;

    /// Nothing can be sent.
    pub(super) const NO_SENDING: u8 = CLOSED | OVER | LOST | ENDED;
    /// Nothing but what is there already can be received.
    pub(super) const NO_MORE: u8 = CLOSED | OVER | LOST | PEER_ENDED;
}

/// One connection: its socket and state.
pub(crate) struct Link {
    /// Whose it is says [`flag::GIVEN_AWAY`].
    socket: ManuallyDrop<Socket>,
    pub(crate) session: SessionId,
    /// The path as it was found.
    pub(crate) path: Path,
    has_moved: AtomicBool,
    /// Whether our address is the system's choice.
    is_chosen: bool,
    flags: AtomicU8,
    /// Who receives, in [`reading`]'s bits.
    readers: AtomicU64,
    /// How many datagrams the program has sent; sends at the same time may count once.
    sends: AtomicU32,
    /// Whether the endpoint waits for the socket to become readable.
    watched: AtomicBool,
    /// Whether further data is kept out, because the program does not read.
    filtered: AtomicBool,
    /// Whether the program asks for the socket.
    leaving: AtomicBool,
    /// The length of the queue beside the socket, to be read without its lock.
    queued: AtomicUsize,
    rare: Mutex<Option<Box<Rare>>>,
}

/// What few connections have.
#[derive(Default)]
struct Rare {
    /// Where the peer is, once it has moved.
    moved: Option<SocketAddr>,
    /// What is received before anything that the socket holds.
    queue: VecDeque<Vec<u8>>,
}

/// What became of a datagram of the program's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// The system has it.
    Gone,
    /// The same; and the endpoint should leave the socket alone for a while.
    Busy,
    /// There is no room for it.
    Full,
}

/// What was taken from the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// Data of the peer; longer than the buffer when it did not fit.
    Data(usize),
    /// A message for the endpoint, or somebody else's datagram, from this address.
    Other(SocketAddr, usize),
    /// Nothing of interest.
    Nothing,
    /// The receiving half is shut down, and the queue empty.
    End,
}

impl Link {
    /// Opens the socket of a connection beside `parent`, the address of the socket that found the path.
    /// `collect` is called when all that arrives comes to the new socket; it takes what the old one still holds,
    /// and says whether any of it, or of what came before, may be data of this session.
    pub(super) fn open(
        session: SessionId,
        path: Path,
        parent: SocketAddr,
        collect: impl FnOnce() -> bool,
    ) -> io::Result<Self> {
        let ip = if path.local.ip().is_unspecified() { parent.ip() } else { path.local.ip() };
        let address = SocketAddr::new(ip, parent.port());
        // Elsewhere than on Linux it is not certain that of two sockets that are bound alike the newer one gets what comes.
        let is_chosen = cfg!(target_os = "linux")
            && parent.ip().is_unspecified()
            && chosen_source(path.remote).is_ok_and(|chosen| chosen == ip);
        let socket = new_socket(address)?;
        socket.set_reuse_address(true)?;
        super::peek::prepare(&socket)?;
        socket.bind(&if is_chosen { parent } else { address }.into())?;
        if collect() && !ip.is_unspecified() {
            // Best effort: without the marker, poll tells of the data when more comes.
            let _ = socket.send_to_with_flags(&[], &address.into(), libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL);
        }
        socket.connect(&path.remote.into())?;
        Ok(Self {
            socket: ManuallyDrop::new(socket),
            session,
            path: Path { local: address, ..path },
            has_moved: AtomicBool::new(false),
            is_chosen,
            flags: AtomicU8::new(0),
            readers: AtomicU64::new(0),
            sends: AtomicU32::new(0),
            watched: AtomicBool::new(false),
            filtered: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
            queued: AtomicUsize::new(0),
            rare: Mutex::default(),
        })
    }

    /// Our address as it was at first; the IP is unspecified where it is not known.
    pub(crate) fn local(&self) -> SocketAddr {
        self.path.local
    }

    /// Where the peer is.
    pub(crate) fn remote(&self) -> SocketAddr {
        if !self.has_moved.load(Ordering::Acquire) {
            return self.path.remote;
        }
        self.rare().as_ref().and_then(|rare| rare.moved).unwrap_or(self.path.remote)
    }

    /// The peer is there now. What it sent before it moved, and is still unread, is handed to the endpoint with what
    /// comes from others, and is its data all the same.
    pub(super) fn follow(&self, remote: SocketAddr) -> io::Result<()> {
        self.rare().get_or_insert_default().moved = Some(remote);
        self.has_moved.store(true, Ordering::Release);
        self.socket.connect(&remote.into())
    }

    /// Takes the address that the system would send from now, where the socket's is this host's no more; whether there
    /// is one.
    pub(super) fn take_new_address(&self) -> bool {
        let own = self.socket.local_addr().ok().and_then(|own| own.as_socket()).map(|own| own.ip());
        // A socket that is connected to nobody would take what comes for others: first it is seen whether this can succeed.
        self.is_chosen
            && chosen_source(self.remote()).is_ok_and(|chosen| Some(chosen) != own)
            && disconnect(&self.socket).and_then(|()| self.socket.connect(&self.remote().into())).is_ok()
    }

    /// Sends one datagram of the program, without blocking.
    pub(super) fn send(&self, bytes: &[u8]) -> Result<Sent> {
        let sends = self.sends.load(Ordering::Relaxed).wrapping_add(1);
        self.sends.store(sends, Ordering::Relaxed);
        // What was said about an earlier datagram takes the place of this one's sending: the second try sends it.
        for _ in 0..2 {
            self.check_sending()?;
            match self.transmit(bytes) {
                Ok(()) => break,
                Err(error) if would_block(&error) => return Ok(Sent::Full),
                Err(error) if is_loss_in_sending(&error) => {}
                Err(error) => {
                    self.check_sending()?;
                    return Err(self.send_error(bytes.len(), &error));
                }
            }
        }
        Ok(if sends.is_multiple_of(BUSY) && self.watched.load(Ordering::Relaxed) { Sent::Busy } else { Sent::Gone })
    }

    fn check_sending(&self) -> Result<()> {
        let flags = self.flags.load(Ordering::Acquire);
        if flags & flag::NO_SENDING == 0 { Ok(()) } else { Err(self.why_over(flags)) }
    }

    /// Sends a datagram, without blocking.
    pub(super) fn transmit(&self, bytes: &[u8]) -> io::Result<()> {
        self.socket.send_with_flags(bytes, libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT).map(|_| ())
    }

    /// Takes one datagram from the socket.
    pub(super) fn take(&self, buffer: &mut [u8], flags: libc::c_int) -> io::Result<Taken> {
        // The real length is asked for also because the kernel's peek offset moves back by what was read.
        let (length, from) = self.socket.recv_from_with_flags(as_uninit(buffer), flags | libc::MSG_TRUNC)?;
        Ok(match from.as_socket() {
            None => Taken::End,
            Some(from) if canonical(from) == self.remote() => {
                if buffer.get(..length).is_some_and(is_stun_with_fingerprint) {
                    Taken::Other(canonical(from), length)
                } else {
                    Taken::Data(length)
                }
            }
            Some(from) if from == self.path.local || length > buffer.len() => Taken::Nothing,
            Some(from) => Taken::Other(from, length),
        })
    }

    /// Takes the oldest datagram from the queue beside the socket; its length, longer than the buffer when it did not fit.
    pub(super) fn take_queued(&self, buffer: &mut [u8]) -> Option<usize> {
        if self.queued.load(Ordering::Acquire) == 0 {
            return None;
        }
        let datagram = self.with_queue(VecDeque::pop_front)?;
        let fits = datagram.len().min(buffer.len());
        buffer[..fits].copy_from_slice(&datagram[..fits]);
        Some(datagram.len())
    }

    /// Keeps data that did not come by the socket; dropped when there is too much of it.
    pub(super) fn push(&self, datagram: Vec<u8>) {
        self.with_queue(|queue| {
            if queue.len() < MAX_QUEUED {
                queue.push_back(datagram);
            }
        });
    }

    /// Takes the whole queue beside the socket.
    pub(super) fn take_all_queued(&self) -> Vec<Vec<u8>> {
        self.with_queue(mem::take).into()
    }

    /// Has the socket hold these datagrams, as if they came now. What the peer sends meanwhile does not come to it.
    pub(super) fn send_to_itself(&self, data: &[Vec<u8>]) -> io::Result<()> {
        let own = self.socket.local_addr()?;
        self.socket.connect(&own)?;
        for datagram in data {
            // Fails where its queue is full: as for any other that comes then.
            let _ = self.transmit(datagram);
        }
        self.socket.connect(&self.remote().into())
    }

    pub(super) fn has_queued(&self) -> bool {
        self.queued.load(Ordering::Acquire) != 0
    }

    /// Uses the queue beside the socket.
    fn with_queue<T>(&self, use_queue: impl FnOnce(&mut VecDeque<Vec<u8>>) -> T) -> T {
        let mut rare = self.rare();
        let queue = &mut rare.get_or_insert_default().queue;
        let result = use_queue(queue);
        self.queued.store(queue.len(), Ordering::Release);
        result
    }

    fn rare(&self) -> MutexGuard<'_, Option<Box<Rare>>> {
        self.rare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the endpoint that a call is receiving, until the guard is dropped. The first of both says whether it has to
    /// wait until the endpoint's lock is free: the endpoint takes from the socket.
    pub(super) fn reading(&self) -> (bool, Reading<'_>) {
        let before = self.readers.fetch_add(reading::CALL | 1, Ordering::Acquire);
        (before & reading::KEPT_OUT != 0, Reading(self))
    }

    /// Has calls that come to receive wait, until the guard is dropped; `None` where one is at it. For the endpoint, with its
    /// lock held.
    pub(super) fn keep_readers_out(&self) -> Option<KeepingOut<'_>> {
        let readers = self.readers.load(Ordering::Relaxed);
        let kept_out = readers | reading::KEPT_OUT;
        let alone = readers & reading::NOW == 0
            && self.readers.compare_exchange(readers, kept_out, Ordering::Acquire, Ordering::Relaxed).is_ok();
        alone.then_some(KeepingOut(self))
    }

    pub(super) fn set_watched(&self, watched: bool) {
        self.watched.store(watched, Ordering::Relaxed);
    }

    /// Whether the program has sent much since there were `before` sends, and how many there are now.
    pub(super) fn is_sending(&self, before: u32) -> (bool, u32) {
        let sends = self.sends.load(Ordering::Relaxed);
        (sends.wrapping_sub(before) >= BUSY, sends)
    }

    /// How many calls have received so far, and whether one is at it now.
    pub(super) fn readers(&self) -> (u64, bool) {
        let readers = self.readers.load(Ordering::Relaxed);
        (readers / reading::CALL, readers & reading::NOW != 0)
    }

    pub(super) fn set_filtered(&self, filtered: bool) {
        self.filtered.store(filtered, Ordering::Release);
    }

    /// Whether further data is kept out of the socket until the program has read most of what is there.
    pub(super) fn is_filtered(&self) -> bool {
        self.filtered.load(Ordering::Acquire)
    }

    /// The program asks for the socket.
    pub(super) fn set_leaving(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }

    /// The program closes; `false` when it has done so before.
    pub(super) fn set_closed(&self) -> bool {
        self.set(flag::CLOSED) & flag::CLOSED == 0
    }

    pub(super) fn set_peer_ended(&self) {
        self.set(flag::PEER_ENDED);
    }

    /// Sets a flag and wakes the calls that sleep in receive.
    fn set(&self, flag: u8) -> u8 {
        let before = self.flags.fetch_or(flag, Ordering::AcqRel);
        if before & flag::GIVEN_AWAY == 0 {
            // Fails only after `retire`, when nothing sleeps any more.
            let _ = self.socket.shutdown(Shutdown::Read);
        }
        before
    }

    pub(super) fn set_ended(&self) {
        self.flags.fetch_or(flag::ENDED, Ordering::AcqRel);
    }

    pub(super) fn set_end_acknowledged(&self) {
        self.flags.fetch_or(flag::END_ACKNOWLEDGED, Ordering::AcqRel);
    }

    pub(super) fn set_peer_bare(&self) {
        self.flags.fetch_or(flag::PEER_BARE, Ordering::AcqRel);
    }

    /// Whether the peer has taken its socket for itself.
    pub(super) fn is_peer_bare(&self) -> bool {
        self.flags.load(Ordering::Acquire) & flag::PEER_BARE != 0
    }

    /// Gives the socket to the program. The endpoint's lock is held, and the endpoint knows the connection no more; nobody calls it again.
    pub(super) fn give_away(&self) -> Socket {
        let before = self.flags.fetch_or(flag::GIVEN_AWAY, Ordering::AcqRel);
        debug_assert_eq!(before & flag::GIVEN_AWAY, 0);
        // SAFETY: the descriptor is open, and the new socket's alone: `drop` leaves a socket that was given away.
        unsafe { Socket::from_raw_fd(self.socket.as_raw_fd()) }
    }

    /// Whether the peer knows of the end of our data, or why it never will; `None` while that is open.
    pub(crate) fn end_known(&self) -> Option<Result<()>> {
        let flags = self.flags.load(Ordering::Acquire);
        if flags & flag::CLOSED == 0 && flags & (flag::END_ACKNOWLEDGED | flag::OVER) != 0 {
            return Some(Ok(()));
        }
        if self.path.signalled {
            let text = format!("the peer at {} may be any agent of ICE, and hears of no end", self.path.remote);
            let hint = "say the end in the application's own data";
            return Some(Err(self.over().unwrap_or_else(|| Error::new(ErrorKind::Unsupported, text).with_hint(hint))));
        }
        if flags & flag::PEER_BARE != 0 {
            let text = format!("the peer at {} has taken its socket for itself, and hears of no end", self.remote());
            let hint = "say the end in the application's own data";
            return Some(Err(Error::new(ErrorKind::Unsupported, text).with_hint(hint)));
        }
        self.over().map(Err)
    }

    /// Whether the program has closed it.
    pub(super) fn is_closed(&self) -> bool {
        self.flags.load(Ordering::Acquire) & flag::CLOSED != 0
    }

    /// Why it is over for the program, if it is: by either side, or lost.
    pub(super) fn over(&self) -> Option<Error> {
        let flags = self.flags.load(Ordering::Acquire);
        (flags & (flag::CLOSED | flag::OVER | flag::LOST) != 0).then(|| self.why_over(flags))
    }

    /// Why nothing more can come, if so.
    pub(super) fn no_more(&self) -> Option<Error> {
        let flags = self.flags.load(Ordering::Acquire);
        (flags & flag::NO_MORE != 0).then(|| self.why_over(flags & !flag::ENDED))
    }

    fn why_over(&self, flags: u8) -> Error {
        let remote = self.remote();
        if flags & flag::CLOSED != 0 {
            Error::new(ErrorKind::Closed, format!("the connection to {remote} was closed by this program"))
        } else if flags & flag::LOST != 0 {
            Error::new(ErrorKind::Lost, format!("the peer at {remote} answers no more"))
        } else if flags & flag::ENDED != 0 {
            Error::new(ErrorKind::Closed, format!("this program has ended its data to {remote}"))
        } else {
            Error::new(ErrorKind::Closed, format!("the peer at {remote} has ended the connection"))
        }
    }

    fn send_error(&self, length: usize, error: &io::Error) -> Error {
        let remote = self.remote();
        let (kind, text) = match error.raw_os_error() {
            Some(libc::EMSGSIZE) => {
                (ErrorKind::MessageTooLarge, format!("{length} bytes are more than the path to {remote} carries"))
            }
            Some(_) | None => (ErrorKind::Io, format!("cannot send to {remote}: {error}")),
        };
        Error::new(kind, text).with_os_code(error.raw_os_error())
    }

    /// The connection is over: gives the socket and its port back. What it held and the program has not read is kept.
    pub(super) fn retire(&self, reason: CloseReason, buffer: &mut [u8]) -> io::Result<()> {
        // A peer that sends as fast as this reads must not hold the lock.
        for _ in 0..MAX_KEPT {
            let Ok(taken) = self.take(buffer, libc::MSG_DONTWAIT) else { break };
            match taken {
                Taken::Data(length) if length <= buffer.len() => self.keep(&buffer[..length]),
                Taken::End => break,
                Taken::Data(_) | Taken::Other(..) | Taken::Nothing => {}
            }
        }
        self.set(if reason == CloseReason::Lost { flag::LOST } else { flag::OVER });
        let (ended, other) = UnixStream::pair()?;
        drop(other);
        replace(&self.socket, &ended)
    }

    /// As [`push`](Self::push), for as much as a socket holds.
    fn keep(&self, datagram: &[u8]) {
        self.with_queue(|queue| queue.push_back(datagram.to_vec()));
    }

    pub(super) fn socket(&self) -> &Socket {
        &self.socket
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if *self.flags.get_mut() & flag::GIVEN_AWAY == 0 {
            // SAFETY: it is dropped here only, and not used afterwards.
            unsafe { ManuallyDrop::drop(&mut self.socket) }
        }
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Link {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("session", &self.session)
            .field("local", &self.local())
            .field("remote", &self.remote())
            .field("flags", &self.flags)
            .finish_non_exhaustive()
    }
}

/// See [`Link::reading`].
pub(super) struct Reading<'a>(&'a Link);

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.0.readers.fetch_sub(1, Ordering::Release);
    }
}

/// No call receives, until this is dropped.
pub(super) struct KeepingOut<'a>(&'a Link);

impl Drop for KeepingOut<'_> {
    fn drop(&mut self) {
        self.0.readers.fetch_and(!reading::KEPT_OUT, Ordering::Release);
    }
}

/// The address that the system sends from, unless told otherwise.
fn chosen_source(remote: SocketAddr) -> io::Result<IpAddr> {
    let socket = new_socket(remote)?;
    socket.connect(&remote.into())?;
    let local = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
    Ok(local.ip())
}

/// Connects a socket to nobody: what it was not bound to it forgets.
fn disconnect(socket: &Socket) -> io::Result<()> {
    // SAFETY: an address is numbers only, which may be zero; `AF_UNSPEC` is.
    let nobody: libc::sockaddr = unsafe { mem::zeroed() };
    // SAFETY: the address is live and as long as told; the descriptor is open.
    match unsafe { libc::connect(socket.as_raw_fd(), &raw const nobody, size_of_val(&nobody) as libc::socklen_t) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A buffer as the system's receiving calls take it.
pub(crate) fn as_uninit(buffer: &mut [u8]) -> &mut [MaybeUninit<u8>] {
    // SAFETY: the layouts are the same, and those who get this only write initialised bytes into it.
    unsafe { &mut *(std::ptr::from_mut(buffer) as *mut [MaybeUninit<u8>]) }
}

/// Puts a duplicate of `new` in the place of `old`'s descriptor.
fn replace(old: &Socket, new: &UnixStream) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    // SAFETY: both descriptors are open and owned; afterwards `old` owns the duplicate under the same number.
    let result = unsafe { libc::dup3(new.as_raw_fd(), old.as_raw_fd(), libc::O_CLOEXEC) };
    #[cfg(not(target_os = "linux"))]
    // SAFETY: as above; the flag is set on the duplicate.
    let result = unsafe {
        match libc::dup2(new.as_raw_fd(), old.as_raw_fd()) {
            -1 => -1,
            fd => libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC),
        }
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
