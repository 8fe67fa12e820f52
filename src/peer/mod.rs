//! One whole peer, sans-IO: its listeners, its connects and their sessions.
//!
//! # How the pieces meet
//!
//! A datagram is told apart by what it is. An answer of a server goes to the listener or the session whose socket it
//! came to; a check to the session that its username names; an answer to a check to the session that its transaction
//! id is marked with; END, TRICKLE and BARE to the session whose id they
//! carry. Whatever is none of these, and comes from
//! where a session's peer was heard before, is that session's data.
//!
//! # The loop
//!
//! Mutate, then drain. The driver owns the sockets, the clock and the waiting:
//!
//! ```
//! use holepunch::{
//!     config::PeerConfig,
//!     machine::{Input, Instant, Output, UdpRequest},
//!     peer::{ConnectRequest, Peer, PeerEvent},
//! };
//! use std::{net::SocketAddr, time::Duration};
//!
//! let mut now = Instant::from_nanos(0); // A real driver reads a monotonic clock.
//! let mut peer = Peer::new(PeerConfig::default(), [7; 32]); // ... and draws a secret seed.
//! peer.handle_input(now, Input::Interfaces(&["192.0.2.9".parse()?]));
//! let server: SocketAddr = "192.0.2.1:20000".parse()?;
//! peer.connect(now, ConnectRequest {
//!     transport: holepunch::peer::Transport::Udp,
//!     target: "bob".parse()?,
//!     servers: vec![server.into()],
//!     bind: vec!["0.0.0.0:0".parse()?],
//!     secret: None,
//!     wait: Duration::ZERO,
//!     timeout: Duration::from_secs(30),
//!     prefer_port: None,
//!     legacy: false,
//! })?;
//! let mut packets = 0;
//! let error = 'driver: loop {
//!     loop {
//!         match peer.poll_output() {
//!             // Send it from its socket; here the network is silent.
//!             Output::Transmit(transmit) => packets += transmit.payload.len().min(1),
//!             Output::Udp(UdpRequest::Bind { socket, .. }) => {
//!                 peer.handle_input(now, Input::UdpBound { socket, local: "0.0.0.0:5000".parse()? });
//!             }
//!             Output::Udp(UdpRequest::Close { .. }) => {}
//!             Output::Event(PeerEvent::Failed { error, .. }) => break 'driver error,
//!             Output::Event(event) => println!("{event:?}"),
//!             Output::Log(level, line) => eprintln!("{level:?}: {line}"),
//!             // Wait for a datagram (then: Input::Datagram) or for that time; here time flies.
//!             Output::Timeout(time, _) => {
//!                 now = time.expect("a request is under way");
//!                 break;
//!             }
//!             _ => {}
//!         }
//!     }
//!     peer.handle_input(now, Input::Timeout);
//! };
//! assert_eq!(error.kind(), holepunch::ErrorKind::ServerSilent);
//! assert_eq!(now.as_nanos(), 5_000_000_000);
//! assert_eq!(packets, 12);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod api;
mod bare;
mod context;
mod early;
mod farewell;
mod from_server;
mod gathering;
mod listener;
mod negotiation;
mod owned;
mod session;
mod signalling;
mod sockets;
mod timers;
mod trickle;
mod uplink;

use alloc::{
    boxed::Box,
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    vec::Vec,
};
use core::{
    fmt,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

pub use api::*;

use self::{
    context::Context,
    gathering::Gathering,
    listener::Listener,
    owned::Owned,
    session::{Connecting, Session, StreamNews},
    sockets::{Owner, Sockets, Wanted},
    timers::Timers,
    uplink::Uplinks,
};
use crate::{
    Error, ErrorKind, Result,
    address::{canonical, canonical_ip},
    config::PeerConfig,
    machine::{Disposition, Input, Instant, Output, PortId, Random, SocketId, StreamId, TcpRequest, Timer},
    punch::{Arrival, Settings},
    rendezvous::{
        client::{Asked, From, Lookup, LookupRequest, Via},
        keys::KeyPair,
    },
    wire::{
        demux::{Datagram, is_stun_with_fingerprint},
        stun::{Class, Message, Method, SessionId},
    },
};

/// A machine with a wake-up of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Listener(ListenerId),
    Session(SessionId),
}

