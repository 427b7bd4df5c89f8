//! Tracked flows: one word for each, in the first of three buckets that isn't rather full.
//!
//! ABI: a word, so that one compare-and-exchange makes, changes or removes an entry as a whole, and so
//! that a bucket is a cache line. It names the flow's slot, not its addresses: 26 bits that say which,
//! 16 more of the hash, whether this is the flow's first bucket, and the bucket's own place tell flows apart. One look-up
//! in about 10^9 of full buckets takes another flow of the same service for its own.
//!
//! ABI: whether entries have passed a bucket by is told by one of its own cells ([`MARK`]), so that a look-up that ends
//! there has read no other line, and so that setting the mark is no write of its own.

use crate::Shared64;

/// Entries of a bucket.
pub const CELLS: usize = 8;
/// Entries that share a cache line. A word without a backend is a free cell.
pub type Bucket = [Shared64; CELLS];
/// Buckets in which an entry may lie.
pub const PLACES: usize = 3;
/// Cells of a bucket, from its first on, that are taken before an entry goes on to its next bucket.
pub const COMMON: usize = 6;
/// The cell that is the last of these to be taken. While it is zero, no entry has passed the bucket by; so whoever
/// takes an entry out of it leaves [`Tracked::LEFT`], until it is known that none lies elsewhere.
pub const MARK: usize = 0;

/// Ages run in a circle of this many.
pub const AGES: u32 = 64;

/// An entry: which flow, its backend, when it was seen.
///
/// Bits 0 to 13: the backend's number, never 0; 14 to 19: the age; 20: closing; 21: it lies in its first bucket;
/// 22 to 37: part of the flow's hash; 38 to 63: the slot's index among all slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tracked(pub u64);

impl Tracked {
    const NUMBER: u64 = (1 << 14) - 1;
    const AGE_SHIFT: u32 = 14;
    const CLOSING: u64 = 1 << 20;
    const NAME_SHIFT: u32 = 21;
    const FIRST: u64 = 1 << Self::NAME_SHIFT;
    const PART_SHIFT: u32 = 22;
    const SLOT_SHIFT: u32 = 38;

    /// What is left in a free cell that marks its bucket.
    pub const LEFT: Self = Self(Self::CLOSING);

    /// An entry of a flow that has this slot and hash, in its first bucket, without backend and age: what a look-up
    /// compares.
    #[inline(always)]
    #[must_use]
    pub const fn name(slot: u32, hash: u64) -> Self {
        let part = hash & ((1 << (Self::SLOT_SHIFT - Self::PART_SHIFT)) - 1);
        Self((slot as u64) << Self::SLOT_SHIFT | part << Self::PART_SHIFT | Self::FIRST)
    }

    /// The same in its first bucket.
    #[inline(always)]
    #[must_use]
    pub const fn in_first(self) -> Self {
        Self(self.0 | Self::FIRST)
    }

    /// The same in another bucket than its first.
    #[inline(always)]
    #[must_use]
    pub const fn elsewhere(self) -> Self {
        Self(self.0 & !Self::FIRST)
    }

    /// It lies in its first bucket.
    #[inline(always)]
    #[must_use]
    pub const fn is_in_first(self) -> bool {
        self.0 & Self::FIRST != 0
    }

    /// The part of the flow's hash that it names.
    #[inline(always)]
    #[must_use]
    pub const fn part(self) -> u32 {
        (self.0 >> Self::PART_SHIFT) as u32 & 0xffff
    }

    /// The same flow with a backend, seen at an age, and not closing.
    #[inline(always)]
    #[must_use]
    pub const fn with(self, backend: u32, age: u32) -> Self {
        let name = self.0 >> Self::NAME_SHIFT << Self::NAME_SHIFT;
        let age = ((age % AGES) as u64) << Self::AGE_SHIFT;
        Self(name | age | backend as u64 & Self::NUMBER)
    }

