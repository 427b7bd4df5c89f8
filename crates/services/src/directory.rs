//! Where frontends lie: a perfect hash, kept while packets look things up.
//!
//! A bucket's targets share a displacement under which no two frontends meet. When one more comes, another
//! displacement is sought; frontends are written where it leads first, the displacement after that. The
//! cells that they leave are found by packets under way, so they are used again only after a grace period
//! ([`Directory::release`]).
//!
//! Invariant: whenever a packet looks a target up that was there before and is there after a change, it
//! finds it. Tested below, look-up by look-up.

use std::collections::{BTreeMap, BTreeSet};

use flowgate_abi::lb::{Frontend, Target};
use flowgate_pipeline::{
    V4, V6,
    lb::{Balanceable, find},
};

use crate::store::Store;

/// Displacements that are tried. With half of the cells free, eight targets of one bucket need more than
/// these once in 10^27.
const TRIES: u32 = 1 << 14;

/// The frontends that are there.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    /// Each bucket's targets, and where they lie.
    buckets: BTreeMap<u32, Vec<Entry>>,
    /// Cells that a packet may read: those in use, and those that were left since the last grace period.
    taken: BTreeSet<u32>,
    left: Vec<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    target: Target,
    hash: u64,
    index: u32,
}

/// The hash by which packets find a target.
fn hash(target: &Target) -> u64 {
    match target.kind >> 24 {
        4 => V4::target_hash(target),
        _ => V6::target_hash(target),
    }
}

impl Directory {
    /// Takes over what an earlier process left: the frontends that packets find. What they don't find is
    /// cleared.
    pub(crate) fn adopt<S: Store>(store: &mut S) -> Self {
        let mut directory = Self::default();
        for index in 0..store.room().frontends {
            let target = store.frontend(index).target;
            if target.kind == 0 {
                continue;
            }
            let hash = hash(&target);
            let bucket = find::bucket(hash, store.settings());
            let displacement = store.displacement(bucket);
            if displacement == 0 || find::index(hash, displacement, store.settings()) != index {
                store.clear_frontend(index);
                continue;
            }
            directory.taken.insert(index);
            directory.buckets.entry(bucket).or_default().push(Entry { target, hash, index });
        }
        directory
    }

    /// Every target, and where its frontend lies.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Target, u32)> + '_ {
        self.buckets.values().flatten().map(|entry| (entry.target, entry.index))
    }

    /// Where a target's frontend lies.
    pub(crate) fn find<S: Store>(&self, store: &S, target: &Target) -> Option<u32> {
        let bucket = find::bucket(hash(target), store.settings());
        let entries = self.buckets.get(&bucket)?;
        entries.iter().find(|entry| entry.target == *target).map(|entry| entry.index)
    }

    /// Makes a frontend known to packets; `false`: there is no displacement under which its bucket's
    /// frontends have room.
    pub(crate) fn insert<S: Store>(&mut self, store: &mut S, frontend: Frontend) -> bool {
        let (target, hash) = (frontend.target, hash(&frontend.target));
        let bucket = find::bucket(hash, store.settings());
        let mut entries = self.buckets.get(&bucket).cloned().unwrap_or_default();
        entries.push(Entry { target, hash, index: NOWHERE });
        let Some((displacement, places)) = self.fitting(store, &entries) else { return false };
        for (entry, place) in entries.iter_mut().zip(places) {
            if entry.index == place {
                continue;
            }
            let moved = if entry.index == NOWHERE {
                frontend.snapshot()
            } else {
                self.left.push(entry.index);
                store.frontend(entry.index)
            };
            store.set_frontend(place, moved);
            self.taken.insert(place);
            entry.index = place;
        }
        store.set_displacement(bucket, displacement);
        self.buckets.insert(bucket, entries);
        true
    }

    /// A displacement under which each entry lies where it is, or in a free cell of its own.
    fn fitting<S: Store>(&self, store: &S, entries: &[Entry]) -> Option<(u32, Vec<u32>)> {
        (0..TRIES).map(|number| 2 * number + 1).find_map(|displacement| {
            let mut places = Vec::with_capacity(entries.len());
            for entry in entries {
                let place = find::index(entry.hash, displacement, store.settings());
                let free = place == entry.index || !self.taken.contains(&place);
                if !free || places.contains(&place) {
                    return None;
                }
                places.push(place);
            }
            Some((displacement, places))
        })
    }

    /// Makes a target unknown: no packet finds it any more.
    pub(crate) fn remove<S: Store>(&mut self, store: &mut S, target: &Target) {
        let bucket = find::bucket(hash(target), store.settings());
        let Some(entries) = self.buckets.get_mut(&bucket) else { return };
        let Some(position) = entries.iter().position(|entry| entry.target == *target) else {
            return;
        };
        let entry = entries.swap_remove(position);
        store.clear_frontend(entry.index);
        self.left.push(entry.index);
        if entries.is_empty() {
            store.set_displacement(bucket, 0);
            self.buckets.remove(&bucket);
        }
    }

    /// Some cells wait for a grace period.
    pub(crate) fn has_left(&self) -> bool {
        !self.left.is_empty()
    }

    /// A grace period is over since the last change: no packet reads the cells that were left.
    pub(crate) fn release<S: Store>(&mut self, store: &mut S) {
        for index in self.left.drain(..) {
            store.clear_frontend(index);
            self.taken.remove(&index);
        }
    }
}

