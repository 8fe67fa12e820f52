//! Meeting a peer of 2015 for a stream.
//!
//! Both connect to each other from the port that both were told; where the two SYNs cross, that is a simultaneous open (RFC
//! 9293 section 3.5). A refusal (RST) tells that the peer is not there yet. If it comes in less than 4 ms, crossing takes
//! luck, so the port listens as well, on the concrete local address (on the wildcard it would catch the own connect), and
//! the connects go on every 150 to 250 ms, to leave the peer's time. If it comes later, SYNs cross easily, a listener
//! would only get in the way, and the next connect leaves after 5 to 20 ms. Both pauses are random, for two peers in step
//! would miss each other for ever. Measured: 216 of 216 on loopback, on a LAN and over 20 ms. Nothing is sent on the stream.
//!
//! A peer is there within seconds, or late, or never was: a server may name whomever it likes. So after a while all pauses
//! are long ones.

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpStream},
    ops::Range,
    time::{Duration, Instant},
};

use socket2::Socket;

use super::{
    HOPELESS,
    route::{local_address, oneself, port_error, refuse_oneself, source_toward},
};
use crate::{
    Error, Result,
    io::{
        Wait,
        plain::{Interest, Turn, accept, begin, detach, only_from, os_error, random, shared_stream},
    },
    machine::Random,
};

/// A refusal that comes earlier is of a peer so near that SYNs hardly cross. Measured.
const NEAR: Duration = Duration::from_millis(4);

/// Between two connects, with a listener and without. Measured.
const NEAR_PAUSE: Range<Duration> = Duration::from_millis(150)..Duration::from_millis(250);
const FAR_PAUSE: Range<Duration> = Duration::from_millis(5)..Duration::from_millis(20);

/// From then on a peer that refuses is asked no more often than a near one.
const EAGER: Duration = Duration::from_secs(10);

/// A connect that nothing answered gets a fresh SYN after so long, which is when Linux would repeat it the first time.
const ATTEMPT: Duration = Duration::from_secs(1);

/// After any other error of a connect, which may pass (no route yet, the former connection still closing).
const FAILED_PAUSE: Range<Duration> = Duration::from_millis(150)..Duration::from_millis(250);

/// Connections that wait to be accepted.
const BACKLOG: i32 = 8;

/// A stream to the peer from the source's address and port: a plain socket, blocking, with nothing of this library on it.
///
/// The source's address may be unspecified. Tries until the wait ends, paced; the time that the peer takes is spent
/// asleep. Nothing is sent.
///
/// # Errors
/// [`ErrorKind::NoPath`](crate::ErrorKind::NoPath) when the peer's address is this program's own;
/// [`AddressInUse`](crate::ErrorKind::AddressInUse) when another program listens on the port;
/// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) for a source that cannot be bound;
/// [`Timeout`](crate::ErrorKind::Timeout) and [`Cancelled`](crate::ErrorKind::Cancelled) as the wait says;
/// [`Io`](crate::ErrorKind::Io) when the system has no descriptors or memory left, or forbids it.
pub fn meet_stream(source: SocketAddr, peer: SocketAddr, wait: &Wait) -> Result<TcpStream> {
    let turn = Turn::begin(wait, format!("meeting {peer}"));
    let source = source_toward(source, peer)?;
    refuse_oneself(source, peer)?;
    let mut meeting = Meeting { source, peer, begun: Instant::now(), listener: None, random: random()?, turn };
    let socket = meeting.run()?;
    socket.set_nonblocking(false).map_err(|error| os_error("cannot give the socket away", &error))?;
    Ok(socket.into())
}

/// What became of a connect.
enum Attempt {
    Met(Socket),
    Unanswered,
    Failed(Option<i32>),
}

struct Meeting {
    source: SocketAddr,
    peer: SocketAddr,
    begun: Instant,
    listener: Option<Socket>,
    random: Random,
    turn: Turn,
}

