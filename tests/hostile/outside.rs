//! Everything that the peer under test talks to: one server and one other peer. Both are honest until a test puts
//! another function in the place of theirs.

use crate::victim::Arrives;
use hkdf::Hkdf;
use holepunch::{
    machine::{StreamId, TcpRequest},
    peer::Transport,
    wire::stun::{
        AttributeType, Builder, CandidateKind, CandidateTransport, Class, GREETING, Message, Method, RegistrationId,
        SessionId, TransactionId, Transports, WireCandidate,
    },
};
use sha2::Sha256;
use std::{collections::BTreeMap, net::SocketAddr};
use x25519_dalek::{PublicKey, StaticSecret};

pub(crate) const SERVER: &str = "192.0.2.1:20000";
/// The one other peer that answers.
pub(crate) const PEER: &str = "203.0.113.5:7000";
/// Where the server sees the peer under test.
pub(crate) const SEEN: &str = "198.51.100.7:62000";
const PRIVATE_KEY: [u8; 32] = [3; 32];
/// FLAGS of a connector's message.
pub(crate) const FROM_CONNECTOR: u32 = 2;

/// What is said to a message; over UDP each a datagram, over TCP one after the other.
pub(crate) type Answers = Vec<Vec<u8>>;
pub(crate) type Say = fn(&mut Outside, &Message<'_>) -> Answers;
pub(crate) type DoTcp = fn(&mut Outside, &TcpRequest) -> Vec<Arrives>;

pub(crate) fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// So many candidates, from this port on.
pub(crate) fn candidates(kind: CandidateKind, from: &str, count: u16) -> Vec<WireCandidate> {
    let from = addr(from);
    let at = |port| WireCandidate {
        kind,
        transport: CandidateTransport::Udp,
        priority: 1,
        address: SocketAddr::new(from.ip(), port),
    };
    (from.port()..from.port() + count).map(at).collect()
}

/// The same for streams.
pub(crate) fn over_tcp(candidates: Vec<WireCandidate>) -> Vec<WireCandidate> {
    candidates.into_iter().map(|it| WireCandidate { transport: CandidateTransport::Tcp, ..it }).collect()
}

/// Where the other peer is: seen over UDP there, it claims the same over TCP.
pub(crate) fn the_peer() -> Vec<WireCandidate> {
    let mut told = candidates(CandidateKind::ServerReflexiveObserved, PEER, 1);
    told.extend(over_tcp(candidates(CandidateKind::ServerReflexiveClaimed, PEER, 1)));
    told
}

/// What one side's checks are named and signed with.
#[derive(Clone, Debug)]
pub(crate) struct Side {
    pub(crate) ufrag: String,
    pub(crate) password: String,
}

/// The keys of a session, on the other peer's side.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    pub(crate) session: SessionId,
    pub(crate) victim: Side,
    pub(crate) peer: Side,
    pub(crate) control: [u8; 32],
    pub(crate) victim_connects: bool,
}

impl Keys {
    /// As PROTOCOL.md says (section 8).
    fn derive(session: SessionId, victim: [u8; 32], victim_connects: bool) -> Self {
        let own = StaticSecret::from(PRIVATE_KEY);
        let shared = own.diffie_hellman(&PublicKey::from(victim));
        let own = PublicKey::from(&own).to_bytes();
        let [connector, listener] = if victim_connects { [victim, own] } else { [own, victim] };
        let expand = |label: &str, length: usize| {
            let mut output = vec![0; length];
            let info = [label.as_bytes(), &connector, &listener].concat();
            Hkdf::<Sha256>::new(Some(&session.0), shared.as_bytes()).expand(&info, &mut output).unwrap();
            output
        };
        let side = |role: &str| Side {
            ufrag: base64(&expand(&format!("holepunch 1 ufrag {role}"), 6)),
            password: base64(&expand(&format!("holepunch 1 password {role}"), 24)),
        };
        let (connector, listener) = (side("connector"), side("listener"));
        let (victim, peer) = if victim_connects { (connector, listener) } else { (listener, connector) };
        let control = expand("holepunch 1 control", 32).try_into().unwrap();
        Self { session, victim, peer, control, victim_connects }
    }

    /// A check of the other peer's, without integrity: it can be in either role.
    pub(crate) fn begin_check(&self, id: TransactionId, controls: bool, tie_breaker: u64) -> Builder {
        let role = if controls { AttributeType::ICE_CONTROLLING } else { AttributeType::ICE_CONTROLLED };
        let builder = Builder::new(Class::Request, Method::BINDING, id)
            .string(AttributeType::USERNAME, &format!("{}:{}", self.victim.ufrag, self.peer.ufrag))
            .u32(AttributeType::PRIORITY, 0x6eff_feff)
            .u64(role, tie_breaker);
        if controls { builder.flag(AttributeType::USE_CANDIDATE) } else { builder }
    }

    /// A check as it should be; where the other peer connects it nominates.
    pub(crate) fn check(&self, number: u64) -> Vec<u8> {
        self.sign(self.begin_check(transaction(number), !self.victim_connects, 7))
    }

