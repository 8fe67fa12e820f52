//! What a peer must stand: any order of datagrams, timeouts, commands and answers of its driver.
//!
//! Two real peers and the real server, one listening and one connecting, in a network that the input plays: it
//! delivers, drops, repeats, changes and forges datagrams, lets time pass, answers requests for sockets late or not,
//! and gives commands. Keys are real, so the states beyond them are reached by what the peers send themselves; what a
//! hostile server could make is forged with what it would know. What must hold of each peer:
//!
//! - nothing panics, each input is drained, and wake-ups that are due come to an end: there is progress;
//! - an address that nothing authentic came from gets no more checks than the budgets of those sessions that could send
//!   them, and of the addresses that are only claimed no more than two a session get any;
//! - it sends only from sockets that are open, and the events of each session come in order and end;
//! - when all is closed it comes to rest, with nothing to wait for and no socket or port left.
//! - over TCP it connects from ports that it has, to an address that is only claimed twice a session at most, and says and
//!   closes nothing that is not there, or that it has given away.

mod forge;
mod tcp;

use super::{
    records::{Fields, address, canonical, records},
    server::{self, CLIENTS, SOCKETS, mutated},
};
use holepunch::{
    Error, ErrorKind,
    config::PeerConfig,
    machine::{Disposition, Input, Instant, Output, SocketId, StreamId, UdpRequest},
    peer::{Carrier, ConnectRequest, ListenRequest, ListenerId, Path, Peer, PeerEvent, ServerAddress, Transport},
    rendezvous::{keys::Secret, server::Server},
    wire::stun::{CandidateKind, Class, Integrity, Message, Method, RegistrationId, SessionId, TransactionId},
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

/// The operations of the records; others are passed over.
pub(crate) mod operation {
    /// Which datagram under way: it arrives.
    pub(crate) const DELIVER: u8 = 0;
    /// Which: it is lost.
    pub(crate) const DROP: u8 = 1;
    /// Which: a copy arrives.
    pub(crate) const DUPLICATE: u8 = 2;
    /// Which, position (two bytes), bits: a changed copy arrives.
    pub(crate) const MUTATE: u8 = 3;
    /// Which, source: it arrives from somewhere else.
    pub(crate) const REROUTE: u8 = 4;
    /// All that is under way arrives, and all that comes of it.
    pub(crate) const DELIVER_ALL: u8 = 5;
    /// Milliseconds (two bytes), waking the machines when they want it.
    pub(crate) const WAIT: u8 = 6;
    /// Seconds (two bytes), waking nobody before.
    pub(crate) const JUMP: u8 = 7;
    /// Peer, how: its driver answers for the oldest socket that was asked for.
    pub(crate) const BIND: u8 = 8;
    /// Peer, a bit for each interface.
    pub(crate) const INTERFACES: u8 = 9;
    /// Peer, name, secret.
    pub(crate) const LISTEN: u8 = 10;
    /// Peer, target, secret, seconds to wait, seconds of time, transport.
    pub(crate) const CONNECT: u8 = 11;
    /// Peer, which session.
    pub(crate) const END: u8 = 12;
    /// Peer, which session.
    pub(crate) const CLOSE: u8 = 13;
    /// Peer, which listener.
    pub(crate) const CLOSE_LISTENER: u8 = 14;
    /// Peer, then what it sends along its newest path.
    pub(crate) const DATA: u8 = 15;
    /// The server forgets everything.
    pub(crate) const RESTART: u8 = 16;
    /// Peer, source, then a datagram that arrives at its first socket.
    pub(crate) const RAW: u8 = 17;
    /// Peer, which of its requests, how, key, then candidates: an answer that the server did not give.
    pub(crate) const FORGE_ANSWER: u8 = 18;
    /// Peer, session, key, number, then candidates.
    pub(crate) const FORGE_INTRODUCTION: u8 = 19;
    /// Peer, source, kind: a check, or the answer to one, by somebody who knows no password.
    pub(crate) const FORGE_CHECK: u8 = 20;
    /// Peer, which session: its socket is to be the application's own.
    pub(crate) const BARE: u8 = 21;
    /// Peer, which of its connects, how: its driver answers.
    pub(crate) const TCP_ANSWER: u8 = 22;
    /// Peer, which of its ports, source, port: somebody connects.
    pub(crate) const TCP_STRANGER: u8 = 23;
    /// Peer, which connection, how much of what is under way, or instead other bytes: they arrive.
    pub(crate) const TCP_DATA: u8 = 24;
    /// Peer, which connection: it is over.
    pub(crate) const TCP_FAIL: u8 = 25;
    /// Connects come about, and everything that was sent arrives.
    pub(crate) const TCP_ALL: u8 = 26;
}

/// Datagrams under way at most.
const MAX_FLIGHTS: usize = 64;
/// Machines are woken so often in one pause, then time jumps.
const MAX_WAKES: usize = 100;
/// Wake-ups at one moment; one is enough for all that is due.
const MAX_WAKES_AT_ONCE: usize = 4;
/// Outputs of one input; a burst of checks, and the ends of all sessions.
const MAX_OUTPUTS: usize = 4096;
const MAX_LISTENERS: usize = 4;
const MAX_CONNECTS: u32 = 8;
/// Requests of a peer to a server that answers are forged to.
const MAX_REQUESTS: usize = 8;
/// Answers 401 of one session, to whoever asks for them.
const REFUSALS: u32 = 12;
const OBSERVED_BUDGET: u32 = 12;
const CLAIMED_BUDGET: u32 = 2;
const CLAIMED_ADDRESSES: u32 = 2;
/// The longest that ending can take: three seconds of farewell, three of lingering, and the server's goodbye.
const LONGEST_END: Duration = Duration::from_secs(10);

const INTERFACES: [&[&str; 4]; 2] = [
    &["198.51.100.1", "10.0.0.2", "2001:db8:1::2", "fe80::2"],
    &["203.0.113.1", "10.0.0.3", "2001:db8:2::2", "127.0.0.1"],
];
const NAMES: [Option<&str>; 3] = [Some("bob"), None, Some("a")];
const TARGETS: [&str; 4] = ["bob", "198.51.100.1", "a", "2001:db8:1::2"];
const SECRETS: [Option<&[u8]>; 3] = [None, Some(b"sixteen bytes or more"), Some(b"and another secret")];

/// Runs the records against two peers.
pub(crate) fn peer_input(input: &[u8]) {
    run(input);
}

/// How far the peers came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reached {
    pub(crate) connected: u32,
    pub(crate) data: u32,
    pub(crate) closed: u32,
    pub(crate) failed: u32,
}

