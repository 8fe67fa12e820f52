//! The state of an endpoint: the sans-IO [`Peer`], its sockets, and what the calls of the program wait for.
//!
//! One lock guards it. Whoever holds the lock may mutate the peer and then drains its outputs at once
//! ([`super::outputs`]): datagrams are sent, sockets bound or closed, events become states that blocked calls look at.
//! What the outputs themselves bring forth (a socket is bound, one had unread datagrams when it was closed) waits in
//! a list until the peer has said all, and goes in then: mutate, then drain.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Weak},
    time::Duration,
};

use mio::{Registry, Token};
use socket2::Socket;

use super::{
    clock::Clock,
    link::Link,
    peek::Look,
    stream::StreamLink,
    streams::{Connection, Port},
    udp::UdpSocket,
};
use crate::{
    Error, ErrorKind, Result,
    config::PeerConfig,
    machine::{Input, Instant, Level, PortId, SocketId, StreamId, Timer},
    peer::{ConnectRequest, ListenRequest, ListenerId, Peer, PeerEvent, Transport},
    wire::stun::SessionId,
};

/// The interfaces are looked at again after this long while a listener lives: a laptop that changes its network is
/// found again within one keepalive.
const INTERFACES: Duration = Duration::from_secs(30);

/// A buffer for the largest datagram that UDP carries.
const BUFFER: usize = 65_536;

/// Everything that the lock of an endpoint guards.
pub(crate) struct Core {
    pub(super) peer: Peer,
    pub(super) clock: Clock,
    pub(super) registry: Registry,
    /// The peer's own sockets.
    pub(super) sockets: BTreeMap<SocketId, UdpSocket>,
    /// The connections that are not over.
    pub(super) links: BTreeMap<SessionId, Watched>,
    /// The ports that streams are punched from, and the connections that the peer has in its hands.
    pub(super) ports: BTreeMap<PortId, Port>,
    pub(super) tcp: BTreeMap<StreamId, Connection>,
    pub(super) next_accepted: u32,
    /// The program's streams, to be closed with the endpoint.
    pub(super) streams: BTreeMap<SessionId, Weak<StreamLink>>,
    /// Whose readiness a token stands for; but those of the peer's own sockets are [`socket_token`]s.
    pub(super) sources: BTreeMap<Token, Source>,
    next_token: usize,
    /// Sockets that may hold more than was read in one go.
    pub(super) unfinished: BTreeSet<SocketId>,
    /// When which connection is to be watched again.
    pub(super) looks: BTreeSet<(Instant, SessionId)>,
    /// Data of sessions that are not connected yet.
    pub(super) early: BTreeMap<SessionId, Vec<Vec<u8>>>,
    /// What goes into the peer when it has said all.
    pub(super) pending: VecDeque<Pending>,
    /// What was just read from one of the peer's sockets; lent out while it is used.
    pub(super) input: Vec<u8>,
    /// For all other reading.
    pub(super) buffer: Vec<u8>,
    /// Until when the peer has nothing to do, and what it waits for.
    pub(super) timeout: Option<Instant>,
    pub(super) timer: Timer,
    interfaces: Option<Vec<IpAddr>>,
    interfaces_due: Instant,
    pub(crate) listeners: BTreeMap<ListenerId, Listening>,
    /// Our candidates of sessions whose signalling is the program's own.
    pub(crate) negotiations: BTreeMap<SessionId, Negotiating>,
    /// What became of the connects that calls wait for.
    pub(crate) connects: BTreeMap<SessionId, Option<Result<Channel>>>,
    /// Sockets of connections that are the program's own now, until the calls that asked for them look.
    pub(super) bare: BTreeMap<SessionId, Result<Socket>>,
    pub(super) notices: VecDeque<Notice>,
    /// Whether somebody wants to hear of events and of log lines.
    pub(super) wanted: Wanted,
    /// Something that a blocked call may wait for has happened.
    pub(super) changed: bool,
    /// The program has closed the endpoint.
    pub(super) closed: bool,
    /// Somebody waits for readiness and drives: the thread, or a call.
    pub(super) driven: bool,
    /// Until when the driver sleeps; in the past while it is awake.
    pub(super) sleeping_until: Option<Instant>,
    /// The thread is to end, at the latest then.
    pub(super) stop: Option<Instant>,
}

