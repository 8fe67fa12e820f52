//! The client's view of a server that is spoken to as in 2015: one TCP connection.
//!
//! A client says one thing, `<` or `>host`, in one write and nothing else, and reads the answer. It leaves with an end of
//! stream and reads what is still there: what comes to a closed socket is answered with a reset, as is closing with
//! unread bytes, and a reset kills a server of 2015.

use std::{
    io,
    net::{IpAddr, Shutdown, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use socket2::{Socket, TcpKeepalive};

use crate::{
    Error, ErrorKind, Result,
    io::{
        Wait,
        plain::{Interest, Turn, as_uninit, begin, bind_error, os_error, stream_socket},
    },
    wire::compat::{Answer, Answers},
};

/// A listener's connection must not fall out of a NAT's memory, and must end with the server.
const KEEPALIVE: Duration = Duration::from_secs(25);

/// What the server has for ending the stream after this side did: a round trip, mostly over by then.
const FAREWELL: Duration = Duration::from_millis(100);

/// A connection to the server. Dropping it leaves the server with an end of stream, and takes at most 100 ms.
pub(super) struct Server {
    socket: Socket,
    address: SocketAddr,
    answers: Answers,
}

impl Server {
    /// Takes a fresh connection over, on which nothing was said.
    pub(super) fn new(stream: TcpStream, address: SocketAddr) -> Result<Self> {
        let socket = Socket::from(stream);
        socket.set_nonblocking(true).map_err(|error| os_error("cannot use the connection", &error))?;
        Ok(Self { socket, address, answers: Answers::default() })
    }

    /// Makes a connection.
    pub(super) fn connect(address: SocketAddr, bind: Option<IpAddr>, wait: &Wait) -> Result<Self> {
        let turn = Turn::begin(wait, format!("connecting to the server {address}"));
        let socket = bound(address, bind)?;
        begin(&socket, address).map_err(|error| unreachable(address, &error))?;
        turn.ready(&[Interest::Writable(&socket)], None)?;
        match socket.take_error() {
            Ok(None) => Ok(Self { socket, address, answers: Answers::default() }),
            Ok(Some(error)) | Err(error) => Err(unreachable(address, &error)),
        }
    }

    /// Asks for the listener at an address, or without one to be told who connects; waits for the answer.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; [`ErrorKind::ServerRefused`] when the server ends the conversation or makes no sense;
    /// [`ErrorKind::InvalidArgument`] for a host that cannot be sent; [`ErrorKind::Timeout`], [`ErrorKind::Cancelled`],
    /// [`ErrorKind::Io`].
    pub(super) fn ask(&mut self, host: Option<&str>, wait: &Wait) -> Result<SocketAddr> {
        let (request, what) = match host {
            None => ("<".to_owned(), "listening".to_owned()),
            Some(host) => (format!(">{host}"), format!("connecting to {host}")),
        };
        let turn = Turn::begin(wait, what);
        let broken =
            |error: io::Error| os_error(format!("the connection to the server {} broke", self.address), &error);
        // One write, for the old server takes what one read gives it for one message. A fresh connection has room.
        turn.ready(&[Interest::Writable(&self.socket)], None)?;
        let sent = self.socket.send_with_flags(request.as_bytes(), libc::MSG_NOSIGNAL).map_err(broken)?;
        if sent != request.len() {
            return Err(broken(io::ErrorKind::WriteZero.into()));
        }
        let mut buffer = [0; 1024];
        loop {
            if let Some(answer) = self.answers.pop() {
                return introduced(answer, host, self.address);
            }
            turn.ready(&[Interest::Readable(&self.socket)], None)?;
            match self.socket.recv(as_uninit(&mut buffer)) {
                Ok(0) => return introduced(Answer::End, host, self.address),
                Ok(length) => self.answers.push(buffer.get(..length).unwrap_or_default()),
                Err(error) if is_passing(&error) => {}
                Err(error) => return Err(broken(error)),
            }
        }
    }

    /// Says goodbye and keeps the socket, so that nothing that the server still sends is answered with a reset.
    pub(super) fn leave(&self) {
        // It fails where the server left first.
        let _ = self.socket.shutdown(Shutdown::Write);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.leave();
        let turn = Turn::begin(&Wait::at_most(FAREWELL), "leaving the server");
        let until = Instant::now() + FAREWELL;
        let mut buffer = [0; 16_384];
        // A server that goes on talking is left all the same.
        while Instant::now() < until
            && let Ok(Some(_)) = turn.ready(&[Interest::Readable(&self.socket)], Some(until))
        {
            match self.socket.recv(as_uninit(&mut buffer)) {
                Ok(1..) => {}
                Err(error) if is_passing(&error) => {}
                Ok(0) | Err(_) => return,
            }
        }
    }
}

/// A socket for a connection to the server, bound where that was asked for.
pub(super) fn bound(server: SocketAddr, bind: Option<IpAddr>) -> Result<Socket> {
    let make = || {
        let socket = stream_socket(server)?;
        // The port is the system's choice and nobody else's.
        socket.set_reuse_address(false)?;
        socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE))?;
        Ok(socket)
    };
    let socket: Socket = make().map_err(|error: io::Error| os_error("cannot make a socket", &error))?;
    if let Some(ip) = bind {
        let local = SocketAddr::new(ip, 0);
        socket.bind(&local.into()).map_err(|error| bind_error("TCP", local, &error))?;
    }
    Ok(socket)
}

/// The connection as a stream to give away: blocking.
pub(super) fn given(socket: Socket) -> Result<TcpStream> {
    socket.set_nonblocking(false).map_err(|error| os_error("cannot give the socket away", &error))?;
    Ok(socket.into())
}

/// Why the server cannot be reached.
pub(super) fn unreachable(server: SocketAddr, error: &io::Error) -> Error {
    Error::new(ErrorKind::ServerUnreachable, format!("the server {server} cannot be reached: {error}"))
        .with_os_code(error.raw_os_error())
}

fn introduced(answer: Answer, host: Option<&str>, server: SocketAddr) -> Result<SocketAddr> {
    let refused = |message: String| Error::new(ErrorKind::ServerRefused, message);
    match answer {
        // To a server elsewhere nobody can have come from there.
        Answer::Peer(peer) if peer.ip().is_loopback() && !server.ip().is_loopback() => {
            Err(refused(format!("the server {server} names this machine itself as the peer ({peer})"))
                .with_hint("check that it is a holepunch server"))
        }
        Answer::Peer(peer) => Ok(peer),
        Answer::NotFound => Err(not_found(host)),
        Answer::End => {
            Err(refused("the server ended the connection".to_owned()).with_hint("it may have been stopped; try again"))
        }
        Answer::Nonsense(bytes) => {
            let text: String = bytes.iter().take(80).map(|byte| byte.escape_ascii().to_string()).collect();
            Err(refused(format!("the server answered \"{text}\"")).with_hint("check that it is a holepunch server"))
        }
    }
}

/// The server knows no listener at an address.
pub(super) fn not_found(host: Option<&str>) -> Error {
    let message = host.map_or("the server found nobody".to_owned(), |host| format!("no listener is at {host}"));
    Error::new(ErrorKind::NotFound, message)
        .with_hint("the listener has to be there first, and its address is the public one")
}

fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
