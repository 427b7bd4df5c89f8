//! The flow table's algorithm: look-up, insertion with two choices of bucket, eviction by rank.
//!
//! Not here: what a flow means (that is [`crate::hook`]) and where the buckets lie.
//!
//! Invariants: an established flow is never evicted; a reader never takes another flow's judgement
//! for its own, since a way's verdict is zero while its owner changes and the key is compared again
//! after the generation was read ([`Way::holds`]).

use flowgate_abi::{
    Settings,
    flow::{Age, Class, Ends, Seen, Verdict, Volume, state},
};

use crate::{
    FlowTable, Packet,
    family::{Bucket, Family, Way},
    wire::{protocol, tcp},
};

/// Runs a body for each way, unrolled.
///
/// VERIFIER: map memory indexed by a run-time number is refused on 5.10 and 6.1 ("unbounded min
/// value"); a literal is an offset. Where the number is only known at run time, `Tables` masks it.
macro_rules! for_each_way {
    ($number:ident => $body:block) => {
        for_each_way!(@ $number $body 1 2 3 4 5 6 7)
    };
    (@ $number:ident $body:block $($n:literal)+) => {
        $({ let $number: u32 = $n; $body })+
    };
}
pub(crate) use for_each_way;

/// Where a key may lie.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Its first bucket.
    pub first: u32,
    /// Its second bucket, another one.
    pub second: u32,
    /// Part of the hash, not 0.
    pub tag: u32,
}

impl Place {
    /// By the flow hash.
    #[inline(always)]
    #[must_use]
    pub fn of(hash: u64, mask: u32) -> Self {
        let first = (hash >> 40) as u32 & mask;
        let second = (first ^ ((hash >> 20) as u32 | 1)) & mask;
        Self { first, second, tag: hash as u32 | 1 }
    }
}

/// The bucket that holds a key, and the number of its way in `number`; an expired entry is none.
#[inline(always)]
pub fn find<'t, F: Family, T: FlowTable<F>>(
    tables: &'t T,
    place: Place,
    key: &F::Key,
    jiffies: u64,
    number: &mut u32,
) -> Option<&'t F::Bucket> {
    let mut bucket = tables.bucket(place.first)?;
    *number = locate::<F>(bucket, place.tag, key);
    if *number == 0 && bucket.spilled().load() != 0 {
        bucket = tables.bucket(place.second)?;
        *number = locate::<F>(bucket, place.tag, key);
    }
    if *number == 0 {
        return None;
    }
    let age = Age(tables.age(bucket, *number).load());
    if expired(age, tables.settings(), jiffies) {
        return None;
    }
    Some(bucket)
}

/// The number of the way that holds a key; 0: none.
#[inline(always)]
fn locate<F: Family>(bucket: &F::Bucket, tag: u32, key: &F::Key) -> u32 {
    for_each_way!(number => {
        let index = number as usize - 1;
        if bucket.tags()[index].load() == tag && bucket.ways()[index].holds(key) {
            return number;
        }
    });
    0
}

/// An entry has been silent for longer than its class allows.
#[inline(always)]
#[must_use]
pub fn expired(age: Age, settings: &Settings, jiffies: u64) -> bool {
    age.idle(jiffies) > timeout(age.class(), settings)
}

#[inline(always)]
fn timeout(class: u32, settings: &Settings) -> u32 {
    let timeouts = &settings.timeouts;
    match class {
        0 => timeouts.opening,
        1 => timeouts.established,
        2 => timeouts.closing,
        _ => timeouts.answered,
    }
}

/// The words of a new entry.
#[derive(Clone, Copy, Debug)]
pub struct Fresh {
    /// The generation that allowed it, and its state.
    pub verdict: Verdict,
    /// Its ends.
    pub ends: Ends,
    /// The first packet.
    pub seen: Seen,
    /// The initiator's slot and the first packet's bytes.
    pub sent: Volume,
    /// The responder's slot.
    pub answered: Volume,
}

/// What became of an insertion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// It has a way.
    Stored,
    /// It has the way of an opening flow, which is gone.
    Evicted,
    /// Both buckets hold flows that may not be evicted.
    Full,
}

