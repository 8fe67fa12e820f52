//! The rendezvous server, sans-IO: STUN Binding for everybody, and the introduction of peers.
//!
//! # How it works
//!
//! A request of our own methods that carries no cookie is answered with one and leaves no trace. With the cookie, a
//! REGISTER puts a listener into the registry, and a CONNECT makes two messages: an INTRODUCE to the listener, signed
//! with the registration's key, and the answer to the connector. Each carries the other side's public key, the
//! address the server saw it at, the addresses it claims to have, and a sealed route back to it. The server remembers
//! nothing of it: a repeated CONNECT introduces again, which the listener knows by the session's id, and the route
//! is all that TRICKLE needs.
//!
//! Over TCP all this is the same, but that the handshake has proven the address: no cookie is asked for, no rate
//! guards the answers, introductions go along the connection, and a registration ends with it (or, as any other,
//! when its keepalives do). Within the server a connection is a socket of its own, by the connection's number, which is
//! greater than that of any socket.
//!
//! # What a stranger can make it do
//!
//! Before the cookie came back: one answer, not longer than its request (24 bytes longer for STUN Binding), to the
//! address that the request came from, within the rate of its network. Memory grows only by registrations, which
//! are bounded in number, in size, per network and in time.

use alloc::{collections::VecDeque, vec::Vec};
use core::{fmt, net::SocketAddr};

mod binding;
mod cookie;
mod legacy;
mod rate;
mod registry;
mod route;
mod seal;
mod streams;

use self::{
    binding::{Answer, Origins},
    cookie::Cookies,
    rate::Rates,
    registry::{Found, Listing, Refusal, Registration, Registry, Seen},
    route::Route,
    streams::Streams,
};
use super::codes;
use crate::{
    address::{canonical, canonical_ip, is_routable},
    config::{ALTERNATE_PORT_OFFSET, ServerConfig},
    machine::{Input, Instant, NextWake, Output, Random, SocketId, StreamId, TcpRequest, Timer, Transmit},
    wire::{
        demux::Datagram,
        stun::{
            AttributeType, Builder, CandidateKind, CandidateTransport, Class, ClassicRequest, Fingerprint, Integrity,
            MAX_CANDIDATES, MAX_MESSAGE, Message, Method, RegistrationId, SessionId, VERSION, WireCandidate,
        },
    },
};

/// The attributes of our own requests that must be understood.
const UNDERSTOOD: &[AttributeType] = &[AttributeType::NONCE, AttributeType::PADDING];

/// One of the server's sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerSocket {
    /// Its number.
    pub socket: SocketId,
    /// Its local address and port; the address may be unspecified.
    pub local: SocketAddr,
    /// The socket of the same family that answers requests to change the port (RFC 5780), and the other way round.
    pub alternate: Option<SocketId>,
}

/// What the server has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerStats {
    /// Datagrams received.
    pub received: u64,
    /// STUN Binding requests answered.
    pub bindings: u64,
    /// Introductions sent to listeners.
    pub introductions: u64,
    /// Requests refused or dropped for a limit.
    pub limited: u64,
    /// Datagrams that were no message of ours, or malformed.
    pub malformed: u64,
    /// Registrations alive.
    pub registrations: usize,
    /// TCP connections open.
    pub connections: usize,
    /// Listeners of 2015 that wait to be introduced.
    pub legacy_listeners: usize,
}

/// What the server tells its operator; addresses are the clients'.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ServerEvent {}

/// Where a message came in, its source canonicalised. Over TCP the socket is the connection.
#[derive(Clone, Copy, Debug)]
struct At {
    socket: SocketId,
    local: SocketAddr,
    remote: SocketAddr,
}

/// The server, without its sockets.
///
/// Give it what arrives ([`Server::handle_input`]), send what it wants sent ([`Server::poll_output`]), and call it
/// again at the time it names: the loop of every sans-IO machine here.
pub struct Server {
    config: ServerConfig,
    sockets: Vec<ServerSocket>,
    cookies: Cookies,
    route_key: [u8; 32],
    random: Random,
    registry: Registry,
    stun_rates: Rates,
    introduction_rates: Rates,
    streams: Streams,
    legacy: legacy::Listeners,
    stats: ServerStats,
    transmits: VecDeque<Transmit>,
    requests: VecDeque<TcpRequest>,
}

