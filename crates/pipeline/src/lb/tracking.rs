//! The table of tracked flows: look-up and insertion in one of three buckets.
//!
//! An entry comes into the first of its buckets of which a common cell is free ([`COMMON`]), otherwise into the emptiest
//! one. By that, nearly every flow lies in its first bucket, and none is refused up to three quarters of all cells. Who
//! looks for it goes on to its next bucket only from one whose mark is set ([`MARK`]): so a flow that has no entry, or gets
//! one, costs one line of the cache. The other buckets are [`elsewhere`] and [`lodge`], which on BPF are subprograms.
//!
//! Not here: which flows are tracked ([`super::choose`]), and who removes entries (user space, by
//! compare-and-exchange as well) and clears marks.
//!
//! Invariants: an entry comes into a free cell or doesn't come at all; none is evicted. All of an entry's buckets before
//! the one in which it lies have their marks set, from before it came.

use flowgate_abi::lb::{Bucket, COMMON, MARK, PLACES, Tracked};

use super::{Balance, seams::Cell};

/// Where a flow's entry may lie, and what names it there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its buckets, in the order in which they are filled.
    pub buckets: [u32; PLACES],
    /// What an entry in its first bucket has in common with all others of the flow.
    pub name: Tracked,
    /// The flow's hash.
    pub hash: u64,
}

impl Place {
    /// Of a flow, by the index of its slot among all slots and its hash.
    #[inline(always)]
    #[must_use]
    pub const fn of(slot: u32, hash: u64, mask: u32) -> Self {
        let name = Tracked::name(slot, hash);
        let [second, third] = steps(name);
        let first = (hash >> 16) as u32;
        Self {
            buckets: [first & mask, (first ^ second) & mask, (first ^ third) & mask],
            name,
            hash,
        }
    }
}

/// What leads from an entry's first bucket to its others; by the part of the hash that the entry names, so that from
/// each of them all are known.
const fn steps(entry: Tracked) -> [u32; PLACES - 1] {
    let part = entry.part();
    // The lowest bits differ, so that the buckets do.
    let (second, third) =
        (part.wrapping_mul(0x9e37_79b1) >> 7, part.wrapping_mul(0x85eb_ca6b) >> 7);
    [second | 1, third & !1 | 2]
}

/// The buckets that an entry in this one may have passed by, so that their marks are needed.
#[must_use]
pub fn passed(entry: Tracked, bucket: u32, mask: u32) -> [u32; PLACES] {
    let [second, third] = steps(entry);
    [bucket ^ second, bucket ^ third, bucket ^ second ^ third].map(|passed| passed & mask)
}

/// Runs a body for each cell, unrolled.
///
/// VERIFIER: map memory indexed by a run-time number is refused on 6.1; a literal is an offset.
macro_rules! for_each_cell {
    ($number:ident => $body:block) => {
        for_each_cell!(@ $number $body 1 2 3 4 5 6 7 8)
    };
    (common $number:ident => $body:block) => {
        for_each_cell!(@ $number $body 1 2 3 4 5 6)
    };
    (@ $number:ident $body:block $($n:literal)+) => {
        $({ let $number: u32 = $n; $body })+
    };
}
pub(super) use for_each_cell;

/// A table of entries.
pub trait Entries {
    /// It is the one of clients' pins.
    const PINS: bool;

    /// A bucket of it.
    fn bucket<T: Balance>(tables: &T, index: u32) -> Option<&Bucket>;
    /// Buckets less one.
    fn mask<T: Balance>(tables: &T) -> u32;
}

/// The tracked flows.
#[derive(Clone, Copy, Debug)]
pub struct Flows;

/// The clients' pins.
#[derive(Clone, Copy, Debug)]
pub struct Pins;

impl Entries for Flows {
    const PINS: bool = false;

    #[inline(always)]
    fn bucket<T: Balance>(tables: &T, index: u32) -> Option<&Bucket> {
        tables.tracked(index)
    }

    #[inline(always)]
    fn mask<T: Balance>(tables: &T) -> u32 {
        tables.settings().tracked_mask
    }
}

impl Entries for Pins {
    const PINS: bool = true;

    #[inline(always)]
    fn bucket<T: Balance>(tables: &T, index: u32) -> Option<&Bucket> {
        tables.pins(index)
    }

    #[inline(always)]
    fn mask<T: Balance>(tables: &T) -> u32 {
        tables.settings().pin_mask
    }
}

