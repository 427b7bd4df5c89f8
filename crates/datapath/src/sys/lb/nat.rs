//! Full NAT's sources and ports, through mapped memory.

use std::{mem::offset_of, sync::atomic::Ordering};

use flowgate_abi::{
    Addr6,
    lb::{
        CELLS,
        nat::{Life, Mapping, Ports, Source, Translation, Way},
    },
};
use flowgate_services::store::{NatFlow, NatStore};

use super::BalancerTables;

const LIFE: usize = offset_of!(Translation, life);
const HASH: usize = offset_of!(Translation, hash);
const TURNS: usize = offset_of!(Source, turns);

impl NatStore for BalancerTables {
    fn nat_source(&self, number: u32) -> Source {
        let word = |at| self.nat.sources.word64(number as usize, at).load(Ordering::Acquire);
        let address = Addr6 { first: word(0), last: word(8) };
        Source { address, turns: zerocopy::transmute!(word(TURNS)) }
    }

    fn set_nat_source(&mut self, number: u32, source: Source) {
        let Addr6 { first, last } = source.address;
        let turns: u64 = zerocopy::transmute!(source.turns);
        for (at, word) in [(0, first), (8, last), (TURNS, turns)] {
            self.nat.sources.word64(number as usize, at).store(word, Ordering::Release);
        }
    }

    fn taken(&self, group: u32) -> u64 {
        self.nat.taken.word64(group as usize, 0).load(Ordering::Acquire)
    }

    fn free(&mut self, group: u32, ports: u64) {
        self.nat.taken.word64(group as usize, 0).fetch_and(!ports, Ordering::AcqRel);
    }

    fn life(&self, port: u32) -> Life {
        Life(self.nat.ports.word64(port as usize, LIFE).load(Ordering::Acquire))
    }

    fn end(&mut self, port: u32, life: Life) -> bool {
        let word = self.nat.ports.word64(port as usize, LIFE);
        word.compare_exchange(life.0, 0, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    fn hash(&self, port: u32) -> u64 {
        self.nat.ports.word64(port as usize, HASH).load(Ordering::Acquire)
    }

    fn flow(&self, port: u32) -> NatFlow {
        let word = |at| self.nat.ports.word64(port as usize, at).load(Ordering::Acquire);
        let address = |at| [word(at), word(at + 8)];
        NatFlow {
            client: address(offset_of!(Translation, client)),
            service: address(offset_of!(Translation, service)),
            backend: address(offset_of!(Translation, backend)),
            source: address(offset_of!(Translation, source)),
            ports: Ports(word(offset_of!(Translation, ports))),
            way: Way(word(offset_of!(Translation, way))),
            number: word(offset_of!(Translation, number)) as u32,
        }
    }

    fn mapping(&self, bucket: u32, cell: usize) -> Mapping {
        Mapping(self.nat.flows.word64(bucket as usize, cell * 8).load(Ordering::Acquire))
    }

    fn forget(&mut self, bucket: u32, mapping: Mapping) {
        for cell in 0..CELLS {
            let word = self.nat.flows.word64(bucket as usize, cell * 8);
            // Somebody else's by now, or nobody's: as good.
            let _ = word.compare_exchange(mapping.0, 0, Ordering::AcqRel, Ordering::Acquire);
        }
    }
}
