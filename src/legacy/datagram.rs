//! Meeting a peer of 2015 for datagrams.
//!
//! `*` goes out at once, which opens the own firewall for what the peer sends, and again with growing pauses until
//! something of the peer arrives, at most 20 times in 3 s; then once more, since what was sent before may have come before
//! the peer had opened its own. What arrived stays readable. A silent peer is no error: the program talks first.

use std::{
    collections::BTreeMap,
    io,
    net::{SocketAddr, UdpSocket},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use socket2::Socket;

use super::{
    HOPELESS,
    route::{port_error, refuse_oneself, source_toward},
};
use crate::{
    Error, ErrorKind, Result,
    io::{
        Wait,
        plain::{Identity, Interest, Turn, as_uninit, datagram_socket, os_error},
    },
};

const GREETING: &[u8] = b"*";

/// Datagrams at most: the code of 2015 sent one, and a program that reads them without knowing them must not drown.
const GREETINGS: u32 = 20;

/// A silent peer is left to the program after so long; `open` of 2015 has to return within 5 s.
const PATIENCE: Duration = Duration::from_secs(3);

/// Between two greetings, doubling from the first to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(25);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// The sessions of this process by own port and peer. The sockets are the program's, and plain; so only this tells that a
/// second one would take the first one's datagrams away.
static SESSIONS: Mutex<BTreeMap<(u16, SocketAddr), Identity>> = Mutex::new(BTreeMap::new());

/// A socket on the source's address and port, through which the peer was greeted: a plain one, blocking, with nothing of
/// this library on it.
///
/// The source's address may be unspecified. The socket is unconnected, so that a peer whose NAT chose another port is
/// heard, unless another socket of this machine has the port too: then it is connected, and each gets its own peer's
/// datagrams. Blocks for 3 s at most, also if the peer is silent, which is no error. What came from the peer stays
/// readable; among it may be datagrams `*`.
///
/// # Errors
/// [`ErrorKind::NoPath`] when the peer's address is this program's own; [`ErrorKind::AddressInUse`] when this program has
/// a session with the peer on that port already; [`ErrorKind::InvalidArgument`] for a source that cannot be bound;
/// [`ErrorKind::Cancelled`]; [`ErrorKind::Io`]. Time that is over before the peer is heard ends the greeting, as 3 s do.
pub fn meet_datagram(source: SocketAddr, peer: SocketAddr, wait: &Wait) -> Result<UdpSocket> {
    let turn = Turn::begin(wait, format!("meeting {peer}"));
    turn.check()?;
    let source = source_toward(source, peer)?;
    refuse_oneself(source, peer)?;
    let socket = claim(source, peer)?;
    greet_until_heard(&socket, peer, &turn)?;
    let failed = |error| os_error("cannot give the socket away", &error);
    socket.set_nonblocking(false).map_err(failed)?;
    Ok(socket.into())
}

/// A socket for the one session with the peer on that port. Of two calls at the same time one is refused.
fn claim(source: SocketAddr, peer: SocketAddr) -> Result<Socket> {
    let mut sessions = SESSIONS.lock().unwrap_or_else(PoisonError::into_inner);
    sessions.retain(|_, session| session.is_open());
    if sessions.contains_key(&(source.port(), peer)) {
        return Err(Error::new(
            ErrorKind::AddressInUse,
            format!("this program has a session with {} on port {} already", peer.ip(), source.port()),
        )
        .with_hint("close that session first")
        .with_os_code(Some(libc::EADDRINUSE)));
    }
    let socket = bound(source, peer).map_err(|error| port_error("UDP", source, &error))?;
    let local = socket.local_addr().map_err(|error| os_error("the system does not tell the port", &error))?;
    let port = local.as_socket().map_or(source.port(), |local| local.port());
    if let Some(identity) = Identity::of(&socket) {
        sessions.insert((port, peer), identity);
    }
    Ok(socket)
}

/// Binds; a port that other sockets have too is told apart by peer.
fn bound(source: SocketAddr, peer: SocketAddr) -> io::Result<Socket> {
    let socket = datagram_socket(source)?;
    socket.set_nonblocking(true)?;
    // Without the options first: only so does the system tell that somebody has the port.
    let alone = match socket.bind(&source.into()) {
        Ok(()) => true,
        Err(error) if error.raw_os_error() == Some(libc::EADDRINUSE) => false,
        Err(error) => return Err(error),
    };
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    if !alone {
        socket.bind(&source.into())?;
        socket.connect(&peer.into())?;
    }
    Ok(socket)
}

fn greet_until_heard(socket: &Socket, peer: SocketAddr, turn: &Turn) -> Result<()> {
    let end = Instant::now() + turn.left(PATIENCE);
    let mut pause = FIRST_PAUSE;
    for _ in 1..GREETINGS {
        greet(socket, peer)?;
        let until = end.min(Instant::now() + pause);
        while turn.ready(&[Interest::Readable(socket)], Some(until))?.is_some() {
            if has_come(socket, peer) {
                return greet(socket, peer);
            }
        }
        if Instant::now() >= end {
            break;
        }
        pause = LONGEST_PAUSE.min(2 * pause);
    }
    Ok(())
}

fn greet(socket: &Socket, peer: SocketAddr) -> Result<()> {
    match socket.send_to(GREETING, &peer.into()) {
        Ok(_) => Ok(()),
        // What the network says now (refused, unreachable, filtered) may be otherwise at the next one.
        Err(error) if error.raw_os_error().is_none_or(|code| code == libc::ENOBUFS || !HOPELESS.contains(&code)) => {
            Ok(())
        }
        Err(error) => Err(os_error(format!("cannot send to {peer}"), &error)),
    }
}

/// Whether the first datagram is the peer's, whose port may be another where a NAT chose it; one of anybody else is
/// thrown away.
fn has_come(socket: &Socket, peer: SocketAddr) -> bool {
    let mut byte = [0];
    let Ok((_, sender)) = socket.recv_from_with_flags(as_uninit(&mut byte), libc::MSG_PEEK | libc::MSG_DONTWAIT) else {
        return false; // an answer of the network to an earlier datagram, or nothing after all
    };
    if sender.as_socket().is_some_and(|sender| sender.ip() == peer.ip()) {
        return true;
    }
    let _ = socket.recv_with_flags(as_uninit(&mut byte), libc::MSG_DONTWAIT);
    false
}
