//! What a stream session needs before it can punch: a port of each family, listened on, and its mapped address, asked
//! of the server over a connection from that very port.
//!
//! The port is fresh, unless the program has chosen it: then it serves one session at a time, and only where the choice
//! was a preference another takes its place.
//!
//! Where the peer may turn out to be of 2015, nothing is listened on before it is known to be current: a peer of 2015 that
//! was told of us connects at once, and a listener that goes away would have taken its one connection.
//!
//! That connection stays until the session is decided, since it keeps the NAT's mapping. A server that is known to
//! speak the current protocol (it has answered over UDP) is asked at once; another is sent the line `HOLEPUNCH/1` and
//! nothing more until it answers with the same, for a server of 2015 would stumble over anything else.

use alloc::vec::Vec;
use core::{net::SocketAddr, time::Duration};

use super::{
    context::Context,
    early::Early,
    sockets::{Wanted, host_candidates},
};
use crate::{
    Error, ErrorKind, Result,
    address::canonical,
    machine::{Instant, Level, Output, PortId, StreamId, TcpRequest},
    punch::CandidateKind,
    rendezvous::client::{Connection, Read},
    wire::stun::{
        self, AttributeType, Builder, CandidateTransport, Class, Message, Method, TransactionId, WireCandidate,
    },
};

#[derive(Debug)]
struct Port {
    id: PortId,
    wanted: Wanted,
    local: Option<Result<SocketAddr>>,
    /// The conversation with the server over this port.
    connection: Option<Connection>,
    asked: Option<TransactionId>,
    /// When the server was called.
    called: Instant,
    mapped: Option<SocketAddr>,
}

/// The ports of one session.
#[derive(Debug)]
pub(super) struct Gathering {
    ports: Vec<Port>,
    /// Whether ports are listened on: the peer is current.
    listens: bool,
    servers: Vec<SocketAddr>,
    /// The servers have answered in the current protocol.
    current: bool,
    /// The time that connecting to a server took.
    rtt: Option<Duration>,
    /// What was accepted at the ports before the introduction.
    pub(super) early: Early,
}

impl Gathering {
    /// Asks for a port at each of these addresses. With `legacy` the peer may be of 2015, until a server introduces it.
    pub(super) fn begin(cx: &mut Context<'_>, wanted: &[Wanted], legacy: bool) -> Self {
        let ports = wanted.iter().map(|wanted| {
            let id = cx.new_port();
            cx.tcp(TcpRequest::Reserve { port: id, address: wanted.address });
            let (local, called) = (None, cx.now);
            Port { id, wanted: *wanted, local, connection: None, asked: None, called, mapped: None }
        });
        let (ports, early) = (ports.collect(), Early::default());
        Self { ports, listens: !legacy, servers: Vec::new(), current: false, rtt: None, early }
    }

    /// The ports that are reserved, with their local addresses.
    pub(super) fn reserved(&self) -> impl Iterator<Item = (PortId, SocketAddr)> {
        self.ports.iter().filter_map(|port| Some((port.id, *port.local.as_ref()?.as_ref().ok()?)))
    }

    /// The round-trip time to a server.
    pub(super) const fn server_rtt(&self) -> Option<Duration> {
        self.rtt
    }

    /// Whether the driver has answered for all ports.
    pub(super) fn is_answered(&self) -> bool {
        self.ports.iter().all(|port| port.local.is_some())
    }

    /// Why no port at all could be reserved.
    pub(super) fn error(&self) -> Option<Error> {
        let any = self.reserved().next().is_some();
        let error = if any { None } else { self.ports.iter().find_map(|port| port.local.clone()?.err()) };
        error.map(|error| {
            if error.kind() == ErrorKind::AddressInUse {
                return error.with_hint(
                    "a fixed port serves one stream at a time while it is looked for; wait, choose another port, or leave the choice to the system (port 0)",
                );
            }
            error
        })
    }

