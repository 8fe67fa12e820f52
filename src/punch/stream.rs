//! One negotiation over TCP: from two sets of candidates to one connection, by simultaneous open (RFC 6544).
//!
//! # The algorithm
//!
//! Each side has a port of its own for this negotiation, on which it listens and from which it connects, at the same
//! time, to every address of the other. Whatever lets one SYN in (a NAT that maps alike for everybody, whose filter our
//! own SYN has opened; a firewall that has seen ours; nothing at all) makes a connection: by the listener, or by two
//! SYNs that cross. A connect that is refused is repeated soon. The RST has closed the hole that our SYN had
//! made, and the peer's next SYN arrives just then, for what starts both sides takes the way of the SYNs: so the
//! controlling side repeats within a millisecond, and the controlled side a few later, and finds the other's hole open.
//! (With equal times each step is a draw, and with fixed ones they miss each other for ever.) One that hears nothing is
//! begun anew before the system's second SYN, which waits for a second; but not before an answer can be there, since that
//! would tear down what the peer has made of it.
//!
//! A connection that is there proves nothing. The controlled side sends a check along each, at once; the controlling
//! side sends one, with USE-CANDIDATE, along the first connection it has, and along another only when that one fails,
//! or when it stays silent while the peer's check came along the other. One that was accepted from an address that the
//! peer did not tell of is nominated only once the peer's check is there: anybody could have made it.
//! Each side is done when it has the other's check: the controlled side with the nominated connection, the
//! controlling side with the one it nominated. What follows a check in either direction is the application's, so both
//! may send at once, half a round trip after the connection was there.

use alloc::{
    collections::{BTreeMap, VecDeque},
    vec::Vec,
};
use core::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::{Candidate, CandidateKind, Provenance, Role, checks::Check, credentials::Both};
use crate::{
    address::canonical,
    machine::{Instant, NextWake, PortId, Random, StreamId, TcpRequest, Timer},
    wire::{
        demux::frame_length,
        stun::{Class, Credentials, Integrity, Message, Method, TransactionId},
    },
};

/// A connect that was refused is repeated after a random time up to this (measured: fixed times of 20 or 50 ms
/// livelock behind Linux NATs).
const RETRY: Duration = Duration::from_millis(10);

/// The controlled side waits so long at least; the controlling side so long at most, for so many attempts.
const LATER: Duration = Duration::from_millis(3);
const SOONER: Duration = Duration::from_millis(1);
const SOON_ATTEMPTS: u32 = 200;

/// So long after the first attempt; then ever more seldom. Where the round trip is far shorter than that time, most
/// attempts miss each other: some hundred are needed. (Three times as long made no difference, with 0 to 20 % loss a link
/// and round trips of 0.4 to 600 ms; but a host that refuses got twice as many.)
const EAGER: Duration = Duration::from_secs(1);

/// The longest such time.
const MAX_RETRY: Duration = Duration::from_millis(500);

/// How long an attempt may hear nothing before it is begun anew, where the round trip is known not to be longer: 300 ms
/// beat the system's 1 s at 10 % loss by three times (p98).
const KNOWN_PATIENCE: Duration = Duration::from_millis(300);

/// Where it is not known. 300 ms, which round trips of that length tear down just before they are done, were slower in the
/// mean and at every percentile than 600 ms, with loss and without, near and far (40,000 random meetings). Later attempts
/// wait longer, for paths that are that slow. The last of them has room for the system's own second SYN, and its answer:
/// the first may find what is left of the attempt before at the peer.
const PATIENCE: [Duration; 5] = [
    Duration::from_millis(600),
    Duration::from_millis(600),
    Duration::from_millis(600),
    Duration::from_millis(1200),
    Duration::from_millis(2400),
];

/// When the system repeats a SYN (RFC 6298 section 2).
const SECOND_SYN: Duration = Duration::from_secs(1);

/// A path with a longer round trip is waited for longer: so much beyond what it takes, and never more than this.
const MARGIN: Duration = Duration::from_millis(50);
const MAX_PATIENCE: Duration = Duration::from_secs(4);

