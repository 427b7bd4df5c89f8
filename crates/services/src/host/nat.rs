//! Full NAT's tables: the pipeline's look-ups, and what frees ports.

use flowgate_abi::{
    Shared64,
    lb::{
        Bucket,
        nat::{Life, Mapping, Source, Translation},
    },
};
use flowgate_pipeline::lb::Translations;

use super::HostTables;
use crate::store::NatStore;

impl Translations for HostTables {
    fn nat_source(&self, number: u32) -> Option<&Source> {
        self.nat_sources.get(number as usize)
    }

    fn nat_taken(&self, group: u32) -> Option<&Shared64> {
        self.taken.get(group as usize)
    }

    fn nat_port(&self, index: u32) -> Option<&Translation> {
        self.ports.get(index as usize)
    }

    fn nat_flows(&self, index: u32) -> Option<&Bucket> {
        self.flows.get(index as usize)
    }
}

impl NatStore for HostTables {
    fn nat_source(&self, number: u32) -> Source {
        self.nat_sources[number as usize]
    }

    fn set_nat_source(&mut self, number: u32, source: Source) {
        self.nat_sources[number as usize] = source;
    }

    fn taken(&self, group: u32) -> u64 {
        self.taken[group as usize].load()
    }

    fn free(&mut self, group: u32, ports: u64) {
        let word = &self.taken[group as usize];
        word.store(word.load() & !ports);
    }

    fn life(&self, port: u32) -> Life {
        Life(self.ports[port as usize].life.load())
    }

    fn end(&mut self, port: u32, life: Life) -> bool {
        let word = &self.ports[port as usize].life;
        let is_there = word.load() == life.0;
        if is_there {
            word.store(0);
        }
        is_there
    }

    fn hash(&self, port: u32) -> u64 {
        self.ports[port as usize].hash.load()
    }

    fn forget(&mut self, bucket: u32, mapping: Mapping) {
        let cells = self.flows[bucket as usize].iter();
        cells.filter(|cell| cell.load() == mapping.0).for_each(|cell| cell.store(0));
    }
}
