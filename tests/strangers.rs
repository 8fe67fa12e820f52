//! What strangers can make a listener send, counted: the numbers that `SECURITY.md` states.
//!
//! The test is the server and the strangers at once: it confirms the listener's registration, introduces connectors
//! that name as many addresses as they may, and counts what leaves for each of them.

use holepunch::{
    config::PeerConfig,
    machine::{Input, Instant, Output, SocketId, StreamId, TcpRequest, UdpRequest},
    peer::{ListenRequest, Peer},
    wire::stun::{
        AttributeType, Builder, CandidateKind, CandidateTransport, Class, Message, Method, RegistrationId, SessionId,
        TransactionId, Transports, WireCandidate,
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

const SERVER: &str = "192.0.2.1:20000";

/// Bytes of a check of a controlled side: header, USERNAME, PRIORITY, ICE-CONTROLLED, MESSAGE-INTEGRITY, FINGERPRINT.
const CHECK: usize = 20 + 24 + 8 + 12 + 24 + 8;

struct Listening {
    peer: Peer,
    now: Instant,
    socket: SocketId,
    registration: (RegistrationId, [u8; 32]),
    sequence: u64,
    /// Datagrams and bytes, by where they went.
    sent: BTreeMap<SocketAddr, (usize, usize)>,
    /// Connects, by where they went; whether they are refused, at once, or hear nothing.
    connects: BTreeMap<SocketAddr, usize>,
    refuses: bool,
    /// Connects under way, and the most at a time.
    under_way: BTreeSet<StreamId>,
    most: usize,
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

impl Listening {
    fn new() -> Self {
        let mut listening = Self {
            peer: Peer::new(PeerConfig::default(), [5; 32]),
            now: Instant::from_nanos(0),
            socket: SocketId(0),
            registration: (RegistrationId([0; 16]), [0; 32]),
            sequence: 0,
            sent: BTreeMap::new(),
            connects: BTreeMap::new(),
            refuses: false,
            under_way: BTreeSet::new(),
            most: 0,
        };
        let (servers, bind) = (vec![addr(SERVER).into()], vec![addr("0.0.0.0:0")]);
        let request = ListenRequest {
            transports: holepunch::wire::stun::Transports { udp: true, tcp: true },
            name: Some("bob".parse().unwrap()),
            servers,
            bind,
            secret: None,
            prefer_port: None,
            legacy: false,
        };
        listening.peer.listen(listening.now, request).unwrap();
        listening.drain();
        listening
    }

    /// Takes out what the listener does, confirms its registration at once; when it wants to be woken.
    fn drain(&mut self) -> Option<Instant> {
        loop {
            match self.peer.poll_output() {
                Output::Transmit(transmit) if transmit.destination == addr(SERVER) => self.confirm(&transmit.payload),
                Output::Transmit(transmit) => {
                    let (count, bytes) = self.sent.entry(transmit.destination).or_default();
                    *count += 1;
                    *bytes += transmit.payload.len();
                }
                Output::Udp(UdpRequest::Bind { socket, .. }) => {
                    self.socket = socket;
                    self.peer.handle_input(self.now, Input::UdpBound { socket, local: addr("0.0.0.0:5000") });
                }
                Output::Tcp(request) => self.handle_tcp(request),
                Output::Timeout(wake, _) => return wake,
                _ => {}
            }
        }
    }

    /// Ports are there for whoever asks; the server takes no connection.
    fn handle_tcp(&mut self, request: TcpRequest) {
        match request {
            TcpRequest::Reserve { port, .. } => {
                self.peer.handle_input(self.now, Input::TcpReserved { port, local: addr("0.0.0.0:5001") });
            }
            TcpRequest::Connect { stream, remote, .. } if remote == addr(SERVER) => {
                self.peer.handle_input(self.now, Input::TcpFailed { stream, at_once: false });
            }
            TcpRequest::Connect { stream, remote, .. } => {
                *self.connects.entry(remote).or_default() += 1;
                if self.refuses {
                    self.peer.handle_input(self.now, Input::TcpFailed { stream, at_once: false });
                } else {
                    self.under_way.insert(stream);
                    self.most = self.most.max(self.under_way.len());
                }
            }
            TcpRequest::Close { stream } => {
                self.under_way.remove(&stream);
            }
            _ => {}
        }
    }

    fn confirm(&mut self, request: &[u8]) {
        let request = Message::parse(request).unwrap();
        if let (Some(id), Some(key)) = (request.registration_id(), request.registration_key()) {
            self.registration = (id, key);
        }
        let answer = Builder::new(Class::Success, Method::REGISTER, request.transaction_id())
            .xor_address(AttributeType::XOR_MAPPED_ADDRESS, addr("198.51.100.7:62000"))
            .keepalive(25)
            .integrity_sha256(&self.registration.1)
            .fingerprint()
            .finish();
        self.arrive(SERVER, &answer);
    }

    fn arrive(&mut self, remote: &str, payload: &[u8]) {
        let (socket, local, remote) = (self.socket, addr("10.0.1.2:5000"), addr(remote));
        self.peer.handle_input(self.now, Input::Datagram { socket, local, remote, payload });
    }

    /// The server introduces a connector.
    fn introduce(&mut self, session: u8, candidates: &[WireCandidate]) {
        self.introduce_for(Transports { udp: true, tcp: false }, session, candidates);
    }

    fn introduce_for(&mut self, transports: Transports, session: u8, candidates: &[WireCandidate]) {
        self.sequence += 1;
        let message = Builder::new(Class::Indication, Method::INTRODUCE, TransactionId([session; 12]))
            .registration_id(self.registration.0)
            .session_id(SessionId([session; 16]))
            .sequence(self.sequence)
            .public_key(&[9; 32])
            .transports(transports)
            .attribute(AttributeType::ROUTE, &[7; 44])
            .candidates(candidates)
            .integrity_sha256(&self.registration.1)
            .fingerprint()
            .finish();
        self.arrive(SERVER, &message);
        self.drain();
    }

    /// Lets so much time pass; datagrams and bytes sent to anybody but the server from the beginning on.
    fn run(&mut self, time: Duration) -> (usize, usize) {
        let end = self.now + time;
        while let Some(wake) = self.drain().filter(|wake| *wake <= end) {
            self.now = wake.max(self.now);
            self.peer.handle_input(self.now, Input::Timeout);
        }
        self.now = end;
        self.sent.values().fold((0, 0), |(count, bytes), (more, longer)| (count + more, bytes + longer))
    }
}

fn candidates(kind: CandidateKind, ip: &str, ports: core::ops::Range<u16>) -> Vec<WireCandidate> {
    let at = |port| WireCandidate {
        kind,
        transport: CandidateTransport::Udp,
        priority: 1,
        address: SocketAddr::new(ip.parse().unwrap(), port),
    };
    ports.map(at).collect()
}

const HALF_A_MINUTE: Duration = Duration::from_secs(30);

#[test]
fn who_is_not_introduced_gets_nothing() {
    let mut listening = Listening::new();
    let binding = Builder::new(Class::Request, Method::BINDING, TransactionId([1; 12]));
    let check = binding.clone().string(AttributeType::USERNAME, "AAAAAAAA:BBBBBBBB").integrity(b"guess");
    let end = Builder::new(Class::Request, Method::END, TransactionId([1; 12])).session_id(SessionId([1; 16]));
    for message in [
        binding.finish(),
        check.fingerprint().finish(),
        end.integrity_sha256(&[0; 32]).fingerprint().finish(),
        vec![7; 1200],
    ] {
        listening.arrive("203.0.113.5:7000", &message);
    }
    assert_eq!(listening.run(HALF_A_MINUTE), (0, 0));
}

#[test]
fn an_observed_address_gets_twelve_checks_and_a_claimed_public_one_two() {
    let mut listening = Listening::new();
    let mut told = candidates(CandidateKind::ServerReflexiveObserved, "203.0.113.5", 7000..7001);
    told.extend(candidates(CandidateKind::ServerReflexiveClaimed, "198.18.0.1", 53..56));
    told.extend(candidates(CandidateKind::Host, "192.168.0.1", 53..54));
    listening.introduce(1, &told);
    listening.run(HALF_A_MINUTE);
    let counts = listening.sent.iter().map(|(address, (count, bytes))| (address.to_string(), *count, bytes / count));
    let expected = [("192.168.0.1:53", 12), ("198.18.0.1:53", 2), ("198.18.0.1:54", 2), ("203.0.113.5:7000", 12)];
    let expected = expected.map(|(address, count)| (address.to_owned(), count, CHECK));
    assert_eq!(counts.collect::<Vec<_>>(), expected);
}

#[test]
fn an_observed_address_gets_one_more_check_for_each_further_introduction_and_twelve_at_most() {
    let mut listening = Listening::new();
    let mut told = candidates(CandidateKind::ServerReflexiveObserved, "203.0.113.5", 7000..7001);
    told.extend(candidates(CandidateKind::ServerReflexiveClaimed, "198.18.0.1", 53..54));
    for (times, expected) in [(1, 12), (1, 13), (1, 14), (20, 24), (20, 24)] {
        for _ in 0..times {
            listening.introduce(1, &told);
            listening.run(Duration::from_millis(200));
        }
        listening.run(Duration::from_secs(3));
        assert_eq!(listening.sent[&addr("203.0.113.5:7000")], (expected, expected * CHECK));
        assert_eq!(listening.sent[&addr("198.18.0.1:53")].0, 2, "what is only claimed gets no more");
    }
}

const STREAM: Transports = Transports { udp: false, tcp: true };

/// What a stranger at 203.0.113.5 may say: ports of its own host, of a victim's, and of one in the listener's own network.
fn told_for_streams() -> Vec<WireCandidate> {
    let mut told = candidates(CandidateKind::ServerReflexiveObserved, "203.0.113.5", 7000..7001);
    for (ip, ports) in [("203.0.113.5", 7000..7006), ("198.18.0.1", 53..56), ("192.168.0.1", 53..59)] {
        let claimed = candidates(CandidateKind::ServerReflexiveClaimed, ip, ports);
        told.extend(claimed.into_iter().map(|it| WireCandidate { transport: CandidateTransport::Tcp, ..it }));
    }
    told
}

#[test]
fn a_stream_costs_a_third_party_four_connects_a_session() {
    for refuses in [false, true] {
        let mut listening = Listening::new();
        listening.refuses = refuses;
        listening.introduce_for(STREAM, 1, &told_for_streams());
        listening.run(HALF_A_MINUTE);
        let to = |ip: &str| {
            let there = listening.connects.iter().filter(|(address, _)| address.ip().to_string() == ip);
            there.map(|(_, count)| *count).collect::<Vec<_>>()
        };
        assert_eq!(to("198.18.0.1"), [2, 2], "a victim's");
        let (private, own) = (to("192.168.0.1"), to("203.0.113.5"));
        assert_eq!((private.len(), own.len()), (6, 6), "all are tried");
        assert!(private.iter().max() <= Some(&if refuses { 30 } else { 20 }), "{private:?}");
        assert!(own.iter().max() <= Some(&if refuses { 620 } else { 20 }), "{own:?}");
        // They take turns where there are more than may be tried at a time.
        assert!(private.iter().chain(&own).min() >= Some(&5), "{private:?} {own:?}");
        assert!(listening.most <= 8);
    }
}

#[test]
fn all_streams_at_once_are_so_many_descriptors() {
    let mut listening = Listening::new();
    for session in 1..=100 {
        listening.introduce_for(STREAM, session, &told_for_streams());
    }
    listening.run(HALF_A_MINUTE - Duration::from_millis(1));
    assert_eq!(listening.most, 64 * 8);
}

#[test]
fn one_session_costs_at_most_384_checks_and_a_listener_has_64_at_once() {
    let mut listening = Listening::new();
    let observed = CandidateKind::ServerReflexiveObserved;
    for session in 1..=100 {
        for ports in [7000..7016, 7016..7032, 7032..7048] {
            listening.introduce(session, &candidates(observed, "203.0.113.5", ports));
        }
    }
    let expected = 64 * 32 * 12;
    assert_eq!(listening.run(HALF_A_MINUTE - Duration::from_millis(1)), (expected, expected * CHECK));
    assert_eq!((expected, expected * CHECK), (24_576, 2_359_296));
}

#[test]
fn a_third_party_gets_four_checks_a_session() {
    let mut listening = Listening::new();
    for session in 1..=100 {
        listening.introduce(session, &candidates(CandidateKind::ServerReflexiveClaimed, "198.18.0.1", 1..17));
    }
    assert_eq!(listening.run(HALF_A_MINUTE - Duration::from_millis(1)), (256, 256 * CHECK));
}
