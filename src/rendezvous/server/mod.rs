//! The rendezvous server, sans-IO: STUN Binding for everybody, and the introduction of peers.
//!
//! # How it works
//!
//! A request of our own methods that carries no cookie is answered with one and leaves no trace. With the cookie, a
//! REGISTER puts a listener into the registry, and a CONNECT makes two messages: an INTRODUCE to the listener, signed
//! with the registration's key, and the answer to the connector. Each carries the other side's public key, the
//! address the server saw it at, the addresses it claims to have, and a sealed route back to it. The server remembers
//! nothing of it: a repeated CONNECT introduces again, which the listener knows by the session's id, and the route
//! is all that TRICKLE needs. (Where a peer of 2015 may be one of the two it does remember: see `mixed`.)
//!
//! Over TCP all this is the same, but that the handshake has proven the address: no cookie is asked for, no rate
//! guards the answers, introductions go along the connection, and a registration ends with it (or, as any other,
//! when its keepalives do). Within the server a connection is a socket of its own, by the connection's number, which is
//! greater than that of any socket.
//!
//! # What a stranger can make it do
//!
//! Before the cookie came back: one answer, not longer than its request (24 bytes longer for STUN Binding), to the
//! address that the request came from, within the rate of its network. Memory grows only by registrations and
//! connections, which are bounded in number, in size, per network and in time.

use alloc::{collections::VecDeque, vec::Vec};
use core::{fmt, net::SocketAddr};

mod binding;
mod candidates;
mod compact;
mod cookie;
mod introductions;
mod legacy;
mod mixed;
mod rate;
mod registrations;
mod registry;
mod route;
mod seal;
mod streams;
mod waiting;

use self::{
    binding::{Answer, Origins},
    cookie::Cookies,
    rate::{Rates, Recent},
    registry::{Registry, Seen},
    streams::Streams,
};
use super::codes;
use crate::{
    address::{canonical, canonical_ip},
    config::{ALTERNATE_PORT_OFFSET, ServerConfig},
    machine::{Input, Instant, NextWake, Output, Random, SocketId, StreamId, TcpRequest, Timer, Transmit},
    wire::{
        demux::Datagram,
        stun::{
            AttributeType, Builder, Class, ClassicRequest, Fingerprint, Integrity, Message, Method, RegistrationId,
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
    recent: Recent,
    streams: Streams,
    memory: mixed::Memory,
    repeats: mixed::Repeats,
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
            recent: Recent::new(),
            random,
            streams: Streams::default(),
            memory: mixed::Memory::default(),
            repeats: mixed::Repeats::default(),
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
        self.pass_time(now);
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
            Input::TcpFailed { stream, .. } => self.forget_stream(stream),
            _ => {}
        }
    }

    /// Does what is due by time alone.
    fn pass_time(&mut self, now: Instant) {
        self.registry.expire(now);
        self.expire_streams(now);
        self.repeat_introductions(now);
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
        wake.at(self.repeats.next_wake(), Timer::Introduction);
        Output::Timeout(wake.time(), wake.timer())
    }

    /// Takes the next request about connections out, before everything else. For a driver that does them as they come.
    #[cfg(feature = "server")]
    pub(crate) fn poll_stream_request(&mut self) -> Option<TcpRequest> {
        self.requests.pop_front()
    }

    /// Changes the port that peers of 2015 are told to punch from, for every answer from now on.
    pub fn set_punch_port(&mut self, port: u16) {
        self.config.punch_port = port;
    }

    /// What it has done so far.
    #[must_use]
    pub fn stats(&self) -> ServerStats {
        ServerStats {
            registrations: self.registry.len(),
            connections: self.streams.len(),
            legacy_listeners: self.registry.waiting().texts(),
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

#[cfg(test)]
mod tests;