    pub(crate) fn sign(&self, check: Builder) -> Vec<u8> {
        check.integrity(self.victim.password.as_bytes()).fingerprint().finish()
    }

    pub(crate) fn flags(&self) -> u32 {
        if self.victim_connects { 0 } else { FROM_CONNECTOR }
    }

    /// A message beside the checks, such as END.
    pub(crate) fn control(&self, class: Class, method: Method, number: u64, flags: u32) -> Builder {
        Builder::new(class, method, transaction(number)).session_id(self.session).flags(self.flags() | flags)
    }

    pub(crate) fn signed(&self, builder: Builder) -> Vec<u8> {
        builder.integrity_sha256(&self.control).fingerprint().finish()
    }
}

pub(crate) fn transaction(number: u64) -> TransactionId {
    let mut id = [0x77; 12];
    id[4..].copy_from_slice(&number.to_be_bytes());
    TransactionId(id)
}

fn base64(bytes: &[u8]) -> String {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bits: Vec<u8> = bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)).collect();
    bits.chunks(6).map(|six| char::from(alphabet[six.iter().fold(0, |n, bit| n << 1 | usize::from(*bit))])).collect()
}

/// The server, the other peer, and what they know.
pub(crate) struct Outside {
    /// The registration that the server knows: its id and key.
    pub(crate) registration: (RegistrationId, [u8; 32]),
    /// The listener's public key.
    pub(crate) public_key: [u8; 32],
    /// The number of the last introduction.
    pub(crate) sequence: u64,
    /// By what the other peer's checks are named.
    pub(crate) sessions: BTreeMap<String, Keys>,
    /// Connections of the peer under test, by where they go.
    pub(crate) streams: BTreeMap<StreamId, SocketAddr>,
    /// Checks that the other peer sent, and answers of the server.
    pub(crate) checks: u64,
    pub(crate) answers: usize,
    /// The code of the errors that a server says which refuses everything.
    pub(crate) code: u16,
    pub(crate) server: Say,
    /// Whether the server can be reached over UDP.
    pub(crate) over_udp: bool,
    pub(crate) peer: Say,
    pub(crate) tcp: DoTcp,
}

impl Outside {
    pub(crate) fn new() -> Self {
        Self {
            registration: (RegistrationId([0; 16]), [0; 32]),
            public_key: [0; 32],
            sequence: 0,
            sessions: BTreeMap::new(),
            streams: BTreeMap::new(),
            checks: 0,
            answers: 0,
            code: 0,
            server: honest_server,
            over_udp: true,
            peer: honest_peer,
            tcp: refuses,
        }
    }

    pub(crate) fn be_honest(&mut self) {
        (self.server, self.over_udp) = (honest_server, true);
        (self.peer, self.tcp) = (honest_peer, takes);
    }

    pub(crate) fn handle_datagram(&mut self, to: SocketAddr, payload: &[u8]) -> Answers {
        let Ok(message) = Message::parse(payload) else { return Vec::new() };
        if to == addr(SERVER) {
            return if self.over_udp { self.ask_server(&message) } else { Vec::new() };
        }
        if to.ip() == addr(PEER).ip() { (self.peer)(self, &message) } else { Vec::new() }
    }

    fn ask_server(&mut self, message: &Message<'_>) -> Answers {
        let answers = (self.server)(self, message);
        self.answers += answers.len();
        answers
    }

    pub(crate) fn handle_tcp(&mut self, request: &TcpRequest) -> Vec<Arrives> {
        match request {
            TcpRequest::Connect { stream, remote, .. } => drop(self.streams.insert(*stream, *remote)),
            TcpRequest::Close { stream } | TcpRequest::Abort { stream } => drop(self.streams.remove(stream)),
            _ => {}
        }
        (self.tcp)(self, request)
    }

    /// An introduction to the listener, after which the keys are known.
    pub(crate) fn introduction(
        &mut self,
        session: SessionId,
        transport: Transport,
        candidates: &[WireCandidate],
    ) -> Vec<u8> {
        self.sequence += 1;
        let key = self.registration.1;
        self.begin_introduction(session, transport, self.sequence)
            .candidates(candidates)
            .integrity_sha256(&key)
            .fingerprint()
            .finish()
    }

    pub(crate) fn begin_introduction(&mut self, session: SessionId, transport: Transport, sequence: u64) -> Builder {
        self.know(session, self.public_key, false);
        let transports = Transports { udp: transport == Transport::Udp, tcp: transport == Transport::Tcp };
        Builder::new(Class::Indication, Method::INTRODUCE, transaction(sequence))
            .registration_id(self.registration.0)
            .session_id(session)
            .sequence(sequence)
            .public_key(&public_key())
            .transports(transports)
            .attribute(AttributeType::ROUTE, &[7; 44])
    }

    fn know(&mut self, session: SessionId, victim: [u8; 32], victim_connects: bool) {
        let keys = Keys::derive(session, victim, victim_connects);
        self.sessions.insert(keys.peer.ufrag.clone(), keys);
    }

