//! The server by datagrams alone: what goes in, what comes out. Here its sockets, clients to talk to it with, STUN
//! Binding and the cookie; listeners, introductions and trickle are in files of their own.

use alloc::{vec, vec::Vec};
use core::{net::SocketAddr, time::Duration};

use super::*;
use crate::wire::stun::{
    CandidateKind, CandidateTransport, ChangeRequest, FINGERPRINT_LENGTH, HEADER_LENGTH, Name, SessionId,
    TransactionId, Transports, WireCandidate, decode_address,
};

mod introductions;
mod legacy;
mod listeners;
mod mixed;
mod streams;

const V4: SocketId = SocketId(0);
const V4_SECOND: SocketId = SocketId(1);
const V6: SocketId = SocketId(2);
const V6_SECOND: SocketId = SocketId(3);
const UDP: Transports = Transports { udp: true, tcp: false };

/// A server on 192.0.2.1 and 2001:db8::1, ports 20000 and 20002, and its time.
struct Lab {
    server: Server,
    now: Instant,
    transactions: u8,
    /// What the server wanted sent and done, and nobody has looked at yet.
    sent: Vec<Transmit>,
    requests: Vec<TcpRequest>,
}

fn sockets() -> Vec<ServerSocket> {
    [(V4, "192.0.2.1:20000", V4_SECOND), (V4_SECOND, "192.0.2.1:20002", V4)]
        .into_iter()
        .chain([(V6, "[2001:db8::1]:20000", V6_SECOND), (V6_SECOND, "[2001:db8::1]:20002", V6)])
        .map(|(socket, local, alternate)| ServerSocket { socket, local: addr(local), alternate: Some(alternate) })
        .collect()
}

impl Lab {
    fn new(config: ServerConfig) -> Self {
        Self {
            server: Server::new(config, [1; 32], sockets()),
            now: Instant::from_nanos(0),
            transactions: 0,
            sent: Vec::new(),
            requests: Vec::new(),
        }
    }

    fn wait(&mut self, seconds: u64) {
        self.now = self.now + Duration::from_secs(seconds);
    }

    fn id(&mut self) -> TransactionId {
        self.transactions = self.transactions.wrapping_add(1);
        TransactionId([self.transactions; 12])
    }

    /// What the server sends when this arrives at a socket of its.
    fn arrive(&mut self, socket: SocketId, remote: SocketAddr, payload: &[u8]) -> Vec<Transmit> {
        let local = sockets().iter().find(|own| own.socket == socket).unwrap().local;
        self.server.handle_input(self.now, Input::Datagram { socket, local, remote, payload });
        self.drain();
        core::mem::take(&mut self.sent)
    }

    /// Takes out what the server wants; when it wants to be called again.
    fn drain(&mut self) -> Option<Instant> {
        loop {
            match self.server.poll_output() {
                Output::Transmit(transmit) => self.sent.push(transmit),
                Output::Tcp(request) => self.requests.push(request),
                Output::Timeout(wake, _) => return wake,
                other @ (Output::Udp(_) | Output::Event(_) | Output::Log(..)) => panic!("{other:?}"),
            }
        }
    }

    /// What the server sends when this arrives at its first port.
    fn send(&mut self, remote: SocketAddr, payload: &[u8]) -> Vec<Transmit> {
        self.arrive(if remote.is_ipv6() { V6 } else { V4 }, remote, payload)
    }

    /// The one answer to a request of our own, to its sender.
    fn ask(&mut self, remote: SocketAddr, payload: &[u8]) -> Vec<u8> {
        let mut transmits = self.send(remote, payload);
        transmits.retain(|transmit| transmit.destination == remote);
        assert_eq!(transmits.len(), 1, "one answer");
        transmits.remove(0).payload
    }

    /// The code of the one answer; 0 for success.
    fn code(&mut self, remote: SocketAddr, payload: &[u8]) -> u16 {
        code(&self.ask(remote, payload))
    }

    /// Asks for a cookie with a request that is made anew, then asks with it.
    fn ask_twice(
        &mut self,
        remote: SocketAddr,
        request: impl Fn(TransactionId, Option<&[u8]>) -> Vec<u8>,
    ) -> Vec<Transmit> {
        let first = request(self.id(), None);
        let challenge = self.ask(remote, &first);
        let cookie = parse(&challenge).nonce().expect("a challenge").to_vec();
        let second = request(self.id(), Some(&cookie));
        self.send(remote, &second)
    }
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn parse(bytes: &[u8]) -> Message<'_> {
    Message::parse(bytes).unwrap()
}