/// A peer: listeners, connects and sessions over sockets that its driver holds.
///
/// Methods mutate; then [`Peer::poll_output`] is called until it says [`Output::Timeout`]. It never blocks, and
/// reads no clock and no randomness but the seed. The module's page shows the loop.
pub struct Peer {
    config: PeerConfig,
    settings: Arc<Settings>,
    random: Random,
    sockets: Sockets,
    listeners: BTreeMap<ListenerId, Listener>,
    sessions: BTreeMap<SessionId, Box<Session>>,
    next_listener: u32,
    /// Sessions by our username fragment, which is of eight characters.
    by_ufrag: BTreeMap<[u8; 8], SessionId>,
    /// Sessions by what their transaction ids begin with.
    by_tag: BTreeMap<[u8; 4], SessionId>,
    /// Sessions by where their peers were heard.
    by_remote: BTreeMap<(SocketId, SocketAddr), SessionId>,
    /// Ports and connections of TCP.
    ports: Owned<PortId>,
    streams: Owned<StreamId>,
    next_port: u32,
    next_stream: u32,
    timers: Timers<Key>,
    outputs: VecDeque<Output<PeerEvent>>,
}

impl Peer {
    /// Makes a peer; `seed` must be secret and fresh wherever the network is real.
    #[must_use]
    pub fn new(config: PeerConfig, seed: [u8; 32]) -> Self {
        Self {
            settings: Arc::new(Settings { checks: config.checks, consent: config.consent }),
            config,
            random: Random::new(seed),
            sockets: Sockets::default(),
            listeners: BTreeMap::new(),
            sessions: BTreeMap::new(),
            next_listener: 0,
            by_ufrag: BTreeMap::new(),
            by_tag: BTreeMap::new(),
            by_remote: BTreeMap::new(),
            ports: Owned::new(),
            streams: Owned::new(),
            next_port: 0,
            next_stream: 0,
            timers: Timers::new(),
            outputs: VecDeque::new(),
        }
    }

    /// Begins to listen. [`PeerEvent::Registered`] or [`PeerEvent::ListenFailed`] follows.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] when the servers or the local addresses cannot be used.
    pub fn listen(&mut self, _now: Instant, request: ListenRequest) -> Result<ListenerId> {
        check_addresses(&request.servers, &request.bind)?;
        let id = ListenerId(self.next_listener);
        self.next_listener = self.next_listener.wrapping_add(1);
        let owner = Owner::Listener(id);
        let wanted = Wanted::all(&request.bind, request.prefer_port);
        let sockets = wanted.into_iter().map(|wanted| self.sockets.ask(owner, wanted, &mut self.outputs)).collect();
        let key_pair = KeyPair::generate(&mut self.random);
        self.listeners.insert(id, Listener::new(id, request, sockets, key_pair));
        Ok(id)
    }

    /// Begins to connect. [`PeerEvent::Connected`] or [`PeerEvent::Failed`] follows.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] when the servers or the local addresses cannot be used.
    pub fn connect(&mut self, now: Instant, request: ConnectRequest) -> Result<SessionId> {
        check_addresses(&request.servers, &request.bind)?;
        let id = SessionId(self.random.bytes());
        let owner = Owner::Session(id);
        let wanted = Wanted::all(&request.bind, request.prefer_port);
        let sockets = wanted.iter().map(|wanted| self.sockets.ask(owner, *wanted, &mut self.outputs)).collect();
        let key_pair = KeyPair::generate(&mut self.random);
        let servers_at = |server: &ServerAddress| [server.ipv4, server.ipv6].into_iter().flatten().collect::<Vec<_>>();
        let request_servers: Vec<_> = request.servers.iter().flat_map(servers_at).collect();
        let asked = match request.target {
            Target::Name(name) => Asked::Name(name),
            Target::Address(ip) => Asked::Address(ip),
        };
        // Peers of 2015 have no names, and no addresses of IPv6.
        let legacy = request.legacy && matches!(asked, Asked::Address(ip) if canonical_ip(ip).is_ipv4());
        let lookup_request = LookupRequest {
            session: id,
            asked,
            public_key: *key_pair.public(),
            transports: request.transport.only(),
            candidates: Vec::new(),
            legacy,
        };
        let lookup = Lookup::new(
            self.config.retransmission,
            self.config.wait_backoff,
            lookup_request,
            request.servers,
            now + request.wait,
        );
        let tag = self.new_tag(id);
        let mut session = Session::new(id, None, sockets, tag);
        let uplinks = Uplinks::new(&request.bind);
        session.connecting =
            Some(Box::new(Connecting { lookup, uplinks, key_pair, secret: request.secret, timeout: request.timeout }));
        self.sessions.insert(id, Box::new(session));
        if request.transport == Transport::Tcp {
            let servers = request_servers;
            self.with_session(now, id, |session, cx| {
                let mut gathering = Gathering::begin(cx, &wanted, legacy);
                gathering.ask(cx, &servers);
                session.gathering = Some(Box::new(gathering));
            });
        }
        Ok(id)
    }

