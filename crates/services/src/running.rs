//! A service in the tables: its slots, its backends' lines, and what of it is under way.
//!
//! Not here: which stretches of the tables it gets, and its frontends ([`crate::balancer`]); how it changes
//! ([`crate::change`]) and goes on ([`crate::step`]).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use flowgate_abi::{
    Shared32, Shared64,
    lb::{Backend as Line, Frontend, Load, Slot, Sources, Tail},
};

use crate::{
    TableSize, Uplink,
    clock::{Clock, Millis, millis},
    header::{self, Inner},
    maglev::Member,
    members::Members,
    model::{Forwarding, Fragments, HashMode, Service},
    ranges::Range,
    server_ids,
    store::Store,
};

/// A service that runs.
#[derive(Debug)]
pub(crate) struct Running {
    /// As it was applied last.
    pub(crate) service: Arc<Service>,
    /// Its number among the services.
    pub(crate) number: u32,
    pub(crate) size: TableSize,
    /// Of its frontends.
    pub(crate) flags: u32,
    pub(crate) slots: Range,
    /// The lines of its backends, by the family of what their packets carry.
    pub(crate) lines: BTreeMap<Inner, Range>,
    /// The trees of its source ranges, by the family of clients; none where all are taken.
    pub(crate) sources: BTreeMap<Inner, Sources>,
    pub(crate) members: Members,
    /// The numbers of those who fail their health checks.
    pub(crate) failing: BTreeSet<u32>,
    /// For each slot the number of the backend that it should have.
    pub(crate) target: Vec<u16>,
    /// Of whom the target is made, with their numbers.
    pub(crate) aimed: Vec<(Member, u32)>,
    /// Slots that aren't stable, and since when they are in their stage.
    pub(crate) moving: BTreeMap<u32, Millis>,
    /// Slots whose way to their target hasn't begun, for want of room for entries.
    pub(crate) waiting: BTreeSet<u32>,
    /// When an entry found no room last.
    pub(crate) failed: Millis,
    /// How many had found no room by then.
    pub(crate) refused: u64,
    /// Its entries, as the last sweep found them.
    pub(crate) entries: usize,
    /// Clients that have pins, as the last sweep found them.
    pub(crate) pinned: usize,
    /// Entries that a moving slot is expected to need; 0: nobody knows.
    pub(crate) entries_per_slot: f64,
}

impl Running {
    /// In stretches of the tables, with nothing in them.
    pub(crate) fn new(
        service: Arc<Service>,
        (number, size): (u32, TableSize),
        slots: Range,
        lines: BTreeMap<Inner, Range>,
    ) -> Self {
        let room = lines.values().map(|range| range.length).min().unwrap_or(1);
        Self {
            service,
            number,
            size,
            flags: 0,
            slots,
            lines,
            sources: BTreeMap::new(),
            members: Members::new(room),
            failing: BTreeSet::new(),
            target: vec![0; size.slots() as usize],
            aimed: Vec::new(),
            moving: BTreeMap::new(),
            waiting: BTreeSet::new(),
            failed: 0,
            refused: 0,
            entries: 0,
            pinned: 0,
            entries_per_slot: 0.0,
        }
    }

    /// How long a live flow may be silent.
    pub(crate) fn idle(&self) -> Millis {
        millis(self.service.idle())
    }

    /// What its frontends of a family say, but for their targets and seeds.
    pub(crate) fn frontend(&self, inner: Inner) -> Frontend {
        let lines = self.lines[&inner];
        Frontend {
            slots: self.slots.start,
            size: self.size.slots(),
            lines: Shared64::new(lines.as_lines().0),
            flags: Shared32::new(self.flags),
            sources: Shared64::new(self.sources_of(inner).0),
            service: self.number,
            ..Frontend::default()
        }
    }

    /// Which clients of a family it takes.
    pub(crate) fn sources_of(&self, inner: Inner) -> Sources {
        self.sources.get(&inner).copied().unwrap_or_default()
    }

    /// A slot of its table.
    pub(crate) fn slot<S: Store>(&self, store: &S, slot: u32) -> Slot {
        store.slot(self.slots.start + slot)
    }

