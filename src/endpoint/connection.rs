//! One connection for datagrams.

use std::{
    fmt,
    net::{SocketAddr, UdpSocket},
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
    time::Duration,
};

use super::{Wait, in_time};
use crate::{
    Result,
    io::{self, Engine, Link},
    peer::Path,
    wire::stun::SessionId,
};

/// A direct path to a peer, for datagrams of at most 1,200 bytes.
///
/// Datagrams may be lost, doubled or reordered, as UDP does; none is truncated. All methods take `&self` and may be called from any threads at
/// once: sending and receiving are one system call each, without a lock. Dropping it closes it.
///
/// ```no_run
/// # use holepunch::{ConnectOptions, Endpoint, Wait};
/// # use std::time::Duration;
/// # let endpoint = Endpoint::builder().build()?;
/// let connection = endpoint.connect_datagram("bob", &ConnectOptions::default())?;
/// connection.send(b"hello")?;
/// let mut buffer = [0; 1200];
/// let length = connection.recv(&mut buffer, Wait::at_most(Duration::from_secs(5)))?;
/// println!("{} says {:?}", connection.path().remote, &buffer[..length]);
/// # Ok::<(), holepunch::Error>(())
/// ```
pub struct Connection {
    engine: Arc<Engine>,
    link: Arc<Link>,
}

impl Connection {
    pub(super) fn new(engine: Arc<Engine>, link: Arc<Link>) -> Self {
        Self { engine, link }
    }

    /// Which session it is; the same on both sides.
    #[must_use]
    pub fn session(&self) -> SessionId {
        self.link.session
    }

    /// Sends one datagram. Blocks only while the system's send buffer is full.
    ///
    /// That it was sent does not mean that it arrives: where the system has no way to the peer for a while, it is lost like
    /// any other.
    ///
    /// # Errors
    /// `MessageTooLarge` for more than 1,200 bytes, or more than the path carries; `Closed` after [`close`](Self::close), after [`end`](Self::end)
    /// and when the peer has closed; `Lost` when it has answered nothing for 30 s; `InvalidArgument` where it would block in a
    /// callback of the endpoint; `Forked`, `Io`.
    pub fn send(&self, bytes: &[u8]) -> Result<()> {
        self.send_within(bytes, Wait::forever())
    }

    /// As [`send`](Self::send), for as long as `wait` says.
    ///
    /// # Errors
    /// The same; `Timeout` and `Cancelled` as `wait` says: then it was not sent.
    pub fn send_within(&self, bytes: &[u8], wait: Wait) -> Result<()> {
        io::send(&self.engine, &self.link, bytes, &wait)
    }

    /// Receives one datagram into `buffer`, and returns its length, which may be 0.
    ///
    /// What came before the peer's end is received first.
    ///
    /// # Errors
    /// `Timeout` and `Cancelled` as `wait` says; `MessageTooLarge` when the datagram is longer than the buffer (it is
    /// lost then); `Closed` when nothing more can come, or at once after [`close`](Self::close); `Lost`, `Forked`, `Io`.
    pub fn recv(&self, buffer: &mut [u8], wait: Wait) -> Result<usize> {
        io::receive(&self.engine, &self.link, buffer, &wait)
    }

    /// The path that was found; its `remote` is where the peer is now, should its NAT have moved it since.
    #[must_use]
    pub fn path(&self) -> Path {
        Path { remote: self.link.remote(), ..self.link.path }
    }

    /// Our address when the path was found; the IP is unspecified where the system does not tell.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.link.local()
    }

    /// The smoothed round-trip time to the peer.
    #[must_use]
    pub fn rtt(&self) -> Duration {
        self.engine.with(|core| core.rtt(&self.link)).unwrap_or(self.link.path.rtt)
    }

    /// Announces the end of our data, and waits until the peer knows; receiving goes on. At most 3 s (or what
    /// [`PeerConfig::farewell`](crate::config::PeerConfig::farewell) says), or as `wait` says.
    ///
    /// # Errors
    /// `Timeout` when the peer has not acknowledged it (it may know all the same); `Unsupported` when the peer has
    /// [taken its socket](Self::into_socket) for itself, and hears of no end; `Cancelled`, `Closed`, `Lost`, `Forked`.
    pub fn end(&self, wait: Wait) -> Result<()> {
        self.engine.with(|core| core.end(&self.link))?;
        let wait = wait.but_at_most(self.engine.farewell());
        let known = self.engine.wait(&wait, |_| self.link.end_known());
        known.map_err(|error| in_time(error, "the peer has not acknowledged the end of our data"))
    }

    /// Gives the socket away: a plain one of the system's, connected to the peer and blocking, that holds nothing but data and has
    /// nothing of this library on it. It outlives the endpoint, and is its new owner's to close.
    ///
    /// Blocks for a round trip, in which the peer learns that it must send no checks any more; where it does not answer,
    /// four and a half (each taken as at least 33 ms, and at most 667 ms), then the socket is given away all the same, and a peer that
    /// never heard of it may send checks for up to 30 s more. Whichever side asks second waits for nothing, or for 100 ms to
    /// 2 s when the two ask at nearly the same time. Closing the endpoint ends it.
    ///
    /// What had come and was not received is in the socket. Where data stood before a message of the protocol it has gone round
    /// through the loopback interface: whoever asks the system for its source is told our own address, and a firewall that drops what
    /// this host sends to itself drops it. From then on nobody keeps NAT bindings alive, notices when the peer is gone or tells it of the end:
    /// the application sends something every 15 s or so. The port, where it is a listener's, is shared with other
    /// connections: each gets its own peer's datagrams (`SO_REUSEADDR` is set for that, and must stay so).
    ///
    /// The peer may do the same, or go on with its [`Connection`], which then cannot be lost, and whose [`end`](Self::end) reaches nobody.
    ///
    /// # Errors
    /// The connection is closed then. `Closed` when either side has ended its data or closes meanwhile; `Lost`;
    /// `Unsupported` on systems other than Linux, which may not tell the sockets of one port apart; `Forked`, `Io`.
    pub fn into_socket(self) -> Result<UdpSocket> {
        self.take_socket(&Wait::forever())
    }

    /// As [`into_socket`](Self::into_socket), for as long as `wait` says.
    pub(crate) fn take_socket(self, wait: &Wait) -> Result<UdpSocket> {
        self.engine.with(|core| core.begin_bare(&self.link))??;
        let socket = self.engine.wait(wait, |core| core.take_bare(&self.link));
        if socket.is_err() {
            self.engine.with(|core| core.take_bare(&self.link))?;
        }
        socket.map(UdpSocket::from)
    }

    /// Closes it: calls that block on it, and all later ones, fail with `Closed`. Returns at once; the peer is told in the background, for
    /// at most 3 s. Idempotent, from any thread.
    pub fn close(&self) {
        // It fails where nothing is left to close: in a forked child, or after a panic.
        let _ = self.engine.with(|core| core.close(&self.link));
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.close();
    }
}

/// The connection's socket, to be polled for reading.
///
/// Readable may mean no more than that a message of the endpoint's came: then [`recv`](Connection::recv) with
/// [`Wait::at_most`] zero fails with `Timeout`. It must not be read, written or changed otherwise.
impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.link.as_fd()
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("link", &self.link).finish_non_exhaustive()
    }
}
