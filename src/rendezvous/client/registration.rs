//! One listener at one server: registered, kept registered, and told of connectors.
//!
//! For each family the first REGISTER says everything; it is answered with a cookie, repeated with it, and confirmed.
//! From then on a short REGISTER is sent as often as the server asks. It is answered with
//!
//! - a confirmation, which shows where the server sees us now;
//! - a cookie, since our address has changed: it is repeated with it, and the server moves our address;
//! - a cookie, since the server does not know us (any more): everything is said anew with a fresh key, so that no
//!   introduction of the time before can be replayed.
//!
//! A server that falls silent after it had confirmed is asked on, for ever: a restart must not end a listener.
//!
//! A server that says nothing over UDP is to be called over TCP, and the same is said along that connection: until it
//! confirms over UDP after all, which is tried again once in a while.

use alloc::{format, string::String, vec::Vec};
use core::{net::SocketAddr, time::Duration};

use zeroize::Zeroizing;

use super::{
    Call, From, LegacyPeer, MAX_REFUSED_SENDS, ToServer, Via, candidates, legacy_peer,
    replay::ReplayWindow,
    transaction::{Due, Transaction},
};
use crate::{
    Error, ErrorKind,
    config::Retransmission,
    machine::{Instant, NextWake, Random, StreamId, Timer},
    rendezvous::codes,
    wire::stun::{
        AttributeType, Builder, Class, Integrity, Message, Method, Name, RegistrationId, SessionId, TransactionId,
        Transports, WireCandidate,
    },
};

/// The shortest and the longest time between keepalives that a server may ask for, in seconds.
const KEEPALIVE_RANGE: (u32, u32) = (5, 300);

/// How long a server that fell silent is left alone before it is asked again: it must have us back within a keepalive.
const REST: Duration = Duration::from_secs(10);

/// A listener that peers of 2015 find is introduced once, and found again when it was heard again. It lets itself be heard
/// so soon after an introduction: by then a program that wanted one peer has left.
const WAITS_AGAIN: Duration = Duration::from_millis(50);

/// How long UDP is left alone while the server is talked to over TCP. A network changes seldom.
const UDP_REST: Duration = Duration::from_secs(60);

/// Introductions do not overtake each other by more than this.
const REORDERING: Duration = Duration::from_secs(2);

/// So often a server is told to forget what it should not have; then we register under another id.
const MAX_REVOCATIONS: u8 = 4;

/// What the listener says of itself.
#[derive(Clone, Debug)]
pub(crate) struct Listing {
    pub(crate) name: Option<Name>,
    pub(crate) public_key: [u8; 32],
    pub(crate) transports: Transports,
    pub(crate) candidates: Vec<WireCandidate>,
    /// Whether the listener can meet peers of 2015; it means nothing with a name, which those do not know.
    pub(crate) legacy: bool,
}

/// What a registration tells its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RegistrationResult {
    /// The server has it, or sees us elsewhere than before.
    Registered,
    /// It came to nothing, and is over.
    Failed(Error),
    /// A line for the log.
    Log(String),
}

/// Whom the server introduces.
#[derive(Debug)]
pub(crate) enum Stranger<'a> {
    Peer(Introduced<'a>),
    Legacy(LegacyPeer),
}

/// A connector, as the server introduces it.
#[derive(Debug)]
pub(crate) struct Introduced<'a> {
    pub(crate) session: SessionId,
    pub(crate) public_key: [u8; 32],
    pub(crate) transports: Transports,
    pub(crate) route: &'a [u8],
    pub(crate) candidates: Vec<WireCandidate>,
}

/// The conversation over one socket, or along one connection.
#[derive(Debug)]
struct Family {
    via: Via,
    server: SocketAddr,
    state: State,
    mapped: Option<SocketAddr>,
    cookie: Option<Vec<u8>>,
    /// The server has confirmed what it was told last.
    was_confirmed: bool,
    /// The server has confirmed at least once.
    is_alive: bool,
    /// The server has confirmed, and has not been silent since.
    is_up: bool,
    /// Since when the server is asked and says nothing.
    mute_since: Option<Instant>,
    /// Whether a connection beside it was asked for since the server has confirmed.
    called: bool,
    /// Whether everything must be said (again).
    full: bool,
    /// Which version of the listing was said last, and which the server has.
    said: u64,
    told: u64,
    /// Whether the listener was introduced to a peer of 2015 while the server was being asked.
    introduced: bool,
    /// Sends that the system refused since the server was heard, and why.
    refused_sends: u8,
    unreachable: Option<Error>,
}

