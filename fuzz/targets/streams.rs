//! What the rendezvous server must stand over TCP: any bytes in any pieces on any connections, with any pauses.
//!
//! The input is a list of records: connections that come, speak, end and fail, and pauses. What must hold:
//!
//! - nothing panics, no more is taken than was given, and what is left for the next call stays short;
//! - only living connections are sent to or closed, each is closed once, and the next wake-up is in the future;
//! - each is told nothing but `?`, an introduction, the greeting, or answers of STUN; an introduction goes to two at a
//!   time, of whom the second has listened and the first is another;
//! - how requests of 2015 are cut into pieces changes nothing;
//! - the same bytes, taken for the answers of a server of 2015, hide no introduction that comes after them;
//! - when everybody has left, nothing is kept.

use super::records::{address, records};
use holepunch::{
    config::ServerConfig,
    machine::{Input, Instant, Output, PortId, StreamId, TcpRequest},
    rendezvous::server::Server,
    wire::{
        compat::{Answer, Answers, Request, Requests, introduction},
        stun::{GREETING, Message},
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

/// The operations of the records; others are passed over.
pub(crate) mod operation {
    /// Connection, address.
    pub(crate) const ACCEPT: u8 = 0;
    /// Connection, then bytes.
    pub(crate) const SAY: u8 = 1;
    /// Connection.
    pub(crate) const END: u8 = 2;
    /// Connection.
    pub(crate) const FAIL: u8 = 3;
    /// Milliseconds (two bytes).
    pub(crate) const WAIT: u8 = 4;
}

/// Where clients come from.
const CLIENTS: [&str; 6] = [
    "127.0.0.2:5000",
    "127.0.0.30:5000",
    "198.51.100.2:5000",
    "198.51.100.26:5000",
    "[2001:db8::2]:5000",
    "[::ffff:198.51.100.2]:5001",
];

/// The most that may be left for the next call.
const MAX_LEFT: usize = 2048;

struct Harness {
    server: Server,
    now: Instant,
    /// Those that are connected: where from, what was not taken yet, and whether it has said `<`.
    clients: BTreeMap<StreamId, (SocketAddr, Vec<u8>, bool)>,
    introductions: usize,
}

/// Runs the server, and says how many introductions it made.
pub(crate) fn run(input: &[u8]) -> usize {
    check_pieces(input);
    check_answers(input);
    let config = ServerConfig::default();
    let mut harness = Harness {
        server: Server::new(config, [3; 32], Vec::new()),
        now: Instant::from_nanos(0),
        clients: BTreeMap::new(),
        introductions: 0,
    };
    for record in records(input) {
        let mut fields = record.fields;
        match record.operation {
            operation::WAIT => harness.wait(Duration::from_millis(fields.u16().into())),
            other => {
                let id = StreamId(StreamId::FIRST_ACCEPTED + u32::from(fields.u8() % 16));
                match other {
                    operation::ACCEPT => harness.accept(id, address(fields.pick(&CLIENTS))),
                    operation::SAY => harness.say(id, fields.rest()),
                    operation::END => {
                        harness.server.handle_stream_end(harness.now, id);
                        harness.drain();
                    }
                    operation::FAIL => harness.fail(id),
                    _ => {}
                }
            }
        }
    }
    let left: Vec<_> = harness.clients.keys().copied().collect();
    for id in left {
        harness.fail(id);
    }
    let stats = harness.server.stats();
    assert_eq!((stats.connections, stats.legacy_listeners), (0, 0));
    assert!(matches!(harness.server.poll_output(), Output::Timeout(None, _)));
    harness.introductions
}

/// [`run`] as a fuzz target.
pub(crate) fn server_streams(input: &[u8]) {
    run(input);
}

impl Harness {
    fn accept(&mut self, id: StreamId, remote: SocketAddr) {
        if self.clients.contains_key(&id) {
            return;
        }
        self.clients.insert(id, (remote, Vec::new(), false));
        let local = address("192.0.2.1:20000");
        self.server.handle_input(self.now, Input::TcpAccepted { port: PortId(0), stream: id, local, remote });
        self.drain();
    }

    fn say(&mut self, id: StreamId, bytes: &[u8]) {
        let Some((_, left, has_listened)) = self.clients.get_mut(&id) else { return };
        left.extend_from_slice(bytes);
        *has_listened |= bytes.contains(&b'<');
        let said = left.clone();
        let taken = self.server.handle_stream_data(self.now, id, &said);
        assert!(taken <= said.len());
        self.drain();
        if let Some((_, left, _)) = self.clients.get_mut(&id) {
            left.drain(..taken);
            assert!(left.len() <= MAX_LEFT, "{} bytes are left", left.len());
        }
    }

    fn fail(&mut self, id: StreamId) {
        self.server.handle_input(self.now, Input::TcpFailed { stream: id, at_once: false });
        self.clients.remove(&id);
        self.drain();
    }

    fn wait(&mut self, duration: Duration) {
        self.now = self.now + duration;
        self.server.handle_input(self.now, Input::Timeout);
        self.drain();
    }

    fn drain(&mut self) {
        let mut sent = Vec::new();
        loop {
            match self.server.poll_output() {
                Output::Tcp(TcpRequest::Send { stream, bytes }) => {
                    assert!(self.clients.contains_key(&stream), "{stream:?} is gone");
                    sent.push((stream, bytes));
                }
                Output::Tcp(TcpRequest::Close { stream }) => {
                    self.check(&std::mem::take(&mut sent));
                    assert!(self.clients.remove(&stream).is_some(), "{stream:?} is gone");
                }
                Output::Timeout(wake, _) => {
                    assert!(wake.is_none_or(|wake| wake > self.now));
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
        self.check(&sent);
    }

    fn check(&mut self, mut sent: &[(StreamId, Vec<u8>)]) {
        while let Some(((stream, bytes), rest)) = sent.split_first() {
            sent = rest;
            if bytes.first() != Some(&b'*') {
                let is_known = bytes == GREETING || bytes.iter().all(|byte| *byte == b'?');
                assert!(is_known || Message::parse(bytes).is_ok(), "{bytes:?}");
                continue;
            }
            let ((second, to_listener), rest) = sent.split_first().expect("an introduction is two");
            sent = rest;
            let host = |id: &StreamId| match self.clients[id].0.ip().to_canonical() {
                IpAddr::V4(ip) => ip,
                IpAddr::V6(ip) => panic!("{ip} was introduced"),
            };
            assert_eq!(*bytes, introduction(host(second), 20001));
            assert_eq!(*to_listener, introduction(host(stream), 20001));
            assert_ne!(stream, second);
            assert!(self.clients[second].2, "it never listened");
            self.introductions += 1;
        }
    }
}

/// Requests without announcements and garbage, whose end the pieces tell, mean the same in one piece and in many.
fn check_pieces(input: &[u8]) {
    let pure: Vec<u8> = input.iter().filter(|byte| b"<>.0123456789".contains(byte)).copied().collect();
    // A `<` that digits follow begins an announcement, and a host too long is garbage.
    let text = String::from_utf8_lossy(&pure);
    let ambiguous = |part: &str| part.len() > 15;
    if text.split(['<', '>']).any(ambiguous) || !text.starts_with(['<', '>']) {
        return;
    }
    let is_announced: BTreeSet<usize> = text
        .match_indices('<')
        .filter(|(at, _)| pure.get(at + 1).is_some_and(|next| !b"<>".contains(next)))
        .map(|(at, _)| at)
        .collect();
    if !is_announced.is_empty() {
        return;
    }
    let read = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let (mut requests, mut read): (Requests, Vec<Request>) = Default::default();
        for mut piece in pieces {
            while let Some(request) = requests.next(&mut piece) {
                read.push(request);
            }
        }
        read.extend(requests.finish());
        read
    };
    let whole = read(&mut std::iter::once(&pure[..]));
    assert_eq!(read(&mut pure.chunks(1)), whole);
    assert_eq!(read(&mut pure.chunks(3)), whole);
}

/// Answers of 2015 are bytes as any: a client takes each once, and none it takes is empty.
fn check_answers(input: &[u8]) {
    for size in [1, 7, 4096] {
        let mut answers = Answers::default();
        let mut taken = 0;
        for piece in input.chunks(size) {
            answers.push(piece);
            while let Some(answer) = answers.pop() {
                taken += match answer {
                    Answer::Peer(_) => "*()".len(),
                    Answer::NotFound | Answer::End => 1,
                    Answer::Nonsense(bytes) => bytes.len(),
                };
                assert!(taken <= input.len(), "more was taken than came");
            }
        }
        // Whatever begins no answer is over with its piece; one that has begun ends with its parenthesis.
        answers.push(b")");
        while answers.pop().is_some() {}
        answers.push(&introduction([203, 0, 113, 2].into(), 20001));
        assert_eq!(answers.pop(), Some(Answer::Peer(address("203.0.113.2:20001"))));
    }
}
