//! The least that two programs can do for a stream through two NATs: a simultaneous open on bare sockets.
//!
//! Each side connects to the introducer from a fresh port, and is told by it the mapped address of the other. From then
//! on it listens on that port and connects from it to the other's; a refusal is retried after a random time up to 10 ms
//! (a fixed one livelocks), and what was not answered for 300 ms and a round trip is begun anew. It is done when the
//! system has a connection, and does not look who is there.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use mio::{Events, Interest, Poll, Token};
use netsim::{Random, Time};
use socket2::{Domain, Protocol, Socket, Type};

use crate::processor_time;
use natlab::{Host, Model};

/// After a refusal, at most.
const RETRY: Duration = Duration::from_millis(10);
/// A SYN that was lost is sent again after this and a round trip.
const FRESH_SYN: Duration = Duration::from_millis(300);
/// Then it has failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// What Linux says of a connect that is under way; the standard library has no stable name for it.
const EINPROGRESS: i32 = 115;

const LISTENER: Token = Token(0);
const ATTEMPT: Token = Token(1);

/// What came of one side.
#[derive(Clone, Copy)]
pub(crate) struct Side {
    pub(crate) learned: Time,
    pub(crate) connected: Option<Time>,
    pub(crate) connects: u32,
    pub(crate) processor: Duration,
}

/// One simultaneous open; the first host is told of the other by `skew` later.
pub(crate) fn run(
    model: &Model,
    introducer: &TcpListener,
    hosts: [&Host; 2],
    skew: Duration,
    round_trip: Duration,
    seed: u64,
) -> io::Result<[Side; 2]> {
    let target = introducer.local_addr()?;
    thread::scope(|scope| {
        let sides = [0_u64, 1].map(|number| {
            let host = hosts[number as usize];
            scope.spawn(move || host.within(|| side(model, target, number as u8, round_trip, seed * 2 + number))?)
        });
        let mut told: [Option<(TcpStream, SocketAddr)>; 2] = [None, None];
        while told.iter().any(Option::is_none) {
            let (mut stream, from) = introducer.accept()?;
            stream.set_nodelay(true)?;
            let mut number = [0];
            stream.read_exact(&mut number)?;
            told[usize::from(number[0] & 1)] = Some((stream, from));
        }
        let [Some((mut first, first_address)), Some((mut second, second_address))] = told else {
            unreachable!("both have come")
        };
        second.write_all(format!("{first_address}\n").as_bytes())?;
        thread::sleep(skew);
        first.write_all(format!("{second_address}\n").as_bytes())?;
        let [first, second] = sides.map(|side| side.join().expect("a side does not panic"));
        Ok([first?, second?])
    })
}

/// A socket on a port that others may have too.
fn socket(port: u16) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into())?;
    Ok(socket)
}

fn side(model: &Model, introducer: SocketAddr, number: u8, round_trip: Duration, seed: u64) -> io::Result<Side> {
    let first = socket(0)?;
    let port = first.local_addr()?.as_socket().map_or(0, |address| address.port());
    first.connect(&introducer.into())?;
    let mut told: TcpStream = first.into();
    told.write_all(&[number])?;
    let mut line = Vec::new();
    while !line.ends_with(b"\n") {
        let mut byte = [0];
        told.read_exact(&mut byte)?;
        line.extend(byte);
    }
    let learned = model.now();
    let before = processor_time();
    let peer: SocketAddr = String::from_utf8_lossy(&line).trim().parse().map_err(io::Error::other)?;
    let (connected, connects) = open(model, port, peer, round_trip, &mut Random::new(seed))?;
    Ok(Side { learned, connected, connects, processor: processor_time().saturating_sub(before) })
}

/// Connects to `peer` from a port, and listens there.
fn open(
    model: &Model,
    port: u16,
    peer: SocketAddr,
    round_trip: Duration,
    random: &mut Random,
) -> io::Result<(Option<Time>, u32)> {
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(8);
    let listener = socket(port)?;
    listener.listen(8)?;
    listener.set_nonblocking(true)?;
    let mut listener = mio::net::TcpListener::from_std(listener.into());
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let deadline = Instant::now() + PATIENCE;
    let mut connects = 0;
    while Instant::now() < deadline {
        let attempt = socket(port)?;
        attempt.set_nonblocking(true)?;
        connects += 1;
        let begun = match attempt.connect(&peer.into()) {
            Ok(()) => true,
            Err(error) if error.raw_os_error() == Some(EINPROGRESS) => true,
            // The pair of endpoints belongs to a connection that comes in.
            Err(_) => false,
        };
        let mut stream = mio::net::TcpStream::from_std(attempt.into());
        if begun {
            poll.registry().register(&mut stream, ATTEMPT, Interest::WRITABLE)?;
        }
        let mut until = Instant::now() + if begun { FRESH_SYN + round_trip } else { retry(random) };
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            // Rounded up, so that it does not spin.
            match poll.poll(&mut events, Some(left + Duration::from_millis(1))) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => other?,
            }
            for event in &events {
                if event.token() == LISTENER {
                    match listener.accept() {
                        Ok((_, from)) if from == peer => return Ok((Some(model.now()), connects)),
                        Ok(_) | Err(_) => {}
                    }
                } else if stream.take_error()?.is_some() {
                    poll.registry().deregister(&mut stream)?;
                    until = Instant::now() + retry(random);
                } else if stream.peer_addr().is_ok() {
                    return Ok((Some(model.now()), connects));
                }
            }
        }
    }
    Ok((None, connects))
}

fn retry(random: &mut Random) -> Duration {
    Duration::from_nanos(random.below(RETRY.as_nanos() as u64))
}

/// Where the introducer listens.
pub(crate) fn introducer(server: &Host, address: IpAddr) -> TcpListener {
    let listener = server.within(|| TcpListener::bind((address, 0))).expect("the namespace can be entered");
    listener.expect("a port")
}