#[derive(Debug)]
enum State {
    Asking(Transaction),
    /// Until the next keepalive.
    Resting(Instant),
    /// The server has said nothing for too long, before it ever confirmed.
    Silent,
}

impl Family {
    const fn new(via: Via, server: SocketAddr, state: State) -> Self {
        Self {
            via,
            server,
            state,
            mapped: None,
            cookie: None,
            was_confirmed: false,
            is_alive: false,
            is_up: false,
            mute_since: None,
            called: false,
            full: true,
            said: 0,
            told: 0,
            introduced: false,
            refused_sends: 0,
            unreachable: None,
        }
    }

    /// The timing of its requests. Along a connection nothing is repeated.
    const fn timing(&self, config: &Retransmission) -> Retransmission {
        match self.via {
            Via::Udp(_) => *config,
            Via::Tcp(_) => Retransmission { initial: config.silence, maximum: config.silence, ..*config },
        }
    }

    /// When the server is to be called over TCP, should it say nothing over this socket.
    fn call_due(&self, config: &Retransmission) -> Option<Instant> {
        if self.via.is_tcp() || self.is_up || self.called {
            return None;
        }
        self.mute_since.map(|since| if matches!(self.state, State::Silent) { since } else { since + config.tcp_after })
    }

    /// Asks again, with what was learned; a request that is under way keeps its deadline.
    fn repeat(&mut self, now: Instant, config: &Retransmission, random: &mut Random) {
        let config = &self.timing(config);
        let transaction = match &self.state {
            State::Asking(transaction) => transaction.again(now, config, random),
            State::Resting(_) | State::Silent => Transaction::new(now, config, random),
        };
        self.state = State::Asking(transaction);
    }
}

/// A listener's registration at one server.
#[derive(Debug)]
pub(crate) struct Registration {
    config: Retransmission,
    label: String,
    id: RegistrationId,
    key: Zeroizing<[u8; 32]>,
    /// The key before it, until the server has confirmed this one.
    former_key: Option<Zeroizing<[u8; 32]>>,
    /// The server has us with the former key again, and is told to forget that; so many times it was.
    revocations: u8,
    listing: Listing,
    /// Counts the changes of the listing.
    version: u64,
    families: Vec<Family>,
    replay: ReplayWindow,
    /// When an introduction was accepted last.
    introduced: Instant,
    keepalive: Duration,
    /// Which kind of way the owner knows it to be registered by: a connection?
    told_tcp: Option<bool>,
    /// When the goodbye is due, and how many were sent.
    farewell: Option<(Transaction, u8)>,
}

impl Registration {
    pub(crate) fn new(config: Retransmission, label: String, mut listing: Listing, random: &mut Random) -> Self {
        listing.legacy &= listing.name.is_none();
        Self {
            config,
            label,
            id: RegistrationId(random.bytes()),
            key: Zeroizing::new(random.bytes()),
            former_key: None,
            revocations: 0,
            listing,
            version: 0,
            families: Vec::new(),
            replay: ReplayWindow::default(),
            introduced: Instant::default(),
            keepalive: Duration::from_secs(25),
            told_tcp: None,
            farewell: None,
        }
    }

    /// What people call the server.
    pub(crate) fn label(&self) -> &str {
        &self.label
    }

    /// Talks to the server this way too, at once.
    pub(crate) fn add_family(&mut self, now: Instant, via: Via, server: SocketAddr, random: &mut Random) {
        let mut family = Family::new(via, server, State::Silent);
        family.repeat(now, &self.config, random);
        self.families.push(family);
    }

    /// Talks to the server along a connection that is open now, if it is one of this server's addresses.
    pub(crate) fn add_connection(&mut self, now: Instant, stream: StreamId, server: SocketAddr, random: &mut Random) {
        if !self.needs(server) {
            return;
        }
        for family in self.families.iter_mut().filter(|family| matches!(family.state, State::Silent)) {
            family.state = State::Resting(now + UDP_REST);
        }
        self.add_family(now, Via::Tcp(stream), server, random);
    }