    /// Notes what became of a port; one that is reserved is listened on at once.
    pub(super) fn handle_reserved(&mut self, cx: &mut Context<'_>, port: PortId, result: Result<SocketAddr>) {
        let Some(port) = self.ports.iter_mut().find(|known| known.id == port) else { return };
        match result {
            Ok(_) if self.listens => cx.tcp(TcpRequest::Listen { port: port.id }),
            Ok(_) => {}
            Err(_) if port.wanted.or_any => return port.take_any(cx),
            Err(_) => {}
        }
        port.local = Some(result);
        self.connect(cx);
    }

    /// Asks these servers, at most one of each family, for the mapped addresses.
    pub(super) fn ask(&mut self, cx: &mut Context<'_>, servers: &[SocketAddr]) {
        for server in servers {
            if self.servers.iter().all(|known| known.is_ipv6() != server.is_ipv6()) {
                self.servers.push(*server);
            }
        }
        self.connect(cx);
    }

    /// This server has introduced us, in the current protocol: it is the one to ask, unless another has answered.
    pub(super) fn introduced_by(&mut self, cx: &mut Context<'_>, server: SocketAddr) {
        if !self.listens {
            self.listens = true;
            for port in self.ports.iter().filter(|port| matches!(port.local, Some(Ok(_)))) {
                cx.tcp(TcpRequest::Listen { port: port.id });
            }
        }
        if !self.servers.contains(&server) {
            self.servers.retain(|known| known.is_ipv6() != server.is_ipv6());
            self.servers.push(server);
            for port in self.ports.iter_mut().filter(|port| port.is_ipv6() == server.is_ipv6() && port.mapped.is_none())
            {
                if let Some(stream) = port.stream() {
                    cx.tcp(TcpRequest::Close { stream });
                }
                port.connection = None;
            }
        }
        self.server_is_current(cx);
        self.connect(cx);
    }

    fn connect(&mut self, cx: &mut Context<'_>) {
        for port in &mut self.ports {
            let server = self.servers.iter().find(|server| server.is_ipv6() == port.is_ipv6());
            if port.mapped.is_some() {
                continue;
            }
            if let (None, Some(Ok(_)), Some(server)) = (&port.connection, &port.local, server) {
                let stream = cx.new_stream();
                port.connection = Some(Connection::new(stream));
                port.called = cx.now;
                cx.tcp(TcpRequest::Connect { port: port.id, stream, remote: *server });
            }
        }
    }

    /// The server speaks the current protocol: what waited for that is asked.
    pub(super) fn server_is_current(&mut self, cx: &mut Context<'_>) {
        self.current = true;
        for port in &mut self.ports {
            if port.connection.as_mut().is_some_and(Connection::server_is_current) {
                port.ask(cx);
            }
        }
    }

    pub(super) fn owns(&self, stream: StreamId) -> bool {
        self.ports.iter().any(|port| port.stream() == Some(stream))
    }

    pub(super) fn handle_connected(&mut self, cx: &mut Context<'_>, stream: StreamId) {
        let current = self.current;
        let Some(port) = self.ports.iter_mut().find(|port| port.stream() == Some(stream)) else { return };
        self.rtt = Some(cx.now.saturating_since(port.called));
        let Some(connection) = &mut port.connection else { return };
        match connection.handle_connected(current) {
            Some(greeting) => cx.tcp(greeting),
            None => port.ask(cx),
        }
    }

    /// A connection has failed; `at_once`: the system itself would not make it.
    pub(super) fn handle_failed(&mut self, cx: &mut Context<'_>, stream: StreamId, at_once: bool) {
        let Some(port) = self.ports.iter_mut().find(|port| port.stream() == Some(stream)) else { return };
        port.connection = None;
        if at_once && port.wanted.or_any && port.mapped.is_none() {
            // A connection from that port to the server has not rested for long enough.
            cx.outputs.push_back(Output::Tcp(TcpRequest::Release { port: port.id }));
            return port.take_any(cx);
        }
        if port.mapped.is_none() {
            cx.log(Level::Info, "the server does not take TCP; peers behind other NATs cannot be reached by it".into());
        }
        // Not again: whatever refused will refuse.
        let ipv6 = port.is_ipv6();
        self.servers.retain(|server| server.is_ipv6() != ipv6);
    }