/// Runs the records against two peers.
pub(crate) fn run(input: &[u8]) -> Reached {
    let mut world = World::new();
    for record in records(input) {
        world.step(record.operation, record.fields);
    }
    world.end();
    world.reached
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sender {
    Server,
    Peer(usize),
}

#[derive(Clone, Debug)]
struct Flight {
    sender: Sender,
    source: SocketAddr,
    destination: SocketAddr,
    payload: Vec<u8>,
}

/// What the events of a session have told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Life {
    introduced: bool,
    connected: bool,
    peer_ended: bool,
    peer_bare: bool,
    end_acknowledged: bool,
    over: bool,
}

/// A request of a peer to a server.
#[derive(Clone, Copy, Debug)]
struct Request {
    local: SocketAddr,
    server: SocketAddr,
    method: Method,
    transaction: TransactionId,
}

struct Node {
    peer: Peer,
    asked: VecDeque<(SocketId, SocketAddr)>,
    bound: BTreeMap<SocketId, SocketAddr>,
    /// All sockets that were asked for and not closed.
    open: BTreeSet<SocketId>,
    tcp: tcp::Tcp,
    listeners: Vec<ListenerId>,
    lives: BTreeMap<SessionId, Life>,
    connects: u32,
    /// Sessions that may have sent checks.
    sessions: u32,
    newest_path: Option<Path>,
    wake: Option<Instant>,
    /// Datagrams to each address.
    sent: BTreeMap<SocketAddr, u32>,
    /// Where something that the other peer made came from.
    proven: BTreeSet<SocketAddr>,
    /// Where anything else came from.
    strangers: BTreeSet<SocketAddr>,
    /// Addresses that a server called observed.
    observed: BTreeSet<IpAddr>,
    requests: VecDeque<Request>,
    registration: Option<(RegistrationId, [u8; 32])>,
    /// The last check that it sent: from where, to where, its id and its username.
    last_check: Option<(SocketAddr, SocketAddr, TransactionId, String)>,
}