/// The cell that holds a flow's entry, and what it holds; `first` is its first bucket. Without `CALLS` only there.
#[inline(always)]
pub fn find<'t, E: Entries, T: Balance, const CALLS: bool>(
    tables: &'t T,
    first: &'t Bucket,
    place: &Place,
) -> Option<(&'t Cell, Tracked)> {
    let mut bucket = first;
    let mut number = locate(bucket, place.name);
    if CALLS && number == 0 && is_passed(first) {
        let found = tables.elsewhere::<E>(place);
        bucket = E::bucket(tables, found >> NUMBER_BITS)?;
        number = found & NUMBER_MASK;
    }
    if number == 0 {
        return None;
    }
    let cell = tables.cell(bucket, tables.forget(number, place.hash));
    let entry = Tracked(cell.load());
    // It may have been removed since.
    (entry.is_taken() && entry.in_first().is(place.name)).then_some((cell, entry))
}

/// Entries may have passed a bucket by.
#[inline(always)]
pub fn is_passed(bucket: &Bucket) -> bool {
    bucket[MARK].load() != 0
}

/// The number of the cell that holds an entry of this name; 0: none.
#[inline(always)]
fn locate(bucket: &Bucket, name: Tracked) -> u32 {
    for_each_cell!(number => {
        if Tracked(bucket[number as usize - 1].load()).is(name) {
            return number;
        }
    });
    0
}

/// Where an entry lies: its bucket, and behind that so many bits of its cell's number.
const NUMBER_BITS: u32 = 4;
const NUMBER_MASK: u32 = (1 << NUMBER_BITS) - 1;

/// Where an entry lies that isn't in its first bucket, whose mark is set; 0: there is none.
#[inline(always)]
pub fn elsewhere<E: Entries, T: Balance>(tables: &T, place: &Place) -> u32 {
    let name = place.name.elsewhere();
    for index in [place.buckets[1], place.buckets[2]] {
        let Some(bucket) = E::bucket(tables, index) else { return 0 };
        for_each_cell!(number => {
            let entry = Tracked(bucket[number as usize - 1].load());
            if entry.is(name) && entry.is_taken() {
                return index << NUMBER_BITS | number;
            }
        });
        if !is_passed(bucket) {
            return 0;
        }
    }
    0
}

/// Stores an entry of a flow that has none; `false`: there is no room, or without `CALLS` none in its first bucket.
#[inline(always)]
pub fn insert<E: Entries, T: Balance, const CALLS: bool>(
    tables: &T,
    first: &Bucket,
    place: &Place,
    entry: Tracked,
) -> bool {
    // If another CPU takes the cell meanwhile, there may be another one.
    store(tables, (first, common(tables, first)), (place.hash, entry.in_first()))
        || CALLS && lodged::<E, T>(tables, place, entry)
}

/// Stores an entry in whichever of its buckets; `false`: there is no room.
///
/// What finds no room holds changes up, so who has only lost a race for a cell tries once more.
#[inline(always)]
pub(super) fn lodged<E: Entries, T: Balance>(tables: &T, place: &Place, entry: Tracked) -> bool {
    tables.lodge::<E>(place, entry) || tables.lodge::<E>(place, entry)
}

/// The same once; `false`: there is no room, or others were faster.
#[inline(always)]
pub fn lodge<E: Entries, T: Balance>(tables: &T, place: &Place, entry: Tracked) -> bool {
    let found = vacant::<E, T>(tables, place);
    let index = found >> NUMBER_BITS;
    let Some(bucket) = E::bucket(tables, index) else { return false };
    let in_first = index == place.buckets[0];
    let entry = if in_first { entry.in_first() } else { entry.elsewhere() };
    store(tables, (bucket, found & NUMBER_MASK), (place.hash, entry))
}

/// A free cell of the first bucket that has a common one, otherwise of the emptiest; 0: there is none.
///
/// A bucket without a free common cell has its mark set, so the next one may be taken. Nobody clears it until this
/// packet is done: user space waits for that between freeing and clearing.
#[inline(always)]
fn vacant<E: Entries, T: Balance>(tables: &T, place: &Place) -> u32 {
    let [first, second, third] = place.buckets;
    let mut found = common_of::<E, T>(tables, first);
    if found == 0 {
        found = common_of::<E, T>(tables, second);
    }
    if found == 0 {
        found = common_of::<E, T>(tables, third);
    }
    if found != 0 {
        return found;
    }
    let emptiest = room_of::<E, T>(tables, first);
    let emptiest = emptier(emptiest, room_of::<E, T>(tables, second));
    emptier(emptiest, room_of::<E, T>(tables, third)) as u32
}