/// A connection whose unread datagrams are looked after.
pub(super) struct Watched {
    pub(super) link: Arc<Link>,
    pub(super) look: Look,
    pub(super) token: Token,
    pub(super) since: Instant,
}

/// What a session ended in.
#[derive(Debug)]
pub(crate) enum Channel {
    Datagrams(Arc<Link>),
    Stream(Arc<StreamLink>),
}

/// The token of one of the peer's own sockets: odd, where all others are even.
pub(super) const fn socket_token(socket: SocketId) -> Token {
    Token(socket.0 as usize * 2 + 1)
}

/// Whose token it is, if it is a [`socket_token`].
pub(super) fn token_socket(Token(number): Token) -> Option<SocketId> {
    (number % 2 == 1).then_some(SocketId((number / 2) as u32))
}

/// Who became readable.
#[derive(Clone, Copy, Debug)]
pub(super) enum Source {
    Link(SessionId),
    Port(PortId),
    Stream(StreamId),
}

/// An input that waits for the end of the outputs.
pub(super) enum Pending {
    Datagram { socket: SocketId, local: SocketAddr, remote: SocketAddr, payload: Vec<u8> },
    Bound { socket: SocketId, local: SocketAddr },
    Failed { socket: SocketId, error: Error },
    Reserved { port: PortId, local: SocketAddr },
    ReserveFailed { port: PortId, error: Error },
    StreamFailed { stream: StreamId, at_once: bool },
    SendFailed { socket: SocketId, destination: SocketAddr, error: Error },
    Close(SessionId),
}

/// Something to tell the program's callbacks.
pub(super) enum Notice {
    Event(PeerEvent),
    Log(Level, String),
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wanted {
    pub(super) events: bool,
    pub(super) logs: bool,
}

/// A listener, as its calls see it.
#[derive(Default)]
pub(crate) struct Listening {
    /// Our addresses as each server sees them.
    pub(crate) mapped: BTreeMap<String, Vec<SocketAddr>>,
    /// It is gone.
    pub(super) failed: Option<Error>,
    /// Connected and not yet accepted, each kind in the order in which they came.
    pub(super) waiting: VecDeque<Arc<Link>>,
    pub(super) waiting_streams: VecDeque<Arc<StreamLink>>,
    /// Peers of 2015 that were introduced and nobody was told of yet.
    pub(super) legacy: VecDeque<SocketAddr>,
}

/// A session whose signalling is the program's own, as its calls see it.
#[derive(Default)]
pub(crate) struct Negotiating {
    /// Our candidates, as lines.
    pub(super) candidates: Vec<String>,
    /// So many of them were given one by one.
    pub(super) given: usize,
    /// There will be no more.
    pub(super) is_gathered: bool,
}

impl Core {
    pub(crate) fn new(config: PeerConfig, seed: [u8; 32], registry: Registry, wanted: Wanted) -> Self {
        let clock = Clock::start();
        Self {
            peer: Peer::new(config, seed),
            clock,
            registry,
            sockets: BTreeMap::new(),
            links: BTreeMap::new(),
            ports: BTreeMap::new(),
            tcp: BTreeMap::new(),
            next_accepted: 0,
            streams: BTreeMap::new(),
            sources: BTreeMap::new(),
            next_token: 0,
            unfinished: BTreeSet::new(),
            looks: BTreeSet::new(),
            early: BTreeMap::new(),
            pending: VecDeque::new(),
            input: vec![0; BUFFER],
            buffer: vec![0; BUFFER],
            timeout: None,
            timer: Timer::Idle,
            interfaces: None,
            interfaces_due: clock.now(),
            listeners: BTreeMap::new(),
            negotiations: BTreeMap::new(),
            connects: BTreeMap::new(),
            bare: BTreeMap::new(),
            notices: VecDeque::new(),
            wanted,
            changed: false,
            closed: false,
            driven: false,
            sleeping_until: Some(Instant::default()),
            stop: None,
        }
    }