/// Attempts toward an address in a private network that the peer only claims, and toward a public one.
const CLAIMED_PRIVATE_ATTEMPTS: u32 = 30;
const CLAIMED_PUBLIC_ATTEMPTS: u32 = 2;

/// Connects at a time to addresses that the peer only claims, and as many to those where a server has seen it: each is a
/// descriptor. Where there are more they take turns.
const MAX_AT_ONCE: usize = 4;

/// Public addresses that are only claimed, and addresses in all.
const MAX_CLAIMED_PUBLIC: usize = 2;
const MAX_REMOTES: usize = 16;

/// Connections at a time whose peer has not shown who it is.
const MAX_STREAMS: usize = 16;

/// How long a connection may be there without the peer's check.
const CHECK_PATIENCE: Duration = Duration::from_secs(5);

/// How long the nominated connection may be silent when the peer is heard on another: had it taken the nomination, it
/// would have closed the other within a round trip.
const NOMINATION_PATIENCE: Duration = Duration::from_secs(1);

/// The most bytes of a check: header, and attributes of up to twice what ours have.
const MAX_CHECK: usize = 600;

/// The connection that a negotiation ended on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SelectedStream {
    pub(crate) stream: StreamId,
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    pub(crate) kind: CandidateKind,
    /// From the attempt to the connection; of one that was accepted the round trip by way of the server, if known.
    pub(crate) rtt: Duration,
}

/// What a stream agent tells its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamEvent {
    Selected(SelectedStream),
    WrongSecret,
}

/// One of our ports, reserved.
#[derive(Clone, Copy, Debug)]
struct Port {
    id: PortId,
    local: SocketAddr,
}

/// An address of the peer.
#[derive(Clone, Copy, Debug)]
struct Remote {
    candidate: Candidate,
    /// From which of our ports it is tried.
    port: PortId,
    attempts: u32,
    /// When it was tried first.
    first: Instant,
    /// The longest time until it is tried again.
    reluctance: Duration,
    /// Attempts that heard nothing.
    silences: u32,
    attempt: Attempt,
}

impl Remote {
    /// Once the first seconds are over: the longest time until it is tried again, each time longer.
    fn tire(&mut self, now: Instant) -> Option<Duration> {
        if now <= self.first + EAGER {
            return None;
        }
        self.reluctance = (self.reluctance * 2).min(MAX_RETRY);
        Some(self.reluctance)
    }
}

#[derive(Clone, Copy, Debug)]
enum Attempt {
    Waiting(Instant),
    Connecting {
        stream: StreamId,
        since: Instant,
        until: Instant,
    },
    /// A connection is there, or it was tried often enough.
    Resting,
}

/// A connection that is there.
#[derive(Debug)]
struct Stream {
    local: SocketAddr,
    remote: SocketAddr,
    since: Instant,
    rtt: Option<Duration>,
    /// When we nominated it.
    nominated: Option<Instant>,
    /// Whether the peer's check has come.
    checked: bool,
    /// Whether we made it, or the peer has told of its address.
    expected: bool,
}

/// One negotiation over TCP.
#[derive(Debug)]
pub(crate) struct StreamAgent {
    random: Random,
    role: Role,
    tie_breaker: u64,
    credentials: Both,
    ports: Vec<Port>,
    remotes: Vec<Remote>,
    /// Addresses of a family that we have no port of (yet).
    unpaired: Vec<Candidate>,
    /// Hosts that a server has seen the peer at.
    believed: Vec<IpAddr>,
    streams: BTreeMap<StreamId, Stream>,
    selected: bool,
    heard: bool,
    wrong_secret: bool,
    attempts: u32,
    /// How long an attempt may hear nothing at least.
    patience: Duration,
    /// The round-trip time to the peer by way of a server.
    peer_rtt: Option<Duration>,
    /// What it may be, while it is not known.
    likely_rtt: Duration,
    requests: VecDeque<TcpRequest>,
    events: VecDeque<StreamEvent>,
}