/// The index of an entry that isn't written yet.
const NOWHERE: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use flowgate_abi::{Be16, Be32, lb::Settings};
    use flowgate_pipeline::lb::find::exact;

    use super::*;
    use crate::{host::HostTables, store::Room};

    fn tables() -> HostTables {
        let settings = Settings {
            displacement_mask: 63,
            frontend_shift: 32 - 8,
            tracked_mask: 1,
            fragment_timeout: 1,
            hz: 1000,
            age_length: 1000,
            ..Settings::default()
        };
        let room = Room { frontends: 256, tracked: 16, ..Room::default() };
        HostTables::new(settings, room)
    }

    fn target(number: u32) -> Target {
        V4::target(Be32::new(0xc633_6400 + number), Be16::new(80), 6)
    }

    fn frontend(number: u32) -> Frontend {
        Frontend { target: target(number), service: number, ..Frontend::default() }
    }

    fn finds(tables: &HostTables, number: u32) -> bool {
        let found = exact::<V4, _>(tables, &target(number));
        assert!(found.is_none_or(|frontend| frontend.service == number));
        found.is_some()
    }

    #[test]
    fn half_of_the_cells_can_be_filled_and_every_target_is_found_throughout() {
        let (mut tables, mut directory) = (tables(), Directory::default());
        for number in 0..128 {
            assert!(directory.insert(&mut tables, frontend(number)), "{number}");
            assert!((0..=number).all(|known| finds(&tables, known)), "{number}");
            assert!(!finds(&tables, number + 1));
            directory.release(&mut tables);
        }
        assert_eq!(directory.iter().count(), 128);
        for number in 0..128 {
            directory.remove(&mut tables, &target(number));
            assert!(!finds(&tables, number));
            assert!((number + 1..128).all(|left| finds(&tables, left)));
        }
        assert!(directory.has_left());
        directory.release(&mut tables);
        assert!(directory.taken.is_empty() && directory.buckets.is_empty());
    }

    #[test]
    fn a_cell_that_was_left_is_not_used_before_a_grace_period() {
        let (mut tables, mut directory) = (tables(), Directory::default());
        assert!(directory.insert(&mut tables, frontend(1)));
        let index = directory.find(&tables, &target(1)).expect("it is there");
        directory.remove(&mut tables, &target(1));
        assert!(directory.taken.contains(&index));
        directory.release(&mut tables);
        assert!(!directory.taken.contains(&index));
    }

    #[test]
    fn what_packets_find_is_adopted_and_the_rest_is_cleared() {
        let (mut tables, mut directory) = (tables(), Directory::default());
        for number in 0..50 {
            assert!(directory.insert(&mut tables, frontend(number)));
        }
        let stray = (0..256).find(|index| !directory.taken.contains(index)).expect("a free cell");
        tables.set_frontend(stray, frontend(99));
        let adopted = Directory::adopt(&mut tables);
        assert_eq!(adopted.iter().count(), 50);
        assert_eq!(tables.frontend(stray).target.kind, 0);
        assert!((0..50).all(|number| finds(&tables, number)));
        assert!(
            (0..50)
                .all(|n| adopted.find(&tables, &target(n)) == directory.find(&tables, &target(n)))
        );
    }
}
