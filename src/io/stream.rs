//! A stream that the program owns: a plain TCP connection, and what its blocked calls need to be ended.
//!
//! Nothing but the program's own bytes is on it, so every call is one of the system's on the socket, without a lock. Another
//! thread ends blocked calls by shutting the socket down after the flag that says why was set. Only the last
//! handle closes the descriptor, so its number is no other's while a call still uses it.

use std::{
    fmt, io,
    mem::ManuallyDrop,
    net::{Shutdown, SocketAddr, TcpStream},
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd as _, RawFd},
    process,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use socket2::{Socket, TcpKeepalive};

use super::{
    fault::{interrupted, os_error, would_block},
    link::as_uninit,
    shared::Shared,
    tcp::drain,
    wait::{Deadline, Wait},
};
use crate::{Error, ErrorKind, Result, address::canonical, peer::Path, wire::stun::SessionId};

/// A peer that has answered nothing for 30 s is lost, as RFC 7675 has it for datagrams: probes begin after 10 s of
/// silence, every 5 s, and four may stay without answer.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_PROBES: u32 = 4;

/// One stream: its socket and state.
pub(crate) struct StreamLink {
    /// Whose it is says `given_away`.
    socket: ManuallyDrop<Socket>,
    pub(crate) session: SessionId,
    pub(crate) path: Path,
    closed: AtomicBool,
    /// The program has ended its data.
    ended: AtomicBool,
    /// The connection broke, and a call was told so.
    reset: AtomicBool,
    /// The program has the socket itself.
    given_away: AtomicBool,
    /// A forked child shares the socket with its parent, whose it is.
    process: u32,
}

impl StreamLink {
    /// Takes a connected socket over.
    pub(super) fn new(session: SessionId, path: Path, socket: Socket) -> io::Result<Self> {
        socket.set_nonblocking(false)?;
        socket.set_tcp_nodelay(true)?;
        let probes = TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL);
        socket.set_tcp_keepalive(&probes.with_retries(KEEPALIVE_PROBES))?;
        let [closed, ended, reset, given_away] = [const { AtomicBool::new(false) }; 4];
        let socket = ManuallyDrop::new(socket);
        let mut link = Self { socket, session, path, closed, ended, reset, given_away, process: process::id() };
        // The peer's first message may have been there before the connection was looked at: then we have measured nothing.
        link.path.rtt = link.rtt().unwrap_or(path.rtt);
        Ok(link)
    }

    pub(crate) fn local(&self) -> SocketAddr {
        let local = self.socket.local_addr().ok().and_then(|local| local.as_socket());
        local.map_or(self.path.local, canonical)
    }

    /// The round-trip time as the system measures it, where it tells.
    #[cfg(target_os = "linux")]
    pub(crate) fn rtt(&self) -> Option<Duration> {
        // SAFETY: all zeros is a valid `tcp_info`.
        let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
        let mut length = size_of_val(&info) as libc::socklen_t;
        // SAFETY: the structure is live, writable and as long as told.
        let result = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                (&raw mut info).cast(),
                &raw mut length,
            )
        };
        (result == 0 && info.tcpi_rtt > 0).then(|| Duration::from_micros(info.tcpi_rtt.into()))
    }

    /// The system does not tell here.
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn rtt(&self) -> Option<Duration> {
        None
    }

    /// The program closes: ends what blocks on it. What was sent still arrives.
    pub(crate) fn close(&self) {
        if !self.closed.swap(true, Ordering::AcqRel) {
            // It fails only where the peer was faster.
            let _ = self.socket.shutdown(Shutdown::Both);
        }
    }

    /// The program ends its data.
    pub(crate) fn end(&self) -> Result<()> {
        self.check_open()?;
        self.ended.store(true, Ordering::Release);
        match self.socket.shutdown(Shutdown::Write) {
            Ok(()) => Ok(()),
            Err(error) => Err(self.failed("end the data to", &error)),
        }
    }

    /// Gives the socket away as the system makes them: blocking, without our options. The endpoint's lock is held, and the
    /// endpoint knows the stream no more; nobody calls it again. After a failure it is as it was, but for an option.
    pub(crate) fn give_away(&self) -> Result<TcpStream> {
        self.check_open()?;
        let plain = self.socket.set_keepalive(false).and_then(|()| self.socket.set_tcp_nodelay(false));
        plain.map_err(|error| os_error("cannot give the socket away", &error))?;
        let before = self.given_away.swap(true, Ordering::AcqRel);
        debug_assert!(!before, "it is given away once");
        // SAFETY: the descriptor is open, and the new socket's alone: `drop` leaves a socket that was given away.
        Ok(unsafe { TcpStream::from_raw_fd(self.socket.as_raw_fd()) })
    }

    fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            let text = format!("the connection to {} was closed by this program", self.path.remote);
            return Err(Error::new(ErrorKind::Closed, text));
        }
        Ok(())
    }

    /// Fails at the end of a stream that is not the end of the peer's data: the system tells of a broken connection once,
    /// to whichever call comes first.
    fn check_whole(&self) -> Result<()> {
        self.check_open()?;
        if self.reset.load(Ordering::Acquire) {
            let text = format!("the connection to {} was broken off", self.path.remote);
            return Err(Error::new(ErrorKind::Lost, text));
        }
        Ok(())
    }

    /// What an error of the system means: whatever broke the connection has lost it.
    fn failed(&self, doing: &str, error: &io::Error) -> Error {
        if let Err(closed) = self.check_open() {
            return closed;
        }
        let remote = self.path.remote;
        // `EPIPE` may come after all that the peer had to say.
        if !matches!(error.raw_os_error(), Some(libc::EPIPE)) {
            self.reset.store(true, Ordering::Release);
        }
        let (kind, text) = match error.raw_os_error() {
            Some(libc::EPIPE) if self.ended.load(Ordering::Acquire) => {
                (ErrorKind::Closed, format!("this program has ended its data to {remote}"))
            }
            Some(libc::ECONNRESET | libc::EPIPE | libc::ENOTCONN | libc::ECONNABORTED) => {
                (ErrorKind::Lost, format!("the peer at {remote} has broken the connection off"))
            }
            Some(libc::ETIMEDOUT | libc::EHOSTUNREACH | libc::ENETUNREACH | libc::ENETDOWN | libc::EHOSTDOWN) => {
                (ErrorKind::Lost, format!("the peer at {remote} answers no more"))
            }
            Some(_) | None => (ErrorKind::Io, format!("cannot {doing} {remote}: {error}")),
        };
        Error::new(kind, text).with_os_code(error.raw_os_error())
    }
}