    /// Ends a listener: its name is free again at once. Sessions that are not connected yet fail with
    /// [`ErrorKind::Closed`], connected ones live on; its sockets are closed when the last of them is gone.
    pub fn close_listener(&mut self, now: Instant, listener: ListenerId) {
        let pending: Vec<_> = self
            .sessions
            .values()
            .filter(|session| session.listener == Some(listener) && session.phase == session::Phase::Punching)
            .map(|session| session.id)
            .collect();
        for id in pending {
            self.with_session(now, id, |session, cx| {
                session.fail(cx, Error::new(ErrorKind::Closed, "the listener was closed"));
            });
        }
        self.with_listener(now, listener, Listener::leave);
    }

    /// Announces the end of our data; receiving goes on. [`PeerEvent::EndAcknowledged`] follows when the peer knows,
    /// and [`PeerEvent::Closed`] when both sides have ended.
    pub fn end(&mut self, now: Instant, session: SessionId) {
        self.with_session(now, session, |session, cx| session.end(cx, false));
    }

    /// Closes a session, whatever its state. A connected peer is told, for at most 3 s; then [`PeerEvent::Closed`]
    /// follows. One that is not connected is gone at once, without an event.
    pub fn close(&mut self, now: Instant, session: SessionId) {
        self.with_session(now, session, |session, cx| session.end(cx, true));
    }

    /// Asks for the socket of a connected session, to hold nothing but data: the peer is told, and sends no checks any
    /// more. [`PeerEvent::Bare`] follows within a round trip, and where the peer does not answer within four and a half
    /// (each taken as at least 33 ms, and at most 667 ms); or [`PeerEvent::Closed`] when the peer ends the connection first.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`] when the session is not connected, or either side has announced the end of its data.
    pub fn bare(&mut self, now: Instant, session: SessionId) -> Result<()> {
        let unknown = || Err(Error::new(ErrorKind::Closed, "there is no connection of this session"));
        self.with_session(now, session, Session::go_bare).unwrap_or_else(unknown)
    }

    /// The smoothed round-trip time of a connected session.
    #[must_use]
    pub fn rtt(&self, session: SessionId) -> Option<Duration> {
        self.sessions.get(&session)?.rtt()
    }

    /// The session whose peer was heard there.
    #[cfg(feature = "std")]
    pub(crate) fn session_at(&self, socket: SocketId, remote: SocketAddr) -> Option<SessionId> {
        self.by_remote.get(&(socket, remote)).copied()
    }

