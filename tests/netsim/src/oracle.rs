//! The oracle: which pairs of NATs two peers can get through, told from the definitions of RFC 4787 and nothing else.
//!
//! # What a peer knows of the other's port
//!
//! Each peer has learned from a server the external port of the other's mapping. Toward the peer that port is
//!
//! - **known** with endpoint-independent mapping: it is the same;
//! - **predictable** with endpoint-dependent mapping where ports are preserving (from a socket that has sent nothing yet) or
//!   sequential: it will be another, but it can be told in advance;
//! - **unknown** with endpoint-dependent mapping and random ports: it can only be searched for.
//!
//! # The rule
//!
//! Taken in order, for two NATs A and B, either way round:
//!
//! 1. A filters endpoint-independently. B sends to the port A's mapping has; A lets it in, whoever sends; the answer goes to its
//!    source, by the mapping that was called. **Plain.**
//! 2. A maps endpoint-independently and filters by address. A sends once to B's address, any port; from then on whatever comes
//!    from there is let in at A's known port. B sends; A learns B's port from it. **Peer-reflexive.**
//! 3. Both map endpoint-independently (and filter by address and port): both ports are known; each sends to the other's. **Plain.**
//! 4. A maps endpoint-independently, B does not. A must have sent to the very port that B calls from. Predictable: A is told;
//!    unknown: B opens many, A tries many, and a birthday brings them together.
//! 5. Neither does, but A filters by address: so A, once it has sent to B's address, lets B in from any port; what B must hit is
//!    A's port. Predictable: B is told; unknown, where B filters by port: a birthday on A's; unknown on both sides and both
//!    filter by address: both search, a hit on either is enough.
//! 6. Neither does, and both filter by address and port: each must hit the other's port from a port the other has sent to. Both
//!    predictable: both are told. One predictable *and* the same for all ports of the peer (address-dependent mapping), the other
//!    unknown: a birthday toward that constant port. Else the ports to search multiply, some 10^5 datagrams a side:
//!    **impossible**.

//! # Several borders, one behind the other
//!
//! A home NAT behind a carrier's, or a firewall (which maps endpoint-independently and filters by address and port) behind a NAT:
//! what reaches a peer passes all of them. Rules 1 to 3, taken border by border, give [`is_punched`]. B's datagram to the port that
//! the server saw passes a border of A that filters endpoint-independently; it passes another one if A's own datagram toward
//! B went the same way, for which this border and all within it map endpoint-independently, and if the filter lets it in:
//! the one by address always, the one by address and port if B's port toward A is the one that A was told of, for which all
//! of B's borders map endpoint-independently. Where B's datagram arrives, A's answer goes back by the way it came.

use crate::nat::{Filtering, Mapping, Nat, PortAllocation};
use std::fmt;

/// A kind of NAT: one of the 27 combinations of behaviours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NatKind {
    /// Mapping behaviour.
    pub mapping: Mapping,
    /// Filtering behaviour.
    pub filtering: Filtering,
    /// Port allocation.
    pub ports: PortAllocation,
}

/// What it takes to get through a pair of NATs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Technique {
    /// Both send to the port the server saw.
    Plain,
    /// As plain; one port is learned from the peer's own datagram.
    PeerReflexive,
    /// One port is predicted.
    Predict,
    /// Both ports are predicted.
    PredictBoth,
    /// One side opens many ports, the other tries many.
    Birthday,
    /// Both sides search.
    MutualSearch,
    /// A birthday in which every datagram goes to one predicted port.
    BirthdayOnConstantPort,
    /// None.
    Infeasible,
}

/// What must come of a pair of NATs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Expectation {
    /// Connected by sending to the ports the server saw.
    Plain,
    /// Connected by sending to the ports the server saw and answering to the ports seen.
    PeerReflexive,
    /// Connected only by prediction or search.
    NeedsMore,
    /// Not connected.
    Impossible,
}

/// What a peer can know of the port that the other's NAT will give toward it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortKnowledge {
    /// The port the server saw.
    Known,
    /// Another, that can be told in advance.
    Predictable,
    /// Any other.
    Unknown,
}

