//! A connector's search for its listener: asks the servers, 300 ms apart, over every family, until one introduces it.
//!
//! Each ask is a CONNECT that is answered with a cookie, repeated with it, and answered with the listener's key and
//! addresses. A server that does not know the listener is asked again, less and less often, while the caller waits.
//! So is one that is at a limit: its, or our network's, which many connects at once have reached.
//! After an introduction the other servers are left alone; the families of the one that made it go on, and at once, since
//! each shows the listener one more of our addresses; and the CONNECT is repeated until the listener was heard, since the
//! server does not repeat an introduction that was lost on its way.
//!
//! A server that says nothing over UDP is to be called over TCP, and asked along that connection too, as long as it was
//! not heard over UDP.

use alloc::{format, vec::Vec};
use core::{net::SocketAddr, time::Duration};

use super::{
    Call, From, LegacyPeer, MAX_REFUSED_SENDS, ToServer, Via, candidates, legacy_peer,
    registration::silent,
    transaction::{Due, Transaction},
};
use crate::{
    Error, ErrorKind,
    address::canonical,
    config::Retransmission,
    machine::{BoundSocket, Instant, NextWake, Random, StreamId, Timer},
    rendezvous::{ServerAddress, codes},
    wire::stun::{
        AttributeType, Builder, CandidateTransport, Class, Message, Method, Name, SessionId, TransactionId, Transports,
        WireCandidate,
    },
};

/// Whom to look for; the peer's target without its wording.
#[derive(Clone, Debug)]
pub(crate) enum Asked {
    Name(Name),
    Address(core::net::IpAddr),
}

/// What every ask says.
#[derive(Clone, Debug)]
pub(crate) struct LookupRequest {
    pub(crate) session: SessionId,
    pub(crate) asked: Asked,
    pub(crate) public_key: [u8; 32],
    pub(crate) transports: Transports,
    pub(crate) candidates: Vec<WireCandidate>,
    /// Whether a peer of 2015 may be introduced: only where an IPv4 address is asked for.
    pub(crate) legacy: bool,
}

/// Whom an answer introduces.
#[derive(Debug)]
pub(crate) enum Found<'a> {
    Peer(LookupResult<'a>),
    Legacy(LegacyPeer),
}

/// What an answer brings.
#[derive(Debug)]
pub(crate) struct LookupResult<'a> {
    pub(crate) public_key: [u8; 32],
    pub(crate) candidates: Vec<WireCandidate>,
    pub(crate) route: &'a [u8],
}

/// How a server is asked on that has introduced us, when the listener was not heard within the time of silence: a listener
/// whose NAT has moved it is told of us once its keepalive, at most 25 s later, has told the server where it is.
const PATIENT: Retransmission = Retransmission {
    initial: Duration::from_secs(2),
    maximum: Duration::from_secs(2),
    silence: Duration::from_secs(20),
    tcp_after: Duration::MAX,
    tcp_interval: Duration::MAX,
};

#[derive(Debug)]
struct Ask {
    server: usize,
    via: Via,
    address: SocketAddr,
    /// When it was asked first.
    asked: Option<Instant>,
    /// Whether the server has said anything, and more than to challenge us.
    heard: bool,
    answered: bool,
    /// Whether a connection beside it was asked for.
    called: bool,
    cookie: Option<Vec<u8>>,
    /// Where the server sees us.
    mapped: Option<SocketAddr>,
    /// It has introduced us long ago, and the listener was not heard: it is asked less often, for as long as we look.
    is_patient: bool,
    /// Sends that the system refused since the server was heard.
    refused_sends: u8,
    state: State,
    /// The request before, which was answered "not found": a repetition of it may have found the listener since.
    before: Option<TransactionId>,
    /// How long to rest after the next "not found", or "too much".
    backoff: Duration,
}

impl Ask {
    /// The timing of its requests.
    fn timing(&self, config: &Retransmission) -> Retransmission {
        match (self.is_patient, self.via.is_tcp()) {
            (true, _) => PATIENT,
            (false, true) => config.over_tcp(),
            (false, false) => *config,
        }
    }