impl Drop for StreamLink {
    fn drop(&mut self) {
        if *self.given_away.get_mut() {
            return;
        }
        if self.process == process::id() {
            self.close();
            drain(&self.socket);
        }
        // SAFETY: it is dropped here only, and not used afterwards.
        unsafe { ManuallyDrop::drop(&mut self.socket) }
    }
}

impl AsFd for StreamLink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for StreamLink {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl fmt::Debug for StreamLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamLink")
            .field("session", &self.session)
            .field("remote", &self.path.remote)
            .field("closed", &self.closed)
            .finish_non_exhaustive()
    }
}

/// Receives some bytes; 0 at the end of the peer's data.
pub(crate) fn receive(shared: &Shared, link: &StreamLink, buffer: &mut [u8], wait: &Wait) -> Result<usize> {
    let mut call = Call::begin(shared, link, wait)?;
    loop {
        call.check()?;
        if buffer.is_empty() {
            return Ok(0);
        }
        match link.socket.recv_with_flags(as_uninit(buffer), call.flags()) {
            // At the end, which our own close makes too.
            Ok(0) => return link.check_whole().map(|()| 0),
            Ok(length) => return Ok(length),
            Err(error) if would_block(&error) => call.sleep(false, "nothing came from")?,
            Err(error) if interrupted(&error) => {}
            Err(error) => return Err(link.failed("receive from", &error)),
        }
    }
}

/// Sends some of the bytes, at least one where there are any.
pub(crate) fn send(shared: &Shared, link: &StreamLink, bytes: &[u8], wait: &Wait) -> Result<usize> {
    let mut call = Call::begin(shared, link, wait)?;
    loop {
        call.check()?;
        match link.socket.send_with_flags(bytes, call.flags() | libc::MSG_NOSIGNAL) {
            Ok(length) => return Ok(length),
            Err(error) if would_block(&error) => call.sleep(true, "nothing more could be sent to")?,
            Err(error) if interrupted(&error) => {}
            Err(error) => return Err(link.failed("send to", &error)),
        }
    }
}

/// A call that may block.
struct Call<'a> {
    shared: &'a Shared,
    link: &'a StreamLink,
    wait: &'a Wait,
    deadline: Option<Deadline>,
}

impl<'a> Call<'a> {
    fn begin(shared: &'a Shared, link: &'a StreamLink, wait: &'a Wait) -> Result<Self> {
        shared.check_process()?;
        Ok(Self { shared, link, wait, deadline: None })
    }

    fn check(&self) -> Result<()> {
        if let Some(cancel) = self.wait.cancel() {
            cancel.check()?;
        }
        self.link.check_open()
    }

    /// A call that nothing but its success or failure ends sleeps in the system's call itself.
    fn flags(&self) -> libc::c_int {
        if self.shared.may_sleep(self.wait) { 0 } else { libc::MSG_DONTWAIT }
    }

    fn sleep(&mut self, for_sending: bool, late: &str) -> Result<()> {
        let deadline = *self.deadline.get_or_insert_with(|| self.wait.deadline());
        if deadline.has_passed() {
            return Err(Error::new(ErrorKind::Timeout, format!("{late} {} in time", self.link.path.remote)));
        }
        if for_sending {
            self.shared.wait_writable(self.link, self.wait, deadline)
        } else {
            self.shared.wait_readable(self.link, self.wait, deadline)
        }
    }
}

/// Sends all of the bytes.
pub(crate) fn send_all(shared: &Shared, link: &StreamLink, mut bytes: &[u8], wait: &Wait) -> Result<()> {
    let deadline = wait.deadline();
    // Also where there is nothing to send.
    Call::begin(shared, link, wait)?.check()?;
    while !bytes.is_empty() {
        let wait = deadline.left().map_or_else(|| wait.clone(), |left| wait.but_at_most(left));
        let sent = send(shared, link, bytes, &wait)?;
        bytes = bytes.get(sent..).unwrap_or_default();
    }
    Ok(())
}

/// An error as `Read` and `Write` have it; the library's own is its source.
pub(crate) fn as_io(error: Error) -> io::Error {
    const KINDS: [(ErrorKind, io::ErrorKind); 3] = [
        (ErrorKind::Closed, io::ErrorKind::BrokenPipe),
        (ErrorKind::Lost, io::ErrorKind::ConnectionReset),
        (ErrorKind::Timeout, io::ErrorKind::TimedOut),
    ];
    let kind = KINDS.iter().find(|(own, _)| *own == error.kind());
    io::Error::new(kind.map_or(io::ErrorKind::Other, |(_, kind)| *kind), error)
}
