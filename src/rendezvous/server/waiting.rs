//! Those whom a client of 2015 can be introduced to, by the IPv4 address that they were seen at: the oldest first, and
//! each once.
//!
//! They are listeners of 2015, each a connection, and current listeners that said LEGACY. A listener of 2015 takes a
//! place with each `<`; a registration whenever it is heard and has none.

use alloc::collections::BTreeMap;
use core::net::Ipv4Addr;

use crate::{machine::StreamId, wire::stun::RegistrationId};

/// Who waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waiter {
    /// A listener of 2015.
    Text(StreamId),
    /// A current listener that can meet a peer of 2015.
    Registration(RegistrationId),
}

/// A place: an address, and how many came before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) host: Ipv4Addr,
    number: u64,
}

/// Those who wait, by place.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    places: BTreeMap<Place, Waiter>,
    texts: usize,
    next: u64,
}

impl Waiting {
    /// How many listeners of 2015 wait.
    pub(super) const fn texts(&self) -> usize {
        self.texts
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty() && self.texts == 0
    }

    pub(super) fn add(&mut self, host: Ipv4Addr, waiter: Waiter) -> Place {
        let place = Place { host, number: self.next };
        self.next += 1;
        self.texts += usize::from(matches!(waiter, Waiter::Text(_)));
        self.places.insert(place, waiter);
        place
    }

    pub(super) fn remove(&mut self, place: Place) {
        if let Some(Waiter::Text(_)) = self.places.remove(&place) {
            self.texts -= 1;
        }
    }

    /// All at an address, the oldest first.
    pub(super) fn at(&self, host: Ipv4Addr) -> impl Iterator<Item = Waiter> {
        self.places.range(Place { host, number: 0 }..=Place { host, number: u64::MAX }).map(|(_, waiter)| *waiter)
    }
}