    const fn new(server: usize, via: Via, address: SocketAddr, start: Instant, config: &Retransmission) -> Self {
        Self {
            server,
            via,
            address,
            asked: None,
            heard: false,
            answered: false,
            called: false,
            cookie: None,
            mapped: None,
            is_patient: false,
            refused_sends: 0,
            state: State::Waiting(start),
            before: None,
            backoff: config.initial,
        }
    }

    /// When the server is to be called over TCP, should it not be heard before.
    fn call_due(&self, config: &Retransmission) -> Option<Instant> {
        if self.via.is_tcp() || self.heard || self.called {
            return None;
        }
        let is_given_up = matches!(self.state, State::Done);
        self.asked.map(|asked| if is_given_up { asked } else { asked + config.tcp_after })
    }
}

#[derive(Debug)]
enum State {
    /// Begins then.
    Waiting(Instant),
    Asking(Transaction),
    /// It introduced us; repeated until the listener was heard.
    Introduced(Transaction),
    Done,
}

/// What one server has said, whichever way it was asked.
#[derive(Debug)]
struct Server {
    address: ServerAddress,
    verdict: Option<Error>,
}

/// The search.
#[derive(Debug)]
pub(crate) struct Lookup {
    config: Retransmission,
    max_backoff: Duration,
    request: LookupRequest,
    servers: Vec<Server>,
    asks: Vec<Ask>,
    /// Until when a listener that is not there, or a server that has too much to do, is asked for again.
    wait_until: Instant,
    introduced_by: Option<usize>,
    /// The listener was heard.
    is_met: bool,
}

impl Lookup {
    pub(crate) fn new(
        config: Retransmission,
        max_backoff: Duration,
        request: LookupRequest,
        servers: Vec<ServerAddress>,
        wait_until: Instant,
    ) -> Self {
        let servers = servers.into_iter().map(|address| Server { address, verdict: None }).collect();
        Self { config, max_backoff, request, servers, asks: Vec::new(), wait_until, introduced_by: None, is_met: false }
    }

    /// Begins to ask over these sockets: the first server now, each further one so much later.
    pub(crate) fn start(
        &mut self,
        now: Instant,
        stagger: Duration,
        sockets: &[BoundSocket],
        candidates: Vec<WireCandidate>,
    ) {
        self.request.candidates = candidates;
        let mut start = now;
        for (number, server) in self.servers.iter().enumerate() {
            let before = self.asks.len();
            // A listener of 2015 can be told of no other address, and not be found from one; what the server says over the
            // other family would be of somebody else, or too early.
            let reaches = |socket: &&BoundSocket| {
                let is_here = |address: SocketAddr| socket.has_address || address.ip().is_loopback();
                !socket.is_ipv6() && server.address.ipv4.is_some_and(is_here)
            };
            let ipv4_only = self.request.legacy && sockets.iter().any(|socket| reaches(&socket));
            for socket in sockets.iter().filter(|socket| !(ipv4_only && socket.is_ipv6())) {
                let address = if socket.is_ipv6() { server.address.ipv6 } else { server.address.ipv4 };
                let Some(address) = address else { continue };
                self.asks.push(Ask::new(number, Via::Udp(socket.id), address, start, &self.config));
            }
            if self.asks.len() > before {
                start = start + stagger;
            }
        }
    }

    /// Which servers are to be called over TCP from now on: those that have said nothing over UDP for too long. Each is
    /// told once.
    pub(crate) fn take_calls(&mut self, now: Instant) -> Vec<Call> {
        let mut calls = Vec::new();
        for number in 0..self.servers.len() {
            let is_superseded = self.introduced_by.is_some_and(|introducer| introducer != number);
            let is_heard = self.asks.iter().any(|ask| ask.server == number && ask.heard && !ask.via.is_tcp());
            let is_unwanted = is_superseded || is_heard || self.is_met;
            let config = self.config;
            for ask in self.asks.iter_mut().filter(|ask| ask.server == number) {
                if ask.call_due(&config).is_some_and(|due| now >= due) {
                    ask.called = true;
                    let deadline = ask.asked.map(|asked| asked + config.silence);
                    if !is_unwanted {
                        calls.push(Call { server: ask.address, deadline });
                    }
                }
            }
        }
        calls
    }