struct World {
    now: Instant,
    server: Server,
    nodes: [Node; 2],
    flights: Vec<Flight>,
    reached: Reached,
    /// The server's connections: the node's number of each, and what the server has not taken yet.
    server_streams: BTreeMap<StreamId, (usize, StreamId)>,
    server_unread: BTreeMap<StreamId, Vec<u8>>,
    server_accepted: u32,
    /// Connections whose other end is closed, and whose peer is to be told once it has been drained.
    over: [Vec<StreamId>; 2],
}

impl World {
    fn new() -> Self {
        let nodes = [1, 2].map(|seed| Node {
            peer: Peer::new(PeerConfig::default(), [seed; 32]),
            asked: VecDeque::new(),
            bound: BTreeMap::new(),
            open: BTreeSet::new(),
            tcp: tcp::Tcp::default(),
            listeners: Vec::new(),
            lives: BTreeMap::new(),
            connects: 0,
            sessions: 0,
            newest_path: None,
            wake: None,
            sent: BTreeMap::new(),
            proven: BTreeSet::new(),
            strangers: BTreeSet::new(),
            observed: BTreeSet::new(),
            requests: VecDeque::new(),
            registration: None,
            last_check: None,
        });
        let flights = Vec::new();
        let mut world = Self {
            now: Instant::default(),
            server: server::server(),
            nodes,
            flights,
            reached: Reached::default(),
            server_streams: BTreeMap::new(),
            server_unread: BTreeMap::new(),
            server_accepted: 0,
            over: [Vec::new(), Vec::new()],
        };
        for node in 0..2 {
            world.tell_interfaces(node, 0b0111);
        }
        world.listen(0, NAMES[0], None);
        let request = connect_request(TARGETS[0], None, 10, 30);
        world.connect(1, request);
        world
    }

    fn step(&mut self, operation: u8, mut fields: Fields<'_>) {
        match operation {
            operation::DELIVER => {
                if let Some(flight) = self.take_flight(fields.u8()) {
                    self.deliver(flight);
                }
            }
            operation::DROP => drop(self.take_flight(fields.u8())),
            operation::DUPLICATE => {
                if let Some(flight) = self.flight(fields.u8()) {
                    self.deliver(flight);
                }
            }
            operation::MUTATE => {
                let flight = self.flight(fields.u8());
                let (position, bits) = (fields.u16(), fields.u8());
                if let Some(mut flight) = flight {
                    flight.payload = mutated(&flight.payload, usize::from(position), bits);
                    self.deliver(flight);
                }
            }
            operation::REROUTE => {
                if let Some(flight) = self.take_flight(fields.u8()) {
                    let source = address(fields.pick(&CLIENTS));
                    self.deliver(Flight { source, ..flight });
                }
            }
            operation::DELIVER_ALL => self.deliver_all(),
            operation::WAIT => self.wait(Duration::from_millis(u64::from(fields.u16()))),
            operation::JUMP => self.jump(Duration::from_secs(u64::from(fields.u16()))),
            operation::RESTART => {
                self.server = server::server();
                self.break_server_streams();
            }
            operation::TCP_ALL => self.tcp_all(),
            _ => {
                let node = usize::from(fields.u8() & 1);
                self.step_of_peer(node, operation, fields);
            }
        }
    }

