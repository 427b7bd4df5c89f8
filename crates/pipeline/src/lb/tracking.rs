//! The table of tracked flows: look-up and insertion with two choices of bucket.
//!
//! Not here: which flows are tracked ([`super::choose`]), and who removes entries (user space, by
//! compare-and-exchange as well).
//!
//! Invariant: an entry comes into a free cell or doesn't come at all; none is evicted.

use flowgate_abi::lb::{Bucket, Tracked};

use super::{Balance, seams::Cell};

/// Where a flow's entry may lie, and what names it there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its first bucket.
    pub first: u32,
    /// Its second bucket, another one.
    pub second: u32,
    /// What an entry has in common with all others of the flow.
    pub name: Tracked,
    /// The flow's hash.
    pub hash: u64,
}

impl Place {
    /// Of a flow, by the index of its slot among all slots and its hash.
    #[inline(always)]
    #[must_use]
    pub const fn of(slot: u32, hash: u64, mask: u32) -> Self {
        let first = (hash >> 17) as u32 & mask;
        // By the part of the hash that the entry names, so that both buckets are known from either.
        let other = (hash as u32 & 0x1_ffff).wrapping_mul(0x9e37_79b1) >> 7 | 1;
        Self { first, second: (first ^ other) & mask, name: Tracked::name(slot, hash), hash }
    }
}

/// Runs a body for each cell, unrolled.
///
/// VERIFIER: map memory indexed by a run-time number is refused on 6.1; a literal is an offset.
macro_rules! for_each_cell {
    ($number:ident => $body:block) => {
        for_each_cell!(@ $number $body 1 2 3 4 5 6 7 8)
    };
    (@ $number:ident $body:block $($n:literal)+) => {
        $({ let $number: u32 = $n; $body })+
    };
}
pub(super) use for_each_cell;

/// A table of entries.
pub trait Entries {
    /// A bucket of it.
    fn bucket<T: Balance>(tables: &T, index: u32) -> Option<&Bucket>;
}

/// The tracked flows.
#[derive(Clone, Copy, Debug)]
pub struct Flows;

/// The clients' pins.
#[derive(Clone, Copy, Debug)]
pub struct Pins;

impl Entries for Flows {
    #[inline(always)]
    fn bucket<T: Balance>(tables: &T, index: u32) -> Option<&Bucket> {
        tables.tracked(index)
    }
}

impl Entries for Pins {
    #[inline(always)]
    fn bucket<T: Balance>(tables: &T, index: u32) -> Option<&Bucket> {
        tables.pins(index)
    }
}

/// The cell that holds a flow's entry, and what it holds.
#[inline(always)]
pub fn find<'t, E: Entries, T: Balance>(
    tables: &'t T,
    place: &Place,
) -> Option<(&'t Cell, Tracked)> {
    let mut bucket = E::bucket(tables, place.first)?;
    let mut number = locate(bucket, place.name);
    if number == 0 {
        bucket = E::bucket(tables, place.second)?;
        number = locate(bucket, place.name);
    }
    if number == 0 {
        return None;
    }
    let cell = tables.cell(bucket, tables.forget(number, place.hash));
    let entry = Tracked(cell.load());
    // It may have been removed since.
    entry.is(place.name).then_some((cell, entry))
}

/// The number of the cell that holds a flow's entry; 0: none.
#[inline(always)]
fn locate(bucket: &Bucket, name: Tracked) -> u32 {
    for_each_cell!(number => {
        if Tracked(bucket[number as usize - 1].load()).is(name) {
            return number;
        }
    });
    0
}

/// Stores an entry of a flow that has none; `false`: there is no room.
#[inline(always)]
pub fn insert<E: Entries, T: Balance>(tables: &T, place: &Place, entry: Tracked) -> bool {
    let buckets = (E::bucket(tables, place.first), E::bucket(tables, place.second));
    let (Some(first), Some(second)) = buckets else { return false };
    put(tables, [first, second], place.hash, entry.0)
}

/// Stores a word in the emptier of two buckets; `false`: there is no room. `unknown` is a number that the
/// verifier knows nothing of.
#[inline(always)]
pub(super) fn put<T: Balance>(
    tables: &T,
    [first, second]: [&Bucket; 2],
    unknown: u64,
    word: u64,
) -> bool {
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

/// How many cells are free, and the number of one of them; 0: none. `is_some`: see [`Balance::is_some`].
///
/// VERIFIER: without branches, or each of the eight cells would double what is verified behind it. By
/// products, as 6.18 verifies behind a mask twice.
#[inline(always)]
fn vacancy(bucket: &Bucket, is_some: impl Fn(u64) -> u32) -> (u32, u32) {
    let (mut free, mut number) = (0u32, 0u32);
    for_each_cell!(candidate => {
        let taken = is_some(bucket[candidate as usize - 1].load());
        free += 1 - taken;
        number = number * taken + candidate * (1 - taken);
    });
    (free, number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_buckets_are_known_from_either() {
        for hash in (0..1000u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
            let place = Place::of(5, hash, 1023);
            assert_ne!(place.first, place.second);
            assert!(place.first < 1024 && place.second < 1024);
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
