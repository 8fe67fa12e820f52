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
//! The selected pair is kept alive and proven by consent checks (RFC 7675); everything else is forgotten.

use alloc::{collections::VecDeque, vec::Vec};
use core::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::{
    Candidate, CandidateKind, Provenance,
    checks::{self, Check},
    pair::Pair,
};
use crate::{
    address::unspecified,
    config::{Checks, Consent},
    machine::{Instant, NextWake, Random, SocketId, Timer, Transmit},
    wire::stun::{Class, Credentials, ErrorCode, Integrity, Message, TransactionId},
};

/// Triggered checks on one pair are at least this far apart: an answer to each check of the peer would make the two sides' checks breed.
const TRIGGER_SPACING: Duration = Duration::from_millis(10);

/// Answers of the kind 401 to one peer at most; they are not authenticated, so a stranger could ask for them.
const MAX_REFUSALS: u8 = 12;

/// Remote candidates at most; a peer that sends more is not believed.
const MAX_REMOTE_CANDIDATES: usize = 32;

/// Which side makes the choice (RFC 8445 section 6.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Chooses the pair; here the connector.
    Controlling,
    /// Follows; here the listener.
    Controlled,
}

impl Role {
    /// The RFC's word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Controlling => "controlling",
            Self::Controlled => "controlled",
        }
    }
}

/// The pair that a negotiation ended on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SelectedPair {
    /// Our socket.
    pub socket: SocketId,
    /// The local address that the peer reached; unspecified where it was never seen.
    pub local: IpAddr,
    /// The peer's address.
    pub remote: SocketAddr,
    /// How the peer's address was learned.
    pub kind: CandidateKind,
    /// The round-trip time of the check that was answered.
    pub rtt: Duration,
}

/// What an agent tells its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AgentEvent {
    /// A pair was selected; it is final.
    Selected(SelectedPair),
    /// The peer's checks name us rightly and are signed with another secret, or ours were refused for that.
    WrongSecret,
    /// The selected pair has answered nothing for the time of RFC 7675.
    ConsentExpired,
}

/// Where a message came in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    pub(crate) socket: SocketId,
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
}

#[derive(Clone, Copy, Debug)]
struct ConsentState {
    next: Instant,
    expires: Instant,
}

/// One ICE negotiation and the consent of the pair that it ends on.
///
/// Sans-IO: owned and driven by a [`Peer`](crate::peer::Peer). Methods mutate; then transmissions and events are
/// taken out, and the agent is called again at the time of `next_wake`.
#[derive(Debug)]
pub struct Agent {
    config: Checks,
    consent_config: Consent,
    role: Role,
    tie_breaker: u64,
    tag: [u8; 4],
    local: Credentials,
    remote: Credentials,
    sockets: Vec<(SocketId, bool)>,
    remotes: Vec<Candidate>,
    pairs: Vec<Pair>,
    /// The pacing clock: a check may leave while this is at most a burst ahead of the time.
    paced_until: Instant,
    selected: bool,
    consent: Option<ConsentState>,
    heard_any: bool,
    wrong_secret: bool,
    refusals: u8,
    packets_sent: u32,
    transmits: VecDeque<Transmit>,
    events: VecDeque<AgentEvent>,
}