impl Server {
    /// Makes a server; `seed` must be secret and fresh wherever the network is real.
    #[must_use]
    pub fn new(config: ServerConfig, seed: [u8; 32], sockets: Vec<ServerSocket>) -> Self {
        let mut random = Random::new(seed);
        let size = config.max_rate_entries;
        Self {
            cookies: Cookies::new(random.bytes(), config.cookie_epoch),
            route_key: random.bytes(),
            registry: Registry::new(
                config.keepalive * 2,
                config.max_registrations,
                config.max_registrations_per_network,
            ),
            stun_rates: Rates::new(config.stun_rate, size, [random.u64(), random.u64()]),
            introduction_rates: Rates::new(config.introduction_rate, size, [random.u64(), random.u64()]),
            random,
            streams: Streams::default(),
            legacy: legacy::Listeners::default(),
            config,
            sockets,
            stats: ServerStats::default(),
            transmits: VecDeque::new(),
            requests: VecDeque::new(),
        }
    }

    /// Takes in [`Input::Datagram`], [`Input::Timeout`], [`Input::TcpAccepted`] or [`Input::TcpFailed`]; every other
    /// input is ignored. Drain afterwards.
    pub fn handle_input(&mut self, now: Instant, input: Input<'_>) {
        self.registry.expire(now);
        self.expire_streams(now);
        #[expect(clippy::wildcard_enum_match_arm, reason = "what a server has asked for can bring nothing else")]
        match input {
            Input::Datagram { socket, local, remote, payload } => {
                self.stats.received += 1;
                let at = At { socket, local, remote: canonical(remote) };
                self.handle_datagram(now, at, payload);
            }
            Input::TcpAccepted { stream, local, remote, .. } => {
                self.accept_stream(now, stream, canonical(local), canonical(remote));
            }
            Input::TcpFailed { stream } => self.forget_stream(stream),
            _ => {}
        }
    }

    /// Takes the next output out: transmissions, requests about connections, then [`Output::Timeout`].
    pub fn poll_output(&mut self) -> Output<ServerEvent> {
        if let Some(transmit) = self.transmits.pop_front() {
            return Output::Transmit(transmit);
        }
        if let Some(request) = self.requests.pop_front() {
            return Output::Tcp(request);
        }
        let mut wake = NextWake::never();
        wake.at(self.registry.next_expiry(), Timer::Expiry);
        wake.at(self.streams.next_wake(), Timer::Expiry);
        Output::Timeout(wake.time(), wake.timer())
    }

    /// Takes the next request about connections out, before everything else. For a driver that does them as they come.
    #[cfg(feature = "server")]
    pub(crate) fn poll_stream_request(&mut self) -> Option<TcpRequest> {
        self.requests.pop_front()
    }

    /// What it has done so far.
    #[must_use]
    pub fn stats(&self) -> ServerStats {
        ServerStats {
            registrations: self.registry.len(),
            connections: self.streams.len(),
            legacy_listeners: self.legacy.len(),
            ..self.stats
        }
    }

    fn handle_datagram(&mut self, now: Instant, at: At, bytes: &[u8]) {
        match Datagram::classify(bytes) {
            Datagram::Stun => match Message::parse(bytes) {
                Ok(message) => self.handle_message(now, at, &message),
                Err(_) => self.stats.malformed += 1,
            },
            Datagram::ClassicStun => match ClassicRequest::parse(bytes) {
                Ok(request) if self.may_answer(now, at) => {
                    let answer = binding::answer_classic(&request, at.remote, self.alternate(at.socket).is_some());
                    self.send_binding(at, answer);
                }
                Ok(_) => {}
                Err(_) => self.stats.malformed += 1,
            },
            Datagram::Other => self.stats.malformed += 1,
        }
    }

    fn handle_message(&mut self, now: Instant, at: At, message: &Message<'_>) {
        match (message.method(), message.class()) {
            (Method::BINDING, Class::Request) => {
                if self.may_answer(now, at) {
                    let answer = binding::answer(message, at.remote, self.origins(at));
                    self.send_binding(at, answer);
                }
            }
            (Method::REGISTER, Class::Request) => self.handle_own(now, at, message, Self::handle_register),
            (Method::CONNECT, Class::Request) => self.handle_own(now, at, message, Self::handle_connect),
            (Method::TRICKLE, Class::Request | Class::Success) => self.handle_trickle(now, message),
            _ => self.stats.malformed += 1,
        }
    }

