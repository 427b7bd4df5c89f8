//! Full NAT's tables: the pipeline's look-ups, and what frees ports.

use flowgate_abi::{
    Shared64,
    lb::{
        Bucket,
        nat::{Life, Mapping, Ports, Source, Translation, Way},
    },
};
use flowgate_pipeline::lb::Translations;

use super::HostTables;
use crate::store::{NatFlow, NatStore};

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

    fn flow(&self, port: u32) -> NatFlow {
        let port = &self.ports[port as usize];
        let address = |words: &[Shared64; 2]| [words[0].load(), words[1].load()];
        NatFlow {
            client: address(&port.client),
            service: address(&port.service),
            backend: address(&port.backend),
            source: address(&port.source),
            ports: Ports(port.ports.load()),
            way: Way(port.way.load()),
            number: port.number.load() as u32,
        }
    }

    fn mapping(&self, bucket: u32, cell: usize) -> Mapping {
        Mapping(self.flows[bucket as usize][cell].load())
    }

    fn forget(&mut self, bucket: u32, mapping: Mapping) {
        let cells = self.flows[bucket as usize].iter();
        cells.filter(|cell| cell.load() == mapping.0).for_each(|cell| cell.store(0));
    }
}