    /// A connection is no more.
    pub(crate) fn remove_connection(&mut self, stream: StreamId) {
        self.families.retain(|family| family.via != Via::Tcp(stream));
    }

    /// Connections along which the server says nothing.
    pub(crate) fn dead_connections(&self) -> Vec<StreamId> {
        let silent = self.families.iter().filter(|family| matches!(family.state, State::Silent));
        silent.filter_map(|family| if let Via::Tcp(stream) = family.via { Some(stream) } else { None }).collect()
    }

    /// Which of the server's addresses are to be called over TCP from now on: those that say nothing over UDP. Each is told
    /// once.
    pub(crate) fn take_calls(&mut self, now: Instant) -> Vec<Call> {
        let config = self.config;
        let is_up = self.families.iter().any(|family| family.is_up && !family.via.is_tcp());
        let is_alive = self.is_alive();
        let mut calls = Vec::new();
        for family in &mut self.families {
            if family.call_due(&config).is_some_and(|due| now >= due) {
                family.called = true;
                // One that was there will come back.
                let deadline = family.mute_since.filter(|_| !is_alive).map(|since| since + config.silence);
                if !is_up {
                    calls.push(Call { server: family.server, deadline });
                }
            }
        }
        calls
    }

    /// Whether a connection to this address is of any use: it is the server's, and UDP does not get through to that.
    pub(crate) fn needs(&self, server: SocketAddr) -> bool {
        let mut over_udp = self.families.iter().filter(|family| !family.via.is_tcp());
        over_udp.clone().any(|family| family.server == server) && !over_udp.any(|family| family.is_up)
    }

    /// Whether the server has ever confirmed.
    fn is_alive(&self) -> bool {
        self.told_tcp.is_some()
    }

    /// Whether this is an address of the server's.
    pub(crate) fn is_at(&self, server: SocketAddr) -> bool {
        self.families.iter().any(|family| family.server == server)
    }

    /// The way by which the server has us, if it is the one at this address.
    pub(crate) fn via(&self, server: SocketAddr) -> Option<Via> {
        let up = self.families.iter().filter(|family| family.server == server && family.is_up);
        up.min_by_key(|family| family.via.is_tcp()).map(|family| family.via)
    }

    /// Whether the server has us over TCP only.
    pub(crate) fn is_over_tcp(&self) -> bool {
        !self.families.iter().any(|family| family.is_up && !family.via.is_tcp())
    }

    /// Whether it has any socket to talk over.
    pub(crate) fn has_family(&self) -> bool {
        !self.families.is_empty()
    }

    /// The server's addresses, of the families in use.
    pub(crate) fn servers(&self) -> impl Iterator<Item = SocketAddr> {
        self.families.iter().map(|family| family.server)
    }

    /// Our addresses as the server sees them.
    pub(crate) fn mapped(&self) -> impl Iterator<Item = SocketAddr> {
        self.families.iter().filter_map(|family| family.mapped)
    }

    /// Those of them that datagrams come from.
    pub(crate) fn mapped_over_udp(&self) -> impl Iterator<Item = SocketAddr> {
        self.families.iter().filter(|family| !family.via.is_tcp()).filter_map(|family| family.mapped)
    }

    /// Says everything anew where it differs from what was said.
    pub(crate) fn set_candidates(&mut self, now: Instant, candidates: Vec<WireCandidate>, random: &mut Random) {
        if self.listing.candidates == candidates {
            return;
        }
        self.listing.candidates = candidates;
        self.version += 1;
        for family in self.families.iter_mut().filter(|family| matches!(family.state, State::Resting(_))) {
            family.full = true;
            family.repeat(now, &self.config, random);
        }
    }

    /// Tells the server that the listener leaves; what is sent then is up to [`Registration::handle_timeout`].
    pub(crate) fn leave(&mut self, now: Instant, random: &mut Random) {
        // A server that never said a word over this family has nothing to forget.
        self.families.retain(|family| family.is_alive || family.cookie.is_some());
        self.farewell = Some((Transaction::new(now, &self.config, random), 0));
    }

    /// Whether the goodbye was answered, or said often enough.
    pub(crate) fn has_left(&self) -> bool {
        self.families.is_empty()
    }

