//! The balancer's reads and writes, through mapped memory.

use std::{io, sync::atomic::Ordering};

use flowgate_abi::lb::{
    BOUNDS, Backend, CELLS, Frontend, Head, Lines, Load, SLOTS, Settings, Slot, Sources, Tail,
    Tracked,
    maps::{self, DISPLACEMENTS_EACH},
};
use flowgate_services::store::{Room, Store};
use zerocopy::FromBytes;

use super::BalancerTables;
use crate::sys::syscall;

/// Stores become visible in the order in which they are made, also on machines that reorder.
const STORE: Ordering = Ordering::Release;
const LOAD: Ordering = Ordering::Acquire;

macro_rules! offset {
    ($ty:ty, $field:ident) => {
        std::mem::offset_of!($ty, $field)
    };
}

impl BalancerTables {
    /// Writes a line in words of 64 bits, in ascending order.
    fn write_line(map: &crate::sys::mapped::Mapped, index: u32, words: [u64; 8]) {
        for (number, word) in words.into_iter().enumerate() {
            map.word64(index as usize, number * 8).store(word, STORE);
        }
    }

    fn read_line<T: FromBytes>(map: &crate::sys::mapped::Mapped, index: u32) -> T {
        let mut bytes = [0; 64];
        map.read(index as usize, &mut bytes);
        T::read_from_bytes(&bytes[..size_of::<T>()]).expect("a cache line")
    }
}

impl Store for BalancerTables {
    type Error = io::Error;

    fn settings(&self) -> &Settings {
        &self.settings
    }

    fn room(&self) -> Room {
        self.room
    }

    fn head(&self) -> &Head {
        self.head.head()
    }

    fn displacement(&self, bucket: u32) -> u32 {
        let bucket = bucket as usize;
        let element = bucket / DISPLACEMENTS_EACH;
        self.displacements.word32(element, bucket % DISPLACEMENTS_EACH * 4).load(LOAD)
    }

    fn frontend(&self, index: u32) -> Frontend {
        Self::read_line(&self.frontends, index)
    }

    fn slot(&self, index: u32) -> Slot {
        let index = index as usize;
        Slot(self.slots.word32(index / SLOTS, index % SLOTS * 4).load(LOAD))
    }

    fn backend(&self, line: u32) -> Backend {
        Self::read_line(&self.backends, line)
    }

    fn source(&self, index: u32) -> [u64; 2 * BOUNDS] {
        Self::read_line(&self.sources, index)
    }

    fn tracked(&self, cell: u32) -> Tracked {
        let cell = cell as usize;
        Tracked(self.tracked.word64(cell / CELLS, cell % CELLS * 8).load(LOAD))
    }

    fn pin(&self, cell: u32) -> Tracked {
        let cell = cell as usize;
        Tracked(self.pins.word64(cell / CELLS, cell % CELLS * 8).load(LOAD))
    }

    fn refused(&self, service: u32) -> u64 {
        self.refused.word64(service as usize, 0).load(LOAD)
    }

    fn load(&self, line: u32) -> io::Result<Load> {
        self.load_of(line)
    }

    fn set_displacement(&mut self, bucket: u32, displacement: u32) {
        let bucket = bucket as usize;
        let element = bucket / DISPLACEMENTS_EACH;
        let word = self.displacements.word32(element, bucket % DISPLACEMENTS_EACH * 4);
        word.store(displacement, STORE);
    }

    fn set_frontend(&mut self, index: u32, frontend: Frontend) {
        Self::write_line(&self.frontends, index, zerocopy::transmute!(frontend));
    }

    fn set_frontend_words(&mut self, index: u32, lines: Lines, flags: u32) {
        let index = index as usize;
        self.frontends.word64(index, offset!(Frontend, lines)).store(lines.0, STORE);
        self.frontends.word32(index, offset!(Frontend, flags)).store(flags, STORE);
    }

    fn set_frontend_sources(&mut self, index: u32, sources: Sources) {
        let word = self.frontends.word64(index as usize, offset!(Frontend, sources));
        word.store(sources.0, STORE);
    }

    fn set_source(&mut self, index: u32, words: [u64; 2 * BOUNDS]) {
        Self::write_line(&self.sources, index, words);
    }

    fn clear_frontend(&mut self, index: u32) {
        let kind = offset!(Frontend, target) + offset!(flowgate_abi::lb::Target, kind);
        self.frontends.word64(index as usize, kind).store(0, STORE);
    }

    fn set_slot(&mut self, index: u32, slot: Slot) {
        let index = index as usize;
        self.slots.word32(index / SLOTS, index % SLOTS * 4).store(slot.0, STORE);
    }

    fn set_backend(&mut self, line: u32, backend: Backend) {
        Self::write_line(&self.backends, line, zerocopy::transmute!(backend));
    }

    fn set_tail(&mut self, line: u32, tail: Tail) {
        self.backends.word64(line as usize, offset!(Backend, tail)).store(tail.0, STORE);
    }

    fn exchange_tracked(&mut self, cell: u32, entry: Tracked, other: Tracked) -> bool {
        let cell = cell as usize;
        let word = self.tracked.word64(cell / CELLS, cell % CELLS * 8);
        word.compare_exchange(entry.0, other.0, Ordering::AcqRel, LOAD).is_ok()
    }

    fn exchange_pin(&mut self, cell: u32, pin: Tracked, other: Tracked) -> bool {
        let cell = cell as usize;
        let word = self.pins.word64(cell / CELLS, cell % CELLS * 8);
        word.compare_exchange(pin.0, other.0, Ordering::AcqRel, LOAD).is_ok()
    }

    fn set_load(&mut self, line: u32, load: Load) -> io::Result<()> {
        // All of it on the first CPU, nothing on the others.
        let mut words = vec![0u64; 4 * self.cpus];
        words[..4].copy_from_slice(&[load.packets, load.bytes, load.opened, load.tracked]);
        let bytes: Vec<u8> = words.into_iter().flat_map(u64::to_ne_bytes).collect();
        syscall::update(self.map(&maps::LOADS), &line.to_ne_bytes(), &bytes)
    }

    fn wait(&mut self) -> io::Result<()> {
        self.grace.wait()
    }
}
