//! Who listens: registrations by id, by name and by public address, each with a lifetime.
//!
//! A registration belongs to whoever knows the key that it was made with; it has at most one address of each family,
//! each of which has proven (by a cookie) that it can receive. A registration without a name is found by the addresses
//! it was seen at. It dies two keepalives after its last sign of life.

use alloc::{
    boxed::Box,
    collections::{BTreeMap, BTreeSet},
};
use core::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use super::{
    compact::{Claims, Sighting, Sightings},
    legacy::ipv4,
    rate::{network, provider},
    waiting::{Place, Waiter, Waiting},
};
use crate::{
    machine::{Instant, SocketId},
    wire::stun::{Name, RegistrationId, Transports},
};

/// What one provider's network may hold, in networks of one customer: so that one /48 cannot fill the server.
const PROVIDER: u32 = 16;

/// Where a client was seen: the server's socket and local address that it reached, and its own address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) socket: SocketId,
    pub(super) local: IpAddr,
    pub(super) remote: SocketAddr,
}

/// What a listener said of itself.
#[derive(Clone, Debug)]
pub(super) struct Listing {
    pub(super) key: [u8; 32],
    pub(super) name: Option<Name>,
    pub(super) public_key: [u8; 32],
    pub(super) transports: Transports,
    /// Host candidates, already filtered.
    pub(super) candidates: Claims,
    /// Whether it can meet a peer of 2015.
    pub(super) legacy: bool,
}

/// A listener that can be introduced.
#[derive(Debug)]
pub(super) struct Registration {
    pub(super) listing: Listing,
    /// Where and when it was seen last, in each family.
    sightings: Sightings,
    /// The number of the last introduction sent to it.
    pub(super) sequence: u64,
    expires: Instant,
    /// What its place counts against, and that network's provider.
    network: u64,
    /// Where it waits for clients of 2015; few do.
    place: Option<Box<Place>>,
}

impl Registration {
    /// Where it was seen, at most once in each family.
    pub(super) fn seen(&self) -> impl Iterator<Item = Seen> {
        self.sightings.iter().map(Sighting::seen)
    }

    /// Where clients of 2015 look for it.
    fn legacy_host(&self) -> Option<Ipv4Addr> {
        if !self.listing.legacy || self.listing.name.is_some() {
            return None;
        }
        self.seen().find_map(|seen| ipv4(seen.remote.ip()))
    }

    /// Whether it was last seen, in this family, exactly there.
    pub(super) fn is_at(&self, seen: Seen) -> bool {
        self.seen().any(|known| known == seen)
    }
}

/// Why a listener was not registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    NameTaken,
    /// The id belongs to somebody with another key.
    Forbidden,
    /// A limit of the server, or of one network.
    Full,
}

/// What a lookup found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    One(RegistrationId),
    Several,
    None,
}

/// All registrations.
#[derive(Debug)]
pub(super) struct Registry {
    lifetime: Duration,
    max: usize,
    max_per_network: u32,
    /// Boxed: a tree keeps a third of its places free, which are small then.
    by_id: BTreeMap<RegistrationId, Box<Registration>>,
    by_name: BTreeMap<Name, RegistrationId>,
    /// Those without a name, by each address they were seen at.
    by_address: BTreeSet<(IpAddr, RegistrationId)>,
    by_expiry: BTreeSet<(Instant, RegistrationId)>,
    per_network: BTreeMap<u64, u32>,
    /// Those whom clients of 2015 can be introduced to, their own kind included.
    waiting: Waiting,
}

impl Registry {
    pub(super) fn new(lifetime: Duration, max: usize, max_per_network: u32) -> Self {
        Self {
            lifetime,
            max,
            max_per_network,
            by_id: BTreeMap::new(),
            by_name: BTreeMap::new(),
            by_address: BTreeSet::new(),
            by_expiry: BTreeSet::new(),
            per_network: BTreeMap::new(),
            waiting: Waiting::default(),
        }
    }

    pub(super) const fn waiting(&self) -> &Waiting {
        &self.waiting
    }

    /// For the listeners of 2015; registrations take and leave their places here.
    pub(super) const fn waiting_mut(&mut self) -> &mut Waiting {
        &mut self.waiting
    }