    /// Whether a connection to this server is of any use: it made the introduction, or may, and has not answered over UDP.
    pub(crate) fn needs(&self, server: SocketAddr) -> bool {
        let is_there = |ask: &&Ask| ask.address == server && !ask.via.is_tcp();
        let Some(number) = self.asks.iter().find(is_there).map(|ask| ask.server) else { return false };
        let is_superseded = self.introduced_by.is_some_and(|introducer| introducer != number);
        !is_superseded && !self.asks.iter().any(|ask| ask.server == number && ask.answered && !ask.via.is_tcp())
    }

    /// Asks along a connection that is open now.
    pub(crate) fn add_connection(&mut self, now: Instant, stream: StreamId, server: SocketAddr) {
        let is_there = |ask: &&Ask| ask.address == server && !ask.via.is_tcp();
        let Some(number) = self.asks.iter().find(is_there).map(|ask| ask.server) else { return };
        let mut ask = Ask::new(number, Via::Tcp(stream), server, now, &self.config);
        if self.is_met {
            ask.state = State::Done;
        }
        self.asks.push(ask);
    }

    /// A connection is no more.
    pub(crate) fn remove_connection(&mut self, stream: StreamId) {
        self.asks.retain(|ask| ask.via != Via::Tcp(stream));
    }

    /// Where the listener was told that we are, or the server sees our datagrams come from. Where a connection comes from
    /// is no candidate.
    pub(crate) fn told(&self) -> Vec<(SocketAddr, CandidateTransport)> {
        let claimed = self.request.candidates.iter().map(|candidate| (candidate.address, candidate.transport));
        let seen = self.asks.iter().filter(|ask| !ask.via.is_tcp()).filter_map(|ask| ask.mapped);
        claimed.chain(seen.map(|address| (address, CandidateTransport::Udp))).collect()
    }

    /// Our candidates, while they are still to be told.
    pub(crate) fn set_candidates(&mut self, candidates: Vec<WireCandidate>) {
        self.request.candidates = candidates;
    }

    /// The listener was heard: nothing more to ask.
    pub(crate) fn peer_heard(&mut self) {
        self.is_met = true;
        for ask in &mut self.asks {
            ask.state = State::Done;
        }
    }

