//! Which port a flow has: found by its hash, taken by a bit, given up by a word.
//!
//! A flow may have its port in either of two groups of 64, of whatever active source; it gets one of the emptier.
//! By that, groups are nearly equally full: none is found full before more than nine of ten ports are taken.
//! Which sources are active, user space changes in one step ([`Active`]); ports of others live on.
//!
//! The life of a port. A bit in [`Translations::nat_taken`](super::super::Translations::nat_taken) is set:
//! it has an owner, who writes down what the flow is, and [`Life`] last. The flow's mapping leads to it. Who
//! ends the flow sets its life to 0, and takes the mapping out. When no packet can be under way any more
//! that has seen it, user space clears the bit.

use flowgate_abi::{
    Be16, DropReason,
    lb::{
        Bucket, Settings,
        nat::{Active, GROUP, Life, Mapping, Translation},
    },
};

use super::{
    super::{
        Balance,
        seams::Cell,
        tracking::{for_each_cell, vacancy},
    },
    Nat, Ports, Way,
};
use crate::{conntrack, family::Tuple, wire::protocol};

/// Where a flow's mapping may lie, and which groups it may have a port of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its first bucket.
    pub first: u32,
    /// Its second bucket, another one.
    pub second: u32,
    /// The hash of the flow, from the client's side.
    pub hash: u64,
}

impl Place {
    /// By the hash of a flow, and buckets less one.
    #[inline(always)]
    #[must_use]
    pub const fn of(hash: u64, mask: u32) -> Self {
        let first = hash as u32 & mask;
        let other = ((hash >> 26) as u32).wrapping_mul(0x9e37_79b1) >> 7 | 1;
        Self { first, second: (first ^ other) & mask, hash }
    }

    /// What a mapping of the flow has in common with all others of it.
    #[inline(always)]
    const fn name(&self) -> Mapping {
        Mapping::new(self.hash, 0)
    }

    /// The two groups in which it may have a port, of so many; the same one, if there is but one.
    #[inline(always)]
    #[must_use]
    pub const fn groups(&self, count: u32) -> [u32; 2] {
        let first = share(self.hash >> 32, count);
        let behind = first + 1 + share(self.hash & 0xffff_ffff, count - 1);
        [first, if behind < count { behind } else { behind.wrapping_sub(count) }]
    }
}

/// A part of 32 bits as a number below `count`.
#[inline(always)]
const fn share(part: u64, count: u32) -> u32 {
    ((part * count as u64) >> 32) as u32
}

/// The place that a port is of, by its number, and the port as packets have it.
#[inline(always)]
#[must_use]
pub const fn source_of(settings: &Settings, index: u32) -> (u32, Be16) {
    let ports = settings.nat_groups_each * GROUP;
    // Without ports there is no index; no divisor is 0.
    let ports = if ports == 0 { 1 } else { ports };
    let (number, place) = (index / ports, index % ports);
    (number, Be16::new((settings.nat_first_port + place) as u16))
}

/// The port of a client's flow; `None`: it has none.
///
/// # Errors
/// [`DropReason::NoNatPort`]: another flow that lives has the mapping by which it would be found.
#[inline(always)]
pub fn find<'t, F: Nat, T: Balance>(
    tables: &'t T,
    place: &Place,
    tuple: &Tuple<F::Addr>,
) -> Result<Option<&'t Translation>, DropReason> {
    let name = place.name();
    let mut mapping = tables.nat_flows(place.first).map_or(0, |bucket| locate(bucket, name));
    if mapping == 0 {
        mapping = tables.nat_flows(place.second).map_or(0, |bucket| locate(bucket, name));
    }
    if mapping == 0 {
        return Ok(None);
    }
    let Some(port) = tables.nat_port(Mapping(mapping).index()) else { return Ok(None) };
    if is_flow::<F>(port, tuple) {
        return Ok(Some(port));
    }
    if Life(port.life.load()).lives() { Err(DropReason::NoNatPort) } else { Ok(None) }
}

/// The mapping of that name in a bucket; 0: none.
#[inline(always)]
fn locate(bucket: &Bucket, name: Mapping) -> u64 {
    for_each_cell!(number => {
        let word = bucket[number as usize - 1].load();
        if word != 0 && Mapping(word).is(name) {
            return word;
        }
    });
    0
}

/// The port is, or was last, that of the flow with this tuple.
#[inline(always)]
fn is_flow<F: Nat>(port: &Translation, tuple: &Tuple<F::Addr>) -> bool {
    let (client, service) = (F::wide(tuple.source), F::wide(tuple.destination));
    let differs = (client[0] ^ port.client[0].load())
        | (client[1] ^ port.client[1].load())
        | (service[0] ^ port.service[0].load())
        | (service[1] ^ port.service[1].load());
    let ports = Ports(port.ports.load());
    let same = ports.client() == tuple.source_port.raw()
        && ports.service() == tuple.destination_port.raw()
        && Way(port.way.load()).protocol() == tuple.protocol;
    differs == 0 && same
}

/// Takes a port for a flow of a family; `None`: there is none. The caller is its owner.
#[inline(always)]
pub fn take<F: Nat, T: Balance>(tables: &T, place: &Place) -> Option<u32> {
    let active = Active(tables.head()?.nat_active.load());
    let count = if F::NUMBER == 4 { active.v4() } else { active.v6() };
    if count == 0 {
        return None;
    }
    let [one, other] = place.groups(count * tables.settings().nat_groups_each);
    let one = group_of::<F, T>(tables, active, one)?;
    let other = group_of::<F, T>(tables, active, other)?;
    let taken = [tables.nat_taken(one)?, tables.nat_taken(other)?];
    let (mut best, mut rest) = ((one, taken[0]), (other, taken[1]));
    if taken[1].load().count_ones() < taken[0].load().count_ones() {
        (best, rest) = (rest, best);
    }
    // Another CPU may have taken the same port meanwhile: then the other group is as good.
    if let Some(port) = take_of(tables, best) {
        return Some(port);
    }
    if let Some(port) = take_of(tables, rest) {
        return Some(port);
    }
    take_of(tables, best)
}

