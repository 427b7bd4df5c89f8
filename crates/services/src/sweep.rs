//! The sweep: entries that nobody needs go, and of the rest it is known what they hold back.
//!
//! An entry goes if its flow was silent for too long, if its backend or its slot is gone, or if it says what
//! its slot says without it. Whoever takes it out loses to whoever changes it meanwhile.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use flowgate_abi::lb::{Slot, Tracked};

use crate::{
    clock::{Clock, Millis},
    life::Stage,
    model::ServiceName,
    running::Running,
    store::Store,
};

/// How long a flow may be silent of which one half was closed.
pub(crate) const CLOSING: Millis = 30_000;

/// What there is of a service's flows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Found {
    pub(crate) entries: usize,
    /// Slots with an entry that names another backend than the default.
    pub(crate) deviating: HashSet<u32>,
    /// Numbers that entries name.
    pub(crate) named: BTreeSet<u32>,
}

/// Goes through all entries; what is left, by the services' numbers.
pub(crate) fn sweep<S: Store>(
    store: &mut S,
    running: &BTreeMap<ServiceName, Running>,
    clock: &Clock,
) -> BTreeMap<u32, Found> {
    let owners: BTreeMap<u32, &Running> =
        running.values().map(|running| (running.slots.start, running)).collect();
    let mut found: BTreeMap<u32, Found> = BTreeMap::new();
    for cell in 0..store.room().tracked {
        let Some((running, entry)) = visit(store, &owners, cell, clock) else { continue };
        let slot = entry.slot() - running.slots.start;
        let found = found.entry(running.number).or_default();
        found.entries += 1;
        found.named.insert(entry.backend());
        if entry.backend() != running.slot(store, slot).default_backend() {
            found.deviating.insert(slot);
        }
    }
    found
}

/// The entry in a cell, if it stays, and whose it is.
fn visit<'r, S: Store>(
    store: &mut S,
    owners: &BTreeMap<u32, &'r Running>,
    cell: u32,
    clock: &Clock,
) -> Option<(&'r Running, Tracked)> {
    loop {
        let entry = store.tracked(cell);
        if entry.0 == 0 {
            return None;
        }
        let owner = owners.range(..=entry.slot()).next_back().map(|(_, running)| *running);
        let owner =
            owner.filter(|running| entry.slot() - running.slots.start < running.size.slots());
        if let Some(running) = owner
            && is_needed(running, entry, store.slot(entry.slot()), clock)
        {
            return Some((running, entry));
        }
        // Otherwise somebody has changed it: then it is judged again.
        if store.remove_tracked(cell, entry) {
            return None;
        }
    }
}

fn is_needed(running: &Running, entry: Tracked, slot: Slot, clock: &Clock) -> bool {
    let idle = if entry.closing() { CLOSING.min(running.idle()) } else { running.idle() };
    let says_nothing = matches!(Stage::of(slot), Stage::Stable | Stage::Settle)
        && entry.backend() == slot.default_backend();
    !clock.is_over(entry.age(), idle)
        && running.members.named(entry.backend()).is_some()
        && !says_nothing
}
