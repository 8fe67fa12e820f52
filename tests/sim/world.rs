//! Real `Peer`s and the real sans-IO `Server` in a simulated network: the driver that an endpoint is, in virtual time.

use holepunch::{
    config::{PeerConfig, ServerConfig},
    machine::{Disposition, Input, Instant, Output, PortId, SocketId, StreamId, TcpRequest, UdpRequest},
    peer::{Carrier, ConnectRequest, ListenRequest, Path, Peer, PeerEvent, ServerAddress},
    rendezvous::server::{Server, ServerSocket},
    wire::stun::SessionId,
};
use netsim::{Datagram, Delivery, HostId, Network, TcpConnection, TcpEvent, TcpPort, Time};
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

/// The server's ports.
pub(crate) const SERVER_PORT: u16 = 20000;
const ALTERNATE_PORT: u16 = 20002;
/// The first port that a socket bound to port 0 gets.
const FIRST_PORT: u16 = 40_000;
const TTL: u8 = 64;
/// Datagrams that the sockets of a stopped process hold: those of 200 kB at some 800 bytes each.
const SOCKET_HOLDS: usize = 256;

/// A node of a [`World`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NodeId(usize);

enum Machine {
    Peer(Box<Peer>),
    Server(Box<Server>),
}

/// A host that runs a machine.
pub(crate) struct Node {
    host: HostId,
    machine: Machine,
    sockets: BTreeMap<SocketId, SocketAddr>,
    next_port: u16,
    ports: BTreeMap<PortId, TcpPort>,
    streams: BTreeMap<StreamId, Stream>,
    /// Connections that sessions were given, by session.
    given: BTreeMap<SessionId, StreamId>,
    next_accepted: u32,
    /// Sockets that are their application's own, by our port and the peer's address.
    bare: BTreeMap<(u16, SocketAddr), SessionId>,
    wake: Option<Time>,
    /// Of a process that is stopped: what its sockets hold. They take so much and no more.
    suspended: Option<Vec<Delivery>>,
    /// Everything that happened, with its time.
    pub(crate) events: Vec<(Time, PeerEvent)>,
    /// Data that arrived.
    pub(crate) received: Vec<(SessionId, Vec<u8>)>,
    /// What arrived at sockets that are their application's own, with its time.
    pub(crate) received_bare: Vec<(Time, Vec<u8>)>,
}

/// A TCP connection of a node.
struct Stream {
    connection: TcpConnection,
    /// What has arrived and nobody has taken.
    unread: Vec<u8>,
    /// Whether it has left the machine, and is the application's.
    given: bool,
}