    /// The same flow and backend, seen at an age; closing, if it was or `closes`.
    #[inline(always)]
    #[must_use]
    pub const fn seen(self, age: u32, closes: bool) -> Self {
        let closing = self.0 & Self::CLOSING | if closes { Self::CLOSING } else { 0 };
        Self(self.with(self.backend(), age).0 | closing)
    }

    /// It is the same flow's, in as good a bucket.
    #[inline(always)]
    #[must_use]
    pub const fn is(self, name: Self) -> bool {
        (self.0 ^ name.0) >> Self::NAME_SHIFT == 0
    }

    /// It is an entry, and no free cell.
    #[inline(always)]
    #[must_use]
    pub const fn is_taken(self) -> bool {
        self.backend() != super::NOBODY
    }

    /// The backend's number.
    #[inline(always)]
    #[must_use]
    pub const fn backend(self) -> u32 {
        (self.0 & Self::NUMBER) as u32
    }

    /// When its last packet passed, in a circle of [`AGES`].
    #[inline(always)]
    #[must_use]
    pub const fn age(self) -> u32 {
        (self.0 >> Self::AGE_SHIFT) as u32 % AGES
    }

    /// A FIN or RST of the client's has passed.
    #[inline(always)]
    #[must_use]
    pub const fn closing(self) -> bool {
        self.0 & Self::CLOSING != 0
    }

    /// The index of its slot among all slots.
    #[inline(always)]
    #[must_use]
    pub const fn slot(self) -> u32 {
        (self.0 >> Self::SLOT_SHIFT) as u32
    }
}

const _: () = assert!(size_of::<Bucket>() == 64);
const _: () = assert!(MARK < COMMON && COMMON <= CELLS);
const _: () = assert!(Tracked::LEFT.0 != 0 && !Tracked::LEFT.is_taken());
const _: () = assert!(Tracked::SLOT_SHIFT - Tracked::PART_SHIFT == 16);
const _: () = assert!(super::MAX_SLOTS == 1 << (64 - Tracked::SLOT_SHIFT));
const _: () = assert!(super::BACKEND_NUMBERS as u64 == Tracked::NUMBER + 1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_keeps_its_parts_apart() {
        let name = Tracked::name(0x3ff_ffff, 0xdead_beef_1234_5678);
        let entry = name.with(0x3fff, 63);
        assert_eq!((entry.backend(), entry.age(), entry.slot()), (0x3fff, 63, 0x3ff_ffff));
        assert!(entry.is(name) && !entry.closing());
        let later = entry.seen(64, true);
        assert!(later.closing() && later.is(name));
        assert_eq!((later.backend(), later.age()), (0x3fff, 0));
        assert!(later.seen(1, false).closing(), "closing stays");
        assert!(!later.with(1, 1).closing(), "a flow that opens again isn't closing");
        assert!(!entry.is(Tracked::name(0x3ff_fffe, 0xdead_beef_1234_5678)));
        assert!(!entry.is(Tracked::name(0x3ff_ffff, 0xdead_beef_1234_5679)));
        assert_eq!(entry.part(), 0x5678);
    }

    #[test]
    fn an_entry_says_whether_it_lies_in_its_first_bucket() {
        let name = Tracked::name(7, 0xffff);
        let entry = name.with(9, 5);
        assert!(entry.is_in_first() && !entry.elsewhere().is_in_first());
        assert!(
            !entry.is(name.elsewhere()) && entry.elsewhere().seen(6, true).is(name.elsewhere())
        );
        assert_eq!(entry.elsewhere().part(), entry.part());
    }

    #[test]
    fn a_free_cell_is_no_flows_entry() {
        assert!(Tracked::name(7, 1).with(1, 0).is_taken());
        for free in [Tracked(0), Tracked::LEFT] {
            assert!(!free.is_taken());
            assert!(!free.is(Tracked::name(0, 0)), "whatever its slot and hash are");
        }
    }
}