    /// Takes an input in; says what became of a datagram.
    pub fn handle_input(&mut self, now: Instant, input: Input<'_>) -> Disposition<SessionId> {
        match input {
            Input::Timeout => self.handle_timeout(now),
            Input::Datagram { socket, local, remote, payload } => {
                let at = Arrival { socket, local: canonical(local), remote: canonical(remote) };
                return self.handle_datagram(now, at, payload);
            }
            Input::Interfaces(interfaces) => {
                if self.sockets.set_interfaces(interfaces) {
                    self.handle_new_interfaces(now);
                }
            }
            Input::TcpReserved { port, local } => self.handle_reserved(now, port, Ok(local)),
            Input::TcpReserveFailed { port, error } => self.handle_reserved(now, port, Err(error)),
            Input::TcpAccepted { port, stream, local, remote } => {
                let Some(Owner::Session(id)) = self.ports.owner(port) else {
                    self.outputs.push_back(Output::Tcp(TcpRequest::Close { stream }));
                    return Disposition::Consumed;
                };
                self.streams.insert(stream, Owner::Session(id));
                self.with_session(now, id, |session, cx| session.handle_accepted(cx, stream, local, remote));
            }
            Input::TcpConnected { stream, local } => {
                let owner = self.streams.owner(stream);
                self.tell_of_stream(now, owner, stream, StreamNews::Connected(local));
            }
            Input::TcpFailed { stream, at_once } => {
                let owner = self.streams.remove(stream);
                self.tell_of_stream(now, owner, stream, StreamNews::Failed { at_once });
            }
            Input::SendFailed { socket, destination, error } => {
                let to = From { via: Via::Udp(socket), remote: canonical(destination) };
                match self.sockets.owner(socket) {
                    Some(Owner::Listener(id)) => {
                        self.with_listener(now, id, |listener, cx| listener.handle_send_failed(cx, to, &error));
                    }
                    Some(Owner::Session(id)) => {
                        self.with_session(now, id, |session, cx| session.handle_send_failed(cx, to, &error));
                    }
                    None => {}
                }
            }
            Input::UdpBound { socket, local } => self.handle_bound(now, socket, Ok(local)),
            Input::UdpFailed { socket, error } => self.handle_bound(now, socket, Err(error)),
        }
        Disposition::Consumed
    }

    /// Takes in what a TCP connection has brought, from its first byte that was not taken yet; returns how many bytes
    /// the machine takes. Whatever it leaves stays unread at the driver: it comes again with what follows it, or is
    /// the application's once [`PeerEvent::Connected`] has given the connection away.
    pub fn handle_stream_data(&mut self, now: Instant, stream: StreamId, bytes: &[u8]) -> usize {
        let taken = match self.streams.owner(stream) {
            Some(Owner::Listener(id)) => {
                self.with_listener(now, id, |listener, cx| listener.handle_stream_data(cx, stream, bytes))
            }
            Some(Owner::Session(id)) => {
                self.with_session(now, id, |session, cx| session.handle_stream_data(cx, stream, bytes))
            }
            None => None,
        };
        let (length, server) = taken.unwrap_or_default();
        if let Some(from) = server
            && let Some(Ok(message)) = bytes.get(..length).map(Message::parse)
        {
            self.handle_server_message(now, from, &message);
        }
        length
    }

    fn tell_of_stream(&mut self, now: Instant, owner: Option<Owner>, stream: StreamId, news: StreamNews) {
        match owner {
            Some(Owner::Listener(id)) => {
                self.with_listener(now, id, |listener, cx| listener.handle_stream(cx, stream, news));
            }
            Some(Owner::Session(id)) => {
                self.with_session(now, id, |session, cx| session.handle_stream(cx, stream, news));
            }
            None => {}
        }
    }

    /// Takes the next output out.
    pub fn poll_output(&mut self) -> Output<PeerEvent> {
        self.outputs.pop_front().unwrap_or_else(|| match self.timers.next() {
            Some((time, timer)) => Output::Timeout(Some(time), timer),
            None => Output::Timeout(None, Timer::Idle),
        })
    }

    fn handle_timeout(&mut self, now: Instant) {
        while let Some(key) = self.timers.pop_due(now) {
            match key {
                Key::Listener(id) => self.with_listener(now, id, Listener::handle_timeout),
                Key::Session(id) => self.with_session(now, id, Session::handle_timeout),
            };
        }
    }

    fn handle_reserved(&mut self, now: Instant, port: PortId, result: Result<SocketAddr>) {
        match self.ports.owner(port) {
            Some(Owner::Listener(id)) => {
                self.with_listener(now, id, |listener, cx| listener.handle_reserved(cx, port, &result));
            }
            Some(Owner::Session(id)) => {
                self.with_session(now, id, |session, cx| session.handle_reserved(cx, port, result));
                self.start_session(now, id);
            }
            None => {}
        }
    }

