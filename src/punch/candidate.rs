//! Candidates: the addresses a peer may be reached at (RFC 8445 section 5.1), and which of them may be tried.

use core::net::{IpAddr, SocketAddr};

use crate::address;

/// How a candidate was learned (RFC 8445 section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum CandidateKind {
    /// An address of an interface of the peer.
    Host,
    /// The peer's address as a server saw it.
    ServerReflexive,
    /// The peer's address as a check of its showed it.
    PeerReflexive,
    /// An address at a relay.
    Relayed,
}

impl CandidateKind {
    /// The short name of candidate lines (RFC 8839 section 5.1).
    pub const fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::ServerReflexive => "srflx",
            Self::PeerReflexive => "prflx",
            Self::Relayed => "relay",
        }
    }

    /// The recommended type preference (RFC 8445 section 5.1.2.2).
    const fn preference(self) -> u32 {
        match self {
            Self::Host => 126,
            Self::PeerReflexive => 110,
            Self::ServerReflexive => 100,
            Self::Relayed => 0,
        }
    }

    /// The priority of a candidate of this kind (RFC 8445 section 5.1.2.1), for component 1; IPv6 before IPv4 (RFC 8421).
    pub fn priority(self, address: IpAddr) -> u32 {
        let local_preference = if address.is_ipv6() { 65_535 } else { 65_534 };
        (self.preference() << 24) | (local_preference << 8) | 255
    }
}

/// Who says that the peer is at an address; it bounds how many checks may go there unanswered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Provenance {
    /// The server saw the peer's packets come from there.
    Observed,
    /// Only the peer says so.
    Claimed,
}

/// An address that the peer may be reached at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Candidate {
    /// How it was learned.
    pub kind: CandidateKind,
    /// Where.
    pub address: SocketAddr,
    /// The peer's own priority for it.
    pub priority: u32,
    /// Who says so.
    pub provenance: Provenance,
}

impl Candidate {
    /// A candidate with the recommended priority. The address is canonicalised: IPv4-mapped and NAT64
    /// (RFC 6052) forms become the IPv4 address they carry, flow label and scope are dropped.
    pub fn new(kind: CandidateKind, address: SocketAddr, provenance: Provenance) -> Self {
        let address = address::canonical(address);
        Self { kind, address, priority: kind.priority(address.ip()), provenance }
    }

    /// The same with the priority that the peer gave it.
    #[must_use]
    pub fn with_priority(mut self, priority: u32) -> Self {
        self.priority = priority;
        self
    }

    /// Whether checks may be sent there at all: a unicast address with a port that means the same host on every
    /// link. Loopback only when a server observed the peer there.
    pub(crate) fn is_checkable(&self) -> bool {
        if self.address.port() == 0 {
            return false;
        }
        let ip = self.address.ip();
        if ip.is_loopback() {
            return self.provenance == Provenance::Observed;
        }
        address::is_routable(ip)
    }

    /// Whether it is a public address, where checks to it could be a nuisance to a third party.
    pub(crate) fn is_public(&self) -> bool {
        address::is_public(self.address.ip())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claimed(address: &str) -> Candidate {
        Candidate::new(CandidateKind::Host, address.parse().unwrap(), Provenance::Claimed)
    }

    #[test]
    fn priorities_follow_rfc_8445() {
        let host = CandidateKind::Host.priority([10, 0, 0, 1].into());
        assert_eq!(host, (126 << 24) | (65_534 << 8) | 255);
        assert!(host > CandidateKind::PeerReflexive.priority([10, 0, 0, 1].into()));
    }

    #[test]
    fn what_means_nothing_elsewhere_is_not_checked() {
        for address in [
            "127.0.0.1:5",
            "0.0.0.0:5",
            "224.0.0.1:5",
            "255.255.255.255:5",
            "169.254.1.1:5",
            "[::1]:5",
            "[fe80::1]:5",
            "[ff02::1]:5",
            "192.0.2.1:0",
            "[::ffff:127.0.0.1]:5",
            "240.0.0.1:5",
        ] {
            assert!(!claimed(address).is_checkable(), "{address}");
        }
        assert!(claimed("10.0.0.1:5").is_checkable());
        assert!(!claimed("10.0.0.1:5").is_public());
        assert!(claimed("[2001:db8::1]:5").is_public());
    }
}