    pub(crate) fn token(&mut self) -> Token {
        self.next_token += 2;
        Token(self.next_token)
    }

    pub(crate) fn log(&mut self, level: Level, line: impl FnOnce() -> String) {
        if self.wanted.logs {
            self.notices.push_back(Notice::Log(level, line()));
        }
    }

    /// Fails when the program has closed the endpoint.
    pub(crate) fn check_open(&self) -> Result<()> {
        if self.closed { Err(Error::new(ErrorKind::Closed, "the endpoint was closed by this program")) } else { Ok(()) }
    }

    pub(crate) fn listen(&mut self, request: ListenRequest) -> Result<ListenerId> {
        self.check_open()?;
        self.look_at_interfaces();
        let listener = self.peer.listen(self.clock.now(), request)?;
        self.listeners.insert(listener, Listening::default());
        self.drain();
        Ok(listener)
    }

    /// Whether one server has the registration, or why there will be none.
    pub(crate) fn is_listening(&self, listener: ListenerId) -> Option<Result<()>> {
        match self.listening(listener) {
            Err(error) => Some(Err(error)),
            Ok(state) if !state.mapped.is_empty() => Some(Ok(())),
            Ok(_) => None,
        }
    }

    /// A listener that is neither closed nor failed.
    pub(crate) fn listening(&self, listener: ListenerId) -> Result<&Listening> {
        self.check_open()?;
        match self.listeners.get(&listener) {
            None => Err(Error::new(ErrorKind::Closed, "the listener was closed by this program")),
            Some(Listening { failed: Some(error), .. }) => Err(error.clone()),
            Some(state) => Ok(state),
        }
    }

    /// The next connection of one kind, or why there will be none. A peer of 2015 is told of as an error, and first: it
    /// will not wait for long.
    pub(crate) fn accept(&mut self, listener: ListenerId, kind: Transport) -> Option<Result<Channel>> {
        if let Some(peer) = self.listeners.get_mut(&listener).and_then(|state| state.legacy.pop_front()) {
            return Some(Err(Error::of_legacy_peer(peer)));
        }
        let next = self.listeners.get_mut(&listener).and_then(|state| match kind {
            Transport::Udp => state.waiting.pop_front().map(Channel::Datagrams),
            Transport::Tcp => state.waiting_streams.pop_front().map(Channel::Stream),
        });
        if let Some(channel) = next {
            return Some(Ok(channel));
        }
        self.listening(listener).err().map(Err)
    }

    /// Ends a listener; connections that nobody can accept any more end with it.
    pub(crate) fn close_listener(&mut self, listener: ListenerId) {
        let Some(state) = self.listeners.remove(&listener) else { return };
        self.changed = true;
        self.peer.close_listener(self.clock.now(), listener);
        self.drain();
        for link in state.waiting {
            self.close(&link);
        }
        for link in state.waiting_streams {
            link.close();
        }
    }

    pub(crate) fn connect(&mut self, request: ConnectRequest) -> Result<SessionId> {
        self.check_open()?;
        self.look_at_interfaces();
        let session = self.peer.connect(self.clock.now(), request)?;
        self.connects.insert(session, None);
        self.drain();
        Ok(session)
    }

    /// What became of a connect, once it is known.
    pub(crate) fn connected(&mut self, session: SessionId) -> Option<Result<Channel>> {
        if let Err(error) = self.check_open() {
            return Some(Err(error));
        }
        match self.connects.get_mut(&session) {
            None => Some(Err(ErrorKind::Closed.into())),
            Some(outcome) => outcome.take(),
        }
    }

    /// Nobody waits for this connect any more.
    pub(crate) fn forget_connect(&mut self, session: SessionId) {
        match self.connects.remove(&session) {
            Some(Some(Ok(Channel::Datagrams(link)))) => self.close(&link),
            Some(Some(Ok(Channel::Stream(link)))) => link.close(),
            Some(None) => {
                self.early.remove(&session);
                self.close_session(session);
            }
            Some(Some(Err(_))) | None => {}
        }
    }