    /// A socket was bound, or could not be: when all of its owner's are decided, the owner starts.
    fn handle_bound(&mut self, now: Instant, socket: SocketId, result: Result<SocketAddr>) {
        match self.sockets.answer(socket, result, &mut self.outputs) {
            Some(Owner::Listener(id)) => self.start_listener(now, id),
            Some(Owner::Session(id)) => self.start_session(now, id),
            None => {}
        }
    }

    fn start_listener(&mut self, now: Instant, id: ListenerId) {
        let Some(listener) = self.listeners.get(&id) else { return };
        if listener.phase != listener::Phase::Binding || !self.sockets.are_answered(&listener.sockets) {
            return;
        }
        let sockets = listener.sockets.clone();
        let bound = self.sockets.bound(&sockets);
        if bound.is_empty() {
            let error = self.bind_error(&sockets);
            self.with_listener(now, id, |listener, cx| {
                cx.event(PeerEvent::ListenFailed { listener: id, error });
                listener.phase = listener::Phase::Gone;
            });
            return;
        }
        let candidates = self.sockets.host_candidates(&sockets, self.config.private_candidates);
        self.with_listener(now, id, |listener, cx| listener.start(cx, &bound, &candidates));
    }

    fn start_session(&mut self, now: Instant, id: SessionId) {
        let Some(session) = self.sessions.get(&id) else { return };
        let is_gathered = session.gathering.as_ref().is_none_or(|gathering| gathering.is_answered());
        if session.phase != session::Phase::Binding || !is_gathered || !self.sockets.are_answered(&session.sockets) {
            return;
        }
        let sockets = session.sockets.clone();
        let bound = self.sockets.bound(&sockets);
        if bound.is_empty() {
            let error = self.bind_error(&sockets);
            self.with_session(now, id, |session, cx| session.fail(cx, error));
            return;
        }
        let candidates = self.sockets.host_candidates(&sockets, self.config.private_candidates);
        self.with_session(now, id, |session, cx| {
            if session.signalled.is_some() {
                return session.begin_signalling(cx, &bound, &candidates);
            }
            let candidates = session.gathering.as_ref().map_or(candidates, |gathering| gathering.candidates(cx));
            if let Some(connecting) = &mut session.connecting {
                connecting.lookup.start(cx.now, cx.config.server_stagger, &bound, candidates);
            }
            session.phase = session::Phase::Looking;
            session.handle_timeout(cx);
        });
    }

    fn bind_error(&self, sockets: &[SocketId]) -> Error {
        let error = self.sockets.error(sockets).cloned();
        error.unwrap_or_else(|| Error::new(ErrorKind::Io, "no socket could be bound"))
    }

    fn handle_new_interfaces(&mut self, now: Instant) {
        let listeners: Vec<_> = self.listeners.iter().map(|(id, listener)| (*id, listener.sockets.clone())).collect();
        for (id, sockets) in listeners {
            let candidates = self.sockets.host_candidates(&sockets, self.config.private_candidates);
            self.with_listener(now, id, |listener, cx| listener.set_candidates(cx, &candidates));
        }
        let sessions: Vec<_> = self.sessions.iter().map(|(id, session)| (*id, session.sockets.clone())).collect();
        for (id, sockets) in sessions {
            if self.sessions.get(&id).is_some_and(|session| session.gathering.is_some()) {
                self.with_session(now, id, Session::tell_gathered);
                continue;
            }
            let candidates = self.sockets.host_candidates(&sockets, self.config.private_candidates);
            self.with_session(now, id, |session, cx| match session.signalled {
                Some(_) => session.tell_new_hosts(cx, &candidates),
                None => session.tell_candidates(cx, &candidates),
            });
        }
    }

    fn handle_datagram(&mut self, now: Instant, at: Arrival, bytes: &[u8]) -> Disposition<SessionId> {
        // Every message of ours, and every check of ICE, has a fingerprint; what has none is data.
        let is_message = Datagram::classify(bytes) == Datagram::Stun
            && Message::parse(bytes).is_ok_and(|message| match is_stun_with_fingerprint(bytes) {
                true => self.handle_message(now, at, &message),
                // Nor have the answers of many STUN servers.
                false => self.handle_plain_answer(now, at, &message),
            });
        if is_message {
            return Disposition::Consumed;
        }
        let session = self.by_remote.get(&(at.socket, at.remote)).and_then(|id| self.sessions.get(id));
        match session {
            Some(session) if session.takes_data() => Disposition::Data(session.id),
            Some(_) | None => Disposition::Consumed,
        }
    }

