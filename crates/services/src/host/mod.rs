//! The tables as vectors: for simulation and tests, by the pipeline's own code.
//!
//! Capacities and refusals are those of the kernel, since the layouts are.

mod balance;
mod nat;
mod store;

use std::cell::Cell;

use flowgate_abi::{
    DropReason, Shared32, Shared64,
    event::{EventBudget, Tally},
    fragment::FragmentBucket,
    lb::{
        Backend, Bucket, CELLS, Counter, Frontend, Head, Load, Settings, SourceNode,
        nat::{GROUP, Source, Translation},
    },
};
use flowgate_pipeline::lb::{Action, HostBuffer, run};

use crate::store::Room;

/// Bytes that XDP drivers leave in front of a frame (`XDP_PACKET_HEADROOM`).
const HEADROOM: usize = 256;

/// Tables in this process.
#[derive(Debug)]
pub struct HostTables {
    settings: Settings,
    room: Room,
    head: Head,
    displacements: Vec<u32>,
    frontends: Vec<Frontend>,
    slots: Vec<Shared32>,
    backends: Vec<Backend>,
    sources: Vec<SourceNode>,
    tracked: Vec<Bucket>,
    pins: Vec<Bucket>,
    refused: Vec<Shared64>,
    nat_sources: Vec<Source>,
    taken: Vec<Shared64>,
    ports: Vec<Translation>,
    flows: Vec<Bucket>,
    fragments: Vec<FragmentBucket>,
    loads: Vec<Cell<Load>>,
    drops: Vec<Cell<Tally>>,
    counters: Vec<Cell<u64>>,
    budget: Cell<EventBudget>,
    jiffies: Cell<u64>,
}

/// What became of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passed {
    /// What happens to it.
    pub action: Action,
    /// The frame as it goes on.
    pub frame: Vec<u8>,
}

fn many<T: Default>(count: u32) -> Vec<T> {
    std::iter::repeat_with(T::default).take(count as usize).collect()
}

impl HostTables {
    /// Empty tables.
    #[must_use]
    pub fn new(settings: Settings, room: Room) -> Self {
        let [v4, v6] = settings.nat_groups;
        Self {
            settings,
            room,
            head: Head::default(),
            displacements: many(settings.displacement_mask + 1),
            frontends: many(room.frontends),
            slots: many(room.slots),
            backends: many(room.lines),
            sources: many(room.sources),
            tracked: many(room.tracked / CELLS as u32),
            pins: many(room.pins / CELLS as u32),
            refused: many(room.services),
            nat_sources: many(room.nat_sources),
            taken: many(v4 + v6),
            ports: many((v4 + v6) * GROUP),
            flows: many(settings.nat_mask + 1),
            fragments: many(settings.fragment_mask + 1),
            loads: many(room.lines),
            drops: many(256),
            counters: many(Counter::ALL.len() as u32),
            budget: Cell::default(),
            jiffies: Cell::new(1),
        }
    }

    /// Runs a frame through the balancer, with all effects.
    #[must_use]
    pub fn run(&self, frame: &[u8]) -> Passed {
        let mut bytes = vec![0; HEADROOM + frame.len()];
        bytes[HEADROOM..].copy_from_slice(frame);
        let mut buffer = HostBuffer::new(&mut bytes, HEADROOM);
        let action = run(&mut buffer, self);
        Passed { action, frame: buffer.frame().to_vec() }
    }

    /// Lets the kernel's ticks go on, `settings().hz` of them a second: fragments and the budget of ICMP
    /// errors go by them.
    pub fn advance(&self, jiffies: u64) {
        self.jiffies.set(self.jiffies.get() + jiffies);
    }

    /// What was dropped for a reason.
    #[must_use]
    pub fn dropped(&self, reason: DropReason) -> Tally {
        self.drops[reason as usize].get()
    }

    /// What else was counted.
    #[must_use]
    pub fn counted(&self, counter: Counter) -> u64 {
        self.counters[counter as usize].get()
    }
}