    /// Takes in what the server says; how much of it.
    pub(super) fn handle_data(&mut self, cx: &mut Context<'_>, stream: StreamId, bytes: &[u8]) -> usize {
        let Some(port) = self.ports.iter_mut().find(|port| port.stream() == Some(stream)) else { return 0 };
        let Some(connection) = &port.connection else { return 0 };
        match connection.read(bytes) {
            Read::Nothing => 0,
            Read::Greeting(length) => {
                self.server_is_current(cx);
                length
            }
            Read::Message(length) => {
                let message = bytes.get(..length).and_then(|frame| Message::parse(frame).ok());
                if let Some(message) = message.filter(|message| Some(message.transaction_id()) == port.asked) {
                    port.asked = None;
                    port.mapped = message.xor_mapped_address().map(canonical);
                }
                length
            }
            Read::Nonsense => {
                cx.tcp(TcpRequest::Close { stream });
                port.connection = None;
                bytes.len()
            }
        }
    }

    /// All that the peer is to be told.
    pub(super) fn candidates(&self, cx: &Context<'_>) -> Vec<WireCandidate> {
        let locals: Vec<_> = self.reserved().map(|(_, local)| local).collect();
        let private = cx.config.private_candidates;
        let mut candidates = host_candidates(cx.sockets.interfaces(), &locals, CandidateTransport::Tcp, private);
        for mapped in self.ports.iter().filter_map(|port| port.mapped) {
            if candidates.iter().all(|known| known.address != mapped) {
                candidates.push(WireCandidate {
                    kind: stun::CandidateKind::ServerReflexiveClaimed,
                    transport: CandidateTransport::Tcp,
                    priority: CandidateKind::ServerReflexive.priority(mapped.ip()),
                    address: mapped,
                });
            }
        }
        candidates
    }

    /// Gives everything back. From a port of our choice the server may be called again soon; but a server that has not
    /// spoken the current protocol may be one of 2015, and a RST would be its end.
    pub(super) fn end(&mut self, outputs: &mut impl Extend<Output<super::PeerEvent>>) {
        for port in &self.ports {
            if let Some(connection) = &port.connection {
                let stream = connection.stream();
                let aborts = port.wanted.address.port() != 0 && connection.is_open();
                let request = if aborts { TcpRequest::Abort { stream } } else { TcpRequest::Close { stream } };
                outputs.extend([Output::Tcp(request)]);
            }
            outputs.extend([Output::Tcp(TcpRequest::Release { port: port.id })]);
        }
    }
}

impl Port {
    const fn is_ipv6(&self) -> bool {
        self.wanted.address.is_ipv6()
    }

    fn stream(&self) -> Option<StreamId> {
        self.connection.as_ref().map(Connection::stream)
    }

    /// The port that was preferred is not to be had: another one takes its place.
    fn take_any(&mut self, cx: &mut Context<'_>) {
        self.wanted = self.wanted.any();
        self.local = None;
        cx.tcp(TcpRequest::Reserve { port: self.id, address: self.wanted.address });
    }

    /// Asks the server where it sees us.
    fn ask(&mut self, cx: &mut Context<'_>) {
        let Some(stream) = self.stream() else { return };
        let transaction = TransactionId(cx.random.bytes());
        let request = Builder::new(Class::Request, Method::BINDING, transaction)
            .attribute(AttributeType::SOFTWARE, b"holepunch")
            .fingerprint()
            .finish();
        cx.tcp(TcpRequest::Send { stream, bytes: request });
        self.asked = Some(transaction);
    }
}