    /// Takes a message in; false when it is none that anybody here can take.
    fn handle_message(&mut self, now: Instant, at: Arrival, message: &Message<'_>) -> bool {
        match (message.method(), message.class()) {
            (Method::BINDING, Class::Request) => {
                let fragment = message.username().and_then(|name| name.split_once(':')).map(|(fragment, _)| fragment);
                let session = fragment.and_then(|fragment| self.by_ufrag.get(fragment.as_bytes())).copied();
                self.give(now, session, |session, cx| session.handle_check(cx, at, message))
            }
            (Method::BINDING, Class::Success | Class::Error) => {
                let [t0, t1, t2, t3, ..] = message.transaction_id().0;
                let session = self.by_tag.get(&[t0, t1, t2, t3]).copied();
                self.give(now, session, |session, cx| session.handle_check_answer(cx, at, message))
            }
            // A keepalive of ICE (RFC 8445 section 11).
            (Method::BINDING, Class::Indication) => true,
            (Method::END | Method::TRICKLE | Method::BARE, Class::Request | Class::Success) => {
                self.give(now, message.session_id(), |session, cx| session.handle_control(cx, Some(at), message))
            }
            _ => self.handle_server_message(now, From { via: Via::Udp(at.socket), remote: at.remote }, message),
        }
    }

