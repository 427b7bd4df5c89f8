//! The flow table's algorithm: look-up, insertion with two choices of bucket, eviction by rank.
//!
//! Not here: what a flow means (that is [`crate::hook`]) and where the buckets lie.
//!
//! Invariants: an established flow is never evicted; a reader never takes another flow's judgement
//! for its own, since a way's verdict is zero while its owner changes and the key is compared again
//! after the generation was read ([`Way::holds`]).

use flowgate_abi::flow::{Age, Class, Ends, Seen, Verdict, Volume, WAYS, state};

use crate::{
    FlowTable, Packet, Tables,
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

/// The bucket that holds a key, and the number of its way in `number`. What lies there may have
/// expired; a new entry of the key has to take its place ([`insert`]).
#[inline(always)]
pub fn find<'t, F: Family, T: FlowTable<F>>(
    tables: &'t T,
    place: Place,
    key: &F::Key,
    jiffies: u64,
    number: &mut u32,
) -> Option<&'t F::Bucket> {
    let mut bucket = tables.bucket(place.first)?;
    let mut found = locate::<F>(bucket, place.tag, key);
    if found == 0 && bucket.spilled().load() != 0 {
        bucket = tables.bucket(place.second)?;
        found = locate::<F>(bucket, place.tag, key);
    }
    if found == 0 {
        return None;
    }
    *number = tables.forget(found, jiffies);
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
pub fn expired<T: Tables>(tables: &T, age: Age, jiffies: u64) -> bool {
    age.idle(jiffies) > tables.timeout(age.class())
}

/// The words of a new entry.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
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
    /// It has the way of a flow that nobody had answered, or that was over.
    Evicted,
    /// Both buckets hold flows that may not be evicted.
    Full,
}

/// Stores a new entry: over the key's old one in the bucket where [`find`] met it, or else in a free
/// or expired way, or over one that may be evicted.
///
/// An old entry that stayed in one bucket would hide the new one in the other.
#[inline(always)]
pub fn insert<F: Family, T: FlowTable<F>>(
    tables: &T,
    place: Place,
    key: &F::Key,
    old: Option<&F::Bucket>,
    entry: &Entry,
    jiffies: u64,
) -> Inserted {
    let chosen = match old {
        Some(bucket) => Some(bucket),
        None => choose::<F, T>(tables, place, jiffies),
    };
    let Some(bucket) = chosen else { return Inserted::Full };
    tables.lock(bucket);
    let own = locate::<F>(bucket, place.tag, key);
    let best = vacancy::<F, T>(tables, bucket, jiffies);
    let rank = if own != 0 { Vacancy::VACANT } else { best.rank() };
    if rank != Vacancy::NONE {
        let number = tables.forget(if own != 0 { own } else { best.number() }, jiffies);
        write::<F, T>(tables, bucket, number, place.tag, key, entry, jiffies);
    }
    tables.unlock(bucket);
    match rank {
        Vacancy::NONE => Inserted::Full,
        Vacancy::EVICTABLE => Inserted::Evicted,
        _ => Inserted::Stored,
    }
}

/// The first bucket if it is half empty; else the emptier of both, or that with the older flow to
/// evict.
///
/// Figures by simulation of 16,384 buckets: at half load 13 % of all flows lie in their second
/// bucket, and none is refused; at 70 %, 19 % do, and 3 in 100,000 are refused. Always the emptier
/// one: 30 % and 1 in 100,000; the first unless it is full: 4 % and 760.
#[inline(always)]
fn choose<F: Family, T: FlowTable<F>>(
    tables: &T,
    place: Place,
    jiffies: u64,
) -> Option<&F::Bucket> {
    let first = tables.bucket(place.first)?;
    let vacancy = vacancy::<F, T>(tables, first, jiffies);
    if vacancy.count > WAYS / 2 {
        return Some(first);
    }
    let second = tables.bucket(place.second)?;
    if !self::vacancy::<F, T>(tables, second, jiffies).is_better_than(vacancy) {
        return Some(first);
    }
    first.spilled().store(1);
    Some(second)
}