    /// Whether the message is an answer to a request of ours; if so it is taken in.
    pub(crate) fn handle_answer(
        &mut self,
        now: Instant,
        random: &mut Random,
        from: From,
        message: &Message<'_>,
    ) -> Option<Vec<RegistrationResult>> {
        if message.method() != Method::REGISTER {
            return None;
        }
        let id = message.transaction_id();
        if self.farewell.is_some_and(|(farewell, _)| farewell.id == id) {
            self.families.retain(|family| family.server != from.remote);
            return Some(Vec::new());
        }
        let config = self.config;
        let family = self.families.iter_mut().find(|family| {
            family.via == from.via
                && family.server == from.remote
                && matches!(family.state, State::Asking(transaction) if transaction.id == id)
        })?;
        family.refused_sends = 0;
        family.mute_since = None;
        let config = family.timing(&config);
        let mut results = Vec::new();
        match message.class() {
            Class::Success if message.verify_integrity_sha256(&self.key[..]) == Integrity::Valid => {
                let asked = message.keepalive().unwrap_or(25).clamp(KEEPALIVE_RANGE.0, KEEPALIVE_RANGE.1);
                self.keepalive = Duration::from_secs(u64::from(asked));
                if family.full {
                    family.told = family.said;
                }
                self.former_key = None;
                self.revocations = 0;
                family.cookie = None;
                family.full = family.told != self.version;
                family.state = if family.full {
                    State::Asking(Transaction::new(now, &config, random))
                } else {
                    let introduced = core::mem::take(&mut family.introduced);
                    State::Resting(now + if introduced { WAITS_AGAIN } else { self.keepalive })
                };
                let mapped = message.xor_mapped_address().map(crate::address::canonical);
                if !family.was_confirmed || family.mapped != mapped {
                    results.push(RegistrationResult::Registered);
                }
                family.was_confirmed = true;
                family.is_alive = true;
                family.is_up = true;
                family.called = false;
                family.mapped = mapped;
                if !from.via.is_tcp() {
                    self.leave_connections(now, from, random);
                }
                let over_tcp = self.is_over_tcp();
                if self.told_tcp != Some(over_tcp) && results.is_empty() {
                    results.push(RegistrationResult::Registered);
                }
                self.told_tcp = Some(over_tcp);
            }
            Class::Error => {
                let code = message.error_code().map_or(0, |error| error.code);
                match (code, message.nonce()) {
                    (codes::UNAUTHENTICATED | codes::STALE_NONCE, Some(cookie)) => {
                        family.cookie = Some(cookie.to_vec());
                        family.repeat(now, &config, random);
                        // It had us, over this very family, and has not any more.
                        if code == codes::UNAUTHENTICATED && family.was_confirmed {
                            results
                                .push(RegistrationResult::Log(format!("{} forgot us; registering anew", self.label)));
                            self.renew(now, random);
                        }
                    }
                    // A request of the time before was on its way for long, and the server has taken it for a new one. It
                    // would keep our own name from us.
                    (codes::FORBIDDEN, _) if self.former_key.is_some() && self.revocations < MAX_REVOCATIONS => {
                        self.revocations += 1;
                        family.repeat(now, &config, random);
                    }
                    (codes::FORBIDDEN, _) => {
                        self.id = RegistrationId(random.bytes());
                        self.renew(now, random);
                    }
                    _ => results.push(RegistrationResult::Failed(self.refusal(code))),
                }
            }
            Class::Success | Class::Request | Class::Indication => {}
        }
        Some(results)
    }

    /// UDP gets through: connections are of no use any more. The server may have us along one, and forget us when it ends;
    /// so it is told anew.
    fn leave_connections(&mut self, now: Instant, from: From, random: &mut Random) {
        let before = self.families.len();
        self.families.retain(|family| !family.via.is_tcp());
        if self.families.len() < before
            && let Some(family) = self.families.iter_mut().find(|family| family.via == from.via)
        {
            family.full = true;
            family.repeat(now, &self.config, random);
        }
    }

    /// The system would not send there; of interest before the server has confirmed.
    pub(crate) fn handle_send_failed(&mut self, to: From, error: &Error) {
        for family in &mut self.families {
            if family.via != to.via || family.server != to.remote {
                continue;
            }
            family.refused_sends = family.refused_sends.saturating_add(1);
            if family.refused_sends >= MAX_REFUSED_SENDS && !family.is_alive {
                let message = format!("the server {} cannot be reached: {}", self.label, error.message());
                family.unreachable =
                    Some(Error::new(ErrorKind::ServerUnreachable, message).with_os_code(error.os_code()));
                family.state = State::Silent;
            }
        }
    }