/// Stores a new entry, over an expired one or an opening one if it must.
#[inline(always)]
pub fn insert<F: Family, T: FlowTable<F>>(
    tables: &T,
    place: Place,
    key: &F::Key,
    fresh: &Fresh,
    jiffies: u64,
) -> Inserted {
    let settings = tables.settings();
    let Some(first) = tables.bucket(place.first) else { return Inserted::Full };
    let mut bucket = first;
    let vacancy = vacancy::<F>(settings, first, place.tag, key, jiffies);
    if vacancy.rank() <= Vacancy::OPENING {
        let Some(second) = tables.bucket(place.second) else { return Inserted::Full };
        if self::vacancy::<F>(settings, second, place.tag, key, jiffies).rank() > vacancy.rank() {
            first.spilled().store(1);
            bucket = second;
        }
    }
    tables.lock(bucket);
    let vacancy = self::vacancy::<F>(settings, bucket, place.tag, key, jiffies);
    if vacancy.rank() != Vacancy::NONE {
        write::<F, T>(tables, bucket, vacancy.number(), place.tag, key, fresh, jiffies);
    }
    tables.unlock(bucket);
    match vacancy.rank() {
        Vacancy::NONE => Inserted::Full,
        Vacancy::OPENING => Inserted::Evicted,
        _ => Inserted::Stored,
    }
}

/// The best way for a new entry: rank, then idle time, then number, in one word that compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Vacancy(u32);

impl Vacancy {
    /// Live flows.
    const NONE: u32 = 0;
    /// Nobody has answered yet: the oldest goes first.
    const OPENING: u32 = 1;
    /// Expired, or free.
    const VACANT: u32 = 2;
    /// The key's own.
    const OWN: u32 = 3;

    #[inline(always)]
    fn new(rank: u32, idle: u32, number: u32) -> Self {
        Self(rank << 30 | (idle & 0x3ff_ffff) << 3 | number)
    }

    #[inline(always)]
    fn rank(self) -> u32 {
        self.0 >> 30
    }

    #[inline(always)]
    fn number(self) -> u32 {
        self.0 & 7
    }
}

#[inline(always)]
fn vacancy<F: Family>(
    settings: &Settings,
    bucket: &F::Bucket,
    tag: u32,
    key: &F::Key,
    jiffies: u64,
) -> Vacancy {
    let mut best = Vacancy(0);
    for_each_way!(number => {
        let candidate = candidate::<F>(settings, bucket, number, tag, key, jiffies);
        if candidate > best {
            best = candidate;
        }
    });
    best
}

#[inline(always)]
fn candidate<F: Family>(
    settings: &Settings,
    bucket: &F::Bucket,
    number: u32,
    tag: u32,
    key: &F::Key,
    jiffies: u64,
) -> Vacancy {
    let index = number as usize - 1;
    let held = bucket.tags()[index].load();
    if held == 0 {
        return Vacancy::new(Vacancy::VACANT, u32::MAX, number);
    }
    if held == tag && bucket.ways()[index].holds(key) {
        return Vacancy::new(Vacancy::OWN, 0, number);
    }
    let age = Age(bucket.ages()[index].load());
    if expired(age, settings, jiffies) {
        Vacancy::new(Vacancy::VACANT, age.idle(jiffies), number)
    } else if age.class() == Class::Opening as u32 {
        Vacancy::new(Vacancy::OPENING, age.idle(jiffies), number)
    } else {
        Vacancy(0)
    }
}

/// Gives a way to a new owner; the bucket is locked. The verdict goes first and comes last: a
/// reader that already matched the old tag finds generation 0, which is never current.
#[inline(always)]
fn write<F: Family, T: FlowTable<F>>(
    tables: &T,
    bucket: &F::Bucket,
    number: u32,
    tag: u32,
    key: &F::Key,
    fresh: &Fresh,
    jiffies: u64,
) {
    let way = tables.way(bucket, number);
    let flow = way.flow();
    tables.tag(bucket, number).store(0);
    flow.verdict.store(0);
    way.set_key(key);
    flow.ends.store(fresh.ends.0);
    flow.seen[0].store(fresh.seen.0);
    flow.seen[1].store(0);
    flow.bytes[0].store(fresh.sent.0);
    flow.bytes[1].store(fresh.answered.0);
    tables.age(bucket, number).store(Age::new(Class::Opening, jiffies).0);
    flow.verdict.store(fresh.verdict.0);
    tables.tag(bucket, number).store(tag);
}

