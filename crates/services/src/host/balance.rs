//! The pipeline's look-ups.

use flowgate_abi::{
    DropReason, Shared32, Shared64,
    event::EventBudget,
    fragment::FragmentBucket,
    lb::{Backend, Bucket, Counter, Frontend, Head, Settings, SourceNode},
};
use flowgate_pipeline::{fragment::FragmentTable, lb::Balance};

use super::HostTables;

impl FragmentTable for HostTables {
    fn fragment_place(&self) -> (u64, u32) {
        (self.settings.fragment_seed, self.settings.fragment_mask)
    }

    fn fragment_timeout(&self) -> u32 {
        self.settings.fragment_timeout
    }

    fn jiffies(&self) -> u64 {
        self.jiffies.get()
    }

    fn fragments(&self, index: u32) -> Option<&FragmentBucket> {
        self.fragments.get(index as usize)
    }

    // The tables aren't Sync: nobody else is here.
    fn lock_fragments(&self, _bucket: &FragmentBucket) {}

    fn unlock_fragments(&self, _bucket: &FragmentBucket) {}
}

impl Balance for HostTables {
    fn settings(&self) -> &Settings {
        &self.settings
    }

    fn head(&self) -> Option<&Head> {
        Some(&self.head)
    }

    fn displacement(&self, bucket: u32) -> u32 {
        self.displacements[bucket as usize]
    }

    fn frontend(&self, index: u32) -> Option<&Frontend> {
        self.frontends.get(index as usize)
    }

    fn slot(&self, index: u32) -> Option<u32> {
        self.slots.get(index as usize).map(Shared32::load)
    }

    fn backend(&self, index: u32) -> Option<&Backend> {
        self.backends.get(index as usize)
    }

    fn source(&self, index: u32) -> Option<&SourceNode> {
        self.sources.get(index as usize)
    }

    fn tracked(&self, index: u32) -> Option<&Bucket> {
        self.tracked.get(index as usize)
    }

    fn pins(&self, index: u32) -> Option<&Bucket> {
        self.pins.get(index as usize)
    }

    fn cell<'b>(&self, bucket: &'b Bucket, number: u32) -> &'b Shared64 {
        &bucket[number as usize - 1]
    }

    fn exchange(&self, cell: &Shared64, old: u64, new: u64) -> bool {
        let is_there = cell.load() == old;
        if is_there {
            cell.store(new);
        }
        is_there
    }

    fn count_load(&self, line: u32, bytes: u32, opens: bool, tracked: bool) {
        let Some(cell) = self.loads.get(line as usize) else { return };
        let mut load = cell.get();
        load.packets += 1;
        load.bytes += u64::from(bytes);
        load.opened += u64::from(opens);
        load.tracked += u64::from(tracked);
        cell.set(load);
    }

    fn count_refused(&self, service: u32) {
        if let Some(refused) = self.refused.get(service as usize) {
            refused.store(refused.load() + 1);
        }
    }

    fn count_drop(&self, reason: DropReason, bytes: u32) {
        let cell = &self.drops[reason as usize];
        let mut tally = cell.get();
        tally.packets += 1;
        tally.bytes += u64::from(bytes);
        cell.set(tally);
    }

    fn count(&self, counter: Counter) {
        let cell = &self.counters[counter as usize];
        cell.set(cell.get() + 1);
    }

    fn error_budget(&self) -> Option<EventBudget> {
        Some(self.budget.get())
    }

    fn set_error_budget(&self, budget: EventBudget) {
        self.budget.set(budget);
    }
}