/// The group that active sources of a family have there, one source's after another's.
#[inline(always)]
fn group_of<F: Nat, T: Balance>(tables: &T, active: Active, number: u32) -> Option<u32> {
    let settings = tables.settings();
    // Without groups nobody is active; no divisor is 0.
    let each = if settings.nat_groups_each == 0 { 1 } else { settings.nat_groups_each };
    let first = if F::NUMBER == 4 { 0 } else { settings.nat_groups[0] / each };
    let turn = tables.nat_source(first + number / each)?;
    let own = if active.list() == 0 { turn.turns[0] } else { turn.turns[1] };
    Some(own * each + number % each)
}

/// Takes the first free port of a group.
#[inline(always)]
fn take_of<T: Balance>(tables: &T, (group, taken): (u32, &Cell)) -> Option<u32> {
    let word = taken.load();
    let lowest = !word & word.wrapping_add(1);
    if lowest == 0 || !tables.exchange(taken, word, word | lowest) {
        return None;
    }
    Some(group * GROUP + (lowest - 1).count_ones())
}

/// Brings a described port to life, and has its flow's packets find it; `false`: there is no room for its
/// mapping.
#[inline(always)]
pub fn publish<T: Balance>(
    tables: &T,
    place: &Place,
    port: &Translation,
    (index, tcp_flags): (u32, u8),
) -> bool {
    port.hash.store(place.hash);
    let protocol = Way(port.way.load()).protocol();
    let state = conntrack::advance(0, protocol, tcp_flags, false);
    port.life.store(Life::new(protocol == protocol::TCP, state, moment(tables)).0);
    let (Some(first), Some(second)) =
        (tables.nat_flows(place.first), tables.nat_flows(place.second))
    else {
        return false;
    };
    let mapping = Mapping::new(place.hash, index);
    let is_known = put(tables, [first, second], place.hash, mapping.0);
    if !is_known {
        port.life.store(0);
    }
    is_known
}

/// Stores a word in the emptier of two buckets; `false`: there is no room. `unknown` is a number that the
/// verifier knows nothing of.
#[inline(always)]
fn put<T: Balance>(tables: &T, [first, second]: [&Bucket; 2], unknown: u64, word: u64) -> bool {
    let is_some = |word| tables.is_some(word);
    let (in_first, in_second) = (vacancy(first, is_some), vacancy(second, is_some));
    let (emptier, other) = if in_second.0 > in_first.0 {
        ((second, in_second.1), (first, in_first.1))
    } else {
        ((first, in_first.1), (second, in_second.1))
    };
    // Another CPU may have taken the cell meanwhile: then the other bucket is as good.
    store(tables, emptier, (unknown, word)) || store(tables, other, (unknown, word))
}

#[inline(always)]
fn store<T: Balance>(
    tables: &T,
    (bucket, number): (&Bucket, u32),
    (unknown, word): (u64, u64),
) -> bool {
    if number == 0 {
        return false;
    }
    let cell = tables.cell(bucket, tables.forget(number, unknown));
    tables.exchange(cell, 0, word)
}

/// One packet more of a flow, from either side.
#[inline(always)]
pub fn touch<T: Balance>(
    tables: &T,
    port: &Translation,
    (protocol, tcp_flags): (u8, u8),
    is_answer: bool,
) {
    let now = moment(tables);
    let life = Life(port.life.load());
    let state = conntrack::advance(life.state(), protocol, tcp_flags, is_answer);
    let seen = Life::new(life.is_tcp(), state, now);
    if seen == life || !life.lives() || tables.exchange(&port.life, life.0, seen.0) {
        return;
    }
    // The other direction was faster, on another CPU.
    let life = Life(port.life.load());
    let state = conntrack::advance(life.state(), protocol, tcp_flags, is_answer);
    if life.lives() {
        let _ = tables.exchange(&port.life, life.0, Life::new(life.is_tcp(), state, now).0);
    }
}

/// Ends a flow: its packets don't find it any more. Its port is free when user space has seen it.
#[inline(always)]
pub fn end<T: Balance>(tables: &T, place: &Place, port: &Translation) {
    let life = port.life.load();
    if life != 0 && !tables.exchange(&port.life, life, 0) {
        return;
    }
    forget(tables, place.first, place.name());
    forget(tables, place.second, place.name());
}

/// Takes a flow's mapping out of a bucket.
#[inline(always)]
fn forget<T: Balance>(tables: &T, bucket: u32, name: Mapping) {
    let Some(bucket) = tables.nat_flows(bucket) else { return };
    for_each_cell!(number => {
        let cell = &bucket[number as usize - 1];
        let word = cell.load();
        if word != 0 && Mapping(word).is(name) {
            let _ = tables.exchange(cell, word, 0);
        }
    });
}

/// The moment that the balancer's clock shows.
#[inline(always)]
fn moment<T: Balance>(tables: &T) -> u32 {
    tables.head().map_or(0, |head| Life::moment(head.clock.load()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_and_buckets_are_there_and_differ() {
        for hash in (0..10_000u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
            let place = Place::of(hash, 1023);
            assert_ne!(place.first, place.second);
            assert!(place.first < 1024 && place.second < 1024);
            for count in [2, 3, 64, 1008] {
                let [one, other] = place.groups(count);
                assert!(one < count && other < count && one != other, "{one} {other} {count}");
            }
            assert_eq!(place.groups(1)[0], 0);
        }
    }
}
