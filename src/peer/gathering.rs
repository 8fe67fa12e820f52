//! What a stream session needs before it can punch: a fresh port of each family, listened on, and its mapped address,
//! asked of the server over a connection from that very port.
//!
//! That connection stays until the session is decided, since it keeps the NAT's mapping. A server that is known to
//! speak the current protocol (it has answered over UDP) is asked at once; another is sent the line `HOLEPUNCH/1` and
//! nothing more until it answers with the same, for a server of 2015 would stumble over anything else.

use alloc::vec::Vec;
use core::{net::SocketAddr, time::Duration};

use super::{session::Context, sockets::host_candidates};
use crate::{
    Error, Result,
    address::canonical,
    machine::{Instant, Level, Output, PortId, StreamId, TcpRequest},
    punch::CandidateKind,
    wire::{
        demux::frame_length,
        stun::{
            self, AttributeType, Builder, CandidateTransport, Class, GREETING, Message, Method, TransactionId,
            WireCandidate,
        },
    },
};

/// How far the conversation with the server over one port is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// There is none (yet).
    None,
    Connecting(StreamId),
    /// Connected; it is not known yet what the server speaks.
    Greeted(StreamId),
    Asked(StreamId, TransactionId),
    Answered(StreamId),
}

#[derive(Debug)]
struct Port {
    id: PortId,
    ipv6: bool,
    local: Option<Result<SocketAddr>>,
    state: State,
    /// When the server was called.
    called: Instant,
    mapped: Option<SocketAddr>,
}

/// The ports of one session.
#[derive(Debug)]
pub(super) struct Gathering {
    ports: Vec<Port>,
    servers: Vec<SocketAddr>,
    /// The servers have answered in the current protocol.
    current: bool,
    /// The time that connecting to a server took.
    rtt: Option<Duration>,
}

impl Gathering {
    /// Asks for a port at each of these addresses.
    pub(super) fn begin(cx: &mut Context<'_>, bind: &[SocketAddr]) -> Self {
        let ports = bind.iter().map(|address| {
            let id = PortId(*cx.next_port);
            *cx.next_port = cx.next_port.wrapping_add(1);
            cx.tcp(TcpRequest::Reserve { port: id, address: *address });
            Port { id, ipv6: address.is_ipv6(), local: None, state: State::None, called: cx.now, mapped: None }
        });
        Self { ports: ports.collect(), servers: Vec::new(), current: false, rtt: None }
    }

    pub(super) fn ports(&self) -> impl Iterator<Item = PortId> {
        self.ports.iter().map(|port| port.id)
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
        if any { None } else { self.ports.iter().find_map(|port| port.local.clone()?.err()) }
    }

    /// Notes what became of a port; one that is reserved is listened on at once.
    pub(super) fn handle_reserved(&mut self, cx: &mut Context<'_>, port: PortId, result: Result<SocketAddr>) {
        let Some(port) = self.ports.iter_mut().find(|known| known.id == port) else { return };
        if result.is_ok() {
            cx.tcp(TcpRequest::Listen { port: port.id });
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
        if !self.servers.contains(&server) {
            self.servers.retain(|known| known.is_ipv6() != server.is_ipv6());
            self.servers.push(server);
            for port in self.ports.iter_mut().filter(|port| port.ipv6 == server.is_ipv6() && port.mapped.is_none()) {
                if let Some(stream) = port.stream() {
                    cx.tcp(TcpRequest::Close { stream });
                }
                port.state = State::None;
            }
        }
        self.server_is_current(cx);
        self.connect(cx);
    }

    fn connect(&mut self, cx: &mut Context<'_>) {
        for port in &mut self.ports {
            let server = self.servers.iter().find(|server| server.is_ipv6() == port.ipv6);
            if port.mapped.is_some() {
                continue;
            }
            if let (State::None, Some(Ok(_)), Some(server)) = (port.state, &port.local, server) {
                let stream = cx.new_stream();
                port.state = State::Connecting(stream);
                port.called = cx.now;
                cx.tcp(TcpRequest::Connect { port: port.id, stream, remote: *server });
            }
        }
    }

    /// The server speaks the current protocol: what waited for that is asked.
    pub(super) fn server_is_current(&mut self, cx: &mut Context<'_>) {
        self.current = true;
        for port in &mut self.ports {
            if let State::Greeted(stream) = port.state {
                port.state = State::Asked(stream, ask(cx, stream));
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
        port.state = if current {
            State::Asked(stream, ask(cx, stream))
        } else {
            cx.tcp(TcpRequest::Send { stream, bytes: GREETING.to_vec() });
            State::Greeted(stream)
        };
    }

    pub(super) fn handle_failed(&mut self, cx: &mut Context<'_>, stream: StreamId) {
        if let Some(port) = self.ports.iter_mut().find(|port| port.stream() == Some(stream)) {
            if port.mapped.is_none() {
                cx.log(
                    Level::Info,
                    "the server does not take TCP; peers behind other NATs cannot be reached by it".into(),
                );
            }
            port.state = State::None;
            // Not again: whatever refused will refuse.
            self.servers.retain(|server| server.is_ipv6() != port.ipv6);
        }
    }

    /// Takes in what the server says; how much of it.
    pub(super) fn handle_data(&mut self, cx: &mut Context<'_>, stream: StreamId, bytes: &[u8]) -> usize {
        let Some(port) = self.ports.iter_mut().find(|port| port.stream() == Some(stream)) else { return 0 };
        if bytes.starts_with(GREETING) {
            self.server_is_current(cx);
            return GREETING.len();
        }
        if GREETING.starts_with(bytes) {
            return 0;
        }
        let Some(length) = frame_length(bytes) else { return 0 };
        let Some(length) = length else {
            cx.tcp(TcpRequest::Close { stream });
            port.state = State::None;
            return bytes.len();
        };
        let Some(frame) = bytes.get(..length) else { return 0 };
        if let (State::Asked(_, transaction), Ok(message)) = (port.state, Message::parse(frame))
            && message.transaction_id() == transaction
        {
            port.state = State::Answered(stream);
            port.mapped = message.xor_mapped_address().map(canonical);
        }
        length
    }

    /// All that the peer is to be told.
    pub(super) fn candidates(&self, cx: &Context<'_>) -> Vec<WireCandidate> {
        let locals: Vec<_> = self.reserved().map(|(_, local)| local).collect();
        let private = cx.config.private_candidates;
        let mut candidates = host_candidates(cx.interfaces, &locals, CandidateTransport::Tcp, private);
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

    /// Gives everything back.
    pub(super) fn end(&mut self, outputs: &mut impl Extend<Output<super::PeerEvent>>) {
        for port in &self.ports {
            if let Some(stream) = port.stream() {
                outputs.extend([Output::Tcp(TcpRequest::Close { stream })]);
            }
            outputs.extend([Output::Tcp(TcpRequest::Release { port: port.id })]);
        }
    }
}

impl Port {
    const fn stream(&self) -> Option<StreamId> {
        match self.state {
            State::None => None,
            State::Connecting(stream) | State::Greeted(stream) | State::Asked(stream, _) | State::Answered(stream) => {
                Some(stream)
            }
        }
    }
}

/// Asks the server where it sees us.
fn ask(cx: &mut Context<'_>, stream: StreamId) -> TransactionId {
    let transaction = TransactionId(cx.random.bytes());
    let request = Builder::new(Class::Request, Method::BINDING, transaction)
        .attribute(AttributeType::SOFTWARE, b"holepunch")
        .fingerprint()
        .finish();
    cx.tcp(TcpRequest::Send { stream, bytes: request });
    transaction
}