    /// Says everything anew in every family, with a key that no introduction was ever signed with.
    fn renew(&mut self, now: Instant, random: &mut Random) {
        let key = Zeroizing::new(random.bytes());
        self.former_key = Some(core::mem::replace(&mut self.key, key));
        self.revocations = 0;
        self.replay = ReplayWindow::default();
        for family in &mut self.families {
            family.full = true;
            family.was_confirmed = false;
            family.repeat(now, &self.config, random);
        }
    }

    fn refusal(&self, code: u16) -> Error {
        let kind = codes::kind(code);
        let server = &self.label;
        match (kind, &self.listing.name) {
            (ErrorKind::NameTaken, Some(name)) => Error::new(kind, format!("the name \"{name}\" is taken at {server}"))
                .with_hint(
                    "choose another name, or wait up to 50 seconds if its holder was ended without saying goodbye",
                ),
            (ErrorKind::VersionMismatch, _) => {
                Error::new(kind, format!("{server} speaks another version of the protocol"))
            }
            _ => Error::new(kind, format!("{server} refused the registration (error {code})")),
        }
    }

    /// Whether the message is an introduction by this server; if so, of whom. A replay is none. One that comes far too late
    /// shows that somebody else has used the key, and a number of the future: with a fresh key numbers begin anew.
    pub(crate) fn handle_introduction<'a>(
        &mut self,
        now: Instant,
        random: &mut Random,
        from: From,
        message: &Message<'a>,
    ) -> Option<Stranger<'a>> {
        let is_ours = message.registration_id() == Some(self.id)
            && self.families.iter().any(|family| family.via == from.via && family.server == from.remote)
            && message.verify_integrity_sha256(&self.key[..]) == Integrity::Valid;
        let sequence = message.sequence().filter(|_| is_ours)?;
        if !self.replay.accept(sequence) {
            if self.replay.is_past(sequence) && now >= self.introduced + REORDERING {
                self.renew(now, random);
            }
            return None;
        }
        self.introduced = now;
        let session = message.session_id()?;
        if self.listing.legacy {
            self.wait_again(now);
        }
        if self.listing.legacy && message.legacy().is_some() {
            return Some(Stranger::Legacy(LegacyPeer { session, address: legacy_peer(from, message)? }));
        }
        Some(Stranger::Peer(Introduced {
            session,
            public_key: message.public_key()?,
            transports: message.transports().unwrap_or_default(),
            route: message.route().unwrap_or_default(),
            candidates: candidates(from, message),
        }))
    }

    /// Has the server hear of us soon where peers of 2015 would find us.
    fn wait_again(&mut self, now: Instant) {
        for family in self.families.iter_mut().filter(|family| family.is_up && family.server.is_ipv4()) {
            match &mut family.state {
                State::Resting(until) => *until = (now + WAITS_AGAIN).min(*until),
                // The server may have heard this before it introduced us.
                State::Asking(_) => family.introduced = true,
                State::Silent => {}
            }
        }
    }

    /// Sends what is due. A server that is being called over TCP (`calling`) is not given up yet.
    pub(crate) fn handle_timeout(
        &mut self,
        now: Instant,
        random: &mut Random,
        calling: bool,
        messages: &mut Vec<ToServer>,
    ) -> Vec<RegistrationResult> {
        if self.farewell.is_some() {
            self.say_goodbye(now, messages);
            return Vec::new();
        }
        let mut results = Vec::new();
        let is_alive = self.is_alive();
        let has_connection = self.families.iter().any(|family| family.via.is_tcp());
        for index in 0..self.families.len() {
            let Some(family) = self.families.get_mut(index) else { continue };
            let config = family.timing(&self.config);
            if let State::Resting(until) = family.state
                && now >= until
            {
                family.state = State::Asking(Transaction::new(now, &config, random));
            }
            let State::Asking(transaction) = &mut family.state else { continue };
            family.mute_since.get_or_insert(now);
            let id = transaction.id;
            match transaction.poll(now, &config) {
                Due::Nothing => {}
                Due::Send => {
                    family.said = self.version;
                    if let Some(former) = self.former_key.as_ref().filter(|_| self.revocations > 0) {
                        let payload = goodbye(TransactionId(random.bytes()), self.id, former);
                        messages.push(ToServer { via: family.via, server: family.server, payload });
                    }
                    let payload = request(id, self.id, &self.key, family, &self.listing);
                    messages.push(ToServer { via: family.via, server: family.server, payload });
                }
                Due::Silent => {
                    let was_up = core::mem::replace(&mut family.is_up, false);
                    family.state = match family.via {
                        Via::Udp(_) if has_connection => State::Resting(now + UDP_REST),
                        Via::Udp(_) if is_alive => State::Resting(now + REST),
                        Via::Udp(_) | Via::Tcp(_) => State::Silent,
                    };
                    if was_up {
                        results.push(RegistrationResult::Log(format!("{} does not answer; asking on", self.label)));
                    }
                }
            }
        }
        if !has_connection && !is_alive && !calling {
            // What rested beside a connection that came to nothing in the end.
            for family in self.families.iter_mut().filter(|family| matches!(family.state, State::Resting(_))) {
                family.state = State::Silent;
            }
        }
        let all_silent = self.families.iter().all(|family| matches!(family.state, State::Silent));
        if all_silent && self.has_family() && !calling {
            let unreachable = self.families.iter().map(|family| family.unreachable.clone());
            let all = unreachable.collect::<Option<Vec<_>>>().and_then(|mut errors| errors.pop());
            results.push(RegistrationResult::Failed(all.unwrap_or_else(|| silent(&self.label))));
        }
        results
    }

    fn say_goodbye(&mut self, now: Instant, messages: &mut Vec<ToServer>) {
        /// So often is it said, should it go unanswered.
        const GOODBYES: u8 = 4;
        let Some((transaction, sent)) = &mut self.farewell else { return };
        match transaction.poll(now, &self.config) {
            Due::Nothing => {}
            Due::Send if *sent < GOODBYES => {
                *sent += 1;
                let id = transaction.id;
                for family in &self.families {
                    let payload = goodbye(id, self.id, &self.key);
                    messages.push(ToServer { via: family.via, server: family.server, payload });
                }
            }
            Due::Send | Due::Silent => self.families.clear(),
        }
    }

    pub(crate) fn next_wake(&self) -> NextWake {
        let mut wake = NextWake::never();
        if let Some((transaction, _)) = &self.farewell {
            if self.has_family() {
                wake.at(Some(transaction.next()), Timer::Server);
            }
            return wake;
        }
        for family in &self.families {
            wake.at(family.call_due(&self.config), Timer::Server);
            match &family.state {
                State::Asking(transaction) => wake.at(Some(transaction.next()), Timer::Server),
                State::Resting(until) => wake.at(Some(*until), Timer::Keepalive),
                State::Silent => {}
            }
        }
        wake
    }
}