/// A free common cell of a bucket; 0: there is none.
#[inline(always)]
fn common_of<E: Entries, T: Balance>(tables: &T, index: u32) -> u32 {
    let Some(bucket) = E::bucket(tables, index) else { return 0 };
    located(index, common(tables, bucket))
}

/// A free cell of a bucket, and in the upper half how many there are; 0: there is none.
#[inline(always)]
fn room_of<E: Entries, T: Balance>(tables: &T, index: u32) -> u64 {
    let Some(bucket) = E::bucket(tables, index) else { return 0 };
    let (free, number) = vacancy(bucket, |word| taken(tables, word));
    u64::from(free) << 32 | u64::from(located(index, number))
}

/// The one of two with more free cells, otherwise the first.
#[inline(always)]
const fn emptier(one: u64, other: u64) -> u64 {
    if other >> 32 > one >> 32 { other } else { one }
}

/// Where a cell is, by its bucket and its number; 0, if that is 0.
#[inline(always)]
const fn located(index: u32, number: u32) -> u32 {
    if number == 0 { 0 } else { index << NUMBER_BITS | number }
}

/// The number of a free common cell, the mark last; 0: none.
///
/// VERIFIER: without branches, and by products, as below.
#[inline(always)]
fn common<T: Balance>(tables: &T, bucket: &Bucket) -> u32 {
    let mut number = 0u32;
    for_each_cell!(common candidate => {
        let taken = taken(tables, bucket[candidate as usize - 1].load());
        number = number * taken + candidate * (1 - taken);
    });
    number
}

/// 1 if a word is an entry; 0: its cell is free.
#[inline(always)]
fn taken<T: Balance>(tables: &T, word: u64) -> u32 {
    tables.is_some(Tracked(word).backend().into())
}

/// Stores an entry in a cell, by its number; `false`: there is none, or it isn't free any more.
#[inline(always)]
fn store<T: Balance>(
    tables: &T,
    (bucket, number): (&Bucket, u32),
    (unknown, entry): (u64, Tracked),
) -> bool {
    if number == 0 {
        return false;
    }
    let cell = tables.cell(bucket, tables.forget(number, unknown));
    let free = Tracked(cell.load());
    !free.is_taken() && tables.exchange(cell, free.0, entry.0)
}

/// How many cells are free, and the number of one of them; 0: none. `is_some`: see [`Balance::is_some`].
///
/// VERIFIER: without branches, or each of the eight cells would double what is verified behind it. By
/// products, as 6.18 verifies behind a mask twice.
#[inline(always)]
pub(super) fn vacancy(bucket: &Bucket, is_some: impl Fn(u64) -> u32) -> (u32, u32) {
    let (mut free, mut number) = (0u32, 0u32);
    for_each_cell!(candidate => {
        let taken = is_some(bucket[candidate as usize - 1].load());
        free += 1 - taken;
        number = number * taken + candidate * (1 - taken);
    });
    (free, number)
}

const _: () = assert!(COMMON == 6 && MARK == 0, "as `for_each_cell` has it");

#[cfg(test)]
mod tests {
    use super::*;

    fn hashes() -> impl Iterator<Item = u64> {
        (0..1000u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    #[test]
    fn buckets_differ_and_those_that_were_passed_are_known_from_each() {
        for hash in hashes() {
            let place = Place::of(5, hash, 1023);
            let [first, second, third] = place.buckets;
            assert!(first < 1024 && second < 1024 && third < 1024);
            assert!(first != second && second != third && third != first);
            assert!(passed(place.name, second, 1023).contains(&first));
            let passed = passed(place.name, third, 1023);
            assert!(passed.contains(&first) && passed.contains(&second));
        }
    }

    #[test]
    fn vacancies_are_counted_and_the_last_one_is_taken() {
        let vacancy = |bucket: &Bucket| vacancy(bucket, |word| u32::from(word != 0));
        let bucket = Bucket::default();
        assert_eq!(vacancy(&bucket), (8, 8));
        bucket[7].store(u64::MAX);
        bucket[0].store(1);
        bucket[3].store(1 << 63);
        assert_eq!(vacancy(&bucket), (5, 7));
        bucket.iter().for_each(|cell| cell.store(2));
        assert_eq!(vacancy(&bucket), (0, 0));
    }
}
