//! One connection for a stream of bytes.

use std::{
    fmt,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
    time::Duration,
};

use super::Wait;
use crate::{
    Result,
    io::{Engine, StreamLink, streaming},
    peer::Path,
    wire::stun::SessionId,
};

/// A direct path to a peer, for a stream of bytes in each direction: a TCP connection.
///
/// Nothing is lost, doubled or reordered. All methods take `&self` and may be called from any threads at once; reading and writing are
/// one system call each, without a lock. `Read` and `Write` block for as long as it takes; [`recv`](Self::recv),
/// [`send`](Self::send) and [`send_all`](Self::send_all) take a [`Wait`]. Dropping it closes it.
///
/// A peer that has answered nothing for 30 s is lost: the system probes a silent one (`SO_KEEPALIVE`). While bytes that were
/// sent await their acknowledgement, the system's own patience counts instead, which may be many minutes.
///
/// ```no_run
/// use holepunch::{ConnectOptions, Endpoint};
/// use std::io::{Read as _, Write as _};
///
/// let endpoint = Endpoint::builder().build()?;
/// let mut stream = endpoint.connect("bob", &ConnectOptions::default())?;
/// stream.write_all(b"hello")?;
/// stream.shutdown_write()?;
/// let mut answer = String::new();
/// stream.read_to_string(&mut answer)?;
/// println!("{} says {answer}", stream.path().remote);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Stream {
    engine: Arc<Engine>,
    link: Arc<StreamLink>,
}

impl Stream {
    pub(super) fn new(engine: Arc<Engine>, link: Arc<StreamLink>) -> Self {
        Self { engine, link }
    }

    /// Which session it is; the same on both sides.
    #[must_use]
    pub fn session(&self) -> SessionId {
        self.link.session
    }

    /// Receives some bytes into `buffer`, and returns how many; 0 at the end of the peer's data, or for an empty buffer.
    ///
    /// # Errors
    /// `Timeout` and `Cancelled` as `wait` says; `Closed` after [`close`](Self::close); `Lost` when the peer has broken the connection off, or
    /// has answered nothing for 30 s; `Forked`, `Io`.
    pub fn recv(&self, buffer: &mut [u8], wait: Wait) -> Result<usize> {
        streaming::receive(&self.engine, &self.link, buffer, &wait)
    }

    /// Sends some of the bytes, as many as the system takes, and returns how many; 0 only for none.
    ///
    /// That they were sent does not mean that they arrive.
    ///
    /// # Errors
    /// `Timeout` when not one byte could be sent, and `Cancelled`, as `wait` says; `Closed` after [`close`](Self::close) and after
    /// [`shutdown_write`](Self::shutdown_write); `Lost` as for [`recv`](Self::recv); `Forked`, `Io`.
    pub fn send(&self, bytes: &[u8], wait: Wait) -> Result<usize> {
        streaming::send(&self.engine, &self.link, bytes, &wait)
    }

    /// Sends all of the bytes.
    ///
    /// # Errors
    /// As [`send`](Self::send); how many bytes were sent before is not known then.
    pub fn send_all(&self, bytes: &[u8], wait: Wait) -> Result<()> {
        streaming::send_all(&self.engine, &self.link, bytes, &wait)
    }

    /// Ends our data: the peer reads what was sent, then 0 bytes. Reading goes on. Returns at once.
    ///
    /// # Errors
    /// `Closed` after [`close`](Self::close); `Lost` when there is no connection any more; `Forked`, `Io`.
    pub fn shutdown_write(&self) -> Result<()> {
        self.engine.check_process()?;
        self.link.end()
    }

    /// The path that was found.
    #[must_use]
    pub fn path(&self) -> Path {
        self.link.path
    }

    /// Our address.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.link.local()
    }

    /// The smoothed round-trip time to the peer, as the system measures it; where it does not tell, that of the connect.
    #[must_use]
    pub fn rtt(&self) -> Duration {
        self.link.rtt().unwrap_or(self.link.path.rtt)
    }

    /// Gives the socket away: a plain one of the system's, connected and blocking, with nothing of this library on it. It
    /// outlives the endpoint.
    ///
    /// # Errors
    /// `Closed` after [`close`](Self::close); `Forked`. The system can hardly refuse (`Io`): no descriptor is made. The stream is closed then.
    pub fn into_socket(self) -> Result<TcpStream> {
        self.engine.with(|core| {
            core.forget_link(&self.link);
            self.link.give_away()
        })?
    }

    /// Closes it: calls that block on it, and all later ones, fail with `Closed`. Returns at once; what was sent still
    /// arrives, then the peer reads the end. Idempotent, from any thread.
    pub fn close(&self) {
        if self.engine.check_process().is_ok() {
            self.link.close();
        }
    }
}

impl Read for &Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.recv(buffer, Wait::forever()).map_err(streaming::as_io)
    }
}

impl Write for &Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.send(bytes, Wait::forever()).map_err(streaming::as_io)
    }

    /// Nothing is kept back, so there is nothing to do.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buffer)
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&*self).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The stream's socket, to be polled for reading and writing. It must not be read, written or changed otherwise.
impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.link.as_fd()
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("link", &self.link).finish_non_exhaustive()
    }
}
