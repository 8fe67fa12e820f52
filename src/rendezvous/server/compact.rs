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

    pub(super) const fn is_ipv6(&self) -> bool {
        self.ip.is_ipv6()
    }

    pub(super) const fn seen(&self) -> Seen {
        Seen { socket: self.socket, local: self.local, remote: SocketAddr::new(self.ip, self.port) }
    }
}

/// Where a client was seen: once in each family at most. Most have one, and the other takes room only where it is.
#[derive(Debug, Default)]
pub(super) struct Sightings {
    first: Option<Sighting>,
    second: Option<Box<Sighting>>,
}

impl Sightings {
    pub(super) fn iter(&self) -> impl Iterator<Item = &Sighting> {
        self.first.iter().chain(self.second.as_deref())
    }

    /// Notes where the client is now; where it was before in this family.
    pub(super) fn replace(&mut self, new: Sighting) -> Option<Sighting> {
        let mut known = self.first.iter_mut().chain(self.second.as_deref_mut());
        if let Some(known) = known.find(|known| known.is_ipv6() == new.is_ipv6()) {
            return Some(core::mem::replace(known, new));
        }
        if self.first.is_none() {
            self.first = Some(new);
        } else {
            self.second = Some(Box::new(new));
        }
        None
    }

    /// Takes one out of which this is so.
    pub(super) fn take_if(&mut self, is_it: impl Fn(&Sighting) -> bool) -> Option<Sighting> {
        let first = self.first.take_if(|known| is_it(known));
        first.or_else(|| self.second.take_if(|known| is_it(known)).map(|known| *known))
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
        assert_eq!((size_of::<Sightings>(), size_of::<Claim>()), (56, 28));
    }

    #[test]
    fn there_is_one_sighting_of_each_family() {
        let sighting = |remote: &str, socket| {
            let seen =
                Seen { socket: SocketId(socket), local: IpAddr::from([192, 0, 2, 1]), remote: remote.parse().unwrap() };
            Sighting::new(seen, Instant::default())
        };
        let mut sightings = Sightings::default();
        for (remote, socket, before) in [
            ("198.51.100.1:1", 1, None),
            ("[2001:db8::1]:1", 2, None),
            ("198.51.100.1:2", 3, Some(1)),
            ("[2001:db8::1]:2", 3, Some(2)),
        ] {
            let replaced = sightings.replace(sighting(remote, socket)).map(|known| known.seen().socket.0);
            assert_eq!(replaced, before, "{remote}");
        }
        let ports = |sightings: &Sightings| sightings.iter().map(|known| known.seen().remote.port()).sum::<u16>();
        assert_eq!(ports(&sightings), 4);
        assert!(sightings.take_if(|known| known.seen().socket.0 == 1).is_none());
        let is_third = |known: &Sighting| known.seen().socket.0 == 3;
        assert!(sightings.take_if(is_third).is_some_and(|known| !known.is_ipv6()));
        assert_eq!(ports(&sightings), 2);
        assert!(sightings.replace(sighting("198.51.100.1:7", 4)).is_none());
        assert_eq!(ports(&sightings), 9);
        assert!(sightings.take_if(is_third).is_some_and(|known| known.is_ipv6()));
        assert!(sightings.take_if(is_third).is_none());
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
