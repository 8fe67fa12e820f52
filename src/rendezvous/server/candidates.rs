//! The addresses that each side of an introduction is told of the other: where the server saw it, and what it claims, as
//! far as that can mean anything to somebody else.

use alloc::vec::Vec;
use core::net::SocketAddr;

use super::{At, Server, alternate_of, registry::Seen, stream_of};
use crate::{
    address::{canonical, canonical_ip, is_routable},
    wire::stun::{CandidateKind, CandidateTransport, MAX_CANDIDATES, Message, WireCandidate},
};

impl Server {
    /// The candidates that a client claims, without those that cannot mean anything to others or mean the server.
    pub(super) fn claimed_candidates(&self, at: At, message: &Message<'_>) -> Vec<WireCandidate> {
        message
            .candidates()
            .filter_map(|candidate| {
                let address = canonical(candidate.address);
                let ip = address.ip();
                let kind = match candidate.kind {
                    CandidateKind::Host => CandidateKind::Host,
                    // Only the server observes.
                    CandidateKind::ServerReflexiveObserved | CandidateKind::ServerReflexiveClaimed => {
                        CandidateKind::ServerReflexiveClaimed
                    }
                    CandidateKind::Relay => CandidateKind::Relay,
                };
                // Loopback only where the client was seen: it names another port of itself, that of a stream.
                let means_something =
                    if ip.is_loopback() { ip == canonical_ip(at.remote.ip()) } else { is_routable(ip) };
                let is_usable = address.port() != 0 && means_something;
                (is_usable && !self.is_own(at, address)).then_some(WireCandidate { kind, address, ..candidate })
            })
            .collect()
    }

    /// Whether an address is one that the server itself listens on, or is reached at.
    fn is_own(&self, at: At, address: SocketAddr) -> bool {
        let advertised = self.config.advertise.is_some_and(|own| address == own || address == alternate_of(own));
        let own_ip = address.ip() == canonical_ip(at.local.ip())
            || self.config.advertise.is_some_and(|own| own.ip() == address.ip())
            || self.sockets.iter().any(|own| own.local.ip() == address.ip());
        advertised || own_ip && self.sockets.iter().any(|own| own.local.port() == address.port())
    }
}

/// The candidates of one side that the other is told: where the server saw it, first, then what it claims. A loopback
/// address means something only to a peer on the same host, which the server has seen there too.
pub(super) fn told_candidates(seen: &[Seen], claimed: &[WireCandidate], other: &[Seen]) -> Vec<WireCandidate> {
    let other_is_here = other.iter().any(|seen| seen.remote.ip().is_loopback());
    let means_something = |address: SocketAddr| other_is_here || !address.ip().is_loopback();
    let observed = seen.iter().filter(|seen| means_something(seen.remote)).map(|seen| WireCandidate {
        kind: CandidateKind::ServerReflexiveObserved,
        transport: if stream_of(seen.socket).is_some() { CandidateTransport::Tcp } else { CandidateTransport::Udp },
        priority: 0, // The receiver's to give: the server has no preference.
        address: seen.remote,
    });
    let mut told: Vec<_> = observed.collect();
    for candidate in claimed {
        let is_same =
            |known: &WireCandidate| (known.address, known.transport) == (candidate.address, candidate.transport);
        if means_something(candidate.address) && !told.iter().any(is_same) {
            told.push(*candidate);
        }
    }
    told.truncate(MAX_CANDIDATES);
    told
}