fn code(bytes: &[u8]) -> u16 {
    parse(bytes).error_code().map_or(0, |error| error.code)
}

fn sealed(builder: Builder, key: &[u8; 32]) -> Vec<u8> {
    builder.integrity_sha256(key).fingerprint().finish()
}

/// A listener as the server meets it.
#[derive(Clone)]
struct Listener {
    id: RegistrationId,
    key: [u8; 32],
    name: Option<&'static str>,
    transports: Transports,
    candidates: Vec<WireCandidate>,
    legacy: bool,
}

impl Listener {
    fn new(number: u8, name: Option<&'static str>) -> Self {
        Self {
            id: RegistrationId([number; 16]),
            key: [number; 32],
            name,
            transports: UDP,
            candidates: Vec::new(),
            legacy: false,
        }
    }

    fn full(&self, id: TransactionId, cookie: Option<&[u8]>) -> Vec<u8> {
        let mut builder = Builder::new(Class::Request, Method::REGISTER, id).version().registration_id(self.id);
        if let Some(cookie) = cookie {
            builder = builder.attribute(AttributeType::NONCE, cookie);
        }
        builder = builder.registration_key(&self.key).public_key(&[self.key[0]; 32]).transports(self.transports);
        if let Some(name) = self.name {
            builder = builder.string(AttributeType::NAME, name);
        }
        if self.legacy {
            builder = builder.legacy(0);
        }
        sealed(builder.candidates(&self.candidates), &self.key)
    }

    fn keepalive(&self, id: TransactionId, cookie: Option<&[u8]>) -> Vec<u8> {
        let mut builder = Builder::new(Class::Request, Method::REGISTER, id).registration_id(self.id);
        if let Some(cookie) = cookie {
            builder = builder.attribute(AttributeType::NONCE, cookie);
        }
        sealed(builder, &self.key)
    }

    fn leave(&self, id: TransactionId) -> Vec<u8> {
        sealed(Builder::new(Class::Request, Method::REGISTER, id).registration_id(self.id).keepalive(0), &self.key)
    }

    /// Registers; the code of the answer.
    fn register(&self, lab: &mut Lab, remote: SocketAddr) -> u16 {
        let transmits = lab.ask_twice(remote, |id, cookie| self.full(id, cookie));
        code(&transmits[0].payload)
    }
}

/// A connector as the server meets it.
#[derive(Clone)]
struct Connector {
    session: SessionId,
    target: Target,
    transports: Transports,
    candidates: Vec<WireCandidate>,
    legacy: bool,
}

