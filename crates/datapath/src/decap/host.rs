//! What is configured, in this process: for simulation and tests, by the pipeline's own code.

use std::{cell::Cell, collections::HashMap, net::IpAddr};

use flowgate_abi::{
    DropReason,
    decap::{Counter, Network, Settings},
    event::Tally,
    lb::Target,
};
use flowgate_pipeline::{
    decap::{Ends, decapsulate},
    lb::HostBuffer,
};

use super::{Decapsulated, Fate, ends};

/// What is configured, and what was counted.
#[derive(Debug)]
pub(super) struct HostEnds {
    settings: Settings,
    roles: HashMap<Target, u32>,
    networks: Vec<Network>,
    drops: Vec<Cell<Tally>>,
    counters: Vec<Cell<Tally>>,
}

impl HostEnds {
    pub(super) fn new(ends: &super::Ends) -> Self {
        Self {
            settings: ends.settings(),
            roles: ends.roles().into_iter().map(|(at, role)| (ends::target(at), role)).collect(),
            networks: ends.networks(),
            drops: vec![Cell::default(); 256],
            counters: vec![Cell::default(); Counter::ALL.len()],
        }
    }

    pub(super) fn set_role(&mut self, address: IpAddr, role: u32) {
        self.roles.insert(ends::target(address), role);
    }

    pub(super) fn run(&self, frame: &[u8]) -> Decapsulated {
        let mut bytes = frame.to_vec();
        let mut buffer = HostBuffer::new(&mut bytes, 0);
        let fate = Fate::of(decapsulate(&mut buffer, self));
        Decapsulated { fate, frame: buffer.frame().to_vec() }
    }

    pub(super) fn dropped(&self, reason: DropReason) -> Tally {
        self.drops[reason as usize].get()
    }

    pub(super) fn counted(&self, counter: Counter) -> Tally {
        self.counters[counter as usize].get()
    }
}

fn add(cell: &Cell<Tally>, bytes: u32) {
    let Tally { packets, bytes: before } = cell.get();
    cell.set(Tally { packets: packets + 1, bytes: before + u64::from(bytes) });
}

impl Ends for HostEnds {
    fn settings(&self) -> Settings {
        self.settings
    }

    fn role(&self, address: &Target) -> u32 {
        self.roles.get(address).copied().unwrap_or(0)
    }

    fn network(&self, index: u32) -> Option<&Network> {
        self.networks.get(index as usize)
    }

    fn count_drop(&self, reason: DropReason, bytes: u32) {
        add(&self.drops[reason as usize], bytes);
    }

    fn count(&self, counter: u32, bytes: u32) {
        add(&self.counters[counter as usize], bytes);
    }
}
