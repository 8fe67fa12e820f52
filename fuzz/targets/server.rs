//! What the rendezvous server must stand: any sequence of datagrams from any addresses at any times.
//!
//! The input is a list of records: raw datagrams, pauses, and well-formed requests of a few clients, which keep the
//! cookies and routes that they were given, so that the states beyond the cookie are reached; and clients of 2015, to
//! whom those can be introduced that said LEGACY. What must hold:
//!
//! - nothing panics, each input is drained with a few outputs, and the next wake-up is in the future;
//! - before an address has brought back a cookie it was given, it gets at most one answer to a request, not longer than
//!   the request (24 bytes longer for STUN Binding), no more of them than the rate of its network allows, and nobody
//!   else makes the server send to it;
//! - nothing is sent unasked but the introduction of a client of 2015, to a proven address, at most three times in all;
//! - registrations stay within their bounds, and are all gone when nothing renews them.

use super::records::{Fields, address, canonical, records};
use holepunch::{
    config::ServerConfig,
    machine::{Input, Instant, Output, PortId, SocketId, StreamId, TcpRequest},
    rendezvous::server::{Server, ServerSocket},
    wire::{
        demux::Datagram,
        stun::{
            AttributeType, Builder, CandidateKind, CandidateTransport, ChangeRequest, Class, MAX_MESSAGE, Message,
            Method, RegistrationId, SessionId, TransactionId, Transports, WireCandidate,
        },
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

/// The operations of the records; others are passed over.
pub(crate) mod operation {
    /// Client, socket, then the datagram.
    pub(crate) const RAW: u8 = 0;
    /// Milliseconds (two bytes), seconds (two bytes).
    pub(crate) const WAIT: u8 = 1;
    /// Client, socket, id, name, flags, then candidates of four bytes each.
    pub(crate) const REGISTER: u8 = 2;
    /// Client, socket, id, seconds, flags.
    pub(crate) const KEEPALIVE: u8 = 3;
    /// Client, socket, session, target, flags, then candidates.
    pub(crate) const CONNECT: u8 = 4;
    /// Client, socket, route, class, then PADDING.
    pub(crate) const TRICKLE: u8 = 5;
    /// Client, socket, flags, padding.
    pub(crate) const BINDING: u8 = 6;
    /// Client, socket, change: a request of RFC 3489.
    pub(crate) const CLASSIC: u8 = 7;
    /// Client, socket, position, bits: the last well-formed request with some bits changed, and the right fingerprint.
    pub(crate) const MUTATED: u8 = 8;
    /// Client, target, what: a client of 2015 comes, listens, asks for a target, or leaves.
    pub(crate) const TEXT: u8 = 9;
}

/// The flags of the well-formed requests.
mod flag {
    pub(super) const NO_COOKIE: u8 = 1;
    pub(super) const WRONG_KEY: u8 = 2;
    pub(super) const NO_VERSION: u8 = 4;
    pub(super) const UNKNOWN_ATTRIBUTE: u8 = 8;
    pub(super) const TCP: u8 = 16;
    pub(super) const WRONG_COOKIE: u8 = 32;
    pub(super) const LEGACY: u8 = 64;
}

const SEED: [u8; 32] = [9; 32];
const MAX_REGISTRATIONS: usize = 6;
const MAX_PER_NETWORK: u32 = 3;
const RATE: u32 = 4;
/// How much longer than its request an answer of STUN Binding may be.
const BINDING_EXCESS: usize = 24;
/// The longest time that passes in a run; more than every lifetime.
const LONGEST: Duration = Duration::from_secs(100_000);

/// The server's sockets: two ports of each family.
pub(crate) const SOCKETS: [&str; 4] =
    ["192.0.2.1:20000", "192.0.2.1:20002", "[2001:db8:ff::1]:20000", "[2001:db8:ff::1]:20002"];

/// The clients: of one network and of several, and those who cannot be clients.
pub(crate) const CLIENTS: [&str; 12] = [
    "198.51.100.1:40000",
    "203.0.113.1:40000",
    "198.51.100.1:40001",
    "198.51.100.2:40000",
    "[2001:db8:1::2]:40000",
    "[2001:db8:2::2]:40000",
    "[2001:db8:1:1::2]:40000",
    "[::ffff:203.0.113.9]:7",
    "127.0.0.1:9",
    "192.0.2.1:20000",
    "[fe80::1]:5",
    "0.0.0.0:0",
];

const NAMES: [&[u8]; 6] = [b"bob", b"", b"a", b"B!", b"\xff", &[b'x'; 65]];
const TARGETS: [&str; 5] = ["198.51.100.1", "203.0.113.1", "2001:db8:1::2", "::ffff:203.0.113.9", "127.0.0.1"];

/// Runs the records against a server.
pub(crate) fn server_input(input: &[u8]) {
    run(input);
}

/// Runs the records against a server; how many introductions it has made.
pub(crate) fn run(input: &[u8]) -> u64 {
    let mut world = World::new();
    for record in records(input) {
        world.step(record.operation, record.fields);
    }
    let introductions = world.server.stats().introductions;
    world.end();
    introductions
}

/// The server that the seeds are recorded at, too.
pub(crate) fn server() -> Server {
    server_with_rate(RATE)
}

fn server_with_rate(rate: u32) -> Server {
    let mut config = ServerConfig::default();
    config.max_registrations = MAX_REGISTRATIONS;
    config.max_registrations_per_network = MAX_PER_NETWORK;
    config.stun_rate = rate;
    config.introduction_rate = RATE;
    config.max_rate_entries = 64;
    let sockets = SOCKETS.iter().enumerate().map(|(index, local)| ServerSocket {
        socket: SocketId(index as u32),
        local: address(local),
        alternate: Some(SocketId(index as u32 ^ 1)),
    });
    Server::new(config, SEED, sockets.collect())
}

struct World {
    server: Server,
    /// Another with the same keys, which nobody else talks to: it tells which cookies are genuine.
    twin: Server,
    now: Instant,
    /// Cookies by the client and the id that they are for.
    cookies: BTreeMap<(SocketAddr, [u8; 16]), Vec<u8>>,
    proven: BTreeSet<SocketAddr>,
    routes: Vec<Vec<u8>>,
    /// Answers to the unproven, by network.
    answers: BTreeMap<u128, u32>,
    last: Vec<u8>,
    transactions: u32,
    /// Clients of 2015 that are connected, by where they come from, and how many there have been.
    texts: BTreeMap<SocketAddr, StreamId>,
    came: u32,
    /// How often each introduction of a client of 2015 was sent.
    told: BTreeMap<Vec<u8>, u32>,
}

impl World {
    fn new() -> Self {
        Self {
            server: server(),
            twin: server_with_rate(0),
            now: Instant::default(),
            cookies: BTreeMap::new(),
            proven: BTreeSet::new(),
            routes: Vec::new(),
            answers: BTreeMap::new(),
            last: Vec::new(),
            transactions: 0,
            texts: BTreeMap::new(),
            came: 0,
            told: BTreeMap::new(),
        }
    }

    fn step(&mut self, operation: u8, mut fields: Fields<'_>) {
        if operation == operation::WAIT {
            let (millis, seconds) = (fields.u16(), fields.u16());
            return self.wait(Duration::from_millis(u64::from(millis)) + Duration::from_secs(u64::from(seconds)));
        }
        let client = address(fields.pick(&CLIENTS));
        if operation == operation::TEXT {
            return self.text(client, fields);
        }
        let socket = u32::from(fields.u8()) % SOCKETS.len() as u32;
        let bytes = match operation {
            operation::RAW => return self.deliver(client, socket, fields.rest()),
            operation::REGISTER => self.register(client, fields),
            operation::KEEPALIVE => self.keepalive(client, fields),
            operation::CONNECT => self.connect(client, fields),
            operation::TRICKLE => self.trickle(fields),
            operation::BINDING => self.binding(fields),
            operation::CLASSIC => {
                let change = u32::from(fields.u8());
                return self.deliver(client, socket, &classic(change));
            }
            operation::MUTATED => {
                let (position, bits) = (fields.u16(), fields.u8());
                let bytes = mutated(&self.last, usize::from(position), bits);
                return self.deliver(client, socket, &bytes);
            }
            _ => return,
        };
        self.deliver(client, socket, &bytes);
        self.last = bytes;
    }

    fn wait(&mut self, time: Duration) {
        if self.now.as_nanos() < LONGEST.as_nanos() as u64 {
            self.now = self.now + time;
        }
        self.server.handle_input(self.now, Input::Timeout);
        self.check_told();
    }

    fn text(&mut self, client: SocketAddr, mut fields: Fields<'_>) {
        let (target, what) = (fields.pick(&TARGETS), fields.u8());
        let stream = *self.texts.entry(client).or_insert_with(|| {
            let stream = StreamId(StreamId::FIRST_ACCEPTED + self.came);
            self.came += 1;
            let (port, local) = (PortId(0), address(SOCKETS[0]));
            self.server.handle_input(self.now, Input::TcpAccepted { port, stream, local, remote: client });
            stream
        });
        match what % 4 {
            0 => drop(self.server.handle_stream_data(self.now, stream, b"<")),
            1 => {
                self.texts.remove(&client);
                self.server.handle_input(self.now, Input::TcpFailed { stream, at_once: false });
            }
            _ => drop(self.server.handle_stream_data(self.now, stream, format!(">{target}\n").as_bytes())),
        }
        self.check_told();
    }

    /// What is sent without a datagram that asks for it is the introduction of a client of 2015.
    fn check_told(&mut self) {
        for (destination, payload) in self.drain() {
            assert!(self.proven.contains(&destination), "sent to {destination}, which has proven nothing");
            let message = Message::parse(&payload).expect("a message");
            assert_eq!((message.method(), message.legacy()), (Method::INTRODUCE, Some(20001)), "sent unasked");
            let times = self.told.entry(payload).or_default();
            *times += 1;
            assert!(*times <= 3, "told {times} times");
        }
    }

    fn builder(&mut self, method: Method, class: Class) -> Builder {
        self.transactions += 1;
        let mut id = [0; 12];
        id[..4].copy_from_slice(&self.transactions.to_be_bytes());
        Builder::new(class, method, TransactionId(id))
    }

    fn with_cookie(&self, builder: Builder, client: SocketAddr, id: [u8; 16], flags: u8) -> Builder {
        match self.cookies.get(&(canonical(client), id)) {
            _ if flags & flag::WRONG_COOKIE != 0 => builder.attribute(AttributeType::NONCE, &[5; 20]),
            Some(cookie) if flags & flag::NO_COOKIE == 0 => builder.attribute(AttributeType::NONCE, cookie),
            _ => builder,
        }
    }

    fn register(&mut self, client: SocketAddr, mut fields: Fields<'_>) -> Vec<u8> {
        let id = [fields.u8() % 8; 16];
        let name = fields.pick(&NAMES);
        let flags = fields.u8();
        let key = key(id, flags);
        let mut builder = self.builder(Method::REGISTER, Class::Request);
        if flags & flag::NO_VERSION == 0 {
            builder = builder.version();
        }
        builder = self.with_cookie(builder.registration_id(RegistrationId(id)), client, id, flags);
        builder = builder.registration_key(&key).public_key(&key).transports(transports(flags));
        if !name.is_empty() {
            builder = builder.attribute(AttributeType::NAME, name);
        }
        if flags & flag::LEGACY != 0 {
            builder = builder.legacy(0);
        }
        finish(builder.candidates(&candidates(fields)), flags, Some(&key))
    }

    fn keepalive(&mut self, client: SocketAddr, mut fields: Fields<'_>) -> Vec<u8> {
        let (id, seconds, flags) = ([fields.u8() % 8; 16], fields.u8(), fields.u8());
        let builder = self.builder(Method::REGISTER, Class::Request).registration_id(RegistrationId(id));
        let mut builder = self.with_cookie(builder, client, id, flags);
        if seconds < 250 {
            builder = builder.keepalive(u32::from(seconds));
        }
        finish(builder, flags, Some(&key(id, flags)))
    }

    fn connect(&mut self, client: SocketAddr, mut fields: Fields<'_>) -> Vec<u8> {
        let (id, target, flags) = ([0x80 | (fields.u8() % 8); 16], fields.u8(), fields.u8());
        let mut builder = self.builder(Method::CONNECT, Class::Request);
        if flags & flag::NO_VERSION == 0 {
            builder = builder.version();
        }
        builder = self.with_cookie(builder.session_id(SessionId(id)), client, id, flags);
        builder = builder.public_key(&key(id, flags)).transports(transports(flags));
        builder = if target < 128 {
            builder.attribute(AttributeType::NAME, NAMES[usize::from(target) % NAMES.len()])
        } else {
            let ip: IpAddr = TARGETS[usize::from(target) % TARGETS.len()].parse().expect("the table is right");
            builder.target_address(ip)
        };
        if flags & flag::LEGACY != 0 {
            builder = builder.legacy(0);
        }
        finish(builder.candidates(&candidates(fields)), flags, None)
    }

    fn trickle(&mut self, mut fields: Fields<'_>) -> Vec<u8> {
        let (route, class) = (fields.u8(), fields.u8());
        let class = if class & 1 == 0 { Class::Request } else { Class::Success };
        let route = self.routes.get(usize::from(route) % self.routes.len().max(1)).cloned().unwrap_or_default();
        let builder = self.builder(Method::TRICKLE, class).attribute(AttributeType::ROUTE, &route);
        let bytes = builder.attribute(AttributeType::SOFTWARE, fields.rest()).fingerprint().finish();
        let padding = usize::from(fields.u16()) % 4096;
        // The builder makes none so long, and others may.
        if padding > MAX_MESSAGE { lengthened(&bytes, padding) } else { bytes }
    }

    fn binding(&mut self, mut fields: Fields<'_>) -> Vec<u8> {
        let (flags, padding) = (fields.u8(), fields.u8());
        let mut builder = self.builder(Method::BINDING, Class::Request);
        let change = ChangeRequest { change_ip: flags & 1 != 0, change_port: flags & 2 != 0 };
        if flags & 3 != 0 {
            builder = builder.u32(AttributeType::CHANGE_REQUEST, change.to_bits());
        }
        if flags & 4 != 0 {
            builder = builder.string(AttributeType::USERNAME, "a:b");
        }
        if flags & flag::UNKNOWN_ATTRIBUTE != 0 {
            builder = builder.flag(AttributeType::new(0x7FFF)).flag(AttributeType::new(0x7FFE));
        }
        builder = builder.padding_to(usize::from(padding) * 4, 0);
        if flags & 16 != 0 { builder.fingerprint().finish() } else { builder.finish() }
    }

    /// Gives the server a datagram, and checks what it makes of it.
    fn deliver(&mut self, client: SocketAddr, socket: u32, bytes: &[u8]) {
        let local = address(SOCKETS[socket as usize]);
        let sender = canonical(client);
        let message = Message::parse(bytes).ok();
        if message.as_ref().is_some_and(|message| self.has_genuine_cookie(client, message)) {
            self.proven.insert(sender);
        }
        let input = Input::Datagram { socket: SocketId(socket), local, remote: client, payload: bytes };
        self.server.handle_input(self.now, input);
        let sent = self.drain();
        let is_binding = message.as_ref().is_some_and(|message| message.method() == Method::BINDING)
            || Datagram::classify(bytes) == Datagram::ClassicStun;
        let room = bytes.len() + if is_binding { BINDING_EXCESS } else { 0 };
        let mut answers = 0;
        for (destination, payload) in sent {
            assert!(payload.len() <= MAX_MESSAGE, "{} bytes to {destination}", payload.len());
            if self.proven.contains(&destination) {
                self.learn(destination, message.as_ref(), &payload);
                continue;
            }
            assert_eq!(destination, sender, "sent to an address that has proven nothing");
            assert!(payload.len() <= room, "{} bytes for {}", payload.len(), bytes.len());
            answers += 1;
            self.learn(destination, message.as_ref(), &payload);
        }
        assert!(answers <= 1, "{answers} answers to one datagram");
        let allowed = u64::from(RATE) * (1_000 + self.now.as_nanos() / 1_000_000) / 1_000;
        let of_network = self.answers.entry(network(sender.ip())).or_default();
        *of_network += answers;
        assert!(u64::from(*of_network) <= allowed, "{of_network} answers to the network of {sender}");
        assert!(self.server.stats().registrations <= MAX_REGISTRATIONS);
    }

    /// Whether a request carries a cookie that the server would give its sender now, or would have an epoch ago.
    fn has_genuine_cookie(&mut self, client: SocketAddr, request: &Message<'_>) -> bool {
        let (Some(nonce), Some(id)) = (request.nonce(), id(request)) else { return false };
        let epoch = ServerConfig::default().cookie_epoch;
        let before = Instant::from_nanos(self.now.as_nanos().saturating_sub(epoch.as_nanos() as u64));
        [self.now, before].into_iter().any(|now| {
            let probe = Builder::new(Class::Request, Method::CONNECT, TransactionId([9; 12]))
                .version()
                .session_id(SessionId(id))
                .public_key(&[1; 32])
                .padding_to(120, 8)
                .fingerprint()
                .finish();
            let (socket, local) = (SocketId(0), address(SOCKETS[0]));
            self.twin.handle_input(now, Input::Datagram { socket, local, remote: client, payload: &probe });
            let Output::Transmit(answer) = self.twin.poll_output() else { return false };
            Message::parse(&answer.payload).is_ok_and(|answer| answer.nonce() == Some(nonce))
        })
    }

    /// Keeps what an honest client would keep.
    fn learn(&mut self, destination: SocketAddr, request: Option<&Message<'_>>, payload: &[u8]) {
        let Ok(answer) = Message::parse(payload) else { return };
        if let Some(route) = answer.route()
            && self.routes.len() < 16
        {
            self.routes.push(route.to_vec());
        }
        if let (Some(cookie), Some(id), Class::Error) = (answer.nonce(), request.and_then(id), answer.class()) {
            self.cookies.insert((destination, id), cookie.to_vec());
        }
    }

    /// Takes all outputs out.
    fn drain(&mut self) -> Vec<(SocketAddr, Vec<u8>)> {
        let mut sent = Vec::new();
        loop {
            match self.server.poll_output() {
                Output::Transmit(transmit) => {
                    assert!(transmit.socket.0 < SOCKETS.len() as u32);
                    sent.push((transmit.destination, transmit.payload));
                }
                Output::Timeout(time, _) => {
                    assert!(time.is_none_or(|time| time > self.now), "a wake-up that has passed");
                    let is_kept = self.server.stats().registrations > 0;
                    assert!(if self.came == 0 { time.is_some() == is_kept } else { time.is_some() || !is_kept });
                    return sent;
                }
                Output::Tcp(TcpRequest::Send { stream, bytes }) => {
                    assert!(self.texts.values().any(|text| *text == stream), "{stream:?} is gone");
                    assert!(bytes.starts_with(b"*('") || bytes == b"?", "{bytes:?}");
                }
                Output::Tcp(TcpRequest::Close { stream }) => self.texts.retain(|_, text| *text != stream),
                Output::Udp(_) | Output::Event(_) | Output::Log(..) => {}
                other => panic!("the server does not {other:?}"),
            }
            let repeats = 2 * self.told.len();
            assert!(sent.len() <= 3 + repeats, "more than an answer and an introduction over each family");
        }
    }

    /// Registrations that nobody renews end.
    fn end(mut self) {
        self.now = self.now + Duration::from_secs(51);
        self.server.handle_input(self.now, Input::Timeout);
        assert!(self.drain().is_empty());
        for (_, stream) in std::mem::take(&mut self.texts) {
            self.server.handle_input(self.now, Input::TcpFailed { stream, at_once: false });
        }
        let stats = self.server.stats();
        assert_eq!((stats.registrations, stats.connections, stats.legacy_listeners), (0, 0, 0));
        // What was to be sent again is given up with its listener, at the latest when its time comes.
        self.server.handle_input(self.now + Duration::from_secs(1), Input::Timeout);
        assert!(matches!(self.server.poll_output(), Output::Timeout(None, _)));
    }
}

/// What a request is about: a registration or a session.
fn id(request: &Message<'_>) -> Option<[u8; 16]> {
    request.registration_id().map(|id| id.0).or_else(|| request.session_id().map(|session| session.0))
}

fn key(id: [u8; 16], flags: u8) -> [u8; 32] {
    let [first, ..] = id;
    if flags & flag::WRONG_KEY == 0 { [first | 0x40; 32] } else { [0xEE; 32] }
}

fn transports(flags: u8) -> Transports {
    Transports { udp: flags & flag::TCP == 0, tcp: flags & flag::TCP != 0 }
}

/// Candidates of four bytes each: kind, transport, priority, address.
pub(crate) fn candidates(mut fields: Fields<'_>) -> Vec<WireCandidate> {
    let mut candidates = Vec::new();
    while !fields.rest().is_empty() && candidates.len() < 20 {
        let kind = fields.pick(&[
            CandidateKind::Host,
            CandidateKind::ServerReflexiveObserved,
            CandidateKind::ServerReflexiveClaimed,
            CandidateKind::Relay,
        ]);
        let transport = fields.pick(&[CandidateTransport::Udp, CandidateTransport::Tcp]);
        let priority = u32::from(fields.u8()) << 24;
        candidates.push(WireCandidate { kind, transport, priority, address: address(fields.pick(&CLIENTS)) });
    }
    candidates
}

fn finish(mut builder: Builder, flags: u8, key: Option<&[u8; 32]>) -> Vec<u8> {
    if flags & flag::UNKNOWN_ATTRIBUTE != 0 {
        builder = builder.flag(AttributeType::new(0x7FFF));
    }
    match key {
        Some(key) => builder.integrity_sha256(key).fingerprint().finish(),
        None => builder.fingerprint().finish(),
    }
}

/// A request of RFC 3489: no magic cookie, and a CHANGE-REQUEST.
fn classic(change: u32) -> Vec<u8> {
    let mut bytes = vec![0, 1, 0, 8];
    bytes.extend_from_slice(&[7; 16]);
    bytes.extend_from_slice(&[0, 3, 0, 4]);
    bytes.extend_from_slice(&change.to_be_bytes());
    bytes
}

/// Changes some bits, and makes the fingerprint right again.
pub(crate) fn mutated(message: &[u8], position: usize, bits: u8) -> Vec<u8> {
    let mut bytes = message.to_vec();
    if let Some(byte) = bytes.get_mut(position) {
        *byte ^= bits;
    }
    with_fingerprint(&bytes)
}

/// The message as it is, with the right fingerprint where it has one.
fn with_fingerprint(bytes: &[u8]) -> Vec<u8> {
    let Ok(message) = Message::parse(bytes) else { return bytes.to_vec() };
    let Some((head, [0x80, 0x28, 0, 4, ..])) = bytes.split_last_chunk::<8>() else { return bytes.to_vec() };
    let mut crc = u32::MAX;
    for byte in head {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 };
        }
    }
    let mut fixed = message.as_bytes().to_vec();
    let end = fixed.len() - 4;
    fixed[end..].copy_from_slice(&(!crc ^ 0x5354_554E).to_be_bytes());
    fixed
}

/// The message with so many bytes of one more attribute that nobody must understand.
fn lengthened(message: &[u8], padding: usize) -> Vec<u8> {
    let mut bytes = message.to_vec();
    let mut fingerprint = bytes.split_off(bytes.len() - 8);
    let padding = padding.next_multiple_of(4);
    bytes.extend_from_slice(&[0xBF, 0xFF]);
    bytes.extend_from_slice(&(padding as u16).to_be_bytes());
    bytes.resize(bytes.len() + padding, 0);
    bytes.append(&mut fingerprint);
    let length = (bytes.len() - 20) as u16;
    bytes[2..4].copy_from_slice(&length.to_be_bytes());
    with_fingerprint(&bytes)
}

/// What the server limits the rate of: an IPv4 /24, an IPv6 /56.
fn network(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(ip.to_bits() >> 8),
        IpAddr::V6(ip) => ip.to_bits() >> 72 | 1 << 100,
    }
}