    /// Announces the end of the program's data.
    pub(crate) fn end(&mut self, link: &Link) {
        if link.is_peer_bare() || link.path.signalled {
            return;
        }
        link.set_ended();
        self.peer.end(self.clock.now(), link.session);
        self.drain();
    }

    /// Closes a connection; the peer is told in the background.
    pub(crate) fn close(&mut self, link: &Link) {
        if link.set_closed() && self.links.contains_key(&link.session) {
            self.changed = true;
            self.close_session(link.session);
        }
    }

    pub(crate) fn close_session(&mut self, session: SessionId) {
        self.peer.close(self.clock.now(), session);
        self.drain();
    }

    /// Closes everything, for good.
    pub(crate) fn close_all(&mut self) {
        self.closed = true;
        self.changed = true;
        for listener in self.listeners.keys().copied().collect::<Vec<_>>() {
            self.close_listener(listener);
        }
        for session in self.connects.keys().copied().collect::<Vec<_>>() {
            self.forget_connect(session);
        }
        for link in self.links.values().map(|watched| watched.link.clone()).collect::<Vec<_>>() {
            self.close(&link);
        }
        self.close_streams();
    }

    /// Has the thread end when every peer and server knows that all is closed, at the latest in `farewell` while there
    /// are connections, or in `leave` when there are only servers to be told.
    pub(crate) fn stop_within(&mut self, farewell: Duration, leave: Duration) {
        self.stop = Some(self.clock.now() + if self.links.is_empty() { leave } else { farewell });
    }

    /// Whether the thread has nothing left to do: with everything closed, servers are asked only for their farewell.
    pub(crate) fn has_stopped(&self) -> bool {
        let is_silent = self.links.is_empty() && self.timer != Timer::Server;
        self.stop.is_some_and(|time| is_silent || time <= self.clock.now())
    }

    /// The smoothed round-trip time of a connection; that of its first check when it is over.
    pub(crate) fn rtt(&self, link: &Link) -> Duration {
        self.peer.rtt(link.session).unwrap_or(link.path.rtt)
    }

    /// Does what is due by the clock.
    pub(crate) fn handle_time(&mut self) {
        let now = self.clock.now();
        if self.timeout.is_some_and(|time| time <= now) {
            self.peer.handle_input(now, Input::Timeout);
            self.drain();
        }
        self.watch_again(now);
        if !self.listeners.is_empty() && self.interfaces_due <= now {
            self.look_at_interfaces();
        }
        while let Some(socket) = self.unfinished.pop_first() {
            if self.read_bound(socket) {
                self.unfinished.insert(socket);
                break;
            }
        }
    }

    /// When [`handle_time`](Self::handle_time) has something to do; `None` for not before the next input.
    pub(crate) fn next_wake(&self) -> Option<Instant> {
        let soon = (!self.unfinished.is_empty()).then(Instant::default);
        let interfaces = (!self.listeners.is_empty()).then_some(self.interfaces_due);
        let look = self.looks.first().map(|(time, _)| *time);
        let stop = if self.has_stopped() { Some(Instant::default()) } else { self.stop };
        [soon, self.timeout, look, interfaces, stop].into_iter().flatten().min()
    }

    /// Tells the peer this host's addresses where they have changed.
    pub(super) fn look_at_interfaces(&mut self) {
        self.interfaces_due = self.clock.now() + INTERFACES;
        match super::interfaces::list() {
            Ok(addresses) if self.interfaces.as_ref() != Some(&addresses) => {
                self.peer.handle_input(self.clock.now(), Input::Interfaces(&addresses));
                self.interfaces = Some(addresses);
                self.drain();
            }
            Ok(_) => {}
            Err(error) => self.log(Level::Warn, || format!("cannot list this host's interfaces: {error}")),
        }
    }
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core")
            .field("peer", &self.peer)
            .field("sockets", &self.sockets.keys())
            .field("links", &self.links.keys())
            .finish_non_exhaustive()
    }
}
