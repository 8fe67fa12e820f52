//! A peer that is heard elsewhere than on the selected pair: its NAT may have given it another address (rebinding).
//!
//! A check that comes from elsewhere is authentic, and says nothing of its sender's address: whoever sees one can send
//! a copy of it from anywhere. So the selected pair is asked first, unless it has just answered; then a little later, for
//! it may have done so before it moved. While that answers, nothing moves, and the other
//! address gets the answer to its check and nothing more. Where the selected pair stays silent, the other address is
//! checked, too, a few times ([`CHECKS`]); the pair moves there if it answers, which takes the session's keys, before
//! the selected one does. Nothing of this needs the peer's doing: it sees us where it always did, and each side
//! follows the other by itself.
//!
//! The other pair is kept beside the selected one, as the second, while it is looked at.

use core::time::Duration;

use super::{
    Agent, AgentEvent, Candidate, CandidateKind, Provenance,
    agent::{Arrival, selected},
    pair::Pair,
};
use crate::{address::unspecified, machine::Instant};

/// A selected pair that has answered is asked again after this time at the earliest.
const ALIVE: Duration = Duration::from_secs(1);

/// The selected pair is given so long to answer before the other is checked, and each of the checks that follow; longer
/// where the round trip asks for it.
const PATIENCE: Duration = Duration::from_millis(500);

/// Checks to the other address, and one more for every further check that comes from there.
const CHECKS: u8 = 3;

impl Agent {
    /// A check of the peer has come from elsewhere than the selected pair.
    pub(super) fn notice_elsewhere(&mut self, now: Instant, at: Arrival) {
        let is_settled = self.is_settled();
        let Some(consent) = &mut self.consent else { return };
        let is_possible = is_settled && at.socket == self.pairs[0].socket && self.pairs.len() == 1;
        if !is_possible {
            return;
        }
        let asked = now.max(consent.answered(&self.settings.consent) + ALIVE);
        consent.ask_at(asked);
        let candidate = Candidate::new(CandidateKind::PeerReflexive, at.remote, Provenance::Observed);
        let ipv6 = at.remote.is_ipv6();
        let priority = CandidateKind::Host.priority(unspecified(ipv6));
        let controlling = self.pairs[0].nominated;
        let mut pair = Pair::new(at.socket, &candidate, CHECKS, priority, controlling);
        pair.be_elsewhere(&self.pairs[0], at.local.ip(), asked + self.patience());
        self.pairs.push(pair);
    }

    /// Checks the other pair when it is due, and gives it up when it does not answer.
    pub(super) fn look_elsewhere(&mut self, now: Instant) {
        let Some(other) = self.pairs.get(1).filter(|_| self.is_settled()) else { return };
        if other.next_check.is_none_or(|due| now < due) {
            return;
        }
        if !other.may_check() {
            return self.stay();
        }
        self.send_check(now, 1);
        self.pairs[1].next_check = Some(now + self.patience());
    }

    /// Looks nowhere else (any more).
    pub(super) fn stay(&mut self) {
        if self.is_settled() {
            self.pairs.truncate(1);
        }
    }

    /// The other pair has answered, and the selected one has not: the peer is there now.
    pub(super) fn follow(&mut self) {
        let before = self.pairs.swap_remove(0);
        let pair = &self.pairs[0];
        // Data of the time before may still be under way.
        self.heard = alloc::vec![(before.socket, before.remote), (pair.socket, pair.remote)];
        self.events.push_back(AgentEvent::Moved(selected(pair)));
    }

    fn patience(&self) -> Duration {
        PATIENCE.max(self.pairs[0].rtt.unwrap_or_default() * 3 / 2)
    }
}