/// A network with machines on its hosts.
pub(crate) struct World {
    pub(crate) net: Network,
    nodes: Vec<Node>,
    seed: u64,
    /// What the tests may look at or change on its way; false drops it.
    /// Where the hosts have no route to.
    pub(crate) refuse_sends_to: Option<IpAddr>,
    /// The hosts may send no datagrams.
    pub(crate) refuse_datagrams: bool,
    pub(crate) on_send: Option<Box<dyn FnMut(&Datagram) -> bool>>,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            net: Network::new(seed),
            nodes: Vec::new(),
            seed,
            on_send: None,
            refuse_sends_to: None,
            refuse_datagrams: false,
        }
    }

    fn seed_of(&self, node: usize) -> [u8; 32] {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.seed.to_le_bytes());
        seed[8..16].copy_from_slice(&(node as u64 + 1).to_le_bytes());
        seed
    }

    fn add_node(&mut self, host: HostId, machine: Machine, sockets: BTreeMap<SocketId, SocketAddr>) -> NodeId {
        self.nodes.push(Node {
            host,
            machine,
            sockets,
            next_port: FIRST_PORT,
            ports: BTreeMap::new(),
            streams: BTreeMap::new(),
            given: BTreeMap::new(),
            next_accepted: StreamId::FIRST_ACCEPTED,
            bare: BTreeMap::new(),
            wake: None,
            suspended: None,
            events: Vec::new(),
            received: Vec::new(),
            received_bare: Vec::new(),
        });
        NodeId(self.nodes.len() - 1)
    }

    /// Runs a peer on a host.
    pub(crate) fn add_peer(&mut self, host: HostId, config: PeerConfig) -> NodeId {
        let mut peer = Peer::new(config, self.seed_of(self.nodes.len()));
        let now = instant(self.net.now());
        peer.handle_input(now, Input::Interfaces(&self.net.addresses(host)));
        let node = self.add_node(host, Machine::Peer(Box::new(peer)), BTreeMap::new());
        self.drain(node.0);
        node
    }

    /// Runs a server on a host, on its first address of each family.
    pub(crate) fn add_server(&mut self, host: HostId, config: ServerConfig) -> NodeId {
        let (machine, sockets) = self.make_server(host, config, self.nodes.len());
        let ports = sockets.values().filter(|local| local.port() == SERVER_PORT).map(|local| {
            let (port, _) = self.net.tcp_bind(host, *local).expect("the server's port is free");
            self.net.tcp_listen(port);
            port
        });
        let ports = (0..).map(PortId).zip(ports).collect();
        let node = self.add_node(host, machine, sockets);
        self.nodes[node.0].ports = ports;
        node
    }

    fn make_server(
        &self,
        host: HostId,
        config: ServerConfig,
        number: usize,
    ) -> (Machine, BTreeMap<SocketId, SocketAddr>) {
        let addresses = self.net.addresses(host);
        let first = |ipv6: bool| addresses.iter().find(|ip| ip.is_ipv6() == ipv6).copied();
        let mut sockets = BTreeMap::new();
        let mut own = Vec::new();
        for (base, ip) in [(0, first(false)), (2, first(true))] {
            let Some(ip) = ip else { continue };
            for (offset, port) in [(0, SERVER_PORT), (1, ALTERNATE_PORT)] {
                let (socket, local) = (SocketId(base + offset), SocketAddr::new(ip, port));
                sockets.insert(socket, local);
                own.push(ServerSocket { socket, local, alternate: Some(SocketId(base + 1 - offset)) });
            }
        }
        (Machine::Server(Box::new(Server::new(config, self.seed_of(number), own))), sockets)
    }

    /// Replaces a server by one that knows nothing of what was before.
    pub(crate) fn restart_server(&mut self, node: NodeId, config: ServerConfig) {
        let number = node.0 + 1000;
        let (machine, sockets) = self.make_server(self.nodes[node.0].host, config, number);
        self.break_streams(node);
        self.nodes[node.0].machine = machine;
        self.nodes[node.0].sockets = sockets;
    }

    /// Breaks every connection that a node's machine has.
    pub(crate) fn break_streams(&mut self, node: NodeId) {
        let all = self.nodes[node.0].streams.iter().filter(|(_, stream)| !stream.given);
        let all: Vec<_> = all.map(|(id, stream)| (*id, stream.connection)).collect();
        let now = instant(self.net.now());
        for (stream, connection) in all {
            self.nodes[node.0].streams.remove(&stream);
            self.net.tcp_abort(connection);
            self.nodes[node.0].tell(now, Input::TcpFailed { stream, at_once: false });
        }
        self.drain(node.0);
    }

    pub(crate) fn node(&self, node: NodeId) -> &Node {
        &self.nodes[node.0]
    }

    pub(crate) fn host(&self, node: NodeId) -> HostId {
        self.nodes[node.0].host
    }

    pub(crate) fn server(&self, node: NodeId) -> &Server {
        match &self.nodes[node.0].machine {
            Machine::Server(server) => server,
            Machine::Peer(_) => panic!("not a server"),
        }
    }

    /// Where peers find a server.
    pub(crate) fn server_address(&self, node: NodeId) -> ServerAddress {
        let at = |socket| self.nodes[node.0].sockets.get(&SocketId(socket)).copied();
        ServerAddress { label: "server".into(), ipv4: at(0), ipv6: at(2) }
    }

    /// Calls a method of a peer, then drains it.
    pub(crate) fn with_peer<T>(&mut self, node: NodeId, call: impl FnOnce(&mut Peer, Instant) -> T) -> T {
        let now = instant(self.net.now());
        let Machine::Peer(peer) = &mut self.nodes[node.0].machine else { panic!("not a peer") };
        let result = call(peer, now);
        self.drain(node.0);
        result
    }

    pub(crate) fn listen(&mut self, node: NodeId, server: NodeId, name: Option<&str>) {
        let request = self.listen_request(server, name);
        self.with_peer(node, |peer, now| peer.listen(now, request)).unwrap();
    }

    pub(crate) fn listen_request(&self, server: NodeId, name: Option<&str>) -> ListenRequest {
        ListenRequest {
            transports: holepunch::wire::stun::Transports { udp: true, tcp: true },
            name: name.map(|name| name.parse().unwrap()),
            servers: vec![self.server_address(server)],
            bind: any(),
            secret: None,
            prefer_port: None,
            legacy: false,
        }
    }

    pub(crate) fn connect(&mut self, node: NodeId, server: NodeId, target: &str) -> SessionId {
        let request = self.connect_request(server, target);
        self.with_peer(node, |peer, now| peer.connect(now, request)).unwrap()
    }

    pub(crate) fn connect_stream(&mut self, node: NodeId, server: NodeId, target: &str) -> SessionId {
        let request =
            ConnectRequest { transport: holepunch::peer::Transport::Tcp, ..self.connect_request(server, target) };
        self.with_peer(node, |peer, now| peer.connect(now, request)).unwrap()
    }

    pub(crate) fn connect_request(&self, server: NodeId, target: &str) -> ConnectRequest {
        ConnectRequest {
            transport: holepunch::peer::Transport::Udp,
            target: target.parse().unwrap(),
            servers: vec![self.server_address(server)],
            bind: any(),
            secret: None,
            wait: Duration::from_secs(10),
            timeout: Duration::from_secs(30),
            prefer_port: None,
            legacy: false,
        }
    }

    /// Sends application data along a connected session's path.
    pub(crate) fn send_data(&mut self, node: NodeId, path: &Path, payload: &[u8]) {
        let socket = path.socket().expect("a datagram path");
        self.transmit(node.0, socket, None, path.remote, payload.to_vec());
    }

    /// Sends application data from a socket that is the application's own.
    pub(crate) fn send_bare(&mut self, node: NodeId, payload: &[u8]) {
        let (local, remote) = *self.nodes[node.0].bare.keys().next().expect("a bare socket");
        let host = self.nodes[node.0].host;
        let ip = self.net.addresses(host).into_iter().find(|ip| ip.is_ipv6() == remote.is_ipv6()).unwrap();
        let source = SocketAddr::new(ip, local);
        self.net.send(host, Datagram { source, destination: remote, ttl: TTL, payload: payload.to_vec() });
    }

    /// Sends application data along the stream of a session.
    pub(crate) fn send_stream(&mut self, node: NodeId, session: SessionId, bytes: &[u8]) {
        let stream = self.given_stream(node, session).expect("a stream");
        let connection = stream.connection;
        self.net.tcp_send(connection, bytes);
    }

    /// What has arrived on the stream of a session.
    pub(crate) fn stream_received(&self, node: NodeId, session: SessionId) -> &[u8] {
        self.given_stream(node, session).map_or(&[], |stream| &stream.unread)
    }

    fn given_stream(&self, node: NodeId, session: SessionId) -> Option<&Stream> {
        let node = &self.nodes[node.0];
        node.streams.get(node.given.get(&session)?)
    }

    /// A server takes no connections any more.
    pub(crate) fn refuse_tcp(&mut self, server: NodeId) {
        for port in std::mem::take(&mut self.nodes[server.0].ports).into_values() {
            self.net.tcp_release(port);
        }
    }

    /// The ports and the connections that a node's machine has, given ones not among them.
    pub(crate) fn tcp_of_machine(&self, node: NodeId) -> (usize, usize) {
        let node = &self.nodes[node.0];
        (node.ports.len(), node.streams.values().filter(|stream| !stream.given).count())
    }

    /// When a node's machine wants to be called again.
    pub(crate) fn wake(&self, node: NodeId) -> Option<Time> {
        self.nodes[node.0].wake
    }

    /// Gives a peer a datagram as if it had come from there.
    pub(crate) fn forge(&mut self, node: NodeId, local_port: u16, remote: SocketAddr, payload: &[u8]) {
        let host = self.nodes[node.0].host;
        let ip = self.net.addresses(host).into_iter().find(|ip| ip.is_ipv6() == remote.is_ipv6()).unwrap();
        let delivery = Delivery {
            at: self.net.now(),
            host,
            source: remote,
            destination: SocketAddr::new(ip, local_port),
            payload: payload.to_vec(),
        };
        self.deliver(delivery);
    }

    /// The local addresses of a node's sockets.
    pub(crate) fn sockets(&self, node: NodeId) -> Vec<SocketAddr> {
        self.nodes[node.0].sockets.values().copied().collect()
    }

    fn transmit(
        &mut self,
        node: usize,
        socket: SocketId,
        source: Option<IpAddr>,
        destination: SocketAddr,
        payload: Vec<u8>,
    ) {
        let Some(local) = self.nodes[node].sockets.get(&socket).copied() else { return };
        let is_peer = matches!(self.nodes[node].machine, Machine::Peer(_));
        if self.refuse_sends_to == Some(destination.ip()) || self.refuse_datagrams && is_peer {
            let error = holepunch::Error::new(holepunch::ErrorKind::ServerUnreachable, "no route to host");
            let now = instant(self.net.now());
            if let Machine::Peer(peer) = &mut self.nodes[node].machine {
                peer.handle_input(now, Input::SendFailed { socket, destination, error });
            }
            return;
        }
        let host = self.nodes[node].host;
        let addresses = self.net.addresses(host);
        let bound = Some(local.ip()).filter(|ip| !ip.is_unspecified());
        // From an address that the host has no more nothing is sent; a socket that is not bound to it takes another.
        let wanted = bound.or(source.filter(|ip| addresses.contains(ip)));
        let routed = addresses.iter().copied().find(|ip| ip.is_ipv6() == destination.is_ipv6());
        let Some(ip) = wanted.or(routed).filter(|ip| addresses.contains(ip)) else { return };
        let datagram = Datagram { source: SocketAddr::new(ip, local.port()), destination, ttl: TTL, payload };
        if self.on_send.as_mut().is_none_or(|on_send| on_send(&datagram)) {
            self.net.send(host, datagram);
        }
    }

    fn deliver(&mut self, delivery: Delivery) {
        let Some(index) = self.nodes.iter().position(|node| node.host == delivery.host) else { return };
        let node = &mut self.nodes[index];
        if let Some(held) = &mut node.suspended {
            if held.len() < SOCKET_HOLDS {
                held.push(delivery);
            }
            return;
        }
        if node.bare.contains_key(&(delivery.destination.port(), delivery.source)) {
            node.received_bare.push((self.net.now(), delivery.payload));
            return;
        }
        let is_there = |local: &SocketAddr| {
            local.port() == delivery.destination.port()
                && local.is_ipv6() == delivery.destination.is_ipv6()
                && (local.ip().is_unspecified() || local.ip() == delivery.destination.ip())
        };
        let Some((socket, _)) = node.sockets.iter().find(|(_, local)| is_there(local)) else { return };
        let input = Input::Datagram {
            socket: *socket,
            local: delivery.destination,
            remote: delivery.source,
            payload: &delivery.payload,
        };
        let now = instant(self.net.now());
        match &mut node.machine {
            Machine::Peer(peer) => {
                if let Disposition::Data(session) = peer.handle_input(now, input) {
                    node.received.push((session, delivery.payload.clone()));
                }
            }
            Machine::Server(server) => server.handle_input(now, input),
        }
        self.drain(index);
    }

    fn do_tcp(&mut self, index: usize, request: TcpRequest) {
        let now = instant(self.net.now());
        let node = &mut self.nodes[index];
        match request {
            TcpRequest::Reserve { port, address } => {
                let bound = self.net.tcp_bind(node.host, address);
                let input = match &bound {
                    Ok((_, local)) => Input::TcpReserved { port, local: *local },
                    Err(error) => {
                        let error = holepunch::Error::new(kind_of(*error), format!("{error:?}"));
                        Input::TcpReserveFailed { port, error }
                    }
                };
                if let Ok((bound, _)) = bound {
                    assert!(node.ports.insert(port, bound).is_none(), "{port:?} is reserved twice");
                }
                node.tell(now, input);
            }
            TcpRequest::Listen { port } => self.net.tcp_listen(node.ports[&port]),
            TcpRequest::Connect { stream, remote, .. } if self.refuse_sends_to == Some(remote.ip()) => {
                node.tell(now, Input::TcpFailed { stream, at_once: true });
            }
            TcpRequest::Connect { port, stream, remote } => match self.net.tcp_connect(node.ports[&port], remote) {
                Ok(connection) => {
                    let stream_of = Stream { connection, unread: Vec::new(), given: false };
                    assert!(node.streams.insert(stream, stream_of).is_none(), "{stream:?} is there already");
                }
                Err(_) => node.tell(now, Input::TcpFailed { stream, at_once: true }),
            },
            TcpRequest::Send { stream, bytes } => {
                // It may have ended in this very moment.
                if let Some(stream) = node.streams.get(&stream) {
                    self.net.tcp_send(stream.connection, &bytes);
                }
            }
            TcpRequest::Close { stream } => {
                if let Some(stream) = node.streams.remove(&stream) {
                    assert!(!stream.given, "a stream that was given away is closed");
                    self.net.tcp_close(stream.connection);
                }
            }
            TcpRequest::Abort { stream } => {
                if let Some(stream) = node.streams.remove(&stream) {
                    assert!(!stream.given, "a stream that was given away is closed");
                    self.net.tcp_abort(stream.connection);
                }
            }
            TcpRequest::Release { port } => {
                if let Some(port) = node.ports.remove(&port) {
                    self.net.tcp_release(port);
                }
            }
        }
    }

    /// Passes on what a host's TCP tells.
    fn handle_tcp(&mut self, host: HostId, event: TcpEvent) {
        let Some(index) = self.nodes.iter().position(|node| node.host == host) else { return };
        let now = instant(self.net.now());
        let node = &mut self.nodes[index];
        match event {
            TcpEvent::Accepted { port, connection, local, remote } => {
                let Some((port, _)) = node.ports.iter().find(|(_, bound)| **bound == port) else {
                    return self.net.tcp_close(connection);
                };
                let stream = StreamId(node.next_accepted);
                node.next_accepted += 1;
                node.streams.insert(stream, Stream { connection, unread: Vec::new(), given: false });
                node.tell(now, Input::TcpAccepted { port: *port, stream, local, remote });
            }
            TcpEvent::Connected { connection, local } => {
                let Some(stream) = node.stream_of(connection) else { return };
                node.tell(now, Input::TcpConnected { stream, local });
            }
            TcpEvent::Failed { connection, .. } => {
                let Some(stream) = node.stream_of(connection) else { return };
                if node.streams.remove(&stream).is_some_and(|stream| !stream.given) {
                    node.tell(now, Input::TcpFailed { stream, at_once: false });
                }
            }
            TcpEvent::Ended { connection } => {
                let Some(stream) = node.stream_of(connection) else { return };
                if !node.streams[&stream].given {
                    node.streams.remove(&stream);
                    self.net.tcp_close(connection);
                    node.tell(now, Input::TcpFailed { stream, at_once: false });
                }
            }
            TcpEvent::Data { connection, bytes } => {
                let Some(stream) = node.stream_of(connection) else { return };
                node.streams.get_mut(&stream).expect("found").unread.extend(bytes);
                return self.offer(index, stream);
            }
        }
        self.drain(index);
    }

    /// Shows a machine what is unread, until it takes no more.
    fn offer(&mut self, index: usize, stream: StreamId) {
        loop {
            let now = instant(self.net.now());
            let node = &mut self.nodes[index];
            let Some(state) = node.streams.get_mut(&stream).filter(|stream| !stream.given) else { return };
            let taken = match &mut node.machine {
                Machine::Peer(peer) => peer.handle_stream_data(now, stream, &state.unread),
                Machine::Server(server) => server.handle_stream_data(now, stream, &state.unread),
            };
            state.unread.drain(..taken);
            let more = taken > 0 && !state.unread.is_empty();
            self.drain(index);
            if !more {
                return;
            }
        }
    }

    fn drain(&mut self, index: usize) {
        loop {
            let node = &mut self.nodes[index];
            let output = match &mut node.machine {
                Machine::Peer(peer) => peer.poll_output(),
                Machine::Server(server) => match server.poll_output() {
                    Output::Transmit(transmit) => Output::Transmit(transmit),
                    Output::Tcp(request) => Output::Tcp(request),
                    Output::Timeout(time, timer) => Output::Timeout(time, timer),
                    other => panic!("the server does not {other:?}"),
                },
            };
            match output {
                Output::Transmit(transmit) => {
                    self.transmit(index, transmit.socket, transmit.source, transmit.destination, transmit.payload);
                }
                Output::Udp(UdpRequest::Bind { socket, address }) if node.has_bound(address) => {
                    let error = holepunch::Error::new(holepunch::ErrorKind::AddressInUse, "in use");
                    node.tell(instant(self.net.now()), Input::UdpFailed { socket, error });
                }
                Output::Udp(UdpRequest::Bind { socket, mut address }) => {
                    if address.port() == 0 {
                        address.set_port(node.next_port);
                        node.next_port += 1;
                    }
                    node.sockets.insert(socket, address);
                    let now = instant(self.net.now());
                    let Machine::Peer(peer) = &mut node.machine else { panic!("a server binds nothing") };
                    peer.handle_input(now, Input::UdpBound { socket, local: address });
                }
                Output::Udp(UdpRequest::Close { socket }) => drop(node.sockets.remove(&socket)),
                Output::Tcp(request) => self.do_tcp(index, request),
                Output::Event(event) => {
                    if let PeerEvent::Connected { session, path, .. } = &event
                        && let Carrier::Stream(stream) = path.carrier
                    {
                        node.streams.get_mut(&stream).expect("a stream that is there").given = true;
                        node.given.insert(*session, stream);
                    }
                    if let PeerEvent::Bare { session } = event {
                        let path = node.path_of(session);
                        node.bare.insert((path.local.port(), path.remote), session);
                    }
                    node.events.push((self.net.now(), event));
                }
                Output::Log(..) => {}
                Output::Timeout(time, _) => {
                    node.wake = time.map(|time| Time(time.as_nanos()));
                    return;
                }
                other => panic!("unknown output {other:?}"),
            }
        }
    }

    /// Runs until the condition holds, or that much time has passed; whether it holds.
    pub(crate) fn run_until(&mut self, patience: Duration, mut done: impl FnMut(&Self) -> bool) -> bool {
        let end = self.net.now() + patience;
        loop {
            if done(self) {
                return true;
            }
            let wakes = self.nodes.iter().filter(|node| node.suspended.is_none()).filter_map(|node| node.wake);
            let Some(next) = wakes.chain(self.net.next_event()).min().filter(|next| *next <= end) else {
                self.net.advance_to(end);
                return done(self);
            };
            self.net.advance_to(next.max(self.net.now()));
            while let Some(delivery) = self.net.poll_delivery() {
                self.deliver(delivery);
            }
            while let Some((host, event)) = self.net.poll_tcp() {
                self.handle_tcp(host, event);
            }
            for index in 0..self.nodes.len() {
                let is_due = self.nodes[index].wake.is_some_and(|wake| wake <= self.net.now());
                if is_due && self.nodes[index].suspended.is_none() {
                    let now = instant(self.net.now());
                    match &mut self.nodes[index].machine {
                        Machine::Peer(peer) => drop(peer.handle_input(now, Input::Timeout)),
                        Machine::Server(server) => server.handle_input(now, Input::Timeout),
                    }
                    self.drain(index);
                }
            }
        }
    }

    /// Stops a node's process: nothing is processed, and its clock goes on. Only for nodes without TCP.
    pub(crate) fn suspend(&mut self, node: NodeId) {
        self.nodes[node.0].suspended = Some(Vec::new());
    }

    /// Lets it go on: it learns of the time first, and then of what has arrived, which is the harder order.
    pub(crate) fn resume(&mut self, node: NodeId) {
        let held = self.nodes[node.0].suspended.take().unwrap_or_default();
        let now = instant(self.net.now());
        self.nodes[node.0].tell(now, Input::Timeout);
        self.drain(node.0);
        for delivery in held {
            self.deliver(delivery);
        }
    }

    pub(crate) fn run_for(&mut self, time: Duration) {
        self.run_until(time, |_| false);
    }

    /// Runs until a listener is registered at its server.
    pub(crate) fn run_until_registered(&mut self, node: NodeId) {
        let registered = |world: &Self| world.node(node).any(|event| matches!(event, PeerEvent::Registered { .. }));
        assert!(self.run_until(Duration::from_secs(20), registered), "not registered; seed {}", self.seed);
    }
}