    /// Zeroes its slots and server ids, and what its lines have counted.
    pub(crate) fn clear<S: Store>(&self, store: &mut S) -> Result<(), S::Error> {
        self.slots.elements().for_each(|slot| store.set_slot(slot, Slot::default()));
        for line in self.lines.values().flat_map(Range::elements) {
            store.set_backend(line, Line::default());
            store.set_load(line, Load::default())?;
        }
        Ok(())
    }

    /// Takes over what the service says of its flows.
    pub(crate) fn expect_flows(&mut self) {
        if let Some(flows) = self.service.options.flows {
            let each = f64::from(flows) / f64::from(self.size.slots());
            self.entries_per_slot = self.entries_per_slot.max(each);
        }
    }

    /// Copies its lines, with what they have counted, to others that it has from now on, and returns those
    /// that it had. Backends of the service that comes get their new lines, all others keep theirs.
    pub(crate) fn move_to<S: Store>(
        &mut self,
        store: &mut S,
        (service, lines): (&Service, BTreeMap<Inner, Range>),
        uplink: &Uplink,
    ) -> Result<Vec<Range>, S::Error> {
        for (&inner, to) in &lines {
            let from = self.lines.get(&inner);
            for number in 0..to.length {
                let old = from.filter(|from| number < from.length).map(|from| from.start + number);
                let named = self.members.named(number).and_then(|id| service.find(id));
                let line = match (named, old) {
                    (Some(backend), _) => header::line(service, backend, inner, uplink),
                    (None, Some(old)) => store.backend(old),
                    (None, None) => self.unknown(number),
                };
                store.set_backend(to.start + number, line);
                let load = old.map_or(Ok(Load::default()), |old| store.load(old))?;
                store.set_load(to.start + number, load)?;
            }
        }
        let room = lines.values().map(|range| range.length).min().unwrap_or(1);
        self.members.grow(room);
        let left = std::mem::replace(&mut self.lines, lines);
        Ok(left.into_values().collect())
    }

    /// A line of nobody, or of somebody who is gone.
    fn unknown(&self, number: u32) -> Line {
        let tail = if self.members.is_gone(number) { Tail::GONE } else { 0 };
        Line { tail: Shared64::new(tail), ..Line::default() }
    }

    /// Clients have pins, or may get some.
    pub(crate) fn has_pins(&self) -> bool {
        self.pinned > 0 || self.service.options.affinity.is_some()
    }

    /// There is something that time or a sweep will change.
    pub(crate) fn is_under_way(&self) -> bool {
        !self.moving.is_empty() || !self.waiting.is_empty() || self.members.has_gone()
    }
}

/// Lines that so many backends take: some are kept for those who come before others' numbers are free.
pub(crate) fn lines_for(backends: usize) -> u32 {
    let spare = (backends / 4).max(4);
    let lines = (1 + backends + spare).next_multiple_of(8);
    (lines as u32).min(flowgate_abi::lb::BACKEND_NUMBERS)
}

/// The families of a service's addresses.
pub(crate) fn families(service: &Service) -> BTreeSet<Inner> {
    service.addresses.iter().map(|address| Inner::of(*address)).collect()
}

/// The flags of a service's frontends, by the milliseconds of an age of tracked flows.
pub(crate) fn flags(service: &Service, age_length: Millis) -> u32 {
    let hash = match service.options.hash {
        HashMode::Connection => 0,
        HashMode::Source => Frontend::HASH_SOURCE,
        HashMode::DestinationPort => Frontend::HASH_PORT,
    };
    let fragments = match service.options.fragments {
        Fragments::Drop => 0,
        Fragments::Track => Frontend::FRAGMENTS,
    };
    let nat = if service.forwarding == Forwarding::Snat { Frontend::SNAT } else { 0 };
    let affinity = match pinned_for(service) {
        Some(time) => Frontend::HASH_SOURCE | Frontend::pins(Clock::pin_shift(time, age_length)),
        None => 0,
    };
    hash | fragments | nat | affinity | server_ids::flags(&service.options)
}

/// For how long a silent client keeps its backend: no shorter than its flows may be silent.
pub(crate) fn pinned_for(service: &Service) -> Option<Millis> {
    service.options.affinity.map(|time| millis(time.max(service.idle())))
}