/// A server that does not answer.
pub(super) fn silent(label: &str) -> Error {
    Error::new(ErrorKind::ServerSilent, format!("the server {label} does not answer"))
}

/// Tells the server that there is no listener of this key.
fn goodbye(transaction: TransactionId, id: RegistrationId, key: &[u8; 32]) -> Vec<u8> {
    let builder = Builder::new(Class::Request, Method::REGISTER, transaction).registration_id(id).keepalive(0);
    builder.integrity_sha256(key).fingerprint().finish()
}

fn request(
    transaction: TransactionId,
    id: RegistrationId,
    key: &[u8; 32],
    family: &Family,
    listing: &Listing,
) -> Vec<u8> {
    let mut builder = Builder::new(Class::Request, Method::REGISTER, transaction);
    if family.full {
        builder = builder.version();
    }
    builder = builder.registration_id(id);
    if let Some(cookie) = &family.cookie {
        builder = builder.attribute(AttributeType::NONCE, cookie);
    }
    if family.full {
        builder = builder.registration_key(key).public_key(&listing.public_key).transports(listing.transports);
        if let Some(name) = &listing.name {
            builder = builder.name(name);
        }
        if listing.legacy {
            builder = builder.legacy(0);
        }
        builder = builder.candidates(&listing.candidates);
    }
    builder.integrity_sha256(key).fingerprint().finish()
}
