//! TCP sockets as simultaneous open needs them: many that share one port, none that blocks.
//!
//! The socket that reserves a port also listens on it; each connect has a fresh socket bound to the same port. All have
//! `SO_REUSEADDR` and `SO_REUSEPORT`: the second lets connecting sockets in beside one that listens, as long as they are of one
//! user. A port that is asked for by number is bound before the second option is set, so that one on which another
//! program listens is an error. Sent are only a few hundred bytes on fresh connections; what the system does not take at once waits
//! in a short queue.

use std::{
    io,
    net::{Shutdown, SocketAddr},
    os::fd::{AsRawFd, RawFd},
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};

use super::{
    fault::{bind_error, interrupted, would_block},
    link::as_uninit,
};
use crate::{Error, address::canonical};

/// Connections that wait to be accepted on one punched port; each is that of one peer.
const BACKLOG: i32 = 16;

/// Bytes that may wait for the system to take them. More than the machine ever says on one connection.
const MAX_QUEUED: usize = 8_192;

/// Bytes that are taken from a connection before it is closed, at most: as many as its receive buffer holds.
const MAX_DRAINED: usize = 8 << 20;

/// Reserves a port and says its address; the IP is unspecified where it was bound so.
pub(super) fn reserve(address: SocketAddr) -> Result<(Socket, SocketAddr), Error> {
    let bind = || {
        let socket = new_socket(address)?;
        socket.bind(&address.into())?;
        socket.set_reuse_port(true)?;
        let local = socket.local_addr()?.as_socket().unwrap_or(address);
        Ok((socket, local))
    };
    bind().map_err(|error: io::Error| bind_error("TCP", address, &error))
}

/// Listens on the socket that reserves a port.
pub(super) fn listen(socket: &Socket) -> io::Result<()> {
    socket.listen(BACKLOG)
}

/// Begins to connect from the port of `local`.
pub(super) fn connect(local: SocketAddr, remote: SocketAddr) -> io::Result<Socket> {
    let socket = shared(local)?;
    begin(&socket, remote)?;
    Ok(socket)
}

/// A socket bound to a port that others share.
pub(crate) fn shared(local: SocketAddr) -> io::Result<Socket> {
    let socket = new_socket(local)?;
    socket.set_reuse_port(true)?;
    socket.bind(&local.into())?;
    Ok(socket)
}

/// Begins a connect, which is over when the socket becomes writable.
pub(crate) fn begin(socket: &Socket, remote: SocketAddr) -> io::Result<()> {
    match socket.connect(&remote.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) && !interrupted(&error) => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Accepts one connection: its socket, our address and the other's.
pub(crate) fn accept(listener: &Socket) -> io::Result<(Socket, SocketAddr, SocketAddr)> {
    let (socket, remote) = listener.accept()?;
    socket.set_nonblocking(true)?;
    let not_internet = || io::Error::from(io::ErrorKind::InvalidData);
    let remote = remote.as_socket().ok_or_else(not_internet)?;
    let local = socket.local_addr()?.as_socket().ok_or_else(not_internet)?;
    Ok((socket, canonical(local), canonical(remote)))
}

/// A stream socket of the family of `address` that others may share its port with; never inherited by a program that
/// this one starts.
pub(crate) fn new_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    Ok(socket)
}

/// A connection, or the attempt to make one, in the machine's hands.
#[derive(Debug)]
pub(super) struct Tcp {
    socket: Socket,
    connecting: bool,
    queue: Vec<u8>,
}

/// What became of an attempt to connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    Pending,
    /// It has just succeeded, and this is our address.
    Connected(SocketAddr),
    /// It had succeeded before.
    Open,
    Failed,
}

impl Tcp {
    pub(super) const fn connecting(socket: Socket) -> Self {
        Self { socket, connecting: true, queue: Vec::new() }
    }

    pub(super) const fn open(socket: Socket) -> Self {
        Self { socket, connecting: false, queue: Vec::new() }
    }

    /// Looks what became of the attempt.
    pub(super) fn attempt(&mut self) -> Attempt {
        if !self.connecting {
            return Attempt::Open;
        }
        match self.socket.take_error() {
            Ok(None) => {}
            Ok(Some(_)) | Err(_) => return Attempt::Failed,
        }
        // Only a socket that is connected has a peer.
        if self.socket.peer_addr().is_err() {
            return Attempt::Pending;
        }
        let Some(local) = self.socket.local_addr().ok().and_then(|local| local.as_socket()) else {
            return Attempt::Failed;
        };
        self.connecting = false;
        Attempt::Connected(canonical(local))
    }

    /// Sends what the system takes, and keeps the rest.
    pub(super) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.queue.len() + bytes.len() > MAX_QUEUED {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        self.queue.extend_from_slice(bytes);
        if self.connecting { Ok(()) } else { self.flush() }
    }

