//! A peer by hand, in virtual time. Everything that it does is counted, and goes to the [`Outside`], which answers.
//!
//! What must hold whatever happens is looked at here: each input comes to an end, and so do wake-ups that are due;
//! nothing is sent that is longer than a message may be.

use crate::outside::{Outside, SERVER, addr, the_peer};
use holepunch::{
    config::PeerConfig,
    machine::{Input, Instant, Output, PortId, SocketId, StreamId, TcpRequest, UdpRequest},
    peer::{Carrier, ConnectRequest, ListenRequest, ListenerId, Peer, PeerEvent, Transport},
    wire::stun::{SessionId, Transports, WireCandidate},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

/// One way from the outside. A refusal takes no time: more cannot be provoked.
const LATENCY: Duration = Duration::from_millis(1);
/// Outputs of one input, and wake-ups at one moment.
const MAX_OUTPUTS: usize = 4096;
const MAX_WAKES: usize = 4;

/// What reaches the peer.
#[derive(Clone, Debug)]
pub(crate) enum Arrives {
    /// From there.
    Datagram(SocketAddr, Vec<u8>),
    /// A connect of its succeeds, or a connection is over.
    Connected(StreamId),
    Failed(StreamId),
    /// Somebody connects to its port.
    Accepted(PortId, SocketAddr),
    Bytes(StreamId, Vec<u8>),
}

pub(crate) struct Victim {
    pub(crate) peer: Peer,
    pub(crate) outside: Outside,
    pub(crate) now: Instant,
    pub(crate) socket: SocketId,
    listener: Option<ListenerId>,
    mail: BTreeMap<(Instant, u64), Arrives>,
    letters: u64,
    /// Datagrams and bytes, by where they went; the server's apart.
    pub(crate) sent: BTreeMap<SocketAddr, (usize, usize)>,
    pub(crate) to_server: usize,
    /// Connects, by where they went, and those under way; the server's are not among them.
    pub(crate) connects: BTreeMap<SocketAddr, usize>,
    under_way: BTreeSet<StreamId>,
    /// The most of them at a time.
    pub(crate) most_under_way: usize,
    /// What it holds of TCP, with what was not taken of each connection; a descriptor each.
    pub(crate) ports: BTreeSet<PortId>,
    pub(crate) streams: BTreeMap<StreamId, Vec<u8>>,
    /// The most of them at a time.
    pub(crate) most_descriptors: usize,
    accepted: u32,
    /// Sessions that were introduced and have come to nothing else, and the most of them at a time.
    pub(crate) pending: BTreeSet<SessionId>,
    pub(crate) most_pending: usize,
    pub(crate) events: Vec<(Instant, PeerEvent)>,
    /// All datagrams that have arrived.
    pub(crate) arrived: Vec<Vec<u8>>,
    /// Instead of the datagram of this number these arrive.
    pub(crate) tamper: Option<(usize, Vec<Vec<u8>>)>,
}

impl Victim {
    pub(crate) fn new() -> Self {
        Self {
            peer: Peer::new(PeerConfig::default(), [5; 32]),
            outside: Outside::new(),
            now: Instant::from_nanos(0),
            socket: SocketId(0),
            listener: None,
            mail: BTreeMap::new(),
            letters: 0,
            sent: BTreeMap::new(),
            to_server: 0,
            connects: BTreeMap::new(),
            under_way: BTreeSet::new(),
            most_under_way: 0,
            ports: BTreeSet::new(),
            streams: BTreeMap::new(),
            most_descriptors: 0,
            accepted: 0,
            pending: BTreeSet::new(),
            most_pending: 0,
            events: Vec::new(),
            arrived: Vec::new(),
            tamper: None,
        }
    }

    /// A listener, registered with an honest server.
    pub(crate) fn listening() -> Self {
        Self::listening_at("0.0.0.0:0")
    }

    pub(crate) fn listening_at(bind: &str) -> Self {
        let mut victim = Self::new();
        victim.listen_at(bind);
        victim.run(Duration::from_millis(100));
        assert!(victim.any(|event| matches!(event, PeerEvent::Registered { .. })));
        victim
    }

    pub(crate) fn listen(&mut self) {
        self.listen_at("0.0.0.0:0");
    }

    fn listen_at(&mut self, bind: &str) {
        let request = ListenRequest {
            transports: Transports { udp: true, tcp: true },
            name: Some("bob".parse().unwrap()),
            servers: vec![addr(SERVER).into()],
            bind: vec![addr(bind)],
            secret: None,
            prefer_port: None,
            legacy: false,
        };
        self.listener = Some(self.peer.listen(self.now, request).unwrap());
        self.drain();
    }

    pub(crate) fn connect(&mut self, transport: Transport) -> SessionId {
        let request = ConnectRequest {
            transport,
            target: "alice".parse().unwrap(),
            servers: vec![addr(SERVER).into()],
            bind: vec![addr("0.0.0.0:0")],
            secret: None,
            wait: Duration::ZERO,
            timeout: Duration::from_secs(30),
            prefer_port: None,
            legacy: false,
        };
        let session = self.peer.connect(self.now, request).unwrap();
        self.drain();
        session
    }

    /// The server introduces a connector.
    pub(crate) fn introduce(&mut self, session: u8, transport: Transport, candidates: &[WireCandidate]) {
        let message = self.outside.introduction(SessionId([session; 16]), transport, candidates);
        self.arrive(SERVER, &message);
    }

    /// Introduces an honest peer, which answers, and runs until there is a connection.
    pub(crate) fn meets_honest_peer(&mut self, session: u8, transport: Transport) -> bool {
        self.outside.be_honest();
        for _ in 0..100 {
            if self.is_connected(SessionId([session; 16])) {
                return true;
            }
            self.introduce(session, transport, &the_peer());
            self.run(Duration::from_millis(400));
        }
        false
    }

    pub(crate) fn arrive(&mut self, remote: &str, payload: &[u8]) {
        self.deliver(Arrives::Datagram(addr(remote), payload.to_vec()));
    }

    /// Somebody connects to each of its ports.
    pub(crate) fn accept(&mut self, remote: &str) -> Vec<StreamId> {
        let before = self.accepted;
        for port in self.ports.clone() {
            self.deliver(Arrives::Accepted(port, addr(remote)));
        }
        (before..self.accepted).map(|number| StreamId(StreamId::FIRST_ACCEPTED + number)).collect()
    }

    pub(crate) fn deliver(&mut self, arrives: Arrives) {
        let now = self.now;
        match arrives {
            Arrives::Datagram(remote, payload) => {
                let number = self.arrived.len();
                let instead = self.tamper.take_if(|(wanted, _)| *wanted == number);
                let all = instead.map_or_else(|| vec![payload.clone()], |(_, instead)| instead);
                self.arrived.push(payload);
                let (socket, local) = (self.socket, addr("10.0.1.2:5000"));
                for payload in &all {
                    self.peer.handle_input(now, Input::Datagram { socket, local, remote, payload });
                    self.drain();
                }
            }
            Arrives::Connected(stream) if self.streams.contains_key(&stream) => {
                self.under_way.remove(&stream);
                self.peer.handle_input(now, Input::TcpConnected { stream, local: addr("10.0.1.2:5001") });
            }
            Arrives::Failed(stream) if self.streams.remove(&stream).is_some() => {
                self.under_way.remove(&stream);
                self.peer.handle_input(now, Input::TcpFailed { stream, at_once: false });
            }
            Arrives::Accepted(port, remote) if self.ports.contains(&port) => {
                let stream = StreamId(StreamId::FIRST_ACCEPTED + self.accepted);
                self.accepted += 1;
                self.hold(stream);
                let local = addr("10.0.1.2:5001");
                self.peer.handle_input(now, Input::TcpAccepted { port, stream, local, remote });
            }
            Arrives::Bytes(stream, bytes) => self.bring(stream, &bytes),
            Arrives::Connected(_) | Arrives::Failed(_) | Arrives::Accepted(..) => {}
        }
        self.drain();
    }

    fn bring(&mut self, stream: StreamId, bytes: &[u8]) {
        let Some(unread) = self.streams.get_mut(&stream) else { return };
        unread.extend_from_slice(bytes);
        while let Some(unread) = self.streams.get_mut(&stream) {
            let taken = self.peer.handle_stream_data(self.now, stream, unread);
            unread.drain(..taken);
            self.drain();
            if taken == 0 {
                break;
            }
        }
    }

    fn hold(&mut self, stream: StreamId) {
        assert!(self.streams.insert(stream, Vec::new()).is_none(), "{stream:?} is used twice");
        self.most_descriptors = self.most_descriptors.max(self.ports.len() + self.streams.len());
    }

    fn post(&mut self, all: Vec<Arrives>) {
        for arrives in all {
            let latency = if matches!(arrives, Arrives::Failed(_)) { Duration::ZERO } else { LATENCY };
            self.letters += 1;
            self.mail.insert((self.now + latency, self.letters), arrives);
        }
    }

    /// Takes out what the peer does; when it wants to be woken.
    fn drain(&mut self) -> Option<Instant> {
        for _ in 0..MAX_OUTPUTS {
            match self.peer.poll_output() {
                Output::Transmit(transmit) => {
                    let (to, payload) = (transmit.destination, transmit.payload);
                    assert!(payload.len() <= 1200, "{} bytes to {to}", payload.len());
                    if to == addr(SERVER) {
                        self.to_server += 1;
                    } else {
                        let (count, bytes) = self.sent.entry(to).or_default();
                        *count += 1;
                        *bytes += payload.len();
                    }
                    let answers = self.outside.handle_datagram(to, &payload);
                    self.post(answers.into_iter().map(|answer| Arrives::Datagram(to, answer)).collect());
                }
                Output::Udp(UdpRequest::Bind { socket, .. }) => {
                    self.socket = socket;
                    self.peer.handle_input(self.now, Input::UdpBound { socket, local: addr("0.0.0.0:5000") });
                }
                Output::Tcp(request) => self.handle_tcp(&request),
                Output::Event(event) => self.note(event),
                Output::Timeout(wake, _) => return wake,
                _ => {}
            }
        }
        panic!("the outputs of one input have no end");
    }

    /// Ports are there for whoever asks.
    fn handle_tcp(&mut self, request: &TcpRequest) {
        match *request {
            TcpRequest::Reserve { port, .. } => {
                assert!(self.ports.insert(port), "{port:?} is reserved twice");
                self.peer.handle_input(self.now, Input::TcpReserved { port, local: addr("0.0.0.0:5001") });
            }
            TcpRequest::Release { port } => assert!(self.ports.remove(&port), "{port:?} is released twice"),
            TcpRequest::Connect { stream, remote, port } => {
                assert!(self.ports.contains(&port), "connects from a port that is there");
                self.hold(stream);
                if remote != addr(SERVER) {
                    *self.connects.entry(remote).or_default() += 1;
                    self.under_way.insert(stream);
                    self.most_under_way = self.most_under_way.max(self.under_way.len());
                }
            }
            TcpRequest::Close { stream } | TcpRequest::Abort { stream } => {
                self.streams.remove(&stream);
                self.under_way.remove(&stream);
            }
            TcpRequest::Listen { .. } | TcpRequest::Send { .. } => {}
        }
        let all = self.outside.handle_tcp(request);
        self.post(all);
    }

    fn note(&mut self, event: PeerEvent) {
        match &event {
            PeerEvent::Introduced { session, .. } => drop(self.pending.insert(*session)),
            PeerEvent::Failed { session, .. } => drop(self.pending.remove(session)),
            PeerEvent::Connected { session, path, .. } => {
                self.pending.remove(session);
                if let Carrier::Stream(stream) = path.carrier {
                    assert!(self.streams.remove(&stream).is_some(), "{stream:?} is given and not there");
                }
            }
            _ => {}
        }
        self.most_pending = self.most_pending.max(self.pending.len());
        self.events.push((self.now, event));
    }

    /// Lets so much time pass.
    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        let mut wakes = 0;
        loop {
            let wake = self.drain();
            let letter = self.mail.first_key_value().map(|((at, _), _)| *at);
            let Some(next) = wake.into_iter().chain(letter).min().filter(|next| *next <= end) else { break };
            wakes = if next > self.now { 0 } else { wakes };
            self.now = next.max(self.now);
            if letter.is_some_and(|at| at <= self.now) {
                let (_, arrives) = self.mail.pop_first().expect("it is there");
                self.deliver(arrives);
                wakes = 0;
            } else {
                wakes += 1;
                assert!(wakes <= MAX_WAKES, "wakes up for ever at {:?}", self.now);
                self.peer.handle_input(self.now, Input::Timeout);
            }
        }
        self.now = end;
    }

    /// Datagrams and bytes to anybody but the server.
    pub(crate) fn total(&self) -> (usize, usize) {
        self.sent.values().fold((0, 0), |(count, bytes), (more, longer)| (count + more, bytes + longer))
    }

    pub(crate) fn any(&self, is_it: impl Fn(&PeerEvent) -> bool) -> bool {
        self.events.iter().any(|(_, event)| is_it(event))
    }

    pub(crate) fn is_connected(&self, wanted: SessionId) -> bool {
        self.any(|event| matches!(event, PeerEvent::Connected { session, .. } if *session == wanted))
    }

    /// Ends everything; nothing may be left, and nothing to wait for.
    pub(crate) fn assert_rests(mut self) {
        self.outside.be_honest();
        if let Some(listener) = self.listener {
            self.peer.close_listener(self.now, listener);
        }
        let sessions: BTreeSet<_> = self.events.iter().filter_map(|(_, event)| session_of(event)).collect();
        for session in sessions {
            self.peer.close(self.now, session);
        }
        self.run(Duration::from_secs(60));
        assert_eq!((self.ports.len(), self.streams.len()), (0, 0), "descriptors are left");
        assert_eq!(self.drain(), None, "something is waited for: {:?}", self.peer);
    }
}

fn session_of(event: &PeerEvent) -> Option<SessionId> {
    match event {
        PeerEvent::Introduced { session, .. } | PeerEvent::Connected { session, .. } => Some(*session),
        _ => None,
    }
}