    /// The keys of the only session, or of that with this number.
    pub(crate) fn keys(&self, session: u8) -> Keys {
        let is_it = |keys: &&Keys| keys.victim_connects || keys.session == SessionId([session; 16]);
        self.sessions.values().find(is_it).expect("introduced").clone()
    }
}

fn public_key() -> [u8; 32] {
    PublicKey::from(&StaticSecret::from(PRIVATE_KEY)).to_bytes()
}

/// Does what a server should, but for limits: confirms, and introduces the other peer.
pub(crate) fn honest_server(outside: &mut Outside, message: &Message<'_>) -> Answers {
    let id = message.transaction_id();
    let success =
        Builder::new(Class::Success, message.method(), id).xor_address(AttributeType::XOR_MAPPED_ADDRESS, addr(SEEN));
    vec![match message.method() {
        Method::REGISTER if message.keepalive() == Some(0) => {
            Builder::new(Class::Success, Method::REGISTER, id).fingerprint().finish()
        }
        Method::REGISTER => {
            if let (Some(id), Some(key), Some(public)) =
                (message.registration_id(), message.registration_key(), message.public_key())
            {
                if outside.registration != (id, key) {
                    outside.sequence = 0;
                }
                (outside.registration, outside.public_key) = ((id, key), public);
            }
            success.keepalive(25).integrity_sha256(&outside.registration.1).fingerprint().finish()
        }
        Method::CONNECT => {
            let (session, key) = (message.session_id().unwrap(), message.public_key().unwrap());
            outside.know(session, key, true);
            success
                .public_key(&public_key())
                .transports(message.transports().unwrap())
                .attribute(AttributeType::ROUTE, &[7; 44])
                .candidates(&the_peer())
                .fingerprint()
                .finish()
        }
        Method::BINDING => success.fingerprint().finish(),
        // Passed on, and acknowledged by the other peer.
        Method::TRICKLE if message.class() == Class::Request => {
            let is_it = |keys: &&Keys| Some(keys.session) == message.session_id();
            let Some(keys) = outside.sessions.values().find(is_it) else { return Vec::new() };
            let success = Builder::new(Class::Success, Method::TRICKLE, id).session_id(keys.session);
            keys.signed(success.sequence(message.sequence().unwrap()).flags(keys.flags()))
        }
        _ => return Vec::new(),
    }]
}

/// Answers checks, and checks itself; acknowledges ends.
pub(crate) fn honest_peer(outside: &mut Outside, message: &Message<'_>) -> Answers {
    let id = message.transaction_id();
    match (message.method(), message.class()) {
        (Method::BINDING, Class::Request) => {
            let Some(keys) = session_of(outside, message) else { return Vec::new() };
            outside.checks += 1;
            let answer = Builder::new(Class::Success, Method::BINDING, id)
                .xor_address(AttributeType::XOR_MAPPED_ADDRESS, addr(SEEN))
                .integrity(keys.peer.password.as_bytes())
                .fingerprint();
            vec![answer.finish(), keys.check(outside.checks)]
        }
        (Method::END, Class::Request) => {
            let is_it = |keys: &&Keys| Some(keys.session) == message.session_id();
            let Some(keys) = outside.sessions.values().find(is_it) else { return Vec::new() };
            let success = Builder::new(Class::Success, Method::END, id).session_id(keys.session).flags(keys.flags());
            vec![keys.signed(success)]
        }
        _ => Vec::new(),
    }
}

/// Whose session a check of the peer under test belongs to.
pub(crate) fn session_of(outside: &Outside, check: &Message<'_>) -> Option<Keys> {
    let (ufrag, _) = check.username()?.split_once(':')?;
    outside.sessions.get(ufrag).cloned()
}

pub(crate) fn silent(_: &mut Outside, _: &Message<'_>) -> Answers {
    Vec::new()
}

/// Nobody takes a connection, and nobody refuses one but the server.
pub(crate) fn refuses(_: &mut Outside, request: &TcpRequest) -> Vec<Arrives> {
    match request {
        TcpRequest::Connect { stream, remote, .. } if *remote == addr(SERVER) => vec![Arrives::Failed(*stream)],
        _ => Vec::new(),
    }
}

/// The server and the other peer take connections, and say there what they say.
pub(crate) fn takes(outside: &mut Outside, request: &TcpRequest) -> Vec<Arrives> {
    match request {
        TcpRequest::Connect { stream, remote, .. } if [addr(SERVER), addr(PEER)].contains(remote) => {
            vec![Arrives::Connected(*stream)]
        }
        TcpRequest::Send { stream, bytes } => {
            let bytes = match outside.streams.get(stream) {
                Some(_) if bytes == GREETING => GREETING.to_vec(),
                Some(remote) if *remote == addr(SERVER) => {
                    outside.ask_server(&Message::parse(bytes).expect("a request")).concat()
                }
                Some(_) => {
                    let message = Message::parse(bytes).expect("a check");
                    session_of(outside, &message).map(|keys| keys.check(1)).unwrap_or_default()
                }
                None => return Vec::new(),
            };
            vec![Arrives::Bytes(*stream, bytes)]
        }
        _ => Vec::new(),
    }
}
