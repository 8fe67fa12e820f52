//! The bare probe, in real time: `netsim::probe` on a socket, and so the floor.
//!
//! From the moment that it is told the other's mapped address, a check leaves every 20 ms to each address that it knows:
//! that one, and the source of whatever has arrived, where a check goes at once. Each check is answered. It is connected
//! when a check of its own was answered.

use std::{
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use holepunch::wire::stun::{Builder, Class, Message, Method, TransactionId};
use mio::{Events, Interest, Poll, Token, net::UdpSocket};

use super::{END_OF_DESCRIPTION, Failure, PATIENCE, Turns, ended, now, say};

const INTERVAL: Duration = Duration::from_millis(20);
/// As long as a check of ICE with the attributes that RFC 8445 asks for, in bytes.
const LENGTH: usize = 100;
const CHECK: u8 = b'c';
const ANSWER: u8 = b'a';

pub(super) fn run(turns: &Turns, server: SocketAddr) -> Result<(), Failure> {
    say("bare probe")?;
    while turns.next()?.is_some() {
        let mut probe = Probe::new()?;
        say(&probe.mapped(server)?.to_string())?;
        say(END_OF_DESCRIPTION)?;
        let (theirs, begun) = turns.description()?;
        probe.add(theirs.lines().next().unwrap_or_default().parse()?);
        let deadline = Instant::now() + PATIENCE;
        while !probe.connected && Instant::now() < deadline {
            probe.step()?;
        }
        ended(begun, now(), probe.connected)?;
        while !turns.has_ended() {
            probe.step()?;
        }
    }
    Ok(())
}

struct Probe {
    socket: UdpSocket,
    poll: Poll,
    remotes: Vec<SocketAddr>,
    next_round: Instant,
    connected: bool,
}

impl Probe {
    fn new() -> Result<Self, Failure> {
        let (mut socket, poll) = (UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0).into())?, Poll::new()?);
        poll.registry().register(&mut socket, Token(0), Interest::READABLE)?;
        Ok(Self { socket, poll, remotes: Vec::new(), next_round: Instant::now() + INTERVAL, connected: false })
    }

    /// Where the server sees us.
    fn mapped(&mut self, server: SocketAddr) -> Result<SocketAddr, Failure> {
        let request = Builder::new(Class::Request, Method::BINDING, TransactionId([7; 12])).fingerprint().finish();
        let mut buffer = [0; 1500];
        for _ in 0..20 {
            self.socket.send_to(&request, server)?;
            self.poll.poll(&mut Events::with_capacity(4), Some(Duration::from_millis(500)))?;
            if let Ok((length, _)) = self.socket.recv_from(&mut buffer) {
                let answer = Message::parse(&buffer[..length])?;
                return Ok(answer.xor_mapped_address().ok_or("the server does not say where it sees us")?);
            }
        }
        Err("the STUN server is silent".into())
    }

    /// Learns of an address, where the first check goes at once.
    fn add(&mut self, remote: SocketAddr) {
        if !self.remotes.contains(&remote) {
            self.remotes.push(remote);
            if self.remotes.len() == 1 {
                self.next_round = Instant::now() + INTERVAL;
            }
            self.send(remote, CHECK);
        }
    }

    fn send(&self, remote: SocketAddr, kind: u8) {
        // What cannot be sent is lost.
        let _ = self.socket.send_to(&[kind; LENGTH], remote);
    }

    /// Waits until something arrives or a round is due, and does what is due.
    fn step(&mut self) -> Result<(), Failure> {
        let left = self.next_round.saturating_duration_since(Instant::now());
        match self.poll.poll(&mut Events::with_capacity(4), Some(left)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            other => other?,
        }
        let mut buffer = [0; LENGTH];
        while let Ok((_, from)) = self.socket.recv_from(&mut buffer) {
            match buffer[0] {
                CHECK => self.send(from, ANSWER),
                ANSWER => self.connected = true,
                _ => continue,
            }
            self.add(from);
        }
        if self.next_round <= Instant::now() {
            self.next_round += INTERVAL;
            self.remotes.iter().for_each(|remote| self.send(*remote, CHECK));
        }
        Ok(())
    }
}
