//! The numbers of peers: which are in use, for which key, and which may not be used yet.

use std::collections::{BTreeSet, HashMap};

use crate::peer_key::PeerKey;

/// Peer numbers. Number 0 is nobody's: an endpoint without a policy has it.
#[derive(Debug)]
pub(super) struct Numbers {
    by_key: HashMap<PeerKey, u32>,
    used: BTreeSet<u32>,
    retired: BTreeSet<u32>,
    /// Where to look for a free one first: behind the one taken last. So a number that was given back stays
    /// free, and means what it meant, for as long as can be.
    next: u32,
    limit: u32,
}

impl Numbers {
    /// All numbers below `limit` are free.
    pub(super) fn new(limit: u32) -> Self {
        let (used, retired) = (BTreeSet::new(), BTreeSet::new());
        Self { by_key: HashMap::new(), used, retired, next: 1, limit }
    }

    /// A number is in use, for whatever key.
    pub(super) fn occupy(&mut self, number: u32) {
        if number != 0 {
            self.used.insert(number);
        }
    }

    /// A number is in use.
    pub(super) fn is_used(&self, number: u32) -> bool {
        self.used.contains(&number)
    }

    /// Some keys are known: a plan was applied since adoption.
    pub(super) fn has_keys(&self) -> bool {
        !self.by_key.is_empty()
    }

    /// How many are free.
    pub(super) fn free(&self) -> usize {
        self.limit as usize - 1 - self.used.len() - self.retired.len()
    }

    /// The number of a key, if it has one.
    pub(super) fn of(&self, key: &PeerKey) -> Option<u32> {
        self.by_key.get(key).copied()
    }

    /// The free numbers, in the order in which they are to be taken.
    pub(super) fn vacant(&self) -> impl Iterator<Item = u32> + '_ {
        (self.next..self.limit)
            .chain(1..self.next)
            .filter(|number| !self.used.contains(number) && !self.retired.contains(number))
    }

    /// Replaces the keys; numbers without one are to be given back by [`Numbers::retire`].
    pub(super) fn rename(&mut self, by_key: HashMap<PeerKey, u32>) {
        let taken = by_key.values().filter(|number| self.used.insert(**number));
        let behind = taken.map(|number| (*number + self.limit - self.next) % self.limit).max();
        self.go_behind(behind);
        self.by_key = by_key;
    }

    fn go_behind(&mut self, steps: Option<u32>) {
        if let Some(steps) = steps {
            self.next = ((self.next + steps) % self.limit + 1).min(self.limit);
        }
    }

    /// A number is in use, for this key.
    pub(super) fn name(&mut self, key: PeerKey, number: u32) {
        if self.used.insert(number) {
            self.go_behind(Some((number + self.limit - self.next) % self.limit));
        }
        self.by_key.insert(key, number);
    }

    /// Gives back what isn't in `keep`, with its key, and returns it; free only after [`Numbers::reclaim`].
    pub(super) fn retire(&mut self, keep: &BTreeSet<u32>) -> Vec<u32> {
        let gone: Vec<u32> = self.used.difference(keep).copied().collect();
        self.by_key.retain(|_, number| keep.contains(number));
        for number in &gone {
            self.used.remove(number);
            self.retired.insert(*number);
        }
        gone
    }

    /// Gives back the numbers of these keys, which nobody shares.
    pub(super) fn retire_keys(&mut self, keys: &[PeerKey]) -> Vec<u32> {
        let gone: Vec<u32> = keys.iter().filter_map(|key| self.by_key.remove(key)).collect();
        for number in &gone {
            self.used.remove(number);
            self.retired.insert(*number);
        }
        gone
    }

    /// Numbers that were given back may be used again: a grace period has passed.
    pub(super) fn reclaim(&mut self) {
        self.retired.clear();
    }
}