impl Meeting {
    fn run(&mut self) -> Result<Socket> {
        loop {
            self.turn.check()?;
            let start = Instant::now();
            let pause = match self.attempt()? {
                Attempt::Met(socket) => return Ok(socket),
                Attempt::Unanswered => continue,
                Attempt::Failed(Some(libc::ECONNREFUSED)) => {
                    if self.listener.is_none() && start.elapsed() < NEAR {
                        self.listener = Some(self.listen()?);
                    }
                    if self.listener.is_some() || self.begun.elapsed() > EAGER { NEAR_PAUSE } else { FAR_PAUSE }
                }
                Attempt::Failed(_) => FAILED_PAUSE,
            };
            let until = Instant::now() + self.random.duration(pause.start, pause.end);
            if let Some(socket) = self.accept_until(until)? {
                return Ok(socket);
            }
        }
    }

    /// One connect, while the peer may come to the listener.
    fn attempt(&self) -> Result<Attempt> {
        let socket = shared_stream(self.source).map_err(|error| port_error("TCP", self.source, &error))?;
        if let Err(error) = begin(&socket, self.peer) {
            return self.failed(&error);
        }
        let end = Instant::now() + ATTEMPT;
        let mut interests = vec![Interest::Writable(&socket)];
        interests.extend(self.listener.as_ref().map(|listener| Interest::Readable(listener)));
        loop {
            match self.turn.ready(&interests, Some(end))? {
                None => return Ok(Attempt::Unanswered),
                Some(0) => break,
                Some(_) => {
                    if let Some(accepted) = self.accept() {
                        return Ok(Attempt::Met(accepted));
                    }
                }
            }
        }
        match socket.take_error() {
            Ok(None) => {}
            Ok(Some(error)) | Err(error) => return self.failed(&error),
        }
        let ends = [socket.local_addr(), socket.peer_addr()].map(|end| end.ok().and_then(|end| end.as_socket()));
        match ends {
            [Some(local), Some(remote)] if local == remote => Err(oneself(self.peer)),
            [Some(_), Some(_)] => Ok(Attempt::Met(socket)),
            // It broke in the meantime.
            [_, _] => Ok(Attempt::Failed(None)),
        }
    }

    fn failed(&self, error: &io::Error) -> Result<Attempt> {
        match error.raw_os_error() {
            Some(code) if HOPELESS.contains(&code) => Err(self.hopeless(error)),
            code => Ok(Attempt::Failed(code)),
        }
    }

    fn hopeless(&self, error: &io::Error) -> Error {
        os_error(format!("cannot connect to {}", self.peer), error)
    }

    /// Sleeps, and accepts the peer meanwhile.
    fn accept_until(&self, until: Instant) -> Result<Option<Socket>> {
        let interest = self.listener.as_ref().map(|listener| Interest::Readable(listener));
        while self.turn.ready(interest.as_slice(), Some(until))?.is_some() {
            if let Some(socket) = self.accept() {
                return Ok(Some(socket));
            }
        }
        Ok(None)
    }

    /// The peer, if it is the peer: its port may be another where a NAT chose it.
    fn accept(&self) -> Option<Socket> {
        let (socket, _, remote) = accept(self.listener.as_ref()?).ok()?;
        if remote.ip() != self.peer.ip() {
            return None;
        }
        // It inherited the listener's filter. It fails where there was none.
        let _ = detach(&socket);
        Some(socket)
    }

    /// A listener for the peer alone.
    ///
    /// Two sessions of this host may listen on one port, and the system hands each connection to either of them,
    /// whichever it is for. So it drops what others send: a SYN that is dropped is repeated, and found by the other. Where
    /// there are no such filters, the wrong one is closed when it was accepted.
    fn listen(&self) -> Result<Socket> {
        let listen = || {
            let local = local_address(self.source, self.peer)?;
            let listener = shared_stream(SocketAddr::new(local, self.source.port()))?;
            if let IpAddr::V4(host) = self.peer.ip() {
                let _ = only_from(&listener, host);
            }
            listener.listen(BACKLOG)?;
            Ok(listener)
        };
        listen().map_err(|error| port_error("TCP", self.source, &error))
    }
}