    /// Lets a session take a message in, if it is there.
    fn give(
        &mut self,
        now: Instant,
        session: Option<SessionId>,
        take: impl FnOnce(&mut Session, &mut Context<'_>) -> bool,
    ) -> bool {
        let Some(id) = session else { return false };
        self.with_session(now, id, take).unwrap_or(false)
    }

    /// Draws the mark of a session's transaction ids.
    fn new_tag(&mut self, session: SessionId) -> [u8; 4] {
        loop {
            let tag = self.random.bytes();
            if let alloc::collections::btree_map::Entry::Vacant(entry) = self.by_tag.entry(tag) {
                entry.insert(session);
                return tag;
            }
        }
    }

    /// Lets a listener do something, then sees to its wake-up and, when it is over, its sockets.
    fn with_listener<T>(
        &mut self,
        now: Instant,
        id: ListenerId,
        act: impl FnOnce(&mut Listener, &mut Context<'_>) -> T,
    ) -> Option<T> {
        let listener = self.listeners.get_mut(&id)?;
        let mut cx = Context {
            now,
            config: &self.config,
            settings: &self.settings,
            random: &mut self.random,
            outputs: &mut self.outputs,
            sockets: &self.sockets,
            next_port: &mut self.next_port,
            next_stream: &mut self.next_stream,
            new_streams: Vec::new(),
            new_ports: Vec::new(),
            closed_streams: Vec::new(),
            closed_ports: Vec::new(),
        };
        let result = act(listener, &mut cx);
        note_tcp(&mut self.ports, &mut self.streams, Owner::Listener(id), &cx);
        if listener.phase == listener::Phase::Gone {
            let sockets = core::mem::take(&mut listener.sockets);
            self.listeners.remove(&id);
            self.timers.remove(Key::Listener(id));
            self.ports.remove_all(Owner::Listener(id), PortId(0));
            self.streams.remove_all(Owner::Listener(id), StreamId(0));
            for socket in sockets {
                self.sockets.release(socket, &mut self.outputs);
            }
        } else {
            self.timers.set(Key::Listener(id), listener.next_wake());
        }
        Some(result)
    }

    /// Lets a session do something, then sees to its wake-up, its entries in the maps and, when it is over, its sockets.
    fn with_session<T>(
        &mut self,
        now: Instant,
        id: SessionId,
        act: impl FnOnce(&mut Session, &mut Context<'_>) -> T,
    ) -> Option<T> {
        let session = self.sessions.get_mut(&id)?;
        let heard_before = session.heard().len();
        let phase_before = session.phase;
        let mut cx = Context {
            now,
            config: &self.config,
            settings: &self.settings,
            random: &mut self.random,
            outputs: &mut self.outputs,
            sockets: &self.sockets,
            next_port: &mut self.next_port,
            next_stream: &mut self.next_stream,
            new_streams: Vec::new(),
            new_ports: Vec::new(),
            closed_streams: Vec::new(),
            closed_ports: Vec::new(),
        };
        let result = act(session, &mut cx);
        if session.phase == session::Phase::Gone {
            session.give_up_uplinks(&mut cx);
        }
        note_tcp(&mut self.ports, &mut self.streams, Owner::Session(id), &cx);
        if session.phase == session::Phase::Gone {
            self.remove_session(id);
            return Some(result);
        }
        if phase_before != session.phase {
            if let Some(Ok(ufrag)) = session.local_ufrag().map(|ufrag| ufrag.as_bytes().try_into()) {
                self.by_ufrag.insert(ufrag, id);
            }
            if session.phase == session::Phase::Connected {
                let unused = session.release_unused_sockets();
                for socket in unused {
                    self.sockets.release(socket, &mut self.outputs);
                }
            }
        }
        // Where its peer has moved there are fewer, and others: none of the former counts any more.
        let known = if session.heard().len() < heard_before {
            self.by_remote.retain(|_, session| *session != id);
            0
        } else {
            heard_before
        };
        for from in session.heard().get(known..).unwrap_or_default() {
            self.by_remote.insert(*from, id);
        }
        self.timers.set(Key::Session(id), session.next_wake());
        Some(result)
    }

    fn remove_session(&mut self, id: SessionId) {
        let Some(mut session) = self.sessions.remove(&id) else { return };
        self.timers.remove(Key::Session(id));
        session.give_up_streams(&mut self.outputs);
        self.ports.remove_all(Owner::Session(id), PortId(0));
        self.streams.remove_all(Owner::Session(id), StreamId(0));
        self.by_tag.remove(&session.tag);
        if let Some(ufrag) = session.local_ufrag() {
            self.by_ufrag.remove(ufrag.as_bytes());
        }
        for from in session.heard() {
            if self.by_remote.get(from) == Some(&id) {
                self.by_remote.remove(from);
            }
        }
        for socket in session.sockets {
            self.sockets.release(socket, &mut self.outputs);
        }
    }
}

/// Notes what somebody has got and given up of TCP.
fn note_tcp(ports: &mut Owned<PortId>, streams: &mut Owned<StreamId>, owner: Owner, cx: &Context<'_>) {
    cx.new_ports.iter().for_each(|port| ports.insert(*port, owner));
    cx.new_streams.iter().for_each(|stream| streams.insert(*stream, owner));
    for port in &cx.closed_ports {
        ports.remove(*port);
    }
    for stream in &cx.closed_streams {
        streams.remove(*stream);
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer")
            .field("listeners", &self.listeners.keys())
            .field("sessions", &self.sessions.keys())
            .finish_non_exhaustive()
    }
}

/// Checks what every request has: servers to ask, and local addresses, at most one of each family.
fn check_addresses(servers: &[ServerAddress], bind: &[SocketAddr]) -> Result<()> {
    if servers.is_empty() {
        let error = Error::new(ErrorKind::InvalidArgument, "there is no server to ask");
        return Err(error.with_hint("name at least one server"));
    }
    check_bind(bind)
}

/// Checks local addresses: at most one of each family.
fn check_bind(bind: &[SocketAddr]) -> Result<()> {
    let wrong = |message: &'static str, hint: &'static str| {
        Err(Error::new(ErrorKind::InvalidArgument, message).with_hint(hint))
    };
    let count = |ipv6: bool| bind.iter().filter(|address| address.is_ipv6() == ipv6).count();
    if bind.is_empty() || count(true) > 1 || count(false) > 1 {
        return wrong("the local addresses cannot be used", "name one or two, at most one of each family");
    }
    let is_group = |ip: IpAddr| ip.is_multicast() || ip == IpAddr::from([255, 255, 255, 255]);
    if bind.iter().any(|address| is_group(address.ip())) {
        return wrong("a local address is no unicast address", "bind to an address of this host, or to 0.0.0.0 and ::");
    }
    Ok(())
}