impl Node {
    /// Whether a socket has this port.
    fn has_bound(&self, address: SocketAddr) -> bool {
        let is_it = |bound: &&SocketAddr| bound.is_ipv6() == address.is_ipv6() && bound.port() == address.port();
        address.port() != 0 && self.sockets.values().any(|bound| is_it(&bound))
    }

    /// Tells the machine something.
    fn tell(&mut self, now: Instant, input: Input<'_>) {
        match &mut self.machine {
            Machine::Peer(peer) => drop(peer.handle_input(now, input)),
            Machine::Server(server) => server.handle_input(now, input),
        }
    }

    fn stream_of(&self, connection: TcpConnection) -> Option<StreamId> {
        self.streams.iter().find(|(_, stream)| stream.connection == connection).map(|(id, _)| *id)
    }

    /// Whether some event has happened.
    pub(crate) fn any(&self, is_it: impl Fn(&PeerEvent) -> bool) -> bool {
        self.events.iter().any(|(_, event)| is_it(event))
    }

    fn path_of(&self, session: SessionId) -> Path {
        let path = self.events.iter().find_map(|(_, event)| match event {
            PeerEvent::Connected { session: connected, path, .. } if *connected == session => Some(*path),
            _ => None,
        });
        path.expect("a session that was connected")
    }

    /// When an event has happened first.
    pub(crate) fn time_of(&self, is_it: impl Fn(&PeerEvent) -> bool) -> Option<Time> {
        self.events.iter().find(|(_, event)| is_it(event)).map(|(time, _)| *time)
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.any(|event| matches!(event, PeerEvent::Connected { .. }))
    }
}

fn kind_of(error: netsim::TcpError) -> holepunch::ErrorKind {
    match error {
        netsim::TcpError::InUse => holepunch::ErrorKind::AddressInUse,
        netsim::TcpError::NoAddress | netsim::TcpError::Released => holepunch::ErrorKind::Io,
    }
}

/// Any address of both families.
pub(crate) fn any() -> Vec<SocketAddr> {
    vec!["0.0.0.0:0".parse().unwrap(), "[::]:0".parse().unwrap()]
}

fn instant(time: Time) -> Instant {
    Instant::from_nanos(time.as_nanos())
}