impl NatKind {
    /// Returns the 27 kinds, in the order of mapping, filtering, ports.
    #[must_use]
    pub fn all() -> [Self; 27] {
        const MAPPINGS: [Mapping; 3] =
            [Mapping::EndpointIndependent, Mapping::AddressDependent, Mapping::AddressAndPortDependent];
        const FILTERINGS: [Filtering; 3] =
            [Filtering::EndpointIndependent, Filtering::AddressDependent, Filtering::AddressAndPortDependent];
        const PORTS: [PortAllocation; 3] =
            [PortAllocation::Preserving, PortAllocation::Sequential, PortAllocation::Random];
        std::array::from_fn(|index| Self {
            mapping: MAPPINGS[index / 9],
            filtering: FILTERINGS[index / 3 % 3],
            ports: PORTS[index % 3],
        })
    }

    /// Returns the name, such as `eim_apdf_preserving`.
    #[must_use]
    pub fn name(self) -> String {
        let mapping = match self.mapping {
            Mapping::EndpointIndependent => "eim",
            Mapping::AddressDependent => "adm",
            Mapping::AddressAndPortDependent => "apdm",
        };
        let filtering = match self.filtering {
            Filtering::EndpointIndependent => "eif",
            Filtering::AddressDependent => "adf",
            Filtering::AddressAndPortDependent => "apdf",
        };
        let ports = match self.ports {
            PortAllocation::Preserving => "preserving",
            PortAllocation::Sequential => "sequential",
            PortAllocation::Random => "random",
        };
        format!("{mapping}_{filtering}_{ports}")
    }

    /// Returns a NAT of this kind, for the simulator.
    #[must_use]
    pub const fn nat(self) -> Nat {
        Nat::new(self.mapping, self.filtering, self.ports)
    }

    /// Returns what a peer can know of the port this NAT will give toward it.
    #[must_use]
    pub const fn port_knowledge(self) -> PortKnowledge {
        match (self.mapping, self.ports) {
            (Mapping::EndpointIndependent, _) => PortKnowledge::Known,
            (_, PortAllocation::Preserving | PortAllocation::Sequential) => PortKnowledge::Predictable,
            (_, PortAllocation::Random) => PortKnowledge::Unknown,
        }
    }
}

impl fmt::Display for NatKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

/// Returns the 378 unordered pairs of kinds, each kind with itself included.
#[must_use]
pub fn unordered_pairs() -> Vec<(NatKind, NatKind)> {
    let all = NatKind::all();
    all.iter().enumerate().flat_map(|(index, a)| all[index..].iter().map(|b| (*a, *b))).collect()
}

/// Returns the name of a pair, `nat_<a>_x_<b>`.
#[must_use]
pub fn pair_name(a: NatKind, b: NatKind) -> String {
    format!("nat_{a}_x_{b}")
}

/// Returns what must come of a pair, whichever way round it is given.
#[must_use]
pub fn expected(a: NatKind, b: NatKind) -> Expectation {
    match technique(a, b) {
        Technique::Plain => Expectation::Plain,
        Technique::PeerReflexive => Expectation::PeerReflexive,
        Technique::Predict
        | Technique::PredictBoth
        | Technique::Birthday
        | Technique::MutualSearch
        | Technique::BirthdayOnConstantPort => Expectation::NeedsMore,
        Technique::Infeasible => Expectation::Impossible,
    }
}