    fn may_answer(&mut self, now: Instant, at: At) -> bool {
        let may = stream_of(at.socket).is_some() || self.stun_rates.take(now, at.remote.ip());
        if !may {
            self.stats.limited += 1;
        }
        may
    }

    /// What all our own requests have in common: a fingerprint, nothing unknown, a rate for those who have proven nothing.
    fn handle_own(
        &mut self,
        now: Instant,
        at: At,
        message: &Message<'_>,
        handle: fn(&mut Self, Instant, At, &Message<'_>),
    ) {
        if message.verify_fingerprint() != Fingerprint::Valid {
            self.stats.malformed += 1;
            return;
        }
        if !self.is_proven(now, at, message) && !self.may_answer(now, at) {
            return;
        }
        let unknown: Vec<_> = message.unknown_comprehension_required(UNDERSTOOD).take(4).collect();
        if unknown.is_empty() {
            handle(self, now, at, message);
        } else {
            let builder = Self::error(message, codes::UNKNOWN_ATTRIBUTE).unknown_attributes(unknown);
            self.reply_unproven(at, message, builder);
        }
    }

    /// Whether the sender is where it says: it brings a good cookie, or is a listener that is registered there. A
    /// rate that it shares with strangers must not silence it, nor may a forged cookie escape the rate.
    fn is_proven(&self, now: Instant, at: At, message: &Message<'_>) -> bool {
        let id = match message.method() {
            Method::REGISTER => message.registration_id().map(|id| id.0),
            _ => message.session_id().map(|id| id.0),
        };
        let Some(id) = id else { return false };
        if stream_of(at.socket).is_some() {
            return true;
        }
        if let Some(nonce) = message.nonce() {
            return self.cookies.verify(now, at.remote, &id, nonce);
        }
        let known = self.registry.get(RegistrationId(id)).filter(|_| message.method() == Method::REGISTER);
        known.is_some_and(|known| known.is_at(at.seen()) && is_signed(message, &known.listing.key))
    }

    fn handle_register(&mut self, now: Instant, at: At, message: &Message<'_>) {
        let Some(id) = message.registration_id() else {
            self.stats.malformed += 1;
            return;
        };
        let known = self.registry.get(id);
        if message.keepalive() == Some(0) {
            if known.is_some_and(|known| is_signed(message, &known.listing.key)) {
                self.registry.remove(id);
            }
            // Also when it is gone already: the answer to an earlier request may have been lost.
            let gone = Builder::new(Class::Success, Method::REGISTER, message.transaction_id());
            self.reply_unproven(at, message, gone);
        } else if let Some(key) = message.registration_key() {
            self.handle_full_register(now, at, message, id, key);
        } else {
            self.handle_keepalive(now, at, message, id);
        }
    }

    fn handle_full_register(&mut self, now: Instant, at: At, message: &Message<'_>, id: RegistrationId, key: [u8; 32]) {
        let (Some(public_key), true) = (message.public_key(), is_signed(message, &key)) else {
            self.stats.malformed += 1;
            return;
        };
        // A name that is there and cannot be read must not become an unnamed listener.
        let name = message.name();
        if name.is_none() && message.attribute(AttributeType::NAME).is_some() {
            return self.refuse(at, message, 400);
        }
        if message.version() != Some(VERSION) {
            return self.refuse(at, message, codes::VERSION_MISMATCH);
        }
        let code = if self.registry.get(id).is_some() { codes::STALE_NONCE } else { codes::UNAUTHENTICATED };
        if !self.has_cookie(now, at, message, &id.0, code) {
            return;
        }
        let candidates = self.claimed_candidates(at, message);
        let transports = message.transports().unwrap_or_default();
        let listing = Listing { key, name, public_key, transports, candidates };
        match self.registry.register(now, id, listing, at.seen()) {
            Ok(()) => {
                self.keep_registration(at, id);
                self.confirm(at, message, &key);
            }
            Err(refusal) => {
                if refusal == Refusal::Full {
                    self.stats.limited += 1;
                }
                let code = match refusal {
                    Refusal::NameTaken => codes::NAME_TAKEN,
                    Refusal::Forbidden => codes::FORBIDDEN,
                    Refusal::Full => codes::INSUFFICIENT_CAPACITY,
                };
                self.refuse(at, message, code);
            }
        }
    }

    fn handle_keepalive(&mut self, now: Instant, at: At, message: &Message<'_>, id: RegistrationId) {
        let Some(registration) = self.registry.get(id) else {
            return self.challenge(now, at, message, &id.0, codes::UNAUTHENTICATED);
        };
        let key = registration.listing.key;
        let is_there = registration.is_at(at.seen());
        if !is_signed(message, &key) {
            self.stats.malformed += 1;
            return;
        }
        let is_stream = stream_of(at.socket).is_some();
        if !is_there
            && !is_stream
            && !message.nonce().is_some_and(|nonce| self.cookies.verify(now, at.remote, &id.0, nonce))
        {
            return self.challenge(now, at, message, &id.0, codes::STALE_NONCE);
        }
        self.registry.refresh(now, id, at.seen());
        self.keep_registration(at, id);
        self.confirm(at, message, &key);
    }

    /// Confirms a registration: where the listener was seen, and when to come again.
    fn confirm(&mut self, at: At, message: &Message<'_>, key: &[u8; 32]) {
        let seconds = u32::try_from(self.config.keepalive.as_secs()).unwrap_or(u32::MAX);
        let bytes = Builder::new(Class::Success, Method::REGISTER, message.transaction_id())
            .xor_address(AttributeType::XOR_MAPPED_ADDRESS, at.remote)
            .keepalive(seconds)
            .integrity_sha256(key)
            .fingerprint()
            .finish();
        self.reply(at, bytes);
    }

    fn handle_connect(&mut self, now: Instant, at: At, message: &Message<'_>) {
        let (Some(session), Some(public_key)) = (message.session_id(), message.public_key()) else {
            self.stats.malformed += 1;
            return;
        };
        if message.version() != Some(VERSION) {
            return self.refuse(at, message, codes::VERSION_MISMATCH);
        }
        if !self.has_cookie(now, at, message, &session.0, codes::UNAUTHENTICATED) {
            return;
        }
        if !self.introduction_rates.take(now, at.remote.ip()) {
            self.stats.limited += 1;
            return self.refuse(at, message, codes::INSUFFICIENT_CAPACITY);
        }
        let found = match (message.name(), message.target_address()) {
            (Some(name), _) => self.registry.by_name(&name),
            (None, Some(ip)) => self.registry.by_address(canonical_ip(ip)),
            (None, None) => return self.refuse(at, message, 400),
        };
        let id = match found {
            Found::One(id) => id,
            Found::Several => return self.refuse(at, message, codes::AMBIGUOUS),
            Found::None => return self.refuse(at, message, codes::NOT_FOUND),
        };
        let Some(registration) = self.registry.get(id) else { return };
        let wanted = message.transports().unwrap_or_default();
        if !registration.listing.transports.intersects(wanted) {
            return self.refuse(at, message, codes::TRANSPORT_MISMATCH);
        }
        let epoch = self.cookies.epoch(now);
        let connector_seen = [at.seen()];
        let listener_seen: Vec<_> = registration.seen().collect();
        let claimed = self.claimed_candidates(at, message);
        let for_listener = told_candidates(&connector_seen, &claimed, &listener_seen);
        let for_connector = told_candidates(&listener_seen, &registration.listing.candidates, &connector_seen);

        let answer = Builder::new(Class::Success, Method::CONNECT, message.transaction_id())
            .public_key(&registration.listing.public_key)
            .transports(registration.listing.transports)
            .xor_address(AttributeType::XOR_MAPPED_ADDRESS, at.remote)
            .attribute(AttributeType::ROUTE, &Route::Registration(id).seal(&self.route_key, epoch))
            .candidates(&for_connector)
            .fingerprint()
            .finish();
        let route = Route::Address(at.seen()).seal(&self.route_key, epoch);
        let introduction = Introduction { session, public_key, transports: wanted, candidates: for_listener, route };
        for seen in listener_seen {
            self.introduce(id, seen, &introduction);
        }
        self.reply(at, answer);
        self.stats.introductions += 1;
    }

    /// Tells a listener of a connector.
    fn introduce(&mut self, id: RegistrationId, to: Seen, introduction: &Introduction) {
        let sequence = self.registry.next_sequence(id);
        let Some(registration) = self.registry.get(id) else { return };
        let transaction = crate::wire::stun::TransactionId(self.random.bytes());
        let payload = Builder::new(Class::Indication, Method::INTRODUCE, transaction)
            .registration_id(id)
            .session_id(introduction.session)
            .sequence(sequence)
            .public_key(&introduction.public_key)
            .transports(introduction.transports)
            .attribute(AttributeType::ROUTE, &introduction.route)
            .candidates(&introduction.candidates)
            .integrity_sha256(&registration.listing.key)
            .fingerprint()
            .finish();
        self.send(to, payload);
    }

    /// Passes a message between two introduced peers on, as it is, to where its route leads.
    fn handle_trickle(&mut self, now: Instant, message: &Message<'_>) {
        let is_ours = message.verify_fingerprint() == Fingerprint::Valid && message.as_bytes().len() <= MAX_MESSAGE;
        let token = message.route().filter(|_| is_ours);
        let opened = token.and_then(|token| Route::open(&self.route_key, token));
        let Some((route, _)) = opened.filter(|(_, epoch)| self.cookies.is_fresh(now, *epoch)) else {
            self.stats.malformed += 1;
            return;
        };
        let targets: Vec<_> = match route {
            Route::Registration(id) => self.registry.get(id).into_iter().flat_map(Registration::seen).collect(),
            Route::Address(seen) => alloc::vec![seen],
        };
        for target in targets {
            // The rate of whom it goes to: the sender's address is not proven.
            if self.introduction_rates.take(now, target.remote.ip()) {
                self.send(target, message.as_bytes().to_vec());
            } else {
                self.stats.limited += 1;
            }
        }
    }

    /// The candidates that a client claims, without those that cannot mean anything to others or mean the server.
    fn claimed_candidates(&self, at: At, message: &Message<'_>) -> Vec<WireCandidate> {
        message
            .candidates()
            .filter_map(|candidate| {
                let address = canonical(candidate.address);
                let ip = address.ip();
                let kind = match candidate.kind {
                    CandidateKind::Host => CandidateKind::Host,
                    // Only the server observes.
                    CandidateKind::ServerReflexiveObserved | CandidateKind::ServerReflexiveClaimed => {
                        CandidateKind::ServerReflexiveClaimed
                    }
                    CandidateKind::Relay => CandidateKind::Relay,
                };
                let is_usable = address.port() != 0 && is_routable(ip) && !ip.is_loopback();
                (is_usable && !self.is_own(at, address)).then_some(WireCandidate { kind, address, ..candidate })
            })
            .collect()
    }

    /// Whether an address is one that the server itself listens on, or is reached at.
    fn is_own(&self, at: At, address: SocketAddr) -> bool {
        let advertised = self.config.advertise.is_some_and(|own| address == own || address == alternate_of(own));
        let own_ip = address.ip() == canonical_ip(at.local.ip())
            || self.config.advertise.is_some_and(|own| own.ip() == address.ip())
            || self.sockets.iter().any(|own| own.local.ip() == address.ip());
        advertised || own_ip && self.sockets.iter().any(|own| own.local.port() == address.port())
    }

    /// Whether the request carries a cookie that is good for its sender; else the sender is challenged.
    fn has_cookie(&mut self, now: Instant, at: At, message: &Message<'_>, id: &[u8; 16], code: u16) -> bool {
        let is_good = stream_of(at.socket).is_some()
            || message.nonce().is_some_and(|nonce| self.cookies.verify(now, at.remote, id, nonce));
        if !is_good {
            self.challenge(now, at, message, id, code);
        }
        is_good
    }

    fn challenge(&mut self, now: Instant, at: At, message: &Message<'_>, id: &[u8; 16], code: u16) {
        let cookie = self.cookies.make(now, at.remote, id);
        let builder = Self::error(message, code)
            .attribute(AttributeType::NONCE, &cookie)
            .xor_address(AttributeType::XOR_MAPPED_ADDRESS, at.remote);
        self.reply_unproven(at, message, builder);
    }

    fn refuse(&mut self, at: At, message: &Message<'_>, code: u16) {
        self.reply_unproven(at, message, Self::error(message, code));
    }

    fn error(message: &Message<'_>, code: u16) -> Builder {
        Builder::new(Class::Error, message.method(), message.transaction_id()).error_code(code, "")
    }

    /// Answers an address that may be a lie: never with more than came from it.
    fn reply_unproven(&mut self, at: At, message: &Message<'_>, builder: Builder) {
        let bytes = builder.fingerprint().finish();
        if stream_of(at.socket).is_some() || bytes.len() <= message.as_bytes().len() {
            self.reply(at, bytes);
        } else {
            self.stats.limited += 1;
        }
    }

    fn reply(&mut self, at: At, payload: Vec<u8>) {
        self.send(at.seen(), payload);
    }

    fn send(&mut self, to: Seen, payload: Vec<u8>) {
        if let Some(stream) = stream_of(to.socket) {
            // A route may outlive its connection.
            if self.streams.get_mut(stream).is_some_and(|stream| stream.remote == to.remote) {
                self.requests.push_back(TcpRequest::Send { stream, bytes: payload });
            }
            return;
        }
        let source = (!to.local.is_unspecified()).then_some(to.local);
        self.transmits.push_back(Transmit { socket: to.socket, source, destination: to.remote, payload });
    }

    fn send_binding(&mut self, at: At, answer: Option<Answer>) {
        let Some(answer) = answer else { return };
        let socket = if answer.from_other { self.alternate(at.socket).unwrap_or(at.socket) } else { at.socket };
        self.stats.bindings += 1;
        self.send(Seen { socket, ..at.seen() }, answer.bytes);
    }

    fn socket(&self, id: SocketId) -> Option<&ServerSocket> {
        self.sockets.iter().find(|own| own.socket == id)
    }

    fn alternate(&self, id: SocketId) -> Option<SocketId> {
        self.socket(id)?.alternate
    }

    /// What a client is told of the ports that answers may come from.
    fn origins(&self, at: At) -> Origins {
        let own = self.socket(at.socket);
        let alternate = own.and_then(|own| self.socket(own.alternate?));
        let same_family = |advertised: &SocketAddr| advertised.is_ipv6() == at.remote.is_ipv6();
        let Some(advertised) = self.config.advertise.filter(same_family) else {
            let with_port = |port| SocketAddr::new(canonical_ip(at.local.ip()), port);
            return Origins {
                origin: with_port(own.map_or(at.local.port(), |own| own.local.port())),
                other: alternate.map(|alternate| with_port(alternate.local.port())),
            };
        };
        let second = alternate_of(advertised);
        let is_first = own.zip(alternate).is_none_or(|(own, alternate)| own.socket < alternate.socket);
        let (origin, other) = if is_first { (advertised, second) } else { (second, advertised) };
        Origins { origin, other: alternate.map(|_| other) }
    }
}

impl At {
    fn seen(self) -> Seen {
        Seen { socket: self.socket, local: self.local.ip(), remote: self.remote }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("sockets", &self.sockets).field("stats", &self.stats()).finish_non_exhaustive()
    }
}

/// What a listener is told of a connector.
struct Introduction {
    session: SessionId,
    public_key: [u8; 32],
    transports: crate::wire::stun::Transports,
    candidates: Vec<WireCandidate>,
    route: Vec<u8>,
}

/// The advertised address's second port.
fn alternate_of(first: SocketAddr) -> SocketAddr {
    SocketAddr::new(first.ip(), first.port().wrapping_add(ALTERNATE_PORT_OFFSET))
}

/// The connection that a socket's number stands for, if it is one.
fn stream_of(socket: SocketId) -> Option<StreamId> {
    (socket.0 >= StreamId::FIRST_ACCEPTED).then_some(StreamId(socket.0))
}

fn is_signed(message: &Message<'_>, key: &[u8; 32]) -> bool {
    message.verify_integrity_sha256(key) == Integrity::Valid
}

/// The candidates of one side that the other is told: where the server saw it, first, then what it claims. A loopback
/// address means something only to a peer on the same host, which the server has seen there too.
fn told_candidates(seen: &[Seen], claimed: &[WireCandidate], other: &[Seen]) -> Vec<WireCandidate> {
    let is_loopback = |seen: &Seen| seen.remote.ip().is_loopback();
    let other_is_here = other.iter().any(is_loopback);
    let observed = seen.iter().filter(|seen| other_is_here || !is_loopback(seen)).map(|seen| WireCandidate {
        kind: CandidateKind::ServerReflexiveObserved,
        transport: if stream_of(seen.socket).is_some() { CandidateTransport::Tcp } else { CandidateTransport::Udp },
        priority: 0, // The receiver's to give: the server has no preference.
        address: seen.remote,
    });
    let mut told: Vec<_> = observed.collect();
    for candidate in claimed {
        let is_same =
            |known: &WireCandidate| (known.address, known.transport) == (candidate.address, candidate.transport);
        if !told.iter().any(is_same) {
            told.push(*candidate);
        }
    }
    told.truncate(MAX_CANDIDATES);
    told
}

#[cfg(test)]
mod tests;
