//! What a registration keeps, in as few bytes as it takes: a server has a hundred thousand of them.
//!
//! A `SocketAddr` has 32 bytes for the flow and the scope of IPv6, which every address here is without (`canonical`); and
//! structures within structures are padded each for itself. So these are flat, and what is asked for is put together.

use alloc::{boxed::Box, vec::Vec};
use core::net::{IpAddr, SocketAddr};

use super::registry::Seen;
use crate::{
    machine::{Instant, SocketId},
    wire::stun::{CandidateKind, CandidateTransport, WireCandidate},
};

/// Where a client was seen, and when last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sighting {
    pub(super) since: Instant,
    socket: SocketId,
    port: u16,
    ip: IpAddr,
    local: IpAddr,
}

impl Sighting {
    pub(super) const fn new(seen: Seen, since: Instant) -> Self {
        Self { since, socket: seen.socket, port: seen.remote.port(), ip: seen.remote.ip(), local: seen.local }
    }

    pub(super) const fn seen(&self) -> Seen {
        Seen { socket: self.socket, local: self.local, remote: SocketAddr::new(self.ip, self.port) }
    }
}

/// The candidates that a client claims.
#[derive(Clone, Debug, Default)]
pub(super) struct Claims(Box<[Claim]>);

#[derive(Clone, Copy, Debug)]
struct Claim {
    priority: u32,
    port: u16,
    ip: IpAddr,
    kind: CandidateKind,
    transport: CandidateTransport,
}

impl From<Vec<WireCandidate>> for Claims {
    fn from(candidates: Vec<WireCandidate>) -> Self {
        let compact = |WireCandidate { kind, transport, priority, address }: &WireCandidate| Claim {
            priority: *priority,
            port: address.port(),
            ip: address.ip(),
            kind: *kind,
            transport: *transport,
        };
        Self(candidates.iter().map(compact).collect())
    }
}

impl Claims {
    pub(super) fn to_vec(&self) -> Vec<WireCandidate> {
        let whole = |Claim { priority, port, ip, kind, transport }: &Claim| WireCandidate {
            kind: *kind,
            transport: *transport,
            priority: *priority,
            address: SocketAddr::new(*ip, *port),
        };
        self.0.iter().map(whole).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_no_padding() {
        assert_eq!((size_of::<Option<Sighting>>(), size_of::<Claim>()), (48, 28));
    }

    #[test]
    fn what_is_kept_comes_back_whole() {
        for remote in ["198.51.100.1:1", "[2001:db8::1]:65535"] {
            let remote: SocketAddr = remote.parse().unwrap();
            let seen = Seen { socket: SocketId(3), local: IpAddr::from([192, 0, 2, 1]), remote };
            assert_eq!(Sighting::new(seen, Instant::from_nanos(5)).seen(), seen);
            let candidates = alloc::vec![
                WireCandidate {
                    kind: CandidateKind::Relay,
                    transport: CandidateTransport::Tcp,
                    priority: 7,
                    address: remote,
                };
                2
            ];
            assert_eq!(Claims::from(candidates.clone()).to_vec(), candidates);
        }
    }
}
