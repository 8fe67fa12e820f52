//! When each listener and session wants to be called again, and who is due.

use alloc::collections::{BTreeMap, BTreeSet};

use crate::machine::{Instant, NextWake, Timer};

/// The wake-ups of many machines, each with one.
#[derive(Debug)]
pub(super) struct Timers<K> {
    by_key: BTreeMap<K, (Instant, Timer)>,
    by_time: BTreeSet<(Instant, K)>,
}

impl<K: Copy + Ord> Timers<K> {
    pub(super) const fn new() -> Self {
        Self { by_key: BTreeMap::new(), by_time: BTreeSet::new() }
    }

    /// Replaces the wake-up of one machine.
    pub(super) fn set(&mut self, key: K, wake: NextWake) {
        self.remove(key);
        if let Some(time) = wake.time() {
            self.by_key.insert(key, (time, wake.timer()));
            self.by_time.insert((time, key));
        }
    }

    pub(super) fn remove(&mut self, key: K) {
        if let Some((time, _)) = self.by_key.remove(&key) {
            self.by_time.remove(&(time, key));
        }
    }

    /// Takes out the wake-up of a machine whose time has come.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<K> {
        let (time, key) = *self.by_time.first()?;
        if time > now {
            return None;
        }
        self.remove(key);
        Some(key)
    }

    /// The earliest wake-up, with its reason.
    pub(super) fn next(&self) -> Option<(Instant, Timer)> {
        let (_, key) = self.by_time.first()?;
        self.by_key.get(key).copied()
    }
}
