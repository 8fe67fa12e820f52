//! A candidate pair: one of our sockets and one address of the peer (RFC 8445 section 6.1.2), and when to check it.
//!
//! Routing picks the local address, so a pair needs no local candidate beyond the socket; once the peer was heard
//! on a pair, answers and checks leave from the address that it reached.

use alloc::collections::VecDeque;
use core::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::{Candidate, CandidateKind};
use crate::{
    config::Checks,
    machine::{Instant, SocketId},
    wire::stun::TransactionId,
};

/// Checks of one pair whose answers are still recognised: a round trip of 480 ms at the interval of 15 ms.
const MAX_OUTSTANDING: usize = 32;

/// Checks on a pair that has worked, which nothing answers any more, until it is selected: a minute's worth. From then on
/// consent says how long a silent peer is asked.
const MAX_UNANSWERED: u32 = 100;

/// A pair on which the peer was heard, whose checks are spent and unanswered for so long, gives its nomination up to
/// one that works in both directions.
pub(super) const STALLED: Duration = Duration::from_millis(300);

/// Checks further apart than this are no longer in haste.
const HASTE: Duration = Duration::from_millis(100);

/// Where a peer that was not heard is introduced again, a second check follows the first so soon: one may be lost.
const SECOND_CHECK: Duration = Duration::from_millis(20);

/// A check that was sent and not answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outstanding {
    transaction: TransactionId,
    sent: Instant,
    /// It carried the choice of its pair.
    pub(super) nominating: bool,
    /// It was sent in the controlling role.
    pub(super) controlling: bool,
}

#[derive(Debug)]
pub(super) struct Pair {
    pub(super) socket: SocketId,
    pub(super) remote: SocketAddr,
    pub(super) kind: CandidateKind,
    /// The local address that the peer reached, once it did.
    pub(super) local: Option<IpAddr>,
    /// An authenticated message came in on this pair.
    pub(super) heard: bool,
    /// A check of ours was answered: the pair works in both directions.
    pub(super) valid: bool,
    /// The controlling peer has chosen this pair.
    pub(super) nominated: bool,
    /// The controlled peer has acknowledged the choice.
    pub(super) acknowledged: bool,
    pub(super) rtt: Option<Duration>,
    pub(super) last_sent: Option<Instant>,
    pub(super) next_check: Option<Instant>,
    local_priority: u32,
    remote_priority: u32,
    priority: u64,
    /// Checks since the pair was made, or since it was first heard.
    checks: u32,
    budget: u32,
    /// Checks since the last one that was answered.
    unanswered: u32,
    settled: bool,
    /// Since the last check.
    is_introduced_again: bool,
    outstanding: VecDeque<Outstanding>,
}

impl Pair {
    pub(super) fn new(
        socket: SocketId,
        remote: &Candidate,
        budget: u8,
        local_priority: u32,
        controlling: bool,
    ) -> Self {
        Self {
            socket,
            remote: remote.address,
            kind: remote.kind,
            local: None,
            heard: false,
            valid: false,
            nominated: false,
            acknowledged: false,
            rtt: None,
            last_sent: None,
            next_check: None,
            local_priority,
            remote_priority: remote.priority,
            priority: pair_priority(local_priority, remote.priority, controlling),
            checks: 0,
            budget: u32::from(budget),
            unanswered: 0,
            settled: false,
            is_introduced_again: false,
            outstanding: VecDeque::new(),
        }
    }

    pub(super) fn is(&self, socket: SocketId, remote: SocketAddr) -> bool {
        self.socket == socket && self.remote == remote
    }

    pub(super) fn priority(&self) -> u64 {
        self.priority
    }

    /// Lets more checks be sent: a server has seen the peer there. When it says so again, the peer was told of us only now,
    /// or still hears nothing, and the checks in haste are over: the next leaves at once, and where they are spent, that is
    /// worth one more, up to as many again.
    pub(super) fn raise_budget(&mut self, now: Instant, budget: u8) {
        let budget = u32::from(budget);
        if self.budget < budget {
            self.budget = budget;
        } else if !self.may_check() && !self.heard && self.budget < 2 * budget {
            self.budget += 1;
        }
        let is_slow = self.next_check.is_none_or(|due| self.last_sent.is_some_and(|sent| due > sent + HASTE));
        if !self.heard && self.may_check() && is_slow {
            self.next_check = Some(now);
            self.is_introduced_again = true;
        }
    }

