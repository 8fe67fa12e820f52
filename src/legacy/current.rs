//! Meeting a peer through a server that speaks the current protocol.
//!
//! An endpoint of this call's own asks the server, says that peers of 2015 are welcome, and offers the one transport that
//! is wanted. A current peer is met as any two current peers meet, with checks, on whichever of its addresses answers,
//! and then the socket is taken from the endpoint (`into_socket`), so that it is as plain as one that was met as in 2015.
//! A peer of 2015 is left to the caller: first the endpoint goes, since it may hold the port that this peer is to be
//! met from, and what the server still says to it must not land in the caller's socket.
//!
//! The listener leaves the server as soon as it has somebody: it is there for one. A connector whose peer was introduced
//! and not met asks again for as long as its time lasts, because the listener has gone on, too.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::{Opened, Socket, route::source_toward, server::not_found};
use crate::{
    ConnectOptions, Endpoint, Error, ErrorKind, Result,
    config::PeerConfig,
    io::{
        Wait,
        plain::{Turn, os_error},
    },
    peer::Transport,
};

/// Two peers have so long from their introduction on; then a connector asks anew.
const ATTEMPT: Duration = Duration::from_secs(30);

/// A listener that has not met whom it was introduced to is back at the server within one keepalive (25 s).
const BACK: Duration = Duration::from_secs(30);

/// A peer whose connection is given up before its socket was taken is told for at most so long: the caller waits for it.
const FAREWELL: Duration = Duration::from_millis(500);

/// What [`meet_current`] is to do.
#[derive(Clone, Copy, Debug)]
pub struct Meeting {
    /// The server.
    pub server: SocketAddr,
    /// The local address to use, which may be unspecified, and the port, which is used as long as it is free; 0 leaves it
    /// to the system.
    pub source: SocketAddr,
    /// The listener's public address; without one this side listens.
    pub destination: Option<IpAddr>,
    /// What to meet for.
    pub transport: Transport,
}

/// Connects to a listener, or listens and waits for a peer, through a current server: a plain socket, blocking and
/// connected, with nothing of this library on it.
///
/// Blocks until the peer is met. Nothing else is left of it: no thread, no descriptor, no registration.
///
/// # Errors
/// [`ErrorKind::LegacyPeer`] for a peer of 2015, which is to be met as such from and to the port of
/// [`Error::legacy_peer`]; [`ErrorKind::NotFound`], at once; [`ErrorKind::Ambiguous`], [`ErrorKind::TransportMismatch`],
/// [`ErrorKind::VersionMismatch`], [`ErrorKind::ServerRefused`], [`ErrorKind::ServerSilent`] after 5 s,
/// [`ErrorKind::NoPath`]; [`ErrorKind::InvalidArgument`] for a source of another family than the server's;
/// [`ErrorKind::Unsupported`] for datagrams where the system cannot give their socket away;
/// [`ErrorKind::Timeout`] and [`ErrorKind::Cancelled`] as the wait says; [`ErrorKind::Io`].
pub fn meet_current(meeting: &Meeting, wait: &Wait) -> Result<Opened> {
    let what = meeting.destination.map_or("listening".into(), |host| format!("connecting to {host}"));
    let turn = Turn::begin(wait, what);
    turn.check()?;
    let source = source_toward(meeting.source, meeting.server)?;
    let config = PeerConfig { farewell: FAREWELL, ..PeerConfig::default() };
    let builder = Endpoint::builder()
        .server(meeting.server.to_string())
        .bind(SocketAddr::new(source.ip(), 0))
        .prefer_port(source.port())
        .legacy(true)
        .config(config);
    let endpoint = match meeting.transport {
        Transport::Udp => builder.datagrams_only(),
        Transport::Tcp => builder.streams_only(),
    }
    .build()?;
    let left = || wait.but_at_most(turn.left(Duration::MAX));
    let met = match meeting.destination {
        None => listen(&endpoint, meeting.transport, &left),
        Some(host) => connect(&endpoint, host, meeting.transport, &turn, wait),
    };
    // Its thread tells the server, and ends.
    drop(endpoint);
    met.map_err(|error| {
        if error.kind() == ErrorKind::Timeout {
            turn.check().err().unwrap_or(error)
        } else if error.kind() == ErrorKind::NotFound {
            // In the words that an old server's answer is told in.
            not_found(meeting.destination.map(|host| host.to_string()).as_deref())
        } else {
            error
        }
    })
}

fn listen(endpoint: &Endpoint, transport: Transport, left: &dyn Fn() -> Wait) -> Result<Opened> {
    let listener = endpoint.listen(None, left())?;
    // Dropping it gives the place at the server back, also while the socket is taken.
    match transport {
        Transport::Udp => {
            let connection = listener.accept_datagram(left())?;
            drop(listener);
            datagrams(connection.take_socket(&left())?)
        }
        Transport::Tcp => {
            let stream = listener.accept(left())?;
            drop(listener);
            self::stream(stream.into_socket()?)
        }
    }
}

fn connect(endpoint: &Endpoint, host: IpAddr, transport: Transport, turn: &Turn, wait: &Wait) -> Result<Opened> {
    let target = host.to_string();
    let mut options = ConnectOptions::default().wait(Duration::ZERO).timeout(ATTEMPT);
    loop {
        let left = wait.but_at_most(turn.left(Duration::MAX));
        let opened = match transport {
            Transport::Udp => endpoint
                .connect_datagram_within(&target, &options, &left)
                .and_then(|connection| datagrams(connection.take_socket(&left)?)),
            Transport::Tcp => {
                endpoint.connect_within(&target, &options, &left).and_then(|stream| self::stream(stream.into_socket()?))
            }
        };
        match opened {
            Err(error) if error.kind() == ErrorKind::Timeout => turn.check()?,
            opened => return opened,
        }
        options = options.wait(BACK);
    }
}

fn datagrams(socket: std::net::UdpSocket) -> Result<Opened> {
    let peer = socket.peer_addr().map_err(|error| os_error("the peer has no address", &error))?;
    Ok(Opened { socket: Socket::Datagrams(socket), peer })
}

fn stream(socket: std::net::TcpStream) -> Result<Opened> {
    let peer = socket.peer_addr().map_err(|error| gone(&error))?;
    Ok(Opened { socket: Socket::Stream(socket), peer })
}

/// The peer broke the stream off in the very moment.
fn gone(error: &std::io::Error) -> Error {
    Error::new(ErrorKind::Lost, "the peer has broken the connection off").with_os_code(error.raw_os_error())
}
