//! How a service goes on by itself: slots move on in time, settle by a sweep, and wait where entries find no
//! room.

use flowgate_abi::lb::Slot;

use crate::{
    change::{Allowance, Moved},
    clock::Millis,
    life::{self, Stage},
    running::Running,
    store::Store,
    sweep::Found,
};

/// How long a slot is announced: longer than a handshake retries.
pub(crate) const ANNOUNCED: Millis = 4000;

impl Running {
    /// What a sweep found, begun after a grace period: slots of which no entry deviates are stable, and
    /// numbers that nothing names are free.
    pub(crate) fn swept<S: Store>(&mut self, store: &mut S, found: &Found, now: Millis) {
        (self.entries, self.pinned) = (found.entries, found.pinned);
        let tracking = self.moving.len().max(1) as f64;
        self.entries_per_slot = self.entries_per_slot.max(found.entries as f64 / tracking);
        let settling: Vec<u32> = self.moving.keys().copied().collect();
        for slot in settling {
            let before = self.slot(store, slot);
            if Stage::of(before) == Stage::Settle && !found.deviating.contains(&slot) {
                self.put(store, slot, (before, life::settled(before)), now);
            }
        }
        for number in self.members.gone() {
            if !found.named.contains(&number) {
                self.members.forget(number);
            }
        }
    }

    /// Slots move on that have been in their stage for long enough.
    pub(crate) fn step<S: Store>(&mut self, store: &mut S, now: Millis) {
        self.notice_refusals(store, now);
        let due: Vec<u32> =
            self.moving.keys().copied().filter(|slot| self.due(store, *slot) <= now).collect();
        for slot in due {
            let before = self.slot(store, slot);
            let next = match Stage::of(before) {
                Stage::Announce => life::announced(before, u32::from(self.target[slot as usize])),
                Stage::Move => life::moved(before),
                Stage::Settle | Stage::Stable => continue,
            };
            self.put(store, slot, (before, next), now);
        }
    }

    /// When a slot moves on by time alone; never, if it doesn't.
    fn due<S: Store>(&self, store: &S, slot: u32) -> Millis {
        let since = self.moving.get(&slot).copied().unwrap_or(0);
        match Stage::of(self.slot(store, slot)) {
            Stage::Announce => since + ANNOUNCED,
            Stage::Move => since.max(self.failed) + self.idle(),
            Stage::Settle | Stage::Stable => Millis::MAX,
        }
    }

    /// When the first slot moves on by time alone.
    pub(crate) fn next_due<S: Store>(&self, store: &S) -> Option<Millis> {
        let due = self.moving.keys().map(|slot| self.due(store, *slot));
        due.min().filter(|due| *due != Millis::MAX)
    }

    /// Entries found no room: moving slots begin to count anew, since a live flow may have been left out;
    /// and some go back, since the rest will do better without them.
    fn notice_refusals<S: Store>(&mut self, store: &mut S, now: Millis) {
        let refused = store.refused(self.number);
        if refused == self.refused {
            return;
        }
        (self.failed, self.refused) = (now, refused);
        let stage = |slot: &u32| Stage::of(self.slot(store, *slot));
        let announced: Vec<u32> =
            self.moving.keys().copied().filter(|slot| stage(slot) == Stage::Announce).collect();
        let moving: Vec<u32> =
            self.moving.keys().copied().filter(|slot| stage(slot) == Stage::Move).collect();
        let costly = (announced.len() + moving.len()).max(1);
        let all = f64::from(store.room().tracked) / costly as f64;
        self.entries_per_slot = self.entries_per_slot.max(all);
        let half = moving.len() / 2;
        for slot in announced.into_iter().chain(moving.into_iter().skip(half)) {
            let before = self.slot(store, slot);
            self.put(store, slot, (before, life::put_back(before)), now);
            if u32::from(self.target[slot as usize]) != before.default_backend() {
                self.waiting.insert(slot);
            }
        }
    }

    /// Slots that wait begin, as far as there is room.
    pub(crate) fn begin<S: Store>(
        &mut self,
        store: &mut S,
        (now, allowance): (Millis, &mut Allowance),
    ) -> Moved {
        let mut moved = Moved::default();
        let waiting: Vec<u32> = self.waiting.iter().copied().collect();
        if !waiting.is_empty() {
            self.estimate_anew(store, now);
        }
        for slot in waiting {
            if !allowance.covers(self) {
                moved.staged += 1;
                continue;
            }
            moved += self.turn(store, slot, (now, allowance));
        }
        moved
    }

    /// Whatever slots were thought to need was learnt of those that have moved since, in a flood perhaps. Kept, it could
    /// be more than there is room for, and those that wait would wait for ever.
    fn estimate_anew<S: Store>(&mut self, store: &S, now: Millis) {
        if self.costly(store) == 0 && self.failed + self.idle() <= now {
            self.entries_per_slot = 0.0;
            self.expect_flows();
        }
    }

    /// Slots whose flows all get entries.
    pub(crate) fn costly<S: Store>(&self, store: &S) -> usize {
        let slots = self.moving.keys().map(|slot| self.slot(store, *slot));
        slots.filter(|slot| slot.has(Slot::ADOPT | Slot::ANNOUNCE)).count()
    }
}