/// What room a bucket has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Vacancy {
    /// The best way for a new entry: rank, then idle time, then number, in one word that compares.
    best: u32,
    /// Ways that are free or expired.
    count: u32,
}

impl Vacancy {
    /// Live flows alone.
    const NONE: u32 = 0;
    /// A flow that nobody has answered yet, or that is over: the oldest goes first.
    const EVICTABLE: u32 = 1;
    /// Expired, or free.
    const VACANT: u32 = 2;

    #[inline(always)]
    fn rank(self) -> u32 {
        self.best >> 30
    }

    #[inline(always)]
    fn number(self) -> u32 {
        self.best & 7
    }

    #[inline(always)]
    fn is_better_than(self, other: Self) -> bool {
        if self.count | other.count != 0 {
            self.count > other.count
        } else {
            self.best >> 3 > other.best >> 3
        }
    }
}

/// VERIFIER: without branches, in masks of all ones or none: with them each way doubles what has to
/// be verified behind it (twice as much on 6.12, over the limit on 6.1).
#[inline(always)]
fn vacancy<F: Family, T: FlowTable<F>>(tables: &T, bucket: &F::Bucket, jiffies: u64) -> Vacancy {
    let (mut best, mut count) = (0i64, 0i64);
    for_each_way!(number => {
        let index = number as usize - 1;
        let age = Age(bucket.ages()[index].load());
        let idle = i64::from(age.idle(jiffies));
        let free = below(i64::from(bucket.tags()[index].load()), 1);
        let vacant = free | below(i64::from(tables.timeout(age.class())), idle);
        let evictable = i64::from(age.class() & 1) - 1;
        let rank = i64::from(Vacancy::EVICTABLE) + (vacant & 1);
        let score = rank << 30 | (idle & 0x3ff_ffff) << 3 | i64::from(number);
        let better = (score & (vacant | evictable)) - best;
        best += better & !below(better, 0);
        count += vacant & 1;
    });
    Vacancy { best: best as u32, count: count as u32 }
}

/// All ones if a number is below another, else none.
#[inline(always)]
fn below(a: i64, b: i64) -> i64 {
    (a - b) >> 63
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
    entry: &Entry,
    jiffies: u64,
) {
    let way = tables.way(bucket, number);
    let flow = way.flow();
    tables.tag(bucket, number).store(0);
    flow.verdict.store(0);
    way.set_key(key);
    flow.ends.store(entry.ends.0);
    flow.seen[0].store(entry.seen.0);
    flow.seen[1].store(0);
    flow.bytes[0].store(entry.sent.0);
    flow.bytes[1].store(entry.answered.0);
    tables.age(bucket, number).store(Age::new(Class::Opening, jiffies).0);
    flow.verdict.store(entry.verdict.0);
    tables.tag(bucket, number).store(tag);
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
    // Who really has reset a connection says nothing more: what comes after it takes a forged RST
    // back. A SYN is left to the table: it opens the connection anew.
    let reset = if reply { state::RESET_RESPONDER } else { state::RESET_INITIATOR };
    if tcp_flags & tcp::RST != 0 {
        next |= reset;
    } else if tcp_flags & tcp::SYN == 0 {
        next &= !reset;
    }
    closing(next)
}

/// Both FINs, or a RST that stands. A flow that turns out to be alive has its end before it again.
#[inline(always)]
fn closing(state: u32) -> u32 {
    let fins = state::FIN_INITIATOR | state::FIN_RESPONDER;
    let resets = state::RESET_INITIATOR | state::RESET_RESPONDER;
    if state & resets != 0 || state & fins == fins {
        state | state::CLOSING
    } else {
        state & !(state::CLOSING | state::TOLD)
    }
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

    #[test]
    fn masks_compare() {
        for (a, b) in [(0, 1), (1, 0), (3, 3), (0, 0xffff_ffff), (0x3fff_ffff, 0)] {
            assert_eq!(below(a, b), if a < b { -1 } else { 0 });
        }
    }
}