#[derive(Clone, Copy)]
enum Target {
    Name(&'static str),
    Address(&'static str),
}

impl Connector {
    fn new(target: Target) -> Self {
        Self { session: SessionId([0xC0; 16]), target, transports: UDP, candidates: Vec::new(), legacy: false }
    }

    fn request(&self, id: TransactionId, cookie: Option<&[u8]>) -> Vec<u8> {
        let mut builder = Builder::new(Class::Request, Method::CONNECT, id).version().session_id(self.session);
        if let Some(cookie) = cookie {
            builder = builder.attribute(AttributeType::NONCE, cookie);
        }
        builder = builder.public_key(&[0xCC; 32]).transports(self.transports);
        builder = match self.target {
            Target::Name(name) => builder.name(&Name::new(name).unwrap()),
            Target::Address(ip) => builder.target_address(ip.parse().unwrap()),
        };
        if self.legacy {
            builder = builder.legacy(0);
        }
        builder.candidates(&self.candidates).fingerprint().finish()
    }

    /// Everything that the server sends for a request with a good cookie.
    fn connect(&self, lab: &mut Lab, remote: SocketAddr) -> Vec<Transmit> {
        lab.ask_twice(remote, |id, cookie| self.request(id, cookie))
    }

    /// The code of the answer to a request with a good cookie.
    fn code(&self, lab: &mut Lab, remote: SocketAddr) -> u16 {
        let transmits = self.connect(lab, remote);
        code(&transmits.iter().find(|transmit| transmit.destination == remote).unwrap().payload)
    }
}

fn candidate(kind: CandidateKind, address: &str) -> WireCandidate {
    WireCandidate { kind, transport: CandidateTransport::Udp, priority: 7, address: addr(address) }
}

fn binding() -> Builder {
    Builder::new(Class::Request, Method::BINDING, TransactionId([5; 12]))
}

fn change(change_ip: bool, change_port: bool) -> Builder {
    binding().u32(AttributeType::CHANGE_REQUEST, ChangeRequest { change_ip, change_port }.to_bits())
}

#[test]
fn binding_tells_the_mapped_address_and_little_more() {
    let mut lab = Lab::new(ServerConfig::default());
    for (remote, more) in [("198.51.100.1:5000", 12), ("[2001:db8:1::1]:5000", 24), ("[::ffff:198.51.100.1]:5000", 12)]
    {
        for request in [binding().finish(), binding().fingerprint().finish()] {
            let transmits = lab.send(addr(remote), &request);
            let [transmit] = &transmits[..] else { panic!("{transmits:?}") };
            let answer = parse(&transmit.payload);
            assert_eq!((answer.class(), answer.transaction_id()), (Class::Success, TransactionId([5; 12])));
            assert_eq!(answer.xor_mapped_address(), Some(canonical(addr(remote))));
            assert_eq!(transmit.payload.len(), request.len() + more);
            let asked = parse(&request).verify_fingerprint();
            assert_eq!(answer.verify_fingerprint(), asked);
        }
    }
}

#[test]
fn binding_with_a_wrong_fingerprint_is_not_answered() {
    let mut request = binding().fingerprint().finish();
    request[27] ^= 1;
    assert!(Lab::new(ServerConfig::default()).send(addr("198.51.100.1:5000"), &request).is_empty());
}

#[test]
fn the_second_port_is_told_only_in_answers_that_are_no_longer_than_the_request() {
    let mut lab = Lab::new(ServerConfig::default());
    for (socket, remote, own, other) in [
        (V4, "198.51.100.1:5000", "192.0.2.1:20000", "192.0.2.1:20002"),
        (V4_SECOND, "198.51.100.1:5000", "192.0.2.1:20002", "192.0.2.1:20000"),
        (V6, "[2001:db8:1::1]:5000", "[2001:db8::1]:20000", "[2001:db8::1]:20002"),
    ] {
        let full = HEADER_LENGTH + 3 * if addr(remote).is_ipv6() { 24 } else { 12 };
        for (length, is_told) in [(full - 4, false), (full, true), (full + 100, true)] {
            let request = binding().padding_to(length, 0).finish();
            let answers = lab.arrive(socket, addr(remote), &request);
            let answer = parse(&answers[0].payload);
            assert_eq!(answer.response_origin(), is_told.then(|| addr(own)));
            assert_eq!(answer.other_address(), is_told.then(|| addr(other)));
            assert!(answer.xor_mapped_address().is_some());
            assert!(answers[0].payload.len() <= request.len());
        }
        let request = binding().padding_to(full, FINGERPRINT_LENGTH).fingerprint().finish();
        assert!(parse(&lab.arrive(socket, addr(remote), &request)[0].payload).other_address().is_none());
    }
}

#[test]
fn a_changed_port_answers_and_a_changed_address_never() {
    let mut lab = Lab::new(ServerConfig::default());
    let remote = addr("198.51.100.1:5000");
    let from = |transmits: Vec<Transmit>| transmits.iter().map(|transmit| transmit.socket).collect::<Vec<_>>();
    assert_eq!(from(lab.arrive(V4, remote, &change(false, true).finish())), [V4_SECOND]);
    assert_eq!(from(lab.arrive(V4_SECOND, remote, &change(false, true).finish())), [V4]);
    assert_eq!(from(lab.arrive(V4, remote, &change(false, false).finish())), [V4]);
    assert!(lab.send(remote, &change(true, false).finish()).is_empty());
    assert!(lab.send(remote, &change(true, true).finish()).is_empty());

    let alone = vec![ServerSocket { socket: V4, local: addr("192.0.2.1:20000"), alternate: None }];
    lab.server = Server::new(ServerConfig::default(), [1; 32], alone);
    assert!(lab.send(remote, &change(false, true).finish()).is_empty());
    let long = lab.send(remote, &binding().padding_to(200, 0).finish());
    assert_eq!(parse(&long[0].payload).response_origin(), Some(addr("192.0.2.1:20000")));
    assert_eq!(parse(&long[0].payload).other_address(), None);
}

#[test]
fn an_advertised_address_stands_for_the_servers_own() {
    let advertise = Some(addr("203.0.113.9:4000"));
    let mut lab = Lab::new(ServerConfig { advertise, ..ServerConfig::default() });
    for (socket, own, other) in
        [(V4, "203.0.113.9:4000", "203.0.113.9:4002"), (V4_SECOND, "203.0.113.9:4002", "203.0.113.9:4000")]
    {
        let answers = lab.arrive(socket, addr("198.51.100.1:5000"), &binding().padding_to(200, 0).finish());
        let answer = parse(&answers[0].payload);
        assert_eq!((answer.response_origin(), answer.other_address()), (Some(addr(own)), Some(addr(other))));
    }
}

#[test]
fn an_unknown_attribute_that_must_be_understood_is_named() {
    let mut lab = Lab::new(ServerConfig::default());
    let unknown = [AttributeType::RESPONSE_PORT, AttributeType::new(0x7FFF)];
    let request = binding().u32(unknown[0], 9).flag(unknown[1]).u32(AttributeType::new(0x9999), 1).finish();
    let answer = lab.ask(addr("198.51.100.1:5000"), &request);
    assert_eq!(code(&answer), 420);
    assert!(parse(&answer).unknown_attributes().eq(unknown));
    assert!(answer.len() <= request.len() + 24);
}

#[test]
fn rfc_3489_gets_the_mapped_address_as_it_is() {
    let mut lab = Lab::new(ServerConfig::default());
    let classic = |change: &[u8]| [&[0, 1, 0, change.len() as u8], &[7; 16][..], change].concat();
    for (remote, length) in [("198.51.100.1:5000", 32), ("[2001:db8:1::1]:5000", 44)] {
        let answer = lab.ask(addr(remote), &classic(&[]));
        assert_eq!((&answer[..2], &answer[4..20], answer.len()), (&[1, 1][..], &[7; 16][..], length));
        assert_eq!(decode_address(&answer[24..]), Some(addr(remote)));
    }
    let remote = addr("198.51.100.1:5000");
    assert_eq!(lab.send(remote, &classic(&[0, 3, 0, 4, 0, 0, 0, 2]))[0].socket, V4_SECOND);
    assert!(lab.send(remote, &classic(&[0, 3, 0, 4, 0, 0, 0, 6])).is_empty());
}

#[test]
fn a_network_gets_its_rate_of_answers() {
    let mut lab = Lab::new(ServerConfig { stun_rate: 10, ..ServerConfig::default() });
    let answers = |lab: &mut Lab, host: u8| {
        (0..50)
            .filter(|_| !lab.send(SocketAddr::from(([198, 51, host, host], 9)), &binding().finish()).is_empty())
            .count()
    };
    assert_eq!(answers(&mut lab, 100), 10);
    assert_eq!(answers(&mut lab, 101), 10, "another network");
    lab.wait(1);
    assert_eq!(answers(&mut lab, 100), 10);
    assert_eq!(lab.server.stats().limited, 120);
}

/// A request of any of our kinds, as a stranger could make it.
fn strangers_request(random: &mut Random) -> Vec<u8> {
    let choices = random.u64();
    let chosen = |bit: u32| choices >> bit & 1 == 1;
    let method = if chosen(0) { Method::REGISTER } else { Method::CONNECT };
    let mut builder = Builder::new(Class::Request, method, TransactionId(random.bytes()));
    if chosen(1) {
        builder = builder.u32(AttributeType::VERSION, u32::from(chosen(2)) + u32::from(chosen(3)));
    }
    if chosen(4) {
        let nonce: [u8; 24] = random.bytes();
        builder = builder.attribute(AttributeType::NONCE, &nonce[..if chosen(5) { 20 } else { 24 }]);
    }
    builder = if chosen(6) || chosen(7) { builder.registration_id(RegistrationId(random.bytes())) } else { builder };
    builder = if chosen(8) || chosen(9) { builder.session_id(SessionId(random.bytes())) } else { builder };
    builder = if chosen(10) { builder.registration_key(&[3; 32]) } else { builder };
    builder = if chosen(11) || chosen(12) { builder.public_key(&random.bytes()) } else { builder };
    builder = if chosen(13) { builder.keepalive(0) } else { builder };
    builder =
        if chosen(14) { builder.string(AttributeType::NAME, if chosen(15) { "bob" } else { "B" }) } else { builder };
    builder = if chosen(16) { builder.target_address([198, 51, 100, 7].into()) } else { builder };
    builder = if chosen(17) { builder.transports(UDP) } else { builder };
    if chosen(18) && chosen(19) {
        builder = (0..choices >> 50 & 7).fold(builder, |builder, _| builder.flag(AttributeType::new(0x0042)));
    }
    builder = if chosen(24) { builder.legacy(0) } else { builder };
    builder = if chosen(20) { builder.candidate(&candidate(CandidateKind::Host, "10.0.0.1:5")) } else { builder };
    builder = if chosen(21) { builder.padding_to((choices >> 30 & 1023) as usize / 4 * 4, 8) } else { builder };
    let builder = if chosen(22) || chosen(23) { builder.integrity_sha256(&[3; 32]) } else { builder };
    builder.fingerprint().finish()
}

#[test]
fn before_the_cookie_no_answer_is_longer_than_its_request_and_nothing_is_kept() {
    let seed = [42; 32];
    let mut random = Random::new(seed);
    let mut lab = Lab::new(ServerConfig { stun_rate: 0, ..ServerConfig::default() });
    let mut answered = 0;
    for number in 0..20_000 {
        let request = strangers_request(&mut random);
        let remote = addr(if number % 2 == 0 { "198.51.100.7:5000" } else { "[2001:db8:1::1]:5000" });
        let transmits = lab.send(remote, &request);
        assert!(transmits.len() <= 1, "number {number}");
        for transmit in &transmits {
            assert!(transmit.payload.len() <= request.len(), "number {number}: {:?}", parse(&request));
            assert_eq!(transmit.destination, remote);
            answered += 1;
        }
    }
    assert!(answered > 10_000, "{answered}: the requests are not what the server knows");
    assert_eq!((lab.server.stats().registrations, lab.server.stats().introductions), (0, 0));
    assert!(matches!(lab.server.poll_output(), Output::Timeout(None, Timer::Idle)));
}

#[test]
fn a_cookie_is_good_for_its_address_its_id_and_its_time_only() {
    let mut lab = Lab::new(ServerConfig::default());
    let (bob, eve) = (Listener::new(1, None), Listener::new(2, None));
    let (home, away) = (addr("198.51.100.1:5000"), addr("198.51.100.1:5001"));
    let first = bob.full(lab.id(), None);
    let challenge = lab.ask(home, &first);
    assert_eq!((code(&challenge), parse(&challenge).xor_mapped_address()), (401, Some(home)));
    let cookie = parse(&challenge).nonce().unwrap().to_vec();
    let mut forged = cookie.clone();
    forged[12] ^= 1;

    for (listener, remote, cookie) in [(&bob, home, &forged), (&bob, away, &cookie), (&eve, home, &cookie)] {
        let request = listener.full(lab.id(), Some(cookie));
        let answer = lab.ask(remote, &request);
        assert_eq!(code(&answer), 401);
        assert!(parse(&answer).nonce().is_some(), "the next cookie");
    }
    lab.wait(120);
    let expired = bob.full(lab.id(), Some(&cookie));
    assert_eq!(lab.code(home, &expired), 401);
    assert_eq!(lab.server.stats().registrations, 0);

    lab.now = Instant::from_nanos(0) + Duration::from_secs(119);
    let good = bob.full(lab.id(), Some(&cookie));
    assert_eq!(lab.code(home, &good), 0);
}

#[test]
fn a_forged_cookie_does_not_escape_the_rate() {
    let mut lab = Lab::new(ServerConfig { stun_rate: 10, ..ServerConfig::default() });
    let request = Connector::new(Target::Name("bob")).request(TransactionId([1; 12]), Some(&[9; 20]));
    let answers = (0..50).filter(|_| !lab.send(addr("198.51.100.1:5000"), &request).is_empty()).count();
    assert_eq!(answers, 10);
}

#[test]
fn garbage_is_counted_and_never_answered() {
    let mut random = Random::new([43; 32]);
    let mut lab = Lab::new(ServerConfig { stun_rate: 0, ..ServerConfig::default() });
    let remote = addr("198.51.100.1:5000");
    let good = [
        Listener::new(1, Some("bob")).full(TransactionId([1; 12]), None),
        Connector::new(Target::Name("bob")).request(TransactionId([1; 12]), None),
        Listener::new(1, None).keepalive(TransactionId([1; 12]), None),
    ];
    for _ in 0..20_000 {
        // With an intact header or without; every answerable message of ours has a fingerprint, which changes break.
        let mut bytes = good[random.u64() as usize % good.len()].clone();
        let (at, bit) = (random.u64() as usize % bytes.len(), random.u64() % 8);
        bytes[at] ^= 1 << bit;
        if random.u64().is_multiple_of(4) {
            bytes.truncate(at);
        }
        assert!(lab.send(remote, &bytes).is_empty(), "{bytes:02x?}");
        let noise: [u8; 64] = random.bytes();
        assert!(lab.send(remote, &noise[..at % 64]).is_empty());
    }
    assert_eq!(lab.server.stats().malformed, lab.server.stats().received);
    let indication = Builder::new(Class::Indication, Method::BINDING, TransactionId([1; 12])).fingerprint().finish();
    let answer = Builder::new(Class::Success, Method::REGISTER, TransactionId([1; 12])).fingerprint().finish();
    assert!(lab.send(remote, &indication).is_empty() && lab.send(remote, &answer).is_empty());
}
