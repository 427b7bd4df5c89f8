//! The balancer's reads and writes.

use std::convert::Infallible;

use flowgate_abi::lb::{
    BOUNDS, Backend, Bucket, CELLS, Frontend, Head, Lines, Load, Settings, Slot, Sources, Tail,
    Tracked,
};

use super::HostTables;
use crate::store::{Room, Store};

impl Store for HostTables {
    type Error = Infallible;

    fn settings(&self) -> &Settings {
        &self.settings
    }

    fn room(&self) -> Room {
        self.room
    }

    fn head(&self) -> &Head {
        &self.head
    }

    fn displacement(&self, bucket: u32) -> u32 {
        self.displacements[bucket as usize]
    }

    fn frontend(&self, index: u32) -> Frontend {
        self.frontends[index as usize].snapshot()
    }

    fn slot(&self, index: u32) -> Slot {
        Slot(self.slots[index as usize].load())
    }

    fn backend(&self, line: u32) -> Backend {
        self.backends[line as usize].snapshot()
    }

    fn source(&self, index: u32) -> [u64; 2 * BOUNDS] {
        self.sources[index as usize].each_ref().map(flowgate_abi::Shared64::load)
    }

    fn tracked(&self, cell: u32) -> Tracked {
        let cell = cell as usize;
        Tracked(self.tracked[cell / CELLS][cell % CELLS].load())
    }

    fn pin(&self, cell: u32) -> Tracked {
        let cell = cell as usize;
        Tracked(self.pins[cell / CELLS][cell % CELLS].load())
    }

    fn refused(&self, service: u32) -> u64 {
        self.refused[service as usize].load()
    }

    fn load(&self, line: u32) -> Result<Load, Infallible> {
        Ok(self.loads[line as usize].get())
    }

    fn set_displacement(&mut self, bucket: u32, displacement: u32) {
        self.displacements[bucket as usize] = displacement;
    }

    fn set_frontend(&mut self, index: u32, frontend: Frontend) {
        self.frontends[index as usize] = frontend;
    }

    fn set_frontend_words(&mut self, index: u32, lines: Lines, flags: u32) {
        let frontend = &self.frontends[index as usize];
        frontend.lines.store(lines.0);
        frontend.flags.store(flags);
    }

    fn set_frontend_sources(&mut self, index: u32, sources: Sources) {
        self.frontends[index as usize].sources.store(sources.0);
    }

    fn set_source(&mut self, index: u32, words: [u64; 2 * BOUNDS]) {
        self.sources[index as usize].iter().zip(words).for_each(|(word, new)| word.store(new));
    }

    fn clear_frontend(&mut self, index: u32) {
        self.frontends[index as usize].target.kind = 0;
    }

    fn set_slot(&mut self, index: u32, slot: Slot) {
        self.slots[index as usize].store(slot.0);
    }

    fn set_backend(&mut self, line: u32, backend: Backend) {
        self.backends[line as usize] = backend;
    }

    fn set_tail(&mut self, line: u32, tail: Tail) {
        self.backends[line as usize].tail.store(tail.0);
    }

    fn exchange_tracked(&mut self, cell: u32, entry: Tracked, other: Tracked) -> bool {
        exchange(&self.tracked, cell, (entry, other))
    }

    fn exchange_pin(&mut self, cell: u32, pin: Tracked, other: Tracked) -> bool {
        exchange(&self.pins, cell, (pin, other))
    }

    fn set_load(&mut self, line: u32, load: Load) -> Result<(), Infallible> {
        self.loads[line as usize].set(load);
        Ok(())
    }

    // The tables are borrowed: no packet is under way.
    fn wait(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

fn exchange(buckets: &[Bucket], cell: u32, (entry, other): (Tracked, Tracked)) -> bool {
    let cell = cell as usize;
    let word = &buckets[cell / CELLS][cell % CELLS];
    let is_there = word.load() == entry.0;
    if is_there {
        word.store(other.0);
    }
    is_there
}
