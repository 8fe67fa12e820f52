//! The least that two peers can do from an introduction on: one check and one answer each, on bare sockets.
//!
//! Each peer is a thread that sleeps in epoll, as an endpoint's does, on a fresh socket that has said hello to the
//! introducer, so that its NAT has a mapping. The introducer waits until both sleep, then sends each the address of the
//! other. From then on a peer sends a check to the other at once, answers checks, and is done when its own is answered. A
//! check that comes before the answer shows that the other's NAT is open now: the own check, which may have been too
//! early for it, is sent again. So it is whenever 20 ms brought nothing.

use std::{
    io::{self, ErrorKind},
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::mpsc::{self, Receiver, Sender},
    thread,
    time::{Duration, Instant},
};

use mio::{Events, Interest, Poll, Token};

use crate::Place;

/// As long as a check of ICE with the attributes that RFC 8445 asks for, in bytes.
const LENGTH: usize = 100;

const HELLO: u8 = b'h';
const INTRODUCTION: u8 = b'i';
const CHECK: u8 = b'c';
const ANSWER: u8 = b'a';
const END: u8 = b'e';

const RESEND: Duration = Duration::from_millis(20);

/// Long enough for a peer to fall asleep after its hello.
const SETTLE: Duration = Duration::from_millis(2);

/// Nothing here takes so long.
const PATIENCE: Duration = Duration::from_secs(10);

/// The two peers and the introducer, each in its place.
pub(crate) struct Exchange {
    introducer: UdpSocket,
    starts: [Sender<()>; 2],
    times: [Receiver<Duration>; 2],
}

impl Exchange {
    /// Starts the two peers. The introducer has a socket in `server`, where it is reached at this address.
    pub(crate) fn start(server: &Place, address: IpAddr, peers: [&Place; 2]) -> Self {
        let introducer = server.within(|| UdpSocket::bind((address, 0)).expect("a socket"));
        introducer.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let target = introducer.local_addr().expect("an address");
        let peer = |number: u8, place: &Place| {
            let place = place.clone();
            let (start, started) = mpsc::channel();
            let (sender, times) = mpsc::channel();
            thread::spawn(move || {
                place.within(move || {
                    while started.recv().is_ok() {
                        let time = exchange(number, target).expect("a raw exchange");
                        if sender.send(time).is_err() {
                            return;
                        }
                    }
                })
            });
            (start, times)
        };
        let [(left, left_times), (right, right_times)] = [peer(0, peers[0]), peer(1, peers[1])];
        Self { introducer, starts: [left, right], times: [left_times, right_times] }
    }

    /// Introduces the peers, and returns how long each took.
    pub(crate) fn run(&self) -> [Duration; 2] {
        let mut addresses = [None; 2];
        let mut buffer = [0; LENGTH];
        for start in &self.starts {
            start.send(()).expect("the peer runs");
        }
        while addresses.contains(&None) {
            let (_, from) = self.introducer.recv_from(&mut buffer).expect("a hello");
            if let [HELLO, number @ (0 | 1), ..] = buffer {
                addresses[usize::from(number)] = Some(from);
            }
        }
        let [Some(left), Some(right)] = addresses else { unreachable!("both have said hello") };
        thread::sleep(SETTLE);
        for (to, other) in [(left, right), (right, left)] {
            let mut introduction = vec![INTRODUCTION];
            introduction.extend(other.to_string().bytes());
            self.introducer.send_to(&introduction, to).expect("an introduction");
        }
        // Each goes on answering until both are done.
        let mut done = [false; 2];
        while done.contains(&false) {
            self.introducer.recv_from(&mut buffer).expect("an end");
            if let [END, number @ (0 | 1), ..] = buffer {
                done[usize::from(number)] = true;
            }
        }
        for to in [left, right] {
            self.introducer.send_to(&[END], to).expect("an end");
        }
        [0, 1].map(|number: usize| self.times[number].recv_timeout(PATIENCE).expect("a time"))
    }

    /// An echo, for round trips; it ends with the process.
    pub(crate) fn echo(server: &Place, address: IpAddr) -> SocketAddr {
        let socket = server.within(|| UdpSocket::bind((address, 0)).expect("a socket"));
        let local = socket.local_addr().expect("an address");
        thread::spawn(move || {
            let mut buffer = [0; LENGTH];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(&buffer[..length], from);
            }
        });
        local
    }
}

/// One exchange, as one of the peers.
fn exchange(number: u8, introducer: SocketAddr) -> io::Result<Duration> {
    let any: IpAddr = if introducer.is_ipv4() { [0, 0, 0, 0].into() } else { [0; 16].into() };
    let mut socket = mio::net::UdpSocket::bind((any, 0).into())?;
    let mut poll = Poll::new()?;
    poll.registry().register(&mut socket, Token(0), Interest::READABLE)?;
    let mut events = Events::with_capacity(4);
    let mut buffer = [0; LENGTH];
    let mut peer: Option<(SocketAddr, Instant)> = None;
    let mut time = None;
    socket.send_to(&[HELLO, number], introducer)?;
    loop {
        poll.poll(&mut events, peer.map(|_| RESEND))?;
        if events.is_empty()
            && time.is_none()
            && let Some((peer, _)) = peer
        {
            socket.send_to(&[CHECK; LENGTH], peer)?;
        }
        loop {
            let (length, from) = match socket.recv_from(&mut buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            };
            match (buffer[0], peer) {
                (INTRODUCTION, _) => {
                    let start = Instant::now();
                    let text = String::from_utf8_lossy(&buffer[1..length]);
                    let address = text.parse().map_err(io::Error::other)?;
                    socket.send_to(&[CHECK; LENGTH], address)?;
                    peer = Some((address, start));
                }
                (CHECK, peer) => {
                    socket.send_to(&[ANSWER; LENGTH], from)?;
                    if peer.is_some() && time.is_none() {
                        socket.send_to(&[CHECK; LENGTH], from)?;
                    }
                }
                (ANSWER, Some((_, start))) if time.is_none() => {
                    time = Some(start.elapsed());
                    socket.send_to(&[END, number], introducer)?;
                }
                (END, _) => return time.ok_or_else(|| io::Error::other("ended before it was done")),
                _ => {}
            }
        }
    }
}