    /// A listener was introduced to somebody who asked as clients of 2015 do: it waits no more until it is heard again.
    pub(super) fn use_up(&mut self, id: RegistrationId) {
        if let Some(place) = self.by_id.get_mut(&id).and_then(|registration| registration.place.take()) {
            self.waiting.remove(*place);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(super) fn get(&self, id: RegistrationId) -> Option<&Registration> {
        self.by_id.get(&id).map(Box::as_ref)
    }

    /// Takes the number of the next introduction.
    pub(super) fn next_sequence(&mut self, id: RegistrationId) -> u64 {
        self.by_id.get_mut(&id).map_or(0, |registration| {
            registration.sequence += 1;
            registration.sequence
        })
    }

    pub(super) fn by_name(&self, name: &Name) -> Found {
        self.by_name.get(name).map_or(Found::None, |id| Found::One(*id))
    }

    pub(super) fn by_address(&self, ip: IpAddr) -> Found {
        Self::found(self.at(ip))
    }

    /// The same among those that did not say LEGACY where clients of 2015 look: those that did are found by waiting.
    pub(super) fn by_address_without_legacy(&self, ip: IpAddr) -> Found {
        let is_legacy = |id: &RegistrationId| ip.is_ipv4() && self.get(*id).is_some_and(|known| known.listing.legacy);
        Self::found(self.at(ip).filter(|id| !is_legacy(id)))
    }

    fn at(&self, ip: IpAddr) -> impl Iterator<Item = RegistrationId> {
        let first = (ip, RegistrationId([0; 16]));
        self.by_address.range(first..).take_while(move |(other, _)| *other == ip).map(|(_, id)| *id)
    }

    fn found(mut found: impl Iterator<Item = RegistrationId>) -> Found {
        match (found.next(), found.next()) {
            (None, _) => Found::None,
            (Some(id), None) => Found::One(id),
            (Some(_), Some(_)) => Found::Several,
        }
    }

    /// Registers a listener that was seen there, or renews what it said of itself.
    pub(super) fn register(
        &mut self,
        now: Instant,
        id: RegistrationId,
        listing: Listing,
        seen: Seen,
    ) -> Result<(), Refusal> {
        let holder = listing.name.as_ref().and_then(|name| self.by_name.get(name));
        if holder.is_some_and(|holder| *holder != id) {
            return Err(Refusal::NameTaken);
        }
        if let Some(known) = self.by_id.get_mut(&id) {
            if known.listing.key != listing.key || known.listing.name != listing.name {
                return Err(Refusal::Forbidden);
            }
            known.listing = listing;
        } else {
            let network = network(seen.remote.ip());
            let networks = [network, provider(network)];
            let used = |network: u64| self.per_network.get(&network).copied().unwrap_or_default();
            let [narrow, wide] = networks.map(used);
            let is_greedy = narrow >= self.max_per_network || wide >= self.max_per_network.saturating_mul(PROVIDER);
            if is_greedy || self.by_id.len() >= self.max {
                return Err(Refusal::Full);
            }
            for network in networks {
                *self.per_network.entry(network).or_default() += 1;
            }
            if let Some(name) = &listing.name {
                self.by_name.insert(name.clone(), id);
            }
            let expires = now + self.lifetime;
            self.by_expiry.insert((expires, id));
            let registration =
                Registration { listing, sightings: Sightings::default(), sequence: 0, expires, network, place: None };
            self.by_id.insert(id, Box::new(registration));
        }
        self.refresh(now, id, seen);
        Ok(())
    }

    /// Notes a sign of life of a listener, which has proven that it is there.
    pub(super) fn refresh(&mut self, now: Instant, id: RegistrationId, seen: Seen) {
        let Some(registration) = self.by_id.get_mut(&id) else { return };
        self.by_expiry.remove(&(registration.expires, id));
        registration.expires = now + self.lifetime;
        self.by_expiry.insert((registration.expires, id));
        let unnamed = registration.listing.name.is_none();
        // A family that was silent for as long as a registration may be is somebody else's address by now.
        let is_other = |known: &Sighting| known.is_ipv6() != seen.remote.is_ipv6();
        let stale = registration.sightings.take_if(|known| is_other(known) && now >= known.since + self.lifetime);
        if let Some(stale) = stale
            && unnamed
        {
            self.by_address.remove(&(stale.seen().remote.ip(), id));
        }
        let before = registration.sightings.replace(Sighting::new(seen, now)).map(|before| before.seen());
        if unnamed && before.is_none_or(|before| before.remote.ip() != seen.remote.ip()) {
            if let Some(before) = before {
                self.by_address.remove(&(before.remote.ip(), id));
            }
            self.by_address.insert((seen.remote.ip(), id));
        }
        let host = registration.legacy_host();
        if registration.place.as_ref().map(|place| place.host) != host {
            if let Some(place) = registration.place.take() {
                self.waiting.remove(*place);
            }
            registration.place = host.map(|host| Box::new(self.waiting.add(host, Waiter::Registration(id))));
        }
    }

    /// A listener is no longer to be reached by this socket; nor is it registered, when that was the last.
    pub(super) fn leave(&mut self, id: RegistrationId, socket: SocketId) {
        let Some(registration) = self.by_id.get_mut(&id) else { return };
        while let Some(gone) = registration.sightings.take_if(|known| known.seen().socket == socket) {
            self.by_address.remove(&(gone.seen().remote.ip(), id));
        }
        if registration.legacy_host().is_none()
            && let Some(place) = registration.place.take()
        {
            self.waiting.remove(*place);
        }
        if registration.seen().next().is_none() {
            self.remove(id);
        }
    }

    /// Forgets a listener; its name is free at once.
    pub(super) fn remove(&mut self, id: RegistrationId) {
        let Some(registration) = self.by_id.remove(&id) else { return };
        self.by_expiry.remove(&(registration.expires, id));
        if let Some(place) = &registration.place {
            self.waiting.remove(**place);
        }
        match &registration.listing.name {
            Some(name) => drop(self.by_name.remove(name)),
            None => {
                for seen in registration.seen() {
                    self.by_address.remove(&(seen.remote.ip(), id));
                }
            }
        }
        for network in [registration.network, provider(registration.network)] {
            if let Some(used) = self.per_network.get_mut(&network) {
                *used -= 1;
                if *used == 0 {
                    self.per_network.remove(&network);
                }
            }
        }
    }

    /// Forgets those whose time has come.
    pub(super) fn expire(&mut self, now: Instant) {
        while let Some((expires, id)) = self.by_expiry.first().copied() {
            if expires > now {
                return;
            }
            self.remove(id);
        }
    }

    /// When the next one expires.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.by_expiry.first().map(|(expires, _)| *expires)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFETIME: Duration = Duration::from_secs(50);

    fn listing(name: Option<&str>, key: u8) -> Listing {
        Listing {
            key: [key; 32],
            name: name.map(|name| Name::new(name).unwrap()),
            public_key: [key; 32],
            transports: Transports { udp: true, tcp: false },
            candidates: Claims::default(),
            legacy: false,
        }
    }

    fn seen(remote: &str) -> Seen {
        Seen { socket: SocketId(0), local: IpAddr::from([192, 0, 2, 1]), remote: remote.parse().unwrap() }
    }

    fn at(seconds: u64) -> Instant {
        Instant::from_nanos(seconds * 1_000_000_000)
    }

    fn is_empty(registry: &Registry) -> bool {
        registry.by_id.is_empty()
            && registry.by_name.is_empty()
            && registry.by_address.is_empty()
            && registry.by_expiry.is_empty()
            && registry.per_network.is_empty()
            && registry.waiting.is_empty()
    }

    #[test]
    fn a_name_belongs_to_its_holder_until_it_leaves_or_expires() {
        let mut registry = Registry::new(LIFETIME, 10, 10);
        let (a, b) = (RegistrationId([1; 16]), RegistrationId([2; 16]));
        registry.register(at(0), a, listing(Some("bob"), 1), seen("198.51.100.1:1")).unwrap();
        let taken = registry.register(at(1), b, listing(Some("bob"), 2), seen("198.51.100.2:1"));
        assert_eq!(taken, Err(Refusal::NameTaken));
        assert_eq!(registry.by_name(&Name::new("bob").unwrap()), Found::One(a));
        registry.remove(a);
        registry.register(at(1), b, listing(Some("bob"), 2), seen("198.51.100.2:1")).unwrap();
        assert_eq!(registry.next_expiry(), Some(at(51)));
        registry.refresh(at(30), b, seen("198.51.100.2:9"));
        registry.expire(at(79));
        assert_eq!(registry.len(), 1);
        registry.expire(at(80));
        assert!(is_empty(&registry));
    }

    #[test]
    fn unnamed_listeners_are_found_where_they_are_now() {
        let mut registry = Registry::new(LIFETIME, 10, 10);
        let (a, b) = (RegistrationId([1; 16]), RegistrationId([2; 16]));
        let ip = |last| IpAddr::from([198, 51, 100, last]);
        registry.register(at(0), a, listing(None, 1), seen("198.51.100.1:1")).unwrap();
        assert_eq!(registry.by_address(ip(1)), Found::One(a));
        registry.register(at(0), b, listing(None, 2), seen("198.51.100.1:2")).unwrap();
        assert_eq!(registry.by_address(ip(1)), Found::Several);
        registry.refresh(at(1), b, seen("198.51.100.2:2"));
        assert_eq!((registry.by_address(ip(1)), registry.by_address(ip(2))), (Found::One(a), Found::One(b)));
        registry.register(at(1), b, listing(None, 2), seen("[2001:db8::1]:2")).unwrap();
        assert_eq!(registry.by_address("2001:db8::1".parse().unwrap()), Found::One(b));
        registry.remove(a);
        registry.remove(b);
        assert!(is_empty(&registry));
    }

    #[test]
    fn an_id_is_no_key_and_limits_hold() {
        let mut registry = Registry::new(LIFETIME, 3, 2);
        let id = |n| RegistrationId([n; 16]);
        registry.register(at(0), id(1), listing(None, 1), seen("198.51.100.1:1")).unwrap();
        let stolen = registry.register(at(0), id(1), listing(None, 9), seen("198.51.100.9:1"));
        assert_eq!(stolen, Err(Refusal::Forbidden));
        registry.register(at(0), id(2), listing(None, 2), seen("198.51.100.1:2")).unwrap();
        let greedy = registry.register(at(0), id(3), listing(None, 3), seen("198.51.100.1:3"));
        assert_eq!(greedy, Err(Refusal::Full));
        registry.register(at(0), id(3), listing(None, 3), seen("203.0.113.1:3")).unwrap();
        let full = registry.register(at(0), id(4), listing(None, 4), seen("192.0.2.1:3"));
        assert_eq!(full, Err(Refusal::Full));
        for n in 1..=3 {
            registry.remove(id(n));
        }
        assert!(is_empty(&registry));
    }
}
