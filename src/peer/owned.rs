//! What listeners and sessions have of one kind, by number, both ways: whose is it, and what has somebody.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};

use super::sockets::Owner;

/// Things with owners.
#[derive(Debug)]
pub(super) struct Owned<K> {
    owners: BTreeMap<K, Owner>,
    things: BTreeSet<(Owner, K)>,
}

impl<K: Copy + Ord> Owned<K> {
    pub(super) const fn new() -> Self {
        Self { owners: BTreeMap::new(), things: BTreeSet::new() }
    }

    pub(super) fn owner(&self, thing: K) -> Option<Owner> {
        self.owners.get(&thing).copied()
    }

    pub(super) fn insert(&mut self, thing: K, owner: Owner) {
        self.owners.insert(thing, owner);
        self.things.insert((owner, thing));
    }

    pub(super) fn remove(&mut self, thing: K) -> Option<Owner> {
        let owner = self.owners.remove(&thing)?;
        self.things.remove(&(owner, thing));
        Some(owner)
    }

    /// Forgets all that somebody has.
    pub(super) fn remove_all(&mut self, owner: Owner, least: K) {
        let all = self.things.range((owner, least)..).take_while(|(of, _)| *of == owner);
        let all: Vec<_> = all.map(|(_, thing)| *thing).collect();
        for thing in all {
            self.remove(thing);
        }
    }
}
