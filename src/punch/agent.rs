//! One negotiation of ICE, from two sets of candidates to one pair that works, and its life after that.
//!
//! # The algorithm
//!
//! Every socket is paired with every candidate of the peer of its family. All first checks leave at once, the
//! likeliest pairs first (a burst of ten; pacing spaces what goes beyond it), for whatever a check must open on
//! the way, a NAT mapping or a filter, is opened earliest so. A pair on which nothing authenticated came in is
//! checked again after 5, 10, 20, ... ms within a budget, since the first check may have met a filter that the
//! peer had not opened yet.
//!
//! A check that arrives shows that the peer reaches us on that pair, known before or not (a peer-reflexive
//! candidate). It is answered, and a check of our own goes back the same way at once (RFC 8445 section 7.3.1.4);
//! from then on the pair is checked every few milliseconds until one is answered, which makes it *valid*: it
//! works in both directions.
//!
//! The controlling side nominates the first pair on which it heard the peer, or got an answer, whichever comes
//! first: its triggered check already carries USE-CANDIDATE. So nomination costs no round trip of its own:
//! where both mapped addresses are known both sides are done one round trip after the later one began. The choice
//! is final, and both end on the same pair; only where the chosen pair stalls, and another is valid, is it made
//! again. The side that is controlled selects the pair when it is valid and nominated.
//!
//! A relayed candidate of the peer is settled on only when nothing better has turned up for a while: the choice is
//! final, and a direct path may need one more repetition of a check.
//!
//! The selected pair is kept alive and proven by consent checks (RFC 7675); everything else is forgotten. Where the
//! peer's address changes under it, the pair follows (the page `moving.rs`).

use alloc::{boxed::Box, collections::VecDeque, sync::Arc, vec::Vec};
use core::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::{
    Candidate, CandidateKind, Provenance, Role,
    checks::{self, Check},
    consent::{ConsentClock, Due},
    credentials::Both,
    events::{AgentEvent, Received, SelectedPair},
    pair::{Pair, STALLED},
    role::Conflict,
};
use crate::{
    address::{canonical, unspecified},
    config::{Checks, Consent},
    machine::{Instant, NextWake, Random, SocketId, Timer, Transmit},
    wire::{
        demux::{Datagram, is_stun_with_fingerprint},
        stun::{Class, Credentials, ErrorCode, Integrity, Message, Method, TransactionId},
    },
};

/// Triggered checks on one pair are at least this far apart: an answer to each check of the peer would make the two sides' checks breed.
const TRIGGER_SPACING: Duration = Duration::from_millis(10);

/// Answers of the kind 401 to one peer at most; they are not authenticated, so a stranger could ask for them.
const MAX_REFUSALS: u8 = 12;

/// A relayed candidate works so much earlier than it is settled on: four of the first repetitions of a direct check, and two
/// long round trips.
const RELAYED_PATIENCE: Duration = Duration::from_millis(300);

/// Addresses that a peer may be heard at; more are not needed to end on one of them.
const MAX_HEARD: usize = 32;

/// Remote candidates at most; a peer that sends more is not believed.
const MAX_REMOTE_CANDIDATES: usize = 32;

/// Where a message came in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    pub(crate) socket: SocketId,
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
}

/// One ICE negotiation and the consent of the pair that it ends on.
///
/// Sans-IO, and without signalling: a [`Peer`](crate::peer::Peer) drives one for each of its sessions, and a program
/// that brings credentials and candidates across in its own way, to any ICE peer, drives it like this. Methods mutate;
/// then transmissions and events are taken out, and the agent is called again at the time of
/// [`next_timeout`](Self::next_timeout), or when a datagram arrives. It never blocks.
/// The module's page shows the loop.
#[derive(Debug)]
pub struct Agent {
    pub(super) settings: Arc<Settings>,
    random: Random,
    role: Role,
    tie_breaker: u64,
    tag: [u8; 4],
    credentials: Both,
    sockets: Vec<(SocketId, bool)>,
    /// The likeliest first; once one is selected, only that.
    pub(super) pairs: Vec<Pair>,
    /// The pacing clock: a check may leave while this is less than a burst ahead of the time.
    paced_until: Instant,
    /// `None` once a pair is selected.
    search: Option<Box<Search>>,
    /// The choice was made again.
    renominated: bool,
    pub(super) consent: Option<ConsentClock>,
    /// Consent has expired: nothing is asked any more, whatever comes.
    expired: bool,
    /// Where something authenticated came from.
    pub(super) heard: Vec<(SocketId, SocketAddr)>,
    wrong_secret: bool,
    refusals: u8,
    packets_sent: u32,
    transmits: VecDeque<Transmit>,
    pub(super) events: VecDeque<AgentEvent>,
}