impl Agent {
    /// Begins a negotiation without sockets and candidates. `tag` begins the id of every transaction, so that the
    /// owner of many agents finds the one an answer belongs to.
    pub(crate) fn new(
        config: Checks,
        consent: Consent,
        role: Role,
        tag: [u8; 4],
        local: Credentials,
        remote: Credentials,
        random: &mut Random,
    ) -> Self {
        Self {
            config,
            consent_config: consent,
            role,
            tie_breaker: random.u64(),
            tag,
            local,
            remote,
            sockets: Vec::new(),
            remotes: Vec::new(),
            pairs: Vec::new(),
            paced_until: Instant::default(),
            selected: false,
            consent: None,
            heard_any: false,
            wrong_secret: false,
            refusals: 0,
            packets_sent: 0,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// The username fragment that the peer's checks name us by.
    pub(crate) fn local_ufrag(&self) -> &str {
        &self.local.ufrag
    }

    /// Datagrams sent so far, checks and answers.
    pub fn packets_sent(&self) -> u32 {
        self.packets_sent
    }

    /// The current role; a role conflict may have changed it.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Whether anything authenticated came from the peer.
    pub fn heard_peer(&self) -> bool {
        self.heard_any
    }

    /// The smoothed round-trip time of the selected pair.
    pub fn rtt(&self) -> Option<Duration> {
        self.selected_pair().and_then(|pair| pair.rtt)
    }

    /// Adds one of our sockets, by its family, and pairs it with the peer's candidates.
    pub(crate) fn add_socket(&mut self, now: Instant, socket: SocketId, ipv6: bool) {
        if self.sockets.iter().any(|(known, _)| *known == socket) {
            return;
        }
        self.sockets.push((socket, ipv6));
        for index in 0..self.remotes.len() {
            let remote = self.remotes[index];
            self.add_pair(now, socket, ipv6, &remote);
        }
    }

    /// Adds a candidate of the peer and pairs it with our sockets; one known already, or that must not be checked, changes nothing.
    pub(crate) fn add_remote(&mut self, now: Instant, candidate: Candidate) {
        if !candidate.is_checkable() || self.selected {
            return;
        }
        if let Some(known) = self.remotes.iter_mut().find(|known| known.address == candidate.address) {
            if candidate.provenance == Provenance::Observed {
                known.provenance = Provenance::Observed;
            }
            return;
        }
        let same_host = |known: &Candidate| {
            known.provenance == Provenance::Observed && known.address.ip() == candidate.address.ip()
        };
        let only_claimed = |known: &Candidate| known.provenance == Provenance::Claimed && known.is_public();
        let mut candidate = candidate;
        if self.remotes.iter().any(same_host) {
            candidate.provenance = Provenance::Observed;
        }
        let claimed = self.remotes.iter().filter(|known| only_claimed(known)).count();
        if self.remotes.len() >= MAX_REMOTE_CANDIDATES
            || only_claimed(&candidate) && claimed >= usize::from(self.config.claimed_addresses)
        {
            return;
        }
        self.remotes.push(candidate);
        for index in 0..self.sockets.len() {
            let (socket, ipv6) = self.sockets[index];
            self.add_pair(now, socket, ipv6, &candidate);
        }
    }

    fn add_pair(&mut self, now: Instant, socket: SocketId, ipv6: bool, remote: &Candidate) -> Option<usize> {
        if remote.address.is_ipv6() != ipv6 || self.pairs.len() >= self.config.max_pairs {
            return None;
        }
        if let Some(index) = self.pair_index(socket, remote.address) {
            return Some(index);
        }
        let budget = if remote.provenance == Provenance::Claimed && remote.is_public() {
            self.config.claimed_budget
        } else {
            self.config.observed_budget
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
        if self.selected { self.pairs.first() } else { None }
    }

    /// Whether a datagram from there that is no message of ours is the peer's data: an authenticated message came from there before.
    pub(crate) fn accepts_data(&self, socket: SocketId, remote: SocketAddr) -> bool {
        self.pairs.iter().any(|pair| pair.heard && pair.is(socket, remote))
    }

    /// Takes in a Binding request whose username begins with our fragment; whether it was authentic.
    pub(crate) fn handle_request(
        &mut self,
        now: Instant,
        random: &mut Random,
        at: Arrival,
        message: &Message<'_>,
    ) -> bool {
        let remote_fragment = message.username().and_then(|name| name.split_once(':')).map(|(_, fragment)| fragment);
        match message.verify_integrity(self.local.password.as_bytes()) {
            Integrity::Valid => {}
            Integrity::Invalid if remote_fragment == Some(self.remote.ufrag.as_str()) => {
                self.refuse(at, message);
                self.report_wrong_secret();
                return false;
            }
            Integrity::Invalid | Integrity::Absent => return false,
        }
        let unknown: Vec<_> = message.unknown_comprehension_required(checks::UNDERSTOOD).collect();
        if !unknown.is_empty() {
            let bytes = checks::refusal(
                message,
                ErrorCode::UNKNOWN_ATTRIBUTE,
                "Unknown Attribute",
                &unknown,
                Some(&self.local.password),
            );
            self.transmit(at.socket, Some(at.local.ip()), at.remote, bytes);
            return true;
        }
        if self.loses_role_conflict(at, message) {
            return true;
        }
        let bytes = checks::answer(message, at.remote, &self.local.password);
        self.transmit(at.socket, Some(at.local.ip()), at.remote, bytes);
        self.heard_any = true;
        let Some(index) = self.heard_pair(now, at, message.priority()) else { return true };
        if message.use_candidate() && self.role == Role::Controlled {
            self.pairs[index].nominated = true;
        }
        let first = self.pairs[index].hear(at.local.ip(), &self.config);
        if self.role == Role::Controlling {
            self.nominate(index);
        }
        let pair = &self.pairs[index];
        let spaced = pair.last_sent.is_none_or(|sent| now >= sent + TRIGGER_SPACING);
        if !self.selected && (first || !pair.valid && spaced) {
            self.send_check(now, random, index);
        }
        self.select_if_settled(now, random, index);
        true
    }

    /// The pair a check came in on, made where the address was not known: a peer-reflexive candidate (RFC 8445 section 7.3.1.3).
    fn heard_pair(&mut self, now: Instant, at: Arrival, priority: Option<u32>) -> Option<usize> {
        if let Some(index) = self.pair_index(at.socket, at.remote) {
            return Some(index);
        }
        if self.selected {
            return None;
        }
        let (_, ipv6) = *self.sockets.iter().find(|(socket, _)| *socket == at.socket)?;
        let mut candidate = Candidate::new(CandidateKind::PeerReflexive, at.remote, Provenance::Observed);
        if let Some(priority) = priority {
            candidate = candidate.with_priority(priority);
        }
        self.add_pair(now, at.socket, ipv6, &candidate)
    }

    /// RFC 8445 section 7.3.1.1: true when the request was refused with 487; else our role may have been switched.
    fn loses_role_conflict(&mut self, at: Arrival, message: &Message<'_>) -> bool {
        let theirs = match self.role {
            Role::Controlling => message.ice_controlling(),
            Role::Controlled => message.ice_controlled(),
        };
        let Some(theirs) = theirs else { return false };
        let we_keep_controlling = self.tie_breaker >= theirs;
        let refuse = we_keep_controlling == (self.role == Role::Controlling);
        if refuse {
            let bytes =
                checks::refusal(message, ErrorCode::ROLE_CONFLICT, "Role Conflict", &[], Some(&self.local.password));
            self.transmit(at.socket, Some(at.local.ip()), at.remote, bytes);
        } else {
            self.switch_role();
        }
        refuse
    }

    fn switch_role(&mut self) {
        self.role = match self.role {
            Role::Controlling => Role::Controlled,
            Role::Controlled => Role::Controlling,
        };
        for pair in &mut self.pairs {
            pair.nominated = false;
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
        if !self.heard_any && !self.wrong_secret {
            self.wrong_secret = true;
            self.events.push_back(AgentEvent::WrongSecret);
        }
    }

    /// Takes in an answer whose transaction id begins with our tag; false when it is none of ours.
    pub(crate) fn handle_response(
        &mut self,
        now: Instant,
        random: &mut Random,
        at: Arrival,
        message: &Message<'_>,
    ) -> bool {
        let integrity = message.verify_integrity(self.remote.password.as_bytes());
        // An answer must come from where the check went (RFC 8445 section 7.2.5.2.1). A late one, to a check that is
        // forgotten, is the peer's all the same, and no data.
        let Some(index) = self.pair_index(at.socket, at.remote) else { return integrity == Integrity::Valid };
        match (message.class(), integrity) {
            (Class::Success, Integrity::Valid) => {}
            (Class::Error, Integrity::Valid) => {
                if is_error(message, ErrorCode::ROLE_CONFLICT)
                    && self.pairs[index].answered(now, &message.transaction_id()).is_some()
                {
                    self.switch_role();
                    self.pairs[index].next_check = Some(now);
                }
                return true;
            }
            (Class::Error, _) => {
                if is_error(message, ErrorCode::UNAUTHENTICATED)
                    && self.pairs[index].answered(now, &message.transaction_id()).is_some()
                {
                    self.report_wrong_secret();
                }
                return true;
            }
            _ => return false,
        }
        let Some(nominating) = self.pairs[index].answered(now, &message.transaction_id()) else { return true };
        self.heard_any = true;
        let pair = &mut self.pairs[index];
        pair.hear(at.local.ip(), &self.config);
        pair.valid = true;
        pair.acknowledged |= nominating;
        let chosen_now = self.role == Role::Controlling && self.nominate(index);
        if let Some(consent) = &mut self.consent
            && self.selected
        {
            consent.expires = now + self.consent_config.expiry;
        }
        let pair = &mut self.pairs[index];
        if chosen_now {
            // The peer learns of the choice as early as it can.
            self.send_check(now, random, index);
        } else if self.role == Role::Controlled || !pair.nominated || pair.acknowledged {
            pair.next_check = None;
        } else if !nominating && pair.last_sent.is_some_and(|sent| now >= sent + self.config.proven) {
            pair.next_check = Some(now);
        }
        self.select_if_settled(now, random, index);
        true
    }

    /// Makes the choice, where it is not made yet; whether it was made now.
    fn nominate(&mut self, index: usize) -> bool {
        let open = !self.pairs.iter().any(|pair| pair.nominated);
        self.pairs[index].nominated |= open;
        open
    }

    fn select_if_settled(&mut self, now: Instant, random: &mut Random, index: usize) {
        let pair = &self.pairs[index];
        if self.selected || !pair.valid || !pair.nominated {
            return;
        }
        self.selected = true;
        self.consent =
            Some(ConsentState { next: now + self.consent_interval(random), expires: now + self.consent_config.expiry });
        let mut pair = self.pairs.swap_remove(index);
        pair.settle();
        self.events.push_back(AgentEvent::Selected(SelectedPair {
            socket: pair.socket,
            local: pair.local.unwrap_or_else(|| unspecified(pair.remote.is_ipv6())),
            remote: pair.remote,
            kind: pair.kind,
            rtt: pair.rtt.unwrap_or_default(),
        }));
        self.pairs = alloc::vec![pair];
        self.remotes = Vec::new();
    }

    fn consent_interval(&self, random: &mut Random) -> Duration {
        let mean = self.consent_config.interval;
        random.duration(mean * 4 / 5, mean * 6 / 5)
    }

    /// Sends what is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant, random: &mut Random) {
        if let Some(consent) = self.consent {
            if now >= consent.expires {
                self.consent = None;
                self.events.push_back(AgentEvent::ConsentExpired);
                return;
            }
            if now >= consent.next {
                self.consent = Some(ConsentState { next: now + self.consent_interval(random), ..consent });
                self.send_check(now, random, 0);
                if self.pairs[0].acknowledged || self.role == Role::Controlled {
                    self.pairs[0].next_check = None;
                }
            }
        }
        self.renominate_if_stalled();
        for index in 0..self.pairs.len() {
            if self.pairs[index].next_check.is_some_and(|due| now >= due) {
                let earliest = self.earliest_paced();
                if now >= earliest {
                    self.send_check(now, random, index);
                } else {
                    self.pairs[index].next_check = Some(earliest);
                }
            }
        }
    }

    /// When the burst is spent, the time that the next check may leave.
    fn earliest_paced(&self) -> Instant {
        let burst = self.config.pacing * u32::from(self.config.burst);
        Instant::from_nanos(
            self.paced_until.as_nanos().saturating_sub(u64::try_from(burst.as_nanos()).unwrap_or(u64::MAX)),
        )
    }

    fn renominate_if_stalled(&mut self) {
        if self.role != Role::Controlling || self.selected {
            return;
        }
        let stalled = self.pairs.iter().position(|pair| pair.nominated && pair.is_stalled(&self.config));
        let valid = self.pairs.iter().position(|pair| pair.valid && !pair.nominated);
        if let (Some(stalled), Some(valid)) = (stalled, valid) {
            self.pairs[stalled].nominated = false;
            self.pairs[valid].nominated = true;
            self.pairs[valid].next_check = Some(Instant::default());
        }
    }

    fn send_check(&mut self, now: Instant, random: &mut Random, index: usize) {
        if !self.pairs[index].may_check() {
            self.pairs[index].next_check = None;
            return;
        }
        let mut id = [0; 12];
        id[..4].copy_from_slice(&self.tag);
        id[4..].copy_from_slice(&random.bytes::<8>());
        let transaction = TransactionId(id);
        let pair = &mut self.pairs[index];
        let nominate = self.role == Role::Controlling && pair.nominated;
        pair.sent(now, transaction, nominate, &self.config);
        let (socket, source, destination) = (pair.socket, pair.local, pair.remote);
        let check = Check {
            transaction,
            local: &self.local,
            remote: &self.remote,
            role: self.role,
            tie_breaker: self.tie_breaker,
            nominate,
            ipv6: destination.is_ipv6(),
        };
        let bytes = check.build();
        self.paced_until = self.paced_until.max(now) + self.config.pacing;
        self.transmit(socket, source, destination, bytes);
    }

    fn transmit(&mut self, socket: SocketId, source: Option<IpAddr>, destination: SocketAddr, payload: Vec<u8>) {
        self.packets_sent = self.packets_sent.saturating_add(1);
        let source = source.filter(|ip| !ip.is_unspecified());
        self.transmits.push_back(Transmit { socket, source, destination, payload });
    }

    pub(crate) fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    pub(crate) fn poll_event(&mut self) -> Option<AgentEvent> {
        self.events.pop_front()
    }

    pub(crate) fn next_wake(&self) -> NextWake {
        let mut wake = NextWake::never();
        for pair in &self.pairs {
            wake.at(pair.next_check, Timer::Check);
        }
        if let Some(consent) = self.consent {
            wake.at(Some(consent.next.min(consent.expires)), Timer::Consent);
        }
        wake
    }
}

fn is_error(message: &Message<'_>, code: u16) -> bool {
    message.error_code().is_some_and(|error| error.code == code)
}