/// Returns what it takes to get through a pair, whichever way round it is given: the rule, in its order.
#[must_use]
pub fn technique(a: NatKind, b: NatKind) -> Technique {
    use PortKnowledge::{Known, Predictable, Unknown};
    let either = |holds: fn(NatKind) -> bool| holds(a) || holds(b);
    let both = |holds: fn(NatKind) -> bool| holds(a) && holds(b);
    let (lower, higher) = {
        let (a, b) = (a.port_knowledge(), b.port_knowledge());
        (a.min(b), a.max(b))
    };

    // 1 to 3.
    if either(|kind| kind.filtering == Filtering::EndpointIndependent) {
        return Technique::Plain;
    }
    if either(|kind| kind.port_knowledge() == Known && kind.filtering == Filtering::AddressDependent) {
        return Technique::PeerReflexive;
    }
    match (lower, higher) {
        (Known, Known) => return Technique::Plain,
        // 4.
        (Known, Predictable) => return Technique::Predict,
        (Known, Unknown) => return Technique::Birthday,
        _ => {}
    }
    // 5.
    let filters_by_address = |kind: NatKind| kind.filtering == Filtering::AddressDependent;
    if either(|kind| kind.filtering == Filtering::AddressDependent && kind.port_knowledge() == Predictable) {
        return Technique::Predict;
    }
    match (filters_by_address(a), filters_by_address(b)) {
        (true, true) => return Technique::MutualSearch,
        (true, false) | (false, true) => return Technique::Birthday,
        (false, false) => {}
    }
    // 6.
    if both(|kind| kind.port_knowledge() == Predictable) {
        return Technique::PredictBoth;
    }
    let is_constant = |kind: NatKind| kind.mapping == Mapping::AddressDependent && kind.port_knowledge() == Predictable;
    if is_constant(a) || is_constant(b) { Technique::BirthdayOnConstantPort } else { Technique::Infeasible }
}

/// Returns whether plain punching (or peer-reflexive) is enough for two peers behind these borders, each from the innermost to the
/// outermost, whichever way round; no border is an open network. Two peers behind one carrier's NAT have it in both lists, and it
/// must hairpin.
#[must_use]
pub fn is_punched(a: &[NatKind], b: &[NatKind]) -> bool {
    reaches(a, b) || reaches(b, a)
}

/// Whether a datagram of one peer, sent to the port that a server saw the other at, arrives there.
fn reaches(from: &[NatKind], to: &[NatKind]) -> bool {
    let is_known = |borders: &[NatKind]| borders.iter().all(|kind| kind.port_knowledge() == PortKnowledge::Known);
    to.iter().enumerate().all(|(index, border)| match border.filtering {
        Filtering::EndpointIndependent => true,
        Filtering::AddressDependent => is_known(&to[..=index]),
        Filtering::AddressAndPortDependent => is_known(&to[..=index]) && is_known(from),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn counts_are_those_that_were_measured() {
        let pairs = unordered_pairs();
        assert_eq!(pairs.len(), 378);
        let mut counts = BTreeMap::<Technique, usize>::new();
        for (a, b) in pairs {
            assert_eq!(technique(a, b), technique(b, a), "{}", pair_name(a, b));
            *counts.entry(technique(a, b)).or_default() += 1;
        }
        let expected = [
            (Technique::Plain, 213),
            (Technique::PeerReflexive, 51),
            (Technique::Predict, 66),
            (Technique::PredictBoth, 10),
            (Technique::Birthday, 24),
            (Technique::MutualSearch, 3),
            (Technique::BirthdayOnConstantPort, 4),
            (Technique::Infeasible, 7),
        ];
        assert_eq!(counts, expected.into());
        let needs_more =
            unordered_pairs().iter().filter(|(a, b)| super::expected(*a, *b) == Expectation::NeedsMore).count();
        assert_eq!(needs_more, 107);
    }

    #[test]
    fn one_border_each_is_the_pair() {
        for (a, b) in unordered_pairs() {
            let plain = matches!(expected(a, b), Expectation::Plain | Expectation::PeerReflexive);
            assert_eq!(is_punched(&[a], &[b]), plain, "{}", pair_name(a, b));
            assert!(is_punched(&[a], &[]) && is_punched(&[], &[b]), "an open network is reached");
        }
    }

    #[test]
    fn names_are_distinct_and_say_the_kind() {
        let all = NatKind::all();
        assert_eq!(all[6].name(), "eim_apdf_preserving");
        assert_eq!(all[26].name(), "apdm_apdf_random");
        assert_eq!(pair_name(all[0], all[26]), "nat_eim_eif_preserving_x_apdm_apdf_random");
        let mut names: Vec<_> = all.iter().map(|kind| kind.name()).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 27);
    }
}