    /// Whether the message answers one of our asks; if so it is taken in, and may bring an introduction.
    pub(crate) fn handle_answer<'a>(
        &mut self,
        now: Instant,
        random: &mut Random,
        from: From,
        message: &Message<'a>,
    ) -> Option<Option<Found<'a>>> {
        if message.method() != Method::CONNECT {
            return None;
        }
        let id = message.transaction_id();
        let config = self.config;
        let ask = self.asks.iter_mut().find(|ask| {
            let is_now = matches!(ask.state, State::Asking(known) | State::Introduced(known) if known.id == id);
            let is_late = ask.before == Some(id) && message.class() == Class::Success;
            ask.via == from.via && ask.address == from.remote && (is_now || is_late)
        })?;
        ask.refused_sends = 0;
        ask.heard = true;
        ask.mapped = message.xor_mapped_address().map(canonical).or(ask.mapped);
        let server = ask.server;
        let config = ask.timing(&config);
        match message.class() {
            Class::Success => {
                if self.request.legacy && message.legacy().is_some() {
                    let address = legacy_peer(from, message)?;
                    self.peer_heard();
                    return Some(Some(Found::Legacy(LegacyPeer { session: self.request.session, address })));
                }
                // A success that introduces nobody is no answer.
                let public_key = message.public_key()?;
                ask.answered = true;
                let is_first = !matches!(ask.state, State::Introduced(_));
                match ask.state {
                    State::Asking(transaction) => ask.state = State::Introduced(transaction),
                    State::Waiting(_) => ask.state = State::Introduced(Transaction::new(now, &config, random)),
                    State::Introduced(_) | State::Done => {}
                }
                if is_first && from.via.is_tcp() {
                    self.hurry_udp(now, server);
                }
                let introducer = *self.introduced_by.get_or_insert(server);
                for other in &mut self.asks {
                    match &mut other.state {
                        state if other.server != introducer => *state = State::Done,
                        // The listener is there by now.
                        State::Waiting(start) => *start = now.min(*start),
                        State::Asking(_) | State::Introduced(_) | State::Done => {}
                    }
                }
                Some(Some(Found::Peer(LookupResult {
                    public_key,
                    candidates: candidates(from, message),
                    route: message.route().unwrap_or_default(),
                })))
            }
            Class::Error => {
                let code = message.error_code().map_or(0, |error| error.code);
                match (code, message.nonce()) {
                    (codes::UNAUTHENTICATED | codes::STALE_NONCE, Some(cookie)) => {
                        ask.cookie = Some(cookie.to_vec());
                        if let State::Asking(transaction) | State::Introduced(transaction) = &mut ask.state {
                            *transaction = transaction.again(now, &config, random);
                        }
                    }
                    (codes::NOT_FOUND | codes::INSUFFICIENT_CAPACITY, _) if now + ask.backoff <= self.wait_until => {
                        ask.answered = true;
                        ask.before = Some(id);
                        ask.state = State::Waiting(now + ask.backoff);
                        ask.backoff = (ask.backoff * 2).min(self.max_backoff);
                        self.start_next_server(now, server);
                    }
                    _ => {
                        ask.answered = true;
                        // What one family was told the others of this server need not ask again.
                        for same in self.asks.iter_mut().filter(|same| same.server == server) {
                            if !matches!(same.state, State::Introduced(_)) {
                                same.state = State::Done;
                            }
                        }
                        self.note(server, code);
                        self.start_next_server(now, server);
                    }
                }
                Some(None)
            }
            Class::Request | Class::Indication => Some(None),
        }
    }

    /// The listener has been told of us along a connection, which shows it nothing of where our datagrams come from.
    fn hurry_udp(&mut self, now: Instant, server: usize) {
        for ask in self.asks.iter_mut().filter(|ask| ask.server == server && !ask.via.is_tcp()) {
            if let State::Asking(transaction) = &mut ask.state {
                transaction.hurry(now, &self.config);
            }
        }
    }

    /// The system would not send there.
    pub(crate) fn handle_send_failed(&mut self, to: From, error: &Error) {
        for ask in self.asks.iter_mut().filter(|ask| ask.via == to.via && ask.address == to.remote) {
            ask.refused_sends = ask.refused_sends.saturating_add(1);
            if ask.refused_sends >= MAX_REFUSED_SENDS && matches!(ask.state, State::Asking(_)) {
                ask.state = State::Done;
                if let Some(server) = self.servers.get_mut(ask.server)
                    && server.verdict.is_none()
                {
                    let message = format!("the server {} cannot be reached: {}", server.address.label, error.message());
                    let error = Error::new(ErrorKind::ServerUnreachable, message).with_os_code(error.os_code());
                    server.verdict = Some(error);
                }
            }
        }
    }

    /// A server that cannot help makes the next one's turn come at once.
    fn start_next_server(&mut self, now: Instant, after: usize) {
        for ask in self.asks.iter_mut().filter(|ask| ask.server == after + 1) {
            if let State::Waiting(start) = &mut ask.state {
                *start = now.min(*start);
            }
        }
    }

    fn note(&mut self, server: usize, code: u16) {
        let kind = codes::kind(code);
        let asked = match &self.request.asked {
            Asked::Name(name) => format!("listener named \"{name}\""),
            Asked::Address(ip) => format!("listener at {ip}"),
        };
        let Some(server) = self.servers.get_mut(server) else { return };
        let label = &server.address.label;
        let message = match code {
            codes::NOT_FOUND => format!("no {asked} is registered at {label}"),
            codes::AMBIGUOUS => format!("more than one {asked} is registered at {label}"),
            codes::TRANSPORT_MISMATCH => format!("the {asked} does not offer this transport"),
            codes::VERSION_MISMATCH => format!("{label} speaks another version of the protocol"),
            codes::INSUFFICIENT_CAPACITY => {
                format!("{label} introduces no more for now, of all or of this network (error {code})")
            }
            _ => format!("{label} refused to introduce us to the {asked} (error {code})"),
        };
        server.verdict = Some(Error::new(kind, message));
    }

    /// Sends what is due; an error when no server can help any more, and none is being called (`calling`).
    pub(crate) fn handle_timeout(
        &mut self,
        now: Instant,
        random: &mut Random,
        calling: bool,
        messages: &mut Vec<ToServer>,
    ) -> Result<(), Error> {
        let mut fell_silent = Vec::new();
        for ask in &mut self.asks {
            let config = ask.timing(&self.config);
            if let State::Waiting(start) = ask.state
                && now >= start
            {
                ask.asked.get_or_insert(now);
                ask.state = State::Asking(Transaction::new(now, &config, random));
            }
            let (State::Asking(transaction) | State::Introduced(transaction)) = &mut ask.state else { continue };
            match transaction.poll(now, &config) {
                Due::Nothing => {}
                Due::Send => {
                    let payload = request(transaction.id, &self.request, ask.cookie.as_deref());
                    messages.push(ToServer { via: ask.via, server: ask.address, payload });
                }
                // The listener was not heard: it may be elsewhere by now, and the server does not know it yet.
                Due::Silent if matches!(ask.state, State::Introduced(_)) => {
                    ask.is_patient = true;
                    ask.state = State::Introduced(Transaction::new(now, &PATIENT, random));
                }
                Due::Silent => {
                    ask.state = State::Done;
                    fell_silent.push(ask.server);
                }
            }
        }
        for server in fell_silent {
            let over = self.asks.iter().filter(|ask| ask.server == server).all(|ask| matches!(ask.state, State::Done));
            if let Some(server) = self.servers.get_mut(server)
                && over
                && !calling
                && server.verdict.as_ref().is_none_or(|error| error.kind() == ErrorKind::ServerUnreachable)
            {
                server.verdict = Some(silent(&server.address.label));
            }
        }
        let is_over = self.asks.iter().all(|ask| matches!(ask.state, State::Done));
        if is_over && !calling && self.introduced_by.is_none() { Err(self.verdict()) } else { Ok(()) }
    }

    fn verdict(&self) -> Error {
        // Without a verdict a server was asked, and its connection has come to nothing in the end.
        let silences = self.asks.iter().filter_map(|ask| self.servers.get(ask.server));
        let silences: Vec<_> = silences.map(|server| silent(&server.address.label)).collect();
        let verdicts = self.servers.iter().filter_map(|server| server.verdict.as_ref());
        codes::most_telling(verdicts).or_else(|| codes::most_telling(silences.iter())).unwrap_or_else(|| {
            Error::new(ErrorKind::ServerUnreachable, "no server has an address of a family that is in use here")
        })
    }

    pub(crate) fn next_wake(&self) -> NextWake {
        let mut wake = NextWake::never();
        for ask in &self.asks {
            wake.at(ask.call_due(&self.config), Timer::Server);
            match &ask.state {
                State::Waiting(start) => wake.at(Some(*start), Timer::Server),
                State::Asking(transaction) | State::Introduced(transaction) => {
                    wake.at(Some(transaction.next()), Timer::Server);
                }
                State::Done => {}
            }
        }
        wake
    }
}

fn request(transaction: TransactionId, request: &LookupRequest, cookie: Option<&[u8]>) -> Vec<u8> {
    let mut builder = Builder::new(Class::Request, Method::CONNECT, transaction).version().session_id(request.session);
    if let Some(cookie) = cookie {
        builder = builder.attribute(AttributeType::NONCE, cookie);
    }
    if request.legacy {
        builder = builder.legacy(0);
    }
    builder = builder.public_key(&request.public_key).transports(request.transports);
    builder = match &request.asked {
        Asked::Name(name) => builder.name(name),
        Asked::Address(ip) => builder.target_address(*ip),
    };
    builder.candidates(&request.candidates).fingerprint().finish()
}