    /// Sends what is left of earlier sends.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        while !self.queue.is_empty() {
            match self.socket.send_with_flags(&self.queue, libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT) {
                Ok(sent) => drop(self.queue.drain(..sent)),
                Err(error) if would_block(&error) => return Ok(()),
                Err(error) if interrupted(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Shows what waits, from its first byte on, without taking it; 0 at the end of the stream.
    pub(super) fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.socket.recv_with_flags(as_uninit(buffer), libc::MSG_PEEK | libc::MSG_DONTWAIT)
    }

    /// Takes so many bytes, which were seen by [`peek`](Self::peek).
    pub(super) fn take(&self, mut length: usize) -> io::Result<()> {
        let mut scratch = [0; 2048];
        while length > 0 {
            let room = length.min(scratch.len());
            match self.socket.recv_with_flags(as_uninit(&mut scratch[..room]), libc::MSG_DONTWAIT) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(taken) => length -= taken,
                Err(error) if interrupted(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Ends it such that what was sent arrives; of an attempt nothing is left.
    pub(super) fn close(mut self) {
        if self.connecting {
            // The other side's SYN may have come: then Linux would keep the two endpoints until the handshake is over.
            return self.abort();
        }
        // What cannot be sent now never will be.
        let _ = self.flush();
        drain(&self.socket);
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    /// Ends it with a RST, and frees its endpoints at once.
    pub(super) fn abort(self) {
        // It fails only where the socket is dead already.
        let _ = self.socket.set_linger(Some(Duration::ZERO));
    }

    /// Gives the socket away, if nothing of ours is left to be sent on it.
    pub(super) fn into_socket(self) -> Option<Socket> {
        (!self.connecting && self.queue.is_empty()).then_some(self.socket)
    }
}

impl AsRawFd for Tcp {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// Reads what waits: a socket that is closed with unread bytes sends a RST, which destroys what it sent before.
pub(crate) fn drain(socket: &Socket) {
    let mut scratch = [0; 16_384];
    let mut drained = 0;
    while drained < MAX_DRAINED {
        match socket.recv_with_flags(as_uninit(&mut scratch), libc::MSG_DONTWAIT) {
            Ok(0) => return,
            Ok(length) => drained += length,
            Err(error) if interrupted(&error) => {}
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ErrorKind, io::ready};
    use std::{net::TcpListener, time::Duration};

    fn wait(source: &dyn AsRawFd) {
        ready::wait(&[source], Some(Duration::from_secs(10))).unwrap();
    }

    fn connected(tcp: &mut Tcp) -> SocketAddr {
        ready::wait_writable(tcp, None, Some(Duration::from_secs(10))).unwrap();
        let Attempt::Connected(local) = tcp.attempt() else { panic!("no connection") };
        local
    }

    #[test]
    fn a_port_connects_and_listens_at_once() {
        let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
        let (reserved, local) = reserve("127.0.0.1:0".parse().unwrap()).unwrap();
        listen(&reserved).unwrap();
        let mut out = Tcp::connecting(connect(local, elsewhere.local_addr().unwrap()).unwrap());
        assert_eq!(connected(&mut out), local);
        assert_eq!(elsewhere.accept().unwrap().1, local);
        // While that connection is there, somebody connects to the same port.
        let guest = std::net::TcpStream::connect(local).unwrap();
        wait(&reserved);
        let (_accepted, at, from) = accept(&reserved).unwrap();
        assert_eq!((at, from), (local, guest.local_addr().unwrap()));
    }

    #[test]
    fn a_refused_connect_is_told_and_may_be_tried_again() {
        let (a, at_a) = reserve("127.0.0.1:0".parse().unwrap()).unwrap();
        let (b, at_b) = reserve("127.0.0.1:0".parse().unwrap()).unwrap();
        // A SYN to a port that does not listen is refused on loopback, before the other one can leave.
        let mut refused = Tcp::connecting(connect(at_a, at_b).unwrap());
        ready::wait_writable(&refused, None, Some(Duration::from_secs(10))).unwrap();
        assert_eq!(refused.attempt(), Attempt::Failed);
        drop(refused);
        listen(&b).unwrap();
        let mut again = Tcp::connecting(connect(at_a, at_b).unwrap());
        assert_eq!(connected(&mut again), at_a);
        drop(a);
    }

    #[test]
    fn an_attempt_that_is_given_up_leaves_its_endpoints_free() {
        let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
        let (_reserved, local) = reserve("127.0.0.1:0".parse().unwrap()).unwrap();
        // The handshake is over before anybody looks.
        let given_up = Tcp::connecting(connect(local, elsewhere.local_addr().unwrap()).unwrap());
        ready::wait_writable(&given_up, None, Some(Duration::from_secs(10))).unwrap();
        given_up.close();
        let mut again = Tcp::connecting(connect(local, elsewhere.local_addr().unwrap()).unwrap());
        assert_eq!(connected(&mut again), local);
    }

    #[test]
    fn a_port_that_is_listened_on_is_busy() {
        let holder = TcpListener::bind("127.0.0.1:0").unwrap();
        let busy = holder.local_addr().unwrap();
        let error = reserve(busy).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddressInUse);
        assert!(error.message().contains(&busy.to_string()), "{error}");
    }

    #[test]
    fn what_is_shown_stays_until_it_is_taken() {
        use std::io::{Read as _, Write as _};
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut near = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (far, _) = listener.accept().unwrap();
        let mut tcp = Tcp::open(far.into());
        near.write_all(b"oursyours").unwrap();
        let mut buffer = [0; 100];
        wait(&tcp);
        assert_eq!(tcp.peek(&mut buffer).unwrap(), 9);
        tcp.take(4).unwrap();
        assert_eq!(tcp.peek(&mut buffer).unwrap(), 5);
        assert_eq!(&buffer[..5], b"yours");
        tcp.send(b"last words").unwrap();
        // With five bytes unread the peer still hears the last words and an orderly end.
        tcp.close();
        let mut heard = Vec::new();
        near.read_to_end(&mut heard).unwrap();
        assert_eq!(heard, b"last words");
    }
}