    fn step_of_peer(&mut self, node: usize, operation: u8, mut fields: Fields<'_>) {
        match operation {
            operation::BIND => self.answer_bind(node, fields.u8()),
            operation::INTERFACES => self.tell_interfaces(node, fields.u8()),
            operation::LISTEN => self.listen(node, fields.pick(&NAMES), fields.pick(&SECRETS)),
            operation::CONNECT => {
                let (target, secret) = (fields.pick(&TARGETS), fields.pick(&SECRETS));
                let request = connect_request(target, secret, fields.u8(), fields.u8());
                let transport = fields.pick(&[Transport::Udp, Transport::Tcp]);
                self.connect(node, ConnectRequest { transport, ..request });
            }
            operation::END | operation::CLOSE | operation::BARE => {
                let index = usize::from(fields.u8());
                let now = self.now;
                let Node { peer, lives, .. } = &mut self.nodes[node];
                let index = index % lives.len().max(1);
                let Some((session, life)) = lives.iter_mut().nth(index) else { return };
                if operation == operation::END {
                    peer.end(now, *session);
                } else if operation == operation::BARE {
                    let asked = peer.bare(now, *session);
                    assert!(asked.is_err() || life.connected && !life.over, "{life:?}");
                } else {
                    peer.close(now, *session);
                    // One that is not connected is gone without an event.
                    life.over |= !life.connected;
                }
                self.settle(node);
            }
            operation::CLOSE_LISTENER => {
                let index = usize::from(fields.u8());
                let now = self.now;
                let Node { peer, listeners, .. } = &mut self.nodes[node];
                let Some(listener) = listeners.get(index % listeners.len().max(1)) else { return };
                peer.close_listener(now, *listener);
                self.settle(node);
            }
            operation::DATA => {
                let Some(path) = self.nodes[node].newest_path else { return };
                if let Some(source) = self.source(node, path.socket().unwrap(), None, path.remote) {
                    let payload = fields.rest().to_vec();
                    self.push(Flight { sender: Sender::Peer(node), source, destination: path.remote, payload });
                }
            }
            operation::RAW => {
                let source = address(fields.pick(&CLIENTS));
                self.arrive(node, source, None, fields.rest());
            }
            operation::TCP_ANSWER => self.answer_connect(node, fields),
            operation::TCP_STRANGER => self.stranger_connects(node, fields),
            operation::TCP_DATA => self.stream_brings(node, fields),
            operation::TCP_FAIL => self.stream_fails(node, fields.u8()),
            operation::FORGE_ANSWER => self.forge_answer(node, fields),
            operation::FORGE_INTRODUCTION => self.forge_introduction(node, fields),
            operation::FORGE_CHECK => self.forge_check(node, fields),
            _ => {}
        }
    }

    fn flight(&self, index: u8) -> Option<Flight> {
        self.flights.get(usize::from(index) % self.flights.len().max(1)).cloned()
    }

    fn take_flight(&mut self, index: u8) -> Option<Flight> {
        let index = usize::from(index) % self.flights.len().max(1);
        (index < self.flights.len()).then(|| self.flights.remove(index))
    }

    fn push(&mut self, flight: Flight) {
        if self.flights.len() < MAX_FLIGHTS {
            self.flights.push(flight);
        }
    }

    fn deliver_all(&mut self) {
        for _ in 0..2 * MAX_FLIGHTS {
            let Some(flight) = self.take_flight(0) else { return };
            self.deliver(flight);
        }
    }

    fn deliver(&mut self, flight: Flight) {
        let destination = flight.destination;
        if let Some(socket) = SOCKETS.iter().position(|own| address(own) == destination) {
            let (socket, remote) = (SocketId(socket as u32), flight.source);
            let payload = &flight.payload;
            self.server.handle_input(self.now, Input::Datagram { socket, local: destination, remote, payload });
            return self.drain_server();
        }
        for node in 0..2 {
            if host(node).any(|ip| ip == destination.ip()) {
                if matches!(flight.sender, Sender::Peer(_)) {
                    self.nodes[node].proven.insert(canonical(flight.source));
                }
                self.arrive(node, flight.source, Some(destination), &flight.payload);
            }
        }
    }

    /// Gives a peer a datagram, at its first socket of that family or where it was sent to.
    fn arrive(&mut self, node: usize, remote: SocketAddr, destination: Option<SocketAddr>, payload: &[u8]) {
        let Node { peer, bound, strangers, observed, lives, .. } = &mut self.nodes[node];
        let is_there = |local: &SocketAddr| match destination {
            Some(to) => local.port() == to.port() && local.is_ipv6() == to.is_ipv6(),
            None => local.is_ipv6() == remote.is_ipv6(),
        };
        let Some((socket, local)) = bound.iter().find(|(_, local)| is_there(local)) else { return };
        let local = destination.unwrap_or(*local);
        if let Ok(message) = Message::parse(payload)
            && message.method() != Method::TRICKLE
        {
            let seen = message.candidates().filter(|known| known.kind == CandidateKind::ServerReflexiveObserved);
            observed.extend(seen.map(|candidate| canonical(candidate.address).ip()));
        }
        strangers.insert(canonical(remote));
        let disposition = peer.handle_input(self.now, Input::Datagram { socket: *socket, local, remote, payload });
        if let Disposition::Data(session) = disposition {
            assert!(lives.contains_key(&session), "data of a session that never was");
            self.reached.data += 1;
        }
        self.settle(node);
    }