/// Frees a way if it still holds a key.
#[inline(always)]
pub fn remove<F: Family, T: FlowTable<F>>(
    tables: &T,
    bucket: &F::Bucket,
    number: u32,
    key: &F::Key,
) {
    tables.lock(bucket);
    if tables.way(bucket, number).holds(key) {
        tables.way(bucket, number).flow().verdict.store(0);
        tables.tag(bucket, number).store(0);
    }
    tables.unlock(bucket);
}

/// The packet opens a connection: a SYN without ACK.
#[inline(always)]
pub fn opens<F: Family>(packet: &Packet<F>) -> bool {
    packet.tcp_flags & (tcp::SYN | tcp::ACK) == tcp::SYN
}

/// The state after one more packet.
#[inline(always)]
#[must_use]
pub fn advance(state: u32, protocol: u8, tcp_flags: u8, reply: bool) -> u32 {
    let mut next = if reply { state | state::ANSWERED } else { state };
    if protocol != protocol::TCP {
        return if reply { next | state::ESTABLISHED } else { next };
    }
    if !reply && next & state::ANSWERED != 0 && tcp_flags & tcp::SYN == 0 {
        next |= state::ESTABLISHED;
    }
    if tcp_flags & tcp::FIN != 0 {
        next |= if reply { state::FIN_RESPONDER } else { state::FIN_INITIATOR };
    }
    if tcp_flags & tcp::RST != 0 {
        next |= state::RESET;
    }
    let both = state::FIN_INITIATOR | state::FIN_RESPONDER;
    if next & state::RESET != 0 || next & both == both {
        next |= state::CLOSING;
    }
    next
}

/// Which time-out a state has.
#[inline(always)]
#[must_use]
pub fn class(state: u32, protocol: u8) -> Class {
    if state & state::CLOSING != 0 {
        Class::Closing
    } else if state & state::ESTABLISHED == 0 {
        Class::Opening
    } else if protocol == protocol::TCP {
        Class::Established
    } else {
        Class::Answered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TCP: u8 = protocol::TCP;

    fn walk(steps: &[(u8, bool)]) -> u32 {
        steps.iter().fold(0, |state, &(flags, reply)| advance(state, TCP, flags, reply))
    }

    #[test]
    fn a_handshake_establishes_only_with_the_initiators_acknowledgement() {
        assert_eq!(class(walk(&[(tcp::SYN, false)]), TCP), Class::Opening);
        let answered = [(tcp::SYN, false), (tcp::SYN | tcp::ACK, true)];
        assert_eq!(class(walk(&answered), TCP), Class::Opening);
        let complete = [answered[0], answered[1], (tcp::ACK, false)];
        assert_eq!(class(walk(&complete), TCP), Class::Established);
    }

    #[test]
    fn one_fin_leaves_it_half_open_and_two_close_it() {
        let open = [(tcp::SYN, false), (tcp::SYN | tcp::ACK, true), (tcp::ACK, false)];
        let half = walk(&[open[0], open[1], open[2], (tcp::FIN | tcp::ACK, false)]);
        assert_eq!(class(half, TCP), Class::Established);
        let closed = advance(half, TCP, tcp::FIN | tcp::ACK, true);
        assert_eq!(class(closed, TCP), Class::Closing);
        assert_eq!(class(advance(0, TCP, tcp::RST, true), TCP), Class::Closing);
    }

    #[test]
    fn a_datagram_flow_is_established_by_its_answer() {
        assert_eq!(class(advance(0, protocol::UDP, 0, false), protocol::UDP), Class::Opening);
        assert_eq!(class(advance(0, protocol::UDP, 0, true), protocol::UDP), Class::Answered);
    }

    #[test]
    fn the_second_bucket_is_another_one() {
        for hash in (0..10_000u64).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
            let place = Place::of(hash, 0xff);
            assert_ne!(place.first, place.second);
            assert_ne!(place.tag, 0);
        }
    }
}