    /// Our side has taken the other role: the priority follows, the choice is open again, and what worked is checked.
    pub(super) fn switch_role(&mut self, now: Instant, controlling: bool) {
        self.priority = pair_priority(self.local_priority, self.remote_priority, controlling);
        self.nominated = false;
        self.acknowledged = false;
        if self.heard {
            self.next_check = Some(now);
        }
    }

    /// Notes that something authenticated came in; true for the first time.
    pub(super) fn hear(&mut self, local: IpAddr, config: &Checks) -> bool {
        if !local.is_unspecified() {
            self.local = Some(local);
        }
        let first = !self.heard;
        if first {
            self.heard = true;
            self.checks = 0;
            self.budget = config.observed_budget.into();
        }
        self.budget = self.budget.saturating_add(config.heard_budget.into());
        first
    }

    /// Whether a check may still be sent: to an address that has not answered within a budget, since the source of a
    /// check that came in may be a lie of an introduced peer; and to one that has, until it is silent for long.
    pub(super) fn may_check(&self) -> bool {
        self.settled || self.valid && self.unanswered < MAX_UNANSWERED || self.checks < self.budget
    }

    /// Notes a check that leaves now, and when the next is due unless something happens before.
    pub(super) fn sent(
        &mut self,
        now: Instant,
        transaction: TransactionId,
        nominating: bool,
        controlling: bool,
        config: &Checks,
    ) {
        if self.outstanding.len() == MAX_OUTSTANDING {
            self.outstanding.pop_front();
        }
        self.outstanding.push_back(Outstanding { transaction, sent: now, nominating, controlling });
        self.last_sent = Some(now);
        self.checks = self.checks.saturating_add(1);
        self.unanswered = self.unanswered.saturating_add(1);
        let interval = if self.heard {
            proven_interval(config, self.checks)
        } else if core::mem::take(&mut self.is_introduced_again) {
            SECOND_CHECK
        } else {
            config.unproven.get(self.checks as usize - 1).copied().unwrap_or(config.maximum)
        };
        self.next_check = self.may_check().then(|| now + interval);
    }

    /// Whether the pair was checked so often since the peer was heard, and so long ago, that it will hardly become
    /// valid.
    pub(super) fn is_stalled(&self, now: Instant) -> bool {
        let is_old = self.last_sent.is_some_and(|sent| now >= sent + STALLED);
        self.heard && !self.valid && !self.may_check() && is_old
    }

    /// Takes out the check that an answer belongs to. Once the pair is in use, older ones are of no interest any more.
    pub(super) fn answered(&mut self, now: Instant, transaction: &TransactionId) -> Option<Outstanding> {
        let index = self.outstanding.iter().position(|check| check.transaction == *transaction)?;
        let check = self.outstanding.remove(index)?;
        if self.settled {
            self.outstanding.drain(..index);
            self.outstanding.shrink_to_fit();
        }
        self.unanswered = 0;
        let rtt = now.saturating_since(check.sent);
        self.rtt = Some(self.rtt.map_or(rtt, |smoothed| (smoothed * 7 + rtt) / 8)); // RFC 6298's smoothing
        Some(check)
    }

    /// Begins as what a peer may have moved to from the pair in use: it is checked later, and nothing is left to choose.
    pub(super) fn be_elsewhere(&mut self, before: &Self, local: IpAddr, due: Instant) {
        self.local = Some(local).filter(|ip| !ip.is_unspecified());
        self.heard = true;
        self.nominated = before.nominated;
        self.acknowledged = before.acknowledged;
        self.next_check = Some(due);
    }

    /// Forgets the checks of the search once the pair is in use.
    pub(super) fn settle(&mut self) {
        self.settled = true;
        self.outstanding.shrink_to_fit();
    }
}

/// The interval after the `n`-th check since the peer was heard: short, then doubling.
fn proven_interval(config: &Checks, n: u32) -> Duration {
    let doublings = n.saturating_sub(u32::from(config.proven_burst)).min(16);
    (config.proven * (1 << doublings)).min(config.maximum)
}

/// RFC 8445 section 6.1.2.3.
fn pair_priority(local: u32, remote: u32, controlling: bool) -> u64 {
    let (g, d) = if controlling { (local, remote) } else { (remote, local) };
    (u64::from(g.min(d)) << 32) + 2 * u64::from(g.max(d)) + u64::from(g > d)
}