    fn drain_server(&mut self) {
        loop {
            match self.server.poll_output() {
                Output::Transmit(transmit) => self.push(Flight {
                    sender: Sender::Server,
                    source: address(SOCKETS[transmit.socket.0 as usize]),
                    destination: transmit.destination,
                    payload: transmit.payload,
                }),
                Output::Tcp(request) => self.do_tcp_of_server(request),
                Output::Timeout(..) => return,
                _ => {}
            }
        }
    }

    fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        for _ in 0..MAX_WAKES {
            let next = self.nodes.iter().filter_map(|node| node.wake).min().filter(|wake| *wake <= until);
            let Some(next) = next else { break };
            self.now = next;
            self.wake();
        }
        self.now = until;
        self.wake();
    }

    fn jump(&mut self, time: Duration) {
        self.now = self.now + time;
        self.wake();
    }

    fn wake(&mut self) {
        self.server.handle_input(self.now, Input::Timeout);
        self.drain_server();
        for node in 0..2 {
            self.settle(node);
        }
    }

    fn answer_bind(&mut self, node: usize, how: u8) {
        let now = self.now;
        let Node { peer, asked, bound, open, .. } = &mut self.nodes[node];
        let Some((socket, mut local)) = asked.pop_front() else { return };
        if how & 1 == 1 {
            let error = Error::new(ErrorKind::AddressInUse, "the port is in use");
            peer.handle_input(now, Input::UdpFailed { socket, error });
        } else {
            if local.port() == 0 {
                local.set_port(40_000 + socket.0 as u16);
            }
            if open.contains(&socket) {
                bound.insert(socket, local);
            }
            peer.handle_input(now, Input::UdpBound { socket, local });
        }
        self.settle(node);
    }

    fn tell_interfaces(&mut self, node: usize, mask: u8) {
        let told: Vec<IpAddr> =
            host(node).enumerate().filter(|(index, _)| mask >> index & 1 == 1).map(|(_, ip)| ip).collect();
        self.nodes[node].peer.handle_input(self.now, Input::Interfaces(&told));
        self.settle(node);
    }

    fn listen(&mut self, node: usize, name: Option<&str>, secret: Option<&[u8]>) {
        if self.nodes[node].listeners.len() >= MAX_LISTENERS {
            return;
        }
        let request = ListenRequest {
            transports: holepunch::wire::stun::Transports { udp: true, tcp: true },
            name: name.map(|name| name.parse().expect("the table is right")),
            servers: vec![server_address()],
            bind: any(),
            secret: secret.map(to_secret),
            prefer_port: None,
            legacy: false,
        };
        let listener = self.nodes[node].peer.listen(self.now, request).expect("the request is right");
        self.nodes[node].listeners.push(listener);
        self.settle(node);
    }

    fn connect(&mut self, node: usize, request: ConnectRequest) {
        let Node { peer, lives, connects, sessions, .. } = &mut self.nodes[node];
        if *connects >= MAX_CONNECTS {
            return;
        }
        *connects += 1;
        *sessions += 1;
        let session = peer.connect(self.now, request).expect("the request is right");
        lives.insert(session, Life::default());
        self.settle(node);
    }

    /// The address that a datagram leaves from.
    fn source(
        &self,
        node: usize,
        socket: SocketId,
        source: Option<IpAddr>,
        destination: SocketAddr,
    ) -> Option<SocketAddr> {
        let local = self.nodes[node].bound.get(&socket)?;
        let is_private = |ip: IpAddr| matches!(ip, IpAddr::V4(ip) if ip.is_private());
        let routed = host(node)
            .find(|ip| ip.is_ipv6() == destination.is_ipv6() && is_private(*ip) == is_private(destination.ip()));
        Some(SocketAddr::new(source.or(routed)?, local.port()))
    }

    /// Drains a peer, and wakes it as long as it wants to be woken now.
    fn settle(&mut self, node: usize) {
        for _ in 0..MAX_WAKES_AT_ONCE {
            self.drain(node);
            if self.nodes[node].wake.is_none_or(|wake| wake > self.now) {
                self.check_budgets(node);
                for told in [node, 1 - node] {
                    while let Some(stream) = self.over[told].pop() {
                        self.stream_is_over(told, stream);
                    }
                }
                return;
            }
            self.nodes[node].peer.handle_input(self.now, Input::Timeout);
        }
        panic!("the peer is due at {:?} again and again, it is {:?}", self.nodes[node].wake, self.now);
    }

    fn drain(&mut self, index: usize) {
        for _ in 0..MAX_OUTPUTS {
            let node = &mut self.nodes[index];
            match node.peer.poll_output() {
                Output::Transmit(transmit) => {
                    assert!(transmit.payload.len() <= 1200);
                    assert!(node.bound.contains_key(&transmit.socket), "sent from a socket that is not there");
                    *node.sent.entry(canonical(transmit.destination)).or_default() += 1;
                    let (socket, destination) = (transmit.socket, transmit.destination);
                    if let Some(source) = self.source(index, socket, transmit.source, destination) {
                        self.note_sent(index, source, destination, &transmit.payload);
                        let sender = Sender::Peer(index);
                        self.push(Flight { sender, source, destination, payload: transmit.payload });
                    }
                }
                Output::Udp(UdpRequest::Bind { socket, address }) => {
                    assert!(node.open.insert(socket), "{socket:?} is asked for twice");
                    node.asked.push_back((socket, address));
                }
                Output::Udp(UdpRequest::Close { socket }) => {
                    assert!(node.open.remove(&socket), "{socket:?} is closed twice");
                    node.bound.remove(&socket);
                }
                Output::Tcp(request) => self.do_tcp(index, request),
                Output::Event(event) => self.handle_event(index, event),
                Output::Log(_, line) => assert!(!line.is_empty()),
                Output::Timeout(time, _) => {
                    node.wake = time;
                    return;
                }
                other => panic!("nobody asked for {other:?}"),
            }
        }
        panic!("more outputs than one input can make");
    }

    /// Keeps what somebody on the way could see.
    fn note_sent(&mut self, index: usize, source: SocketAddr, destination: SocketAddr, payload: &[u8]) {
        let Ok(message) = Message::parse(payload) else { return };
        let node = &mut self.nodes[index];
        let transaction = message.transaction_id();
        match (message.method(), message.class()) {
            (Method::REGISTER | Method::CONNECT, Class::Request) => {
                if node.requests.len() == MAX_REQUESTS {
                    node.requests.pop_front();
                }
                let method = message.method();
                node.requests.push_back(Request { local: source, server: destination, method, transaction });
                if let (Some(id), Some(key)) = (message.registration_id(), message.registration_key()) {
                    assert_eq!(message.verify_integrity_sha256(&key), Integrity::Valid);
                    node.registration = Some((id, key));
                }
            }
            (Method::BINDING, Class::Request) => {
                let username = message.username().expect("a check has a username").to_owned();
                node.last_check = Some((source, destination, transaction, username));
            }
            _ => {}
        }
    }

    fn handle_event(&mut self, index: usize, event: PeerEvent) {
        let Node { lives, sessions, newest_path, tcp, .. } = &mut self.nodes[index];
        match event {
            PeerEvent::Introduced { session, listener, .. } => {
                if listener.is_some() {
                    *sessions += 1;
                }
                let life = lives.entry(session).or_default();
                // A listener may have forgotten a session of long ago, and be introduced to it again.
                if life.over && listener.is_some() {
                    *life = Life::default();
                }
                assert!(!life.introduced && !life.over, "introduced twice");
                life.introduced = true;
            }
            PeerEvent::Connected { session, path, .. } => {
                let life = lives.entry(session).or_default();
                assert!(life.introduced && !life.connected && !life.over, "connected out of turn: {life:?}");
                life.connected = true;
                match path.carrier {
                    Carrier::Socket(_) => *newest_path = Some(path),
                    // It has left the machine.
                    Carrier::Stream(stream) => {
                        life.over = true;
                        tcp.give(stream);
                    }
                }
                self.reached.connected += 1;
            }
            PeerEvent::Failed { session, error, .. } => {
                let life = lives.entry(session).or_default();
                assert!(!life.connected && !life.over, "failed out of turn: {life:?} {error}");
                assert!(!error.message().is_empty() && !error.hint().is_empty());
                life.over = true;
                self.reached.failed += 1;
            }
            PeerEvent::PeerEnded { session } => {
                let life = lives.entry(session).or_default();
                assert!(life.connected && !life.over && !life.peer_ended, "ended out of turn: {life:?}");
                life.peer_ended = true;
            }
            PeerEvent::EndAcknowledged { session } => {
                let life = lives.entry(session).or_default();
                assert!(life.connected && !life.over && !life.end_acknowledged, "acknowledged out of turn: {life:?}");
                life.end_acknowledged = true;
            }
            PeerEvent::PeerBare { session } => {
                let life = lives.entry(session).or_default();
                assert!(life.connected && !life.over && !life.peer_bare, "bare out of turn: {life:?}");
                life.peer_bare = true;
            }
            PeerEvent::Closed { session, .. } | PeerEvent::Bare { session } => {
                let life = lives.entry(session).or_default();
                assert!(life.connected && !life.over, "closed out of turn: {life:?}");
                life.over = true;
                self.reached.closed += 1;
            }
            PeerEvent::Registered { .. } | PeerEvent::ListenFailed { .. } => {}
            other => panic!("nobody knows of {other:?}"),
        }
    }

    /// What an address that has proven nothing may have got.
    fn check_budgets(&self, index: usize) {
        let Node { sent, proven, strangers, observed, sessions, tcp, .. } = &self.nodes[index];
        let mut only_claimed = 0;
        for (destination, count) in sent {
            let is_server = SOCKETS.iter().any(|own| address(own) == *destination);
            if is_server || proven.contains(destination) {
                continue;
            }
            let is_claimed = is_public(destination.ip()) && !observed.contains(&destination.ip());
            let checks = if is_claimed { CLAIMED_BUDGET } else { OBSERVED_BUDGET };
            let is_stranger = strangers.contains(destination);
            let refusals = if is_stranger { REFUSALS } else { 0 };
            assert!(
                *count <= sessions * (checks + refusals),
                "{count} datagrams to {destination}, {sessions} sessions"
            );
            only_claimed += u32::from(is_claimed && !is_stranger);
        }
        assert!(only_claimed <= sessions * CLAIMED_ADDRESSES, "{only_claimed} addresses that are only claimed");
        let is_server = |remote: &SocketAddr| SOCKETS.iter().any(|own| address(own) == *remote);
        tcp.check_attempts(*sessions, |remote| {
            is_public(remote.ip()) && !is_server(remote) && !observed.contains(&remote.ip()) && !proven.contains(remote)
        });
    }

    /// Everything is closed, and nothing arrives any more: both peers come to rest.
    fn end(&mut self) {
        for index in 0..2 {
            let now = self.now;
            let Node { peer, listeners, lives, .. } = &mut self.nodes[index];
            listeners.iter().for_each(|listener| peer.close_listener(now, *listener));
            lives.keys().for_each(|session| peer.close(now, *session));
            self.settle(index);
        }
        let until = self.now + LONGEST_END;
        while let Some(next) = self.nodes.iter().filter_map(|node| node.wake).min() {
            assert!(next <= until, "a closed peer still waits");
            self.now = next;
            self.wake();
        }
        for Node { open, tcp, lives, .. } in &self.nodes {
            assert!(open.is_empty(), "{open:?} were left open");
            tcp.check_rest();
            assert!(lives.values().all(|life| life.over || !life.connected), "a connection has no end: {lives:?}");
        }
    }
}

fn host(node: usize) -> impl Iterator<Item = IpAddr> {
    INTERFACES[node].iter().map(|ip| ip.parse().expect("the table is right"))
}

fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !ip.is_private() && !ip.is_loopback(),
        IpAddr::V6(ip) => !ip.is_loopback(),
    }
}

fn any() -> Vec<SocketAddr> {
    vec![address("0.0.0.0:0"), address("[::]:0")]
}

fn server_address() -> ServerAddress {
    ServerAddress { label: "server".into(), ipv4: Some(address(SOCKETS[0])), ipv6: Some(address(SOCKETS[2])) }
}

fn to_secret(bytes: &[u8]) -> Secret {
    Secret::new(bytes).expect("the table is right")
}

fn connect_request(target: &str, secret: Option<&[u8]>, wait: u8, timeout: u8) -> ConnectRequest {
    ConnectRequest {
        transport: Transport::Udp,
        target: target.parse().expect("the table is right"),
        servers: vec![server_address()],
        bind: any(),
        secret: secret.map(to_secret),
        wait: Duration::from_secs(u64::from(wait)),
        timeout: Duration::from_secs(u64::from(timeout)),
        prefer_port: None,
        legacy: false,
    }
}