/// What all agents of one owner have in common.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) checks: Checks,
    pub(crate) consent: Consent,
}

/// What is of interest until a pair is selected.
#[derive(Debug, Default)]
struct Search {
    remotes: Vec<Candidate>,
    /// Hosts that a server has seen the peer at, though not by its datagrams.
    believed: Vec<IpAddr>,
    /// A relayed candidate works, and may be settled on from then on; or it may be already.
    relayed_due: Option<Instant>,
    relayed_allowed: bool,
}

impl Agent {
    /// Begins a negotiation without sockets and candidates; `local` is what the peer was told of us, `remote` what we
    /// were told of it. The seed must be secret and fresh wherever the network is real.
    #[must_use]
    pub fn new(
        checks: Checks,
        consent: Consent,
        role: Role,
        local: Credentials,
        remote: Credentials,
        seed: [u8; 32],
    ) -> Self {
        Self::sharing(Arc::new(Settings { checks, consent }), role, local, remote, seed)
    }

    /// The same with settings that other agents have, too.
    pub(crate) fn sharing(
        settings: Arc<Settings>,
        role: Role,
        local: Credentials,
        remote: Credentials,
        seed: [u8; 32],
    ) -> Self {
        let mut random = Random::new(seed);
        Self {
            settings,
            role,
            tie_breaker: random.u64(),
            tag: random.bytes(),
            random,
            credentials: Both::new(&local, &remote),
            sockets: Vec::new(),
            pairs: Vec::new(),
            paced_until: Instant::default(),
            search: Some(Box::default()),
            renominated: false,
            consent: None,
            expired: false,
            heard: Vec::new(),
            wrong_secret: false,
            refusals: 0,
            packets_sent: 0,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Lets the id of every transaction begin so: the owner of many agents finds the one an answer belongs to.
    #[must_use]
    pub(crate) fn with_tag(self, tag: [u8; 4]) -> Self {
        Self { tag, ..self }
    }

    /// Adds one of our sockets, bound to `local`, whose address may be unspecified, and pairs it with the peer's
    /// candidates. One for each family is enough, unless routing cannot be trusted to pick the interface.
    pub fn add_socket(&mut self, now: Instant, socket: SocketId, local: SocketAddr) {
        if self.sockets.iter().any(|(known, _)| *known == socket) {
            return;
        }
        let ipv6 = local.is_ipv6();
        self.sockets.push((socket, ipv6));
        let remotes = self.search.as_ref().map_or_else(Vec::new, |search| search.remotes.clone());
        for remote in remotes {
            self.add_pair(now, socket, ipv6, &remote);
        }
    }

    /// Believes that the peer is at this host: a server has seen it there. Addresses of it that the peer claims count as
    /// observed from now on.
    pub(crate) fn believe(&mut self, now: Instant, host: IpAddr) {
        let Some(search) = &mut self.search else { return };
        if search.believed.len() < MAX_REMOTE_CANDIDATES && !search.believed.contains(&host) {
            search.believed.push(host);
        }
        let there = search.remotes.iter().copied().filter(|known| known.address.ip() == host);
        for candidate in there.collect::<Vec<_>>() {
            self.add_remote(now, candidate);
        }
    }

    /// Whether a server has seen the peer at this host.
    pub(crate) fn believes(&self, host: IpAddr) -> bool {
        self.search.as_ref().is_some_and(|search| search.believed.contains(&host))
    }

    /// Adds a candidate of the peer and pairs it with our sockets, at any time until a pair is selected. One that must
    /// not be checked, or is one too many, changes nothing; of one that is known, only who says so can change.
    pub fn add_remote(&mut self, now: Instant, mut candidate: Candidate) {
        let Some(search) = &mut self.search else { return };
        if search.believed.contains(&candidate.address.ip()) {
            candidate.provenance = Provenance::Observed;
        }
        if !candidate.is_checkable() {
            return;
        }
        if let Some(known) = search.remotes.iter_mut().find(|known| known.address == candidate.address) {
            if candidate.provenance == Provenance::Observed {
                known.provenance = Provenance::Observed;
                for pair in self.pairs.iter_mut().filter(|pair| pair.remote == candidate.address) {
                    pair.raise_budget(now, self.settings.checks.observed_budget);
                }
            }
            return;
        }
        let same_host = |known: &Candidate| {
            known.provenance == Provenance::Observed && known.address.ip() == candidate.address.ip()
        };
        if search.remotes.iter().any(same_host) {
            candidate.provenance = Provenance::Observed;
        }
        let only_claimed = |known: &Candidate| known.provenance == Provenance::Claimed && known.is_public();
        let claimed = search.remotes.iter().filter(|known| only_claimed(known)).count();
        if search.remotes.len() >= MAX_REMOTE_CANDIDATES
            || only_claimed(&candidate) && claimed >= usize::from(self.settings.checks.claimed_addresses)
        {
            return;
        }
        search.remotes.push(candidate);
        for index in 0..self.sockets.len() {
            let (socket, ipv6) = self.sockets[index];
            self.add_pair(now, socket, ipv6, &candidate);
        }
    }

    /// Takes a datagram in that arrived from `remote` at one of our sockets, sent to `local` (the unspecified address
    /// where that is not known).
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        socket: SocketId,
        local: SocketAddr,
        remote: SocketAddr,
        payload: &[u8],
    ) -> Received {
        let at = Arrival { socket, local: canonical(local), remote: canonical(remote) };
        if !self.sockets.iter().any(|(known, _)| *known == socket) {
            return Received::Foreign;
        }
        let is_message = Datagram::classify(payload) == Datagram::Stun
            && is_stun_with_fingerprint(payload)
            && Message::parse(payload).is_ok_and(|message| self.handle_message(now, at, &message));
        match is_message {
            true => Received::Message,
            false if self.heard.contains(&(at.socket, at.remote)) => Received::Data,
            false => Received::Foreign,
        }
    }

    fn handle_message(&mut self, now: Instant, at: Arrival, message: &Message<'_>) -> bool {
        if message.method() != Method::BINDING {
            return false;
        }
        match message.class() {
            Class::Request => {
                let fragment = message.username().and_then(|name| name.split_once(':')).map(|(fragment, _)| fragment);
                fragment == Some(self.local_ufrag()) && self.handle_request(now, at, message)
            }
            Class::Success | Class::Error => {
                message.transaction_id().0.starts_with(&self.tag) && self.handle_response(now, at, message)
            }
            // A keepalive (RFC 8445 section 11), which nothing authenticates.
            Class::Indication => self.heard.contains(&(at.socket, at.remote)),
        }
    }

    /// Sends what is due. Calling it earlier is harmless.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let Some(consent) = &mut self.consent {
            match consent.poll(now, &self.settings.consent, &mut self.random) {
                Due::Nothing => {}
                Due::Check => {
                    self.send_check(now, 0);
                    if self.pairs[0].acknowledged || self.role == Role::Controlled {
                        self.pairs[0].next_check = None;
                    }
                }
                Due::Expired => {
                    self.consent = None;
                    self.expired = true;
                    self.stay();
                    self.pairs[0].next_check = None;
                    self.events.push_back(AgentEvent::ConsentExpired);
                    return;
                }
            }
        }
        self.settle_on_relayed(now);
        self.renominate_if_stalled(now);
        self.look_elsewhere(now);
        for index in 0..if self.is_settled() { 1 } else { self.pairs.len() } {
            if self.pairs[index].next_check.is_some_and(|due| now >= due) {
                let earliest = self.earliest_paced();
                if now >= earliest {
                    self.send_check(now, index);
                } else {
                    self.pairs[index].next_check = Some(earliest);
                }
            }
        }
    }

    /// Takes the next datagram out that is to be sent.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        take_out(&mut self.transmits)
    }

    /// Takes the next event out.
    pub fn poll_event(&mut self) -> Option<AgentEvent> {
        take_out(&mut self.events)
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called next; `None`: not before something happens.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        self.next_wake().time()
    }

    pub(crate) fn next_wake(&self) -> NextWake {
        let mut wake = NextWake::never();
        if self.expired {
            return wake;
        }
        for pair in &self.pairs {
            wake.at(pair.next_check, Timer::Check);
        }
        let has_other = self.pairs.iter().any(|pair| pair.valid && !pair.nominated);
        if !self.is_settled() && self.role == Role::Controlling && has_other {
            let nominated = self.pairs.iter().find(|pair| pair.nominated && !pair.valid && !pair.may_check());
            wake.at(nominated.and_then(|pair| pair.last_sent).map(|sent| sent + STALLED), Timer::Check);
        }
        wake.at(self.search.as_ref().and_then(|search| search.relayed_due), Timer::Check);
        if let Some(consent) = &self.consent {
            wake.merge(consent.next_wake());
        }
        wake
    }

    /// The username fragment that the peer's checks name us by.
    pub(crate) fn local_ufrag(&self) -> &str {
        self.credentials.local_ufrag()
    }

    /// Datagrams sent so far, checks and answers.
    pub fn packets_sent(&self) -> u32 {
        self.packets_sent
    }

    /// The current role; a role conflict may have changed it.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Where anything authenticated came from: data from there is the peer's.
    pub(crate) fn heard(&self) -> &[(SocketId, SocketAddr)] {
        &self.heard
    }

    /// The selected pair.
    pub(crate) fn path(&self) -> Option<SelectedPair> {
        self.selected_pair().map(selected)
    }

    /// The smoothed round-trip time of the selected pair.
    pub fn rtt(&self) -> Option<Duration> {
        self.selected_pair().and_then(|pair| pair.rtt)
    }

    /// Asks for no consent any more, and needs none. A choice that the peer may not know of yet is still told.
    pub(crate) fn end_consent(&mut self) {
        self.consent = None;
        self.stay();
    }

    /// Sends no check any more.
    pub(crate) fn fall_silent(&mut self) {
        self.consent = None;
        for pair in &mut self.pairs {
            pair.next_check = None;
        }
    }

    fn add_pair(&mut self, now: Instant, socket: SocketId, ipv6: bool, remote: &Candidate) -> Option<usize> {
        if remote.address.is_ipv6() != ipv6 || self.pairs.len() >= self.settings.checks.max_pairs {
            return None;
        }
        if let Some(index) = self.pair_index(socket, remote.address) {
            return Some(index);
        }
        let budget = if remote.provenance == Provenance::Claimed && remote.is_public() {
            self.settings.checks.claimed_budget
        } else {
            self.settings.checks.observed_budget
        };
        let local_priority = CandidateKind::Host.priority(unspecified(ipv6));
        let mut pair = Pair::new(socket, remote, budget, local_priority, self.role == Role::Controlling);
        pair.next_check = Some(now);
        let index = self.pairs.partition_point(|known| known.priority() >= pair.priority());
        self.pairs.insert(index, pair);
        Some(index)
    }

    fn pair_index(&self, socket: SocketId, remote: SocketAddr) -> Option<usize> {
        self.pairs.iter().position(|pair| pair.is(socket, remote))
    }

    fn selected_pair(&self) -> Option<&Pair> {
        if self.is_settled() { self.pairs.first() } else { None }
    }

    /// Whether a pair is selected.
    pub(super) fn is_settled(&self) -> bool {
        self.search.is_none()
    }

    /// Whether the peer may have taken an earlier choice of ours than the last, and stay with it.
    pub(crate) const fn has_renominated(&self) -> bool {
        self.renominated
    }

    fn note_heard(&mut self, at: Arrival) {
        let from = (at.socket, at.remote);
        if self.heard.len() < MAX_HEARD && !self.heard.contains(&from) {
            self.heard.push(from);
        }
    }

    /// Takes in a Binding request whose username begins with our fragment; whether it was the peer's, or at least
    /// claimed to be with the right fragment of its own.
    pub(crate) fn handle_request(&mut self, now: Instant, at: Arrival, message: &Message<'_>) -> bool {
        let remote_fragment = message.username().and_then(|name| name.split_once(':')).map(|(_, fragment)| fragment);
        match message.verify_integrity(self.credentials.local_password().as_bytes()) {
            Integrity::Valid => {}
            Integrity::Invalid if remote_fragment == Some(self.credentials.remote_ufrag()) => {
                self.refuse(at, message);
                self.report_wrong_secret();
                return true;
            }
            Integrity::Invalid | Integrity::Absent => return false,
        }
        self.note_heard(at);
        let unknown: Vec<_> = message.unknown_comprehension_required(checks::UNDERSTOOD).collect();
        if !unknown.is_empty() {
            let bytes = checks::refusal(
                message,
                ErrorCode::UNKNOWN_ATTRIBUTE,
                "Unknown Attribute",
                &unknown,
                Some(self.credentials.local_password()),
            );
            self.transmit(at.socket, Some(at.local.ip()), at.remote, bytes);
            return true;
        }
        match self.role.meet(self.tie_breaker, message) {
            Conflict::None => {}
            Conflict::Refuse => {
                let password = Some(self.credentials.local_password());
                let bytes = checks::refusal(message, ErrorCode::ROLE_CONFLICT, "Role Conflict", &[], password);
                self.transmit(at.socket, Some(at.local.ip()), at.remote, bytes);
                return true;
            }
            Conflict::Switch => self.switch_role(now),
        }
        let bytes = checks::answer(message, at.remote, self.credentials.local_password());
        self.transmit(at.socket, Some(at.local.ip()), at.remote, bytes);
        let Some(index) = self.heard_pair(now, at, message.priority()) else { return true };
        if message.use_candidate() && self.role == Role::Controlled {
            self.pairs[index].nominated = true;
        }
        let first = self.pairs[index].hear(at.local.ip(), &self.settings.checks);
        if self.role == Role::Controlling {
            self.nominate(now, index);
        }
        let pair = &self.pairs[index];
        let spaced = pair.last_sent.is_none_or(|sent| now >= sent + TRIGGER_SPACING);
        if !self.is_settled() && (first || !pair.valid && spaced) {
            self.send_check(now, index);
        }
        self.select_if_settled(now, index);
        true
    }

    /// The pair a check came in on, made where the address was not known: a peer-reflexive candidate (RFC 8445 section 7.3.1.3).
    fn heard_pair(&mut self, now: Instant, at: Arrival, priority: Option<u32>) -> Option<usize> {
        if let Some(index) = self.pair_index(at.socket, at.remote) {
            return Some(index);
        }
        if self.is_settled() {
            self.notice_elsewhere(now, at);
            return None;
        }
        let (_, ipv6) = *self.sockets.iter().find(|(socket, _)| *socket == at.socket)?;
        let mut candidate = Candidate::new(CandidateKind::PeerReflexive, at.remote, Provenance::Observed);
        if let Some(priority) = priority {
            candidate = candidate.with_priority(priority);
        }
        self.add_pair(now, at.socket, ipv6, &candidate)
    }

    /// Takes the opposite role (RFC 8445 section 7.3.1.1). Nothing that was chosen holds any more; what worked is
    /// checked again, so that the side that controls now can choose. Only a pair that is selected stays so.
    fn switch_role(&mut self, now: Instant) {
        self.stay();
        self.role = self.role.opposite();
        if self.is_settled() {
            return;
        }
        let controlling = self.role == Role::Controlling;
        for pair in &mut self.pairs {
            pair.switch_role(now, controlling);
        }
        self.pairs.sort_by_key(|pair| core::cmp::Reverse(pair.priority()));
        if controlling && let Some(valid) = self.pairs.iter_mut().find(|pair| pair.valid) {
            valid.nominated = true;
        }
    }

    fn refuse(&mut self, at: Arrival, message: &Message<'_>) {
        if self.refusals < MAX_REFUSALS {
            self.refusals += 1;
            let bytes = checks::refusal(message, ErrorCode::UNAUTHENTICATED, "Unauthenticated", &[], None);
            self.transmit(at.socket, Some(at.local.ip()), at.remote, bytes);
        }
    }

    fn report_wrong_secret(&mut self) {
        if self.heard.is_empty() && !self.wrong_secret {
            self.wrong_secret = true;
            self.events.push_back(AgentEvent::WrongSecret);
        }
    }

    /// Takes in an answer whose transaction id begins with our tag; false when it is none of ours.
    pub(crate) fn handle_response(&mut self, now: Instant, at: Arrival, message: &Message<'_>) -> bool {
        let integrity = message.verify_integrity(self.credentials.remote_password().as_bytes());
        // An answer must come from where the check went (RFC 8445 section 7.2.5.2.1). A late one, to a check that is
        // forgotten, is the peer's all the same, and no data.
        let Some(index) = self.pair_index(at.socket, at.remote) else { return integrity == Integrity::Valid };
        let is_credible = integrity == Integrity::Valid || message.class() == Class::Error;
        let answered = is_credible.then(|| self.pairs[index].answered(now, &message.transaction_id())).flatten();
        let code = message.error_code().map_or(0, |error| error.code);
        let check = match (message.class(), integrity, answered) {
            (Class::Success, Integrity::Valid, Some(check)) => check,
            (Class::Error, Integrity::Valid, Some(check)) => {
                self.note_heard(at);
                // Of several checks that were sent in the old role, only the first refusal changes it.
                if code == ErrorCode::ROLE_CONFLICT && check.controlling == (self.role == Role::Controlling) {
                    self.switch_role(now);
                    // Pairs may have changed places.
                    if let Some(index) = self.pair_index(at.socket, at.remote).filter(|_| !self.is_settled()) {
                        self.pairs[index].next_check = Some(now);
                    }
                }
                return true;
            }
            (Class::Error, _, Some(_)) => {
                if code == ErrorCode::UNAUTHENTICATED {
                    self.report_wrong_secret();
                }
                return true;
            }
            _ => return integrity == Integrity::Valid,
        };
        self.note_heard(at);
        let pair = &mut self.pairs[index];
        pair.hear(at.local.ip(), &self.settings.checks);
        pair.valid = true;
        pair.acknowledged |= check.nominating;
        let chosen_now = self.role == Role::Controlling && self.nominate(now, index);
        let settled = self.is_settled();
        if let Some(consent) = &mut self.consent
            && settled
        {
            consent.renew(now, &self.settings.consent);
            if index > 0 {
                self.follow();
                return true;
            }
            self.stay();
        }
        let pair = &mut self.pairs[index];
        if chosen_now {
            // The peer learns of the choice as early as it can.
            self.send_check(now, index);
        } else if self.role == Role::Controlled || !pair.nominated || pair.acknowledged {
            pair.next_check = None;
        } else if !check.nominating && pair.last_sent.is_some_and(|sent| now >= sent + self.settings.checks.proven) {
            pair.next_check = Some(now);
        }
        self.select_if_settled(now, index);
        true
    }

    /// Makes the choice, where it is not made yet; whether it was made now.
    fn nominate(&mut self, now: Instant, index: usize) -> bool {
        let open = !self.pairs.iter().any(|pair| pair.nominated) && self.may_settle_on(now, index);
        self.pairs[index].nominated |= open;
        open
    }

    /// Whether a pair may be chosen, or the peer's choice of it be followed, already.
    fn may_settle_on(&mut self, now: Instant, index: usize) -> bool {
        let Some(search) = &mut self.search else { return true };
        if self.pairs[index].kind != CandidateKind::Relayed || search.relayed_allowed {
            return true;
        }
        search.relayed_due.get_or_insert(now + RELAYED_PATIENCE);
        false
    }

    /// Nothing better than a relayed candidate has turned up.
    fn settle_on_relayed(&mut self, now: Instant) {
        let Some(search) = &mut self.search else { return };
        if search.relayed_due.is_none_or(|due| now < due) {
            return;
        }
        search.relayed_due = None;
        search.relayed_allowed = true;
        let works = |pair: &Pair| if self.role == Role::Controlled { pair.nominated && pair.valid } else { pair.valid };
        let index = self.pairs.iter().position(works);
        let heard = || self.pairs.iter().position(|pair| self.role == Role::Controlling && pair.heard);
        let Some(index) = index.or_else(heard) else { return };
        if self.role == Role::Controlling && self.nominate(now, index) {
            self.send_check(now, index);
        }
        self.select_if_settled(now, index);
    }

    fn select_if_settled(&mut self, now: Instant, index: usize) {
        let pair = &self.pairs[index];
        if self.is_settled() || !pair.valid || !pair.nominated || !self.may_settle_on(now, index) {
            return;
        }
        self.search = None;
        self.consent = Some(ConsentClock::start(now, &self.settings.consent, &mut self.random));
        let mut pair = self.pairs.swap_remove(index);
        pair.settle();
        self.events.push_back(AgentEvent::Selected(selected(&pair)));
        self.pairs = alloc::vec![pair];
        self.heard.shrink_to_fit();
        self.sockets.shrink_to_fit();
    }

    /// When the burst is spent, the time that the next check may leave.
    fn earliest_paced(&self) -> Instant {
        let burst = self.settings.checks.pacing * u32::from(self.settings.checks.burst.saturating_sub(1));
        Instant::from_nanos(
            self.paced_until.as_nanos().saturating_sub(u64::try_from(burst.as_nanos()).unwrap_or(u64::MAX)),
        )
    }

    fn renominate_if_stalled(&mut self, now: Instant) {
        if self.role != Role::Controlling || self.is_settled() {
            return;
        }
        let stalled = self.pairs.iter().position(|pair| pair.nominated && pair.is_stalled(now));
        let valid = self.pairs.iter().position(|pair| pair.valid && !pair.nominated);
        if let (Some(stalled), Some(valid)) = (stalled, valid) {
            self.renominated = true;
            self.pairs[stalled].nominated = false;
            self.pairs[valid].nominated = true;
            self.pairs[valid].next_check = Some(now);
        }
    }

    pub(super) fn send_check(&mut self, now: Instant, index: usize) {
        if self.expired || !self.pairs[index].may_check() {
            self.pairs[index].next_check = None;
            return;
        }
        let mut id = [0; 12];
        id[..4].copy_from_slice(&self.tag);
        id[4..].copy_from_slice(&self.random.bytes::<8>());
        let transaction = TransactionId(id);
        let pair = &mut self.pairs[index];
        let nominate = self.role == Role::Controlling && pair.nominated;
        pair.sent(now, transaction, nominate, self.role == Role::Controlling, &self.settings.checks);
        let (socket, source, destination) = (pair.socket, pair.local, pair.remote);
        let check = Check {
            transaction,
            username: self.credentials.username(),
            password: self.credentials.remote_password(),
            role: self.role,
            tie_breaker: self.tie_breaker,
            nominate,
            ipv6: destination.is_ipv6(),
        };
        let bytes = check.build();
        self.paced_until = self.paced_until.max(now) + self.settings.checks.pacing;
        self.transmit(socket, source, destination, bytes);
    }

    fn transmit(&mut self, socket: SocketId, source: Option<IpAddr>, destination: SocketAddr, payload: Vec<u8>) {
        self.packets_sent = self.packets_sent.saturating_add(1);
        let source = source.filter(|ip| !ip.is_unspecified());
        self.transmits.push_back(Transmit { socket, source, destination, payload });
    }
}

/// Takes the next out of a queue that is used now and then, and holds no memory in between.
fn take_out<T>(queue: &mut VecDeque<T>) -> Option<T> {
    let next = queue.pop_front();
    if queue.is_empty() {
        *queue = VecDeque::new();
    }
    next
}

/// What is told of a pair in use.
pub(super) fn selected(pair: &Pair) -> SelectedPair {
    SelectedPair {
        socket: pair.socket,
        local: pair.local.unwrap_or_else(|| unspecified(pair.remote.is_ipv6())),
        remote: pair.remote,
        kind: pair.kind,
        rtt: pair.rtt.unwrap_or_default(),
    }
}