impl StreamAgent {
    pub(crate) fn new(role: Role, local: Credentials, remote: Credentials, seed: [u8; 32]) -> Self {
        let mut random = Random::new(seed);
        Self {
            role,
            tie_breaker: random.u64(),
            random,
            credentials: Both::new(&local, &remote),
            ports: Vec::new(),
            remotes: Vec::new(),
            unpaired: Vec::new(),
            believed: Vec::new(),
            streams: BTreeMap::new(),
            selected: false,
            heard: false,
            wrong_secret: false,
            attempts: 0,
            patience: Duration::ZERO,
            peer_rtt: None,
            likely_rtt: Duration::ZERO,
            requests: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// The username fragment that the peer's checks name us by.
    pub(crate) fn local_ufrag(&self) -> &str {
        self.credentials.local_ufrag()
    }

    pub(crate) const fn role(&self) -> Role {
        self.role
    }

    /// Connects attempted so far.
    pub(crate) fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Whether a check of the peer came in.
    pub(crate) fn heard_peer(&self) -> bool {
        self.heard
    }

    /// Adds one of our ports, which is listened on already.
    pub(crate) fn add_port(&mut self, now: Instant, id: PortId, local: SocketAddr) {
        match self.ports.iter_mut().find(|port| port.id == id) {
            // Another port has taken its place.
            Some(port) => port.local = local,
            None => self.ports.push(Port { id, local }),
        }
        for candidate in core::mem::take(&mut self.unpaired) {
            self.add_remote(now, candidate);
        }
    }

    /// Adds an address of the peer; one that is known, must not be tried or is one too many changes nothing.
    pub(crate) fn add_remote(&mut self, now: Instant, mut candidate: Candidate) {
        candidate.address = canonical(candidate.address);
        if self.believed.contains(&candidate.address.ip()) {
            candidate.provenance = Provenance::Observed;
        }
        let known = self.remotes.iter().any(|known| known.candidate.address == candidate.address);
        if !candidate.is_checkable() || self.selected || known || self.remotes.len() >= MAX_REMOTES {
            return;
        }
        let only_claimed = |candidate: &Candidate| candidate.provenance == Provenance::Claimed && candidate.is_public();
        let claimed = self.remotes.iter().filter(|known| only_claimed(&known.candidate)).count();
        if only_claimed(&candidate) && claimed >= MAX_CLAIMED_PUBLIC {
            return;
        }
        let same_family = |port: &&Port| port.local.is_ipv6() == candidate.address.is_ipv6();
        let Some(port) = self.ports.iter().find(same_family) else {
            if self.unpaired.len() < MAX_REMOTES {
                self.unpaired.push(candidate);
            }
            return;
        };
        let attempt = Attempt::Waiting(now);
        let (port, first, reluctance) = (port.id, now, RETRY);
        self.remotes.push(Remote { candidate, port, attempts: 0, first, reluctance, silences: 0, attempt });
    }

    /// Takes note of the round-trip time to a server; to the peer it may be twice as much.
    pub(crate) fn set_server_rtt(&mut self, rtt: Duration) {
        self.likely_rtt = rtt * 2;
        self.be_patient(rtt * 4);
    }

    /// Takes note of the round-trip time to the peer. An attempt that meets the peer's, begun half of one later, is
    /// there after two; begun anew before that it would be torn down in the middle.
    pub(crate) fn set_peer_rtt(&mut self, rtt: Duration) {
        self.peer_rtt = Some(self.peer_rtt.map_or(rtt, |known| known.min(rtt)));
        self.be_patient(rtt * 2 + MARGIN);
        // A first attempt that was to wait for long, since that was not known, waits no longer than those to come.
        let patience = KNOWN_PATIENCE.max(self.patience);
        for remote in self.remotes.iter_mut().filter(|remote| remote.silences == 0) {
            if let Attempt::Connecting { since, until, .. } = &mut remote.attempt {
                *until = (*until).min(*since + patience);
            }
        }
    }

    fn be_patient(&mut self, patience: Duration) {
        self.patience = self.patience.max(patience.min(MAX_PATIENCE));
        for remote in &mut self.remotes {
            if let Attempt::Connecting { since, until, .. } = &mut remote.attempt {
                *until = (*until).max(*since + self.patience);
            }
        }
    }

    /// Whether a server has seen the peer at this host.
    pub(crate) fn believes(&self, host: IpAddr) -> bool {
        self.believed.contains(&host)
    }

    /// Believes that the peer is at this host: a server has seen it there. What was tried as often as an address that is
    /// only claimed may be tried on.
    pub(crate) fn believe(&mut self, now: Instant, host: IpAddr) {
        if self.believed.len() < MAX_REMOTES && !self.believed.contains(&host) {
            self.believed.push(host);
        }
        let is_news = |remote: &&mut Remote| {
            remote.candidate.address.ip() == host && remote.candidate.provenance == Provenance::Claimed
        };
        for remote in self.remotes.iter_mut().filter(is_news) {
            remote.candidate.provenance = Provenance::Observed;
            if matches!(remote.attempt, Attempt::Resting) {
                remote.attempt = Attempt::Waiting(now);
            }
        }
    }

    fn attempting(&self, stream: StreamId) -> Option<usize> {
        self.remotes.iter().position(
            |remote| matches!(remote.attempt, Attempt::Connecting { stream: attempting, .. } if attempting == stream),
        )
    }

    /// Takes in a connection that somebody made to one of our ports.
    pub(crate) fn handle_accepted(&mut self, now: Instant, stream: StreamId, local: SocketAddr, remote: SocketAddr) {
        let remote = canonical(remote);
        if !self.selected && self.streams.len() >= MAX_STREAMS {
            self.evict_stranger();
        }
        if self.selected || self.streams.len() >= MAX_STREAMS {
            self.requests.push_back(TcpRequest::Close { stream });
            return;
        }
        self.open(now, stream, canonical(local), remote, None);
    }

    /// Makes room: of the connections that nobody told of, the oldest goes.
    fn evict_stranger(&mut self) {
        let strangers = self.streams.iter().filter(|(_, stream)| !stream.expected && !stream.checked);
        let Some(oldest) = strangers.min_by_key(|(_, stream)| stream.since).map(|(id, _)| *id) else { return };
        self.streams.remove(&oldest);
        self.requests.push_back(TcpRequest::Close { stream: oldest });
    }

    /// Takes in that a connect succeeded.
    pub(crate) fn handle_connected(&mut self, now: Instant, stream: StreamId, local: SocketAddr) {
        let Some(index) = self.attempting(stream) else { return };
        let Some(remote) = self.remotes.get_mut(index) else { return };
        let Attempt::Connecting { since, .. } = remote.attempt else { return };
        remote.attempt = Attempt::Resting;
        let (address, local) = (remote.candidate.address, canonical(local));
        // A socket that connects to its own port reaches itself.
        if address == local || self.selected {
            self.requests.push_back(TcpRequest::Close { stream });
            return;
        }
        self.open(now, stream, local, address, Some(now.saturating_since(since)));
    }

    fn open(&mut self, now: Instant, stream: StreamId, local: SocketAddr, remote: SocketAddr, rtt: Option<Duration>) {
        let expected = rtt.is_some() || self.remotes.iter().any(|known| known.candidate.address == remote);
        let opened = Stream { local, remote, since: now, rtt, nominated: None, checked: false, expected };
        self.streams.insert(stream, opened);
        match self.role {
            Role::Controlled => self.send_check(stream, false),
            Role::Controlling => self.nominate(now),
        }
    }

    /// The controlling side nominates one connection at a time: of those that can be the peer's, the one where it was
    /// heard, or the first.
    fn nominate(&mut self, now: Instant) {
        if self.role == Role::Controlled || self.selected || self.streams.values().any(|it| it.nominated.is_some()) {
            return;
        }
        let eligible = self.streams.iter_mut().filter(|(_, stream)| stream.expected || stream.checked);
        let Some((id, stream)) = eligible.min_by_key(|(_, stream)| (!stream.checked, stream.since)) else { return };
        stream.nominated = Some(now);
        let (id, checked) = (*id, stream.checked);
        self.send_check(id, true);
        if checked {
            self.select(now, id);
        }
    }

    /// When a nominated connection is given up for another, on which the peer was heard.
    fn renomination(&self) -> Option<(Instant, StreamId)> {
        let (id, silent) = self.streams.iter().find(|(_, stream)| stream.nominated.is_some() && !stream.checked)?;
        let is_heard = self.streams.values().any(|stream| stream.checked);
        Some((silent.nominated? + NOMINATION_PATIENCE, *id)).filter(|_| is_heard)
    }

    fn send_check(&mut self, stream: StreamId, nominate: bool) {
        let transaction = TransactionId(self.random.bytes());
        let ipv6 = self.streams.get(&stream).is_some_and(|stream| stream.remote.is_ipv6());
        let check = Check {
            transaction,
            username: self.credentials.username(),
            password: self.credentials.remote_password(),
            role: self.role,
            tie_breaker: self.tie_breaker,
            nominate,
            ipv6,
        };
        self.requests.push_back(TcpRequest::Send { stream, bytes: check.build() });
    }

    /// Takes in that an attempt failed (`at_once`: the system itself refused), or that a connection is over.
    pub(crate) fn handle_failed(&mut self, now: Instant, stream: StreamId, at_once: bool) {
        if let Some(remote) = self.attempting(stream).and_then(|index| self.remotes.get_mut(index)) {
            if at_once {
                // No answer of the network's: the listener is taking the same connection in.
                remote.attempt = Attempt::Waiting(now + self.random.duration(RETRY * 2, RETRY * 5));
                return;
            }
            let (shortest, longest) = match (remote.tire(now), self.role) {
                (Some(longest), _) => (Duration::ZERO, longest),
                (None, Role::Controlling) if remote.attempts <= SOON_ATTEMPTS => (Duration::ZERO, SOONER),
                (None, Role::Controlling) => (Duration::ZERO, RETRY),
                (None, Role::Controlled) => (LATER, RETRY),
            };
            remote.attempt = Attempt::Waiting(now + self.random.duration(shortest, longest));
            return;
        }
        self.forget(now, stream);
    }

    /// A connection is of no use: another is nominated, and its address is tried again.
    fn forget(&mut self, now: Instant, stream: StreamId) {
        let Some(gone) = self.streams.remove(&stream) else { return };
        for remote in self.remotes.iter_mut().filter(|remote| remote.candidate.address == gone.remote) {
            if matches!(remote.attempt, Attempt::Resting) {
                let longest = remote.tire(now).unwrap_or(RETRY * 2);
                remote.attempt = Attempt::Waiting(now + self.random.duration(RETRY, longest));
            }
        }
        self.nominate(now);
    }

    /// Takes in what a connection brings, from where the last call left it; returns how many bytes of it were the
    /// peer's check. What follows is the application's.
    pub(crate) fn handle_data(&mut self, now: Instant, stream: StreamId, bytes: &[u8]) -> usize {
        if self.selected || !self.streams.contains_key(&stream) {
            return 0;
        }
        let Some(length) = frame_length(bytes) else { return 0 };
        let valid = length.filter(|length| *length <= MAX_CHECK);
        let Some(length) = valid else {
            self.requests.push_back(TcpRequest::Close { stream });
            self.forget(now, stream);
            return 0;
        };
        let Some(frame) = bytes.get(..length) else { return 0 };
        match self.read_check(frame) {
            Some(nominates) => self.handle_check(now, stream, nominates),
            None => {
                self.requests.push_back(TcpRequest::Close { stream });
                self.forget(now, stream);
            }
        }
        length
    }

    /// Verifies a check; whether it nominates, when it is one of the peer's.
    fn read_check(&mut self, frame: &[u8]) -> Option<bool> {
        let message = Message::parse(frame).ok()?;
        if (message.method(), message.class()) != (Method::BINDING, Class::Request) {
            return None;
        }
        let (ours, theirs) = message.username()?.split_once(':')?;
        if ours != self.credentials.local_ufrag() || theirs != self.credentials.remote_ufrag() {
            return None;
        }
        match message.verify_integrity(self.credentials.local_password().as_bytes()) {
            Integrity::Valid => {}
            Integrity::Invalid => {
                if !self.heard && !self.wrong_secret {
                    self.wrong_secret = true;
                    self.events.push_back(StreamEvent::WrongSecret);
                }
                return None;
            }
            Integrity::Absent => return None,
        }
        // Our own check, come back: the role it claims is ours.
        let from_other_role = match self.role {
            Role::Controlling => message.ice_controlled().is_some(),
            Role::Controlled => message.ice_controlling().is_some(),
        };
        from_other_role.then_some(message.use_candidate())
    }

    fn handle_check(&mut self, now: Instant, id: StreamId, nominates: bool) {
        self.heard = true;
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.checked = true;
        match self.role {
            Role::Controlled if nominates => self.select(now, id),
            Role::Controlled => {}
            Role::Controlling if stream.nominated.is_some() => self.select(now, id),
            Role::Controlling => self.nominate(now),
        }
    }

    fn select(&mut self, now: Instant, id: StreamId) {
        let Some(stream) = self.streams.get(&id) else { return };
        self.selected = true;
        let candidate = self.remotes.iter().find(|remote| remote.candidate.address == stream.remote);
        let kind = candidate.map_or(CandidateKind::PeerReflexive, |remote| remote.candidate.kind);
        let rtt = stream.rtt.or(self.peer_rtt).unwrap_or_else(|| now.saturating_since(stream.since));
        let (local, remote) = (stream.local, stream.remote);
        self.events.push_back(StreamEvent::Selected(SelectedStream { stream: id, local, remote, kind, rtt }));
        self.streams.remove(&id);
        self.close();
    }

    /// Closes everything that this negotiation made, but the connection that was selected.
    pub(crate) fn close(&mut self) {
        self.selected = true;
        for stream in core::mem::take(&mut self.streams).into_keys() {
            self.requests.push_back(TcpRequest::Close { stream });
        }
        for remote in core::mem::take(&mut self.remotes) {
            if let Attempt::Connecting { stream, .. } = remote.attempt {
                self.requests.push_back(TcpRequest::Close { stream });
            }
        }
    }

    /// Does what is due: connects, and gives up what heard nothing. `number` numbers a new connection.
    pub(crate) fn handle_timeout(&mut self, now: Instant, mut number: impl FnMut() -> StreamId) {
        if self.selected {
            return;
        }
        let silent = |stream: &Stream| now >= stream.since + CHECK_PATIENCE;
        let stale: Vec<_> = self.streams.iter().filter(|(_, stream)| silent(stream)).map(|(id, _)| *id).collect();
        // A FIN that nobody acknowledges would keep the two endpoints busy, and the next attempt needs them.
        for stream in stale {
            self.requests.push_back(TcpRequest::Abort { stream });
            self.forget(now, stream);
        }
        if let Some((_, stream)) = self.renomination().filter(|(at, _)| now >= *at) {
            self.requests.push_back(TcpRequest::Abort { stream });
            self.forget(now, stream);
        }
        if self.selected {
            return;
        }
        let [observed, claimed] =
            [Provenance::Observed, Provenance::Claimed].map(|provenance| self.is_crowded(provenance));
        for remote in &mut self.remotes {
            if let Attempt::Connecting { stream, until, .. } = remote.attempt
                && now >= until
            {
                self.requests.push_back(TcpRequest::Close { stream });
                remote.silences += 1;
                let crowded = if remote.candidate.provenance == Provenance::Observed { observed } else { claimed };
                // Long enough that one that has waited comes first.
                remote.attempt = Attempt::Waiting(if crowded { now + RETRY * 2 } else { now });
            }
        }
        let under_way = |provenance| {
            let is_it = |remote: &&Remote| {
                remote.candidate.provenance == provenance && matches!(remote.attempt, Attempt::Connecting { .. })
            };
            self.remotes.iter().filter(is_it).count()
        };
        let (mut observed, mut claimed) = (under_way(Provenance::Observed), under_way(Provenance::Claimed));
        let mut turns: Vec<_> = self.remotes.iter_mut().collect();
        turns.sort_by_key(|remote| remote.attempts);
        for remote in turns {
            let Attempt::Waiting(start) = remote.attempt else { continue };
            if now < start {
                continue;
            }
            let connected = self.streams.values().any(|stream| stream.remote == remote.candidate.address);
            let budget = match (remote.candidate.provenance, remote.candidate.is_public()) {
                (Provenance::Observed, _) => u32::MAX,
                (Provenance::Claimed, false) => CLAIMED_PRIVATE_ATTEMPTS,
                (Provenance::Claimed, true) => CLAIMED_PUBLIC_ATTEMPTS,
            };
            if connected || remote.attempts >= budget {
                remote.attempt = Attempt::Resting;
                continue;
            }
            let alike = match remote.candidate.provenance {
                Provenance::Observed => &mut observed,
                Provenance::Claimed => &mut claimed,
            };
            if *alike >= MAX_AT_ONCE {
                remote.attempt = Attempt::Waiting(now + RETRY);
                continue;
            }
            *alike += 1;
            let stream = number();
            let rtt = self.peer_rtt.unwrap_or(self.likely_rtt);
            // Where the round trip is known, waiting longer helps nothing.
            let patience = match self.peer_rtt {
                Some(_) => KNOWN_PATIENCE,
                None => PATIENCE.get(remote.silences as usize).or(PATIENCE.last()).copied().unwrap_or(MAX_RETRY),
            };
            remote.attempts += 1;
            self.attempts = self.attempts.saturating_add(1);
            // What an attempt that was given up has left at the peer answers the next one, and costs a round trip. And
            // one of the two must wait for long enough that an attempt of the other, begun meanwhile, comes to its end:
            // else they can tear down each other's for ever. Every second time the system's own second SYN, which finds
            // nothing left, has its chance too.
            let leftovers = match (remote.silences, self.role) {
                (0, _) => Duration::ZERO,
                (_, Role::Controlling) => rtt + self.random.duration(Duration::ZERO, rtt / 2),
                (_, Role::Controlled) => rtt * 4 + self.random.duration(Duration::ZERO, rtt),
            };
            let second_syn = SECOND_SYN + rtt + MARGIN;
            let patience = match patience.max((self.patience + leftovers).min(MAX_PATIENCE)) {
                long if long > SECOND_SYN => long.max(second_syn),
                _ if remote.silences > 0 && remote.silences.is_multiple_of(2) && self.peer_rtt.is_some() => second_syn,
                short => short,
            };
            let until = now + patience;
            remote.attempt = Attempt::Connecting { stream, since: now, until };
            let address = remote.candidate.address;
            self.requests.push_back(TcpRequest::Connect { port: remote.port, stream, remote: address });
        }
    }

    /// Whether more of such addresses are being tried than may be at a time.
    fn is_crowded(&self, provenance: Provenance) -> bool {
        let is_one =
            |remote: &&Remote| remote.candidate.provenance == provenance && !matches!(remote.attempt, Attempt::Resting);
        self.remotes.iter().filter(is_one).count() > MAX_AT_ONCE
    }

    pub(crate) fn poll_request(&mut self) -> Option<TcpRequest> {
        self.requests.pop_front()
    }

    pub(crate) fn poll_event(&mut self) -> Option<StreamEvent> {
        self.events.pop_front()
    }

    pub(crate) fn next_wake(&self) -> NextWake {
        let mut wake = NextWake::never();
        if self.selected {
            return wake;
        }
        for remote in &self.remotes {
            match remote.attempt {
                Attempt::Waiting(start) => wake.at(Some(start), Timer::Connect),
                Attempt::Connecting { until, .. } => wake.at(Some(until), Timer::Connect),
                Attempt::Resting => {}
            }
        }
        wake.at(self.renomination().map(|(at, _)| at), Timer::Check);
        for stream in self.streams.values() {
            wake.at(Some(stream.since + CHECK_PATIENCE), Timer::Check);
        }
        wake
    }
}

#[cfg(test)]
mod tests;
