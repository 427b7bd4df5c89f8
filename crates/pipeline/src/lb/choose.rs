//! Which backend a flow has: its slot knows, or its entry does.
//!
//! The rule. A packet that names a backend itself goes there. Otherwise the client's pin decides, where a service has
//! affinity; otherwise its slot. A slot that tracks nothing: its default backend. In others the flow's entry wins, if the
//! backend that it names is there; one whose backend is gone is treated as opening, and its entry is
//! overwritten. So is one that is met by an opening packet and is closing, or names a backend that fails: a
//! new flow of the same name, or a handshake that nobody answered; any other opening packet may repeat one of
//! a live handshake. Without an entry a flow that opens gets the fresh backend, and an entry, if that differs
//! from the default or the slot announces a change; without room for an entry it gets the default. Any
//! other flow has the default backend, and gets an entry if the slot adopts.
//!
//! Invariants, for every live flow that isn't closing: it has an entry that names its backend, or its
//! backend is the slot's default; if the slot tracks nothing, its backend is the default.

use flowgate_abi::lb::{
    BACKEND_NUMBERS, Backend, Counter, Frontend, Lines, NOBODY, Slot, Tail, Tracked,
};

use super::{
    Balance, Balanceable, Request,
    pin::{self, Client},
    seams::age,
    tracking::{self, Entries, Flows},
};
use crate::family::Tuple;

/// A flow of a service: its slot, and where its entry may lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The hash of its tuple.
    pub hash: u64,
    /// The index of its slot among all slots.
    pub slot: u32,
    /// The hash that chose the slot: its client's, where the service has affinity.
    pub client: u64,
}

impl Flow {
    /// Of a tuple from a client to a frontend.
    #[inline(always)]
    #[must_use]
    pub fn of<F: Balanceable>(frontend: &Frontend, tuple: &Tuple<F::Addr>) -> Self {
        let hash = F::flow_hash(tuple, frontend.seed);
        let flags = frontend.flags.load();
        let mut chooses = hash;
        if flags & (Frontend::HASH_SOURCE | Frontend::HASH_PORT) != 0 {
            chooses = F::flow_hash(&part(tuple, flags), frontend.seed);
        }
        let slot = ((chooses >> 32) * u64::from(frontend.size)) >> 32;
        Self { hash, slot: frontend.slots.wrapping_add(slot as u32), client: chooses }
    }
}

/// The part of a tuple that chooses the slot.
#[inline(always)]
fn part<A: Copy + Default>(tuple: &Tuple<A>, flags: u32) -> Tuple<A> {
    let mut part = Tuple::default();
    if flags & Frontend::HASH_PORT != 0 {
        part.destination_port = tuple.destination_port;
    } else {
        part.source = tuple.source;
    }
    part
}

/// What a packet does to its flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Signs {
    /// It opens the flow.
    pub opens: bool,
    /// It ends one half of it, or all.
    pub closes: bool,
    /// It is about the flow, and not of it: it leaves no trace.
    pub about: bool,
    /// The number of the backend that it names itself ([`super::server_id`]); [`NOBODY`]: none.
    pub named: u32,
}

impl Signs {
    /// Of a packet of the flow.
    #[inline(always)]
    #[must_use]
    pub fn of<F: Balanceable>(request: &Request<F>) -> Self {
        Self { opens: request.opens(), closes: request.closes(), ..Self::default() }
    }
}

/// The backend of a packet.
#[derive(Clone, Copy)]
pub struct Chosen<'t> {
    /// The index of its line.
    pub line: u32,
    /// The line.
    pub backend: &'t Backend,
    /// Its tail.
    pub tail: Tail,
    /// The flow got an entry.
    pub tracked: bool,
}

/// Why nobody was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// There is nobody.
    Backend,
    /// What takes calls, without which it was asked for. Nothing was changed.
    Calls,
}

/// In the place of a backend's number: [`Missing::Calls`].
const CALLS_NEEDED: u32 = BACKEND_NUMBERS;

/// Chooses the backend of a packet. `CALLS`: of subprograms, which ask for pins and for entries outside of their first
/// buckets. Without them the service has no affinity.
///
/// # Errors
/// [`Missing`].
#[inline(always)]
pub fn choose<'t, T: Balance, const CALLS: bool>(
    tables: &'t T,
    frontend: &Frontend,
    flow: &Flow,
    signs: Signs,
) -> Result<Chosen<'t>, Missing> {
    let slot = Slot(tables.slot(flow.slot).ok_or(Missing::Backend)?);
    let (mut tracked, mut number) = (false, signs.named);
    let has_affinity = CALLS && frontend.flags.load() & Frontend::AFFINITY != 0;
    if number == NOBODY && has_affinity {
        number = tables.pinned(&Client::of(frontend, flow), signs);
    }
    if number == NOBODY {
        number = slot.default_backend();
        if slot.has(Slot::TRACK) {
            number = by_entry::<T, CALLS>(tables, frontend, flow, (slot, signs), &mut tracked);
            if !CALLS && number == CALLS_NEEDED {
                return Err(Missing::Calls);
            }
        }
        if has_affinity && !signs.about && number != NOBODY {
            pin::pin(tables, &Client::of(frontend, flow), number);
        }
    }
    let chosen = lookup(tables, lines(frontend), number).ok_or(Missing::Backend)?;
    if !chosen.tail.has(Tail::GONE) {
        return Ok(Chosen { tracked, ..chosen });
    }
    // The slot was read before it was changed.
    let chosen = lookup(tables, lines(frontend), slot.fresh_backend()).ok_or(Missing::Backend)?;
    tables.count(Counter::FlowsOrphaned);
    if chosen.tail.has(Tail::GONE) { Err(Missing::Backend) } else { Ok(chosen) }
}

#[inline(always)]
fn lines(frontend: &Frontend) -> Lines {
    Lines(frontend.lines.load())
}

/// The line of a backend's number.
#[inline(always)]
fn lookup<T: Balance>(tables: &T, lines: Lines, number: u32) -> Option<Chosen<'_>> {
    if number == NOBODY {
        return None;
    }
    let line = lines.start().wrapping_add(number);
    let backend = tables.backend(line)?;
    Some(Chosen { line, backend, tail: Tail(backend.tail.load()), tracked: false })
}

/// The tail of a backend that an entry names.
#[inline(always)]
pub(super) fn tail_of<T: Balance>(tables: &T, lines: Lines, number: u32) -> Tail {
    lookup(tables, lines, number).map_or(Tail(Tail::GONE), |named| named.tail)
}

/// In a slot that tracks: the number that the flow's entry names, or that it gets.
#[inline(always)]
fn by_entry<T: Balance, const CALLS: bool>(
    tables: &T,
    frontend: &Frontend,
    flow: &Flow,
    (slot, signs): (Slot, Signs),
    tracked: &mut bool,
) -> u32 {
    let place = tracking::Place::of(flow.slot, flow.hash, tables.settings().tracked_mask);
    let (default, fresh) = (slot.default_backend(), slot.fresh_backend());
    let now = age(tables);
    let Some(first) = Flows::bucket(tables, place.buckets[0]) else { return default };
    if let Some((cell, entry)) = tracking::find::<Flows, T, CALLS>(tables, first, &place) {
        let named = tail_of(tables, lines(frontend), entry.backend());
        let (gone, again) = (named.has(Tail::GONE), opens_again(entry, named, signs));
        if !gone && !again {
            refresh(tables, (cell, entry), now, signs);
            return entry.backend();
        }
        if signs.about {
            return default;
        }
        // Not the default: nothing would remember that it has that one.
        if fresh == NOBODY {
            return NOBODY;
        }
        if gone {
            tables.count(Counter::FlowsOrphaned);
        }
        *tracked = tables.exchange(cell, entry.0, entry.with(fresh, now).0);
        return if *tracked { fresh } else { default };
    }
    if !CALLS && tracking::is_passed(first) {
        return CALLS_NEEDED;
    }
    let number = if signs.opens { fresh } else { default };
    let store = if signs.opens {
        fresh != default || slot.has(Slot::ANNOUNCE)
    } else {
        slot.has(Slot::ADOPT)
    };
    if !store || signs.about || number == NOBODY {
        return number;
    }
    let entry = place.name.with(number, now);
    *tracked = tracking::insert::<Flows, T, CALLS>(tables, first, &place, entry);
    if *tracked {
        return number;
    }
    if !CALLS {
        return CALLS_NEEDED;
    }
    tables.count_refused(frontend.service);
    tables.count(Counter::EntriesRefused);
    default
}

/// A packet opens a flow of which there is an entry, and not the one that the entry is about, or not with
/// the backend that it names.
#[inline(always)]
fn opens_again(entry: Tracked, named: Tail, signs: Signs) -> bool {
    signs.opens && (entry.closing() || named.has(Tail::FAILS))
}

/// Brings an entry's age up to date; writes only what changes.
#[inline(always)]
fn refresh<T: Balance>(
    tables: &T,
    (cell, entry): (&super::seams::Cell, Tracked),
    now: u32,
    signs: Signs,
) {
    let seen = entry.seen(now, signs.closes);
    if seen != entry && !signs.about {
        // If somebody else was faster, the flow was seen all the same.
        let _ = tables.exchange(cell, entry.0, seen.0);
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use flowgate_abi::{Be16, Be32, Shared32};

    use super::*;
    use crate::V4;

    /// The slots of 64 clients' flows to each of four ports, among 251.
    fn slots(flags: u32) -> [Vec<u32>; 4] {
        let frontend =
            Frontend { size: 251, seed: 7, flags: Shared32::new(flags), ..Frontend::default() };
        [80, 81, 443, 8080].map(|port| {
            let slot = |client: u32| {
                let source = Be32::new(0xcb00_7100 + client % 16);
                let tuple = Tuple {
                    source,
                    source_port: Be16::new(1024 + client as u16),
                    destination_port: Be16::new(port),
                    ..Tuple::default()
                };
                Flow::of::<V4>(&frontend, &tuple).slot
            };
            (0..64).map(slot).collect()
        })
    }

    fn distinct(slots: &[u32]) -> usize {
        let mut slots = slots.to_vec();
        slots.sort_unstable();
        slots.dedup();
        slots.len()
    }

    #[test]
    fn what_chooses_a_slot_is_what_the_flags_say() {
        let connection = slots(0);
        assert!(connection.iter().all(|slots| distinct(slots) > 40));
        assert_ne!(connection[0], connection[1]);
        let source = slots(Frontend::HASH_SOURCE);
        assert!(source.iter().all(|slots| *slots == source[0] && slots[..16] == slots[16..32]));
        assert!(distinct(&source[0]) > 12);
        let port = slots(Frontend::HASH_PORT);
        assert!(port.iter().all(|slots| distinct(slots) == 1));
        assert!(distinct(&port.concat()) > 2);
    }
}
