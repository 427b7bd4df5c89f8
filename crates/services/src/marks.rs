//! Marks of buckets that no entry has passed by any more.
//!
//! Whoever takes an entry out of a cell that marks its bucket leaves the mark there
//! ([`Tracked::LEFT`]). It goes when two sweeps running have seen it, and the second one no entry that may have passed
//! the bucket by: while a left mark stands, its cell is free, so no packet passes the bucket by, and between the sweeps
//! every packet is done that saw the cell taken. A packet that takes the cell meanwhile is faster than whoever clears it.
//!
//! Tested by `interleavings`, where packets and sweeps are held up anywhere.

use std::collections::HashSet;

use flowgate_abi::lb::{CELLS, MARK, Tracked};
use flowgate_pipeline::lb::tracking::passed;

/// The left marks of a table of entries.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    /// Buckets that had one when the last sweep ended.
    left: HashSet<u32>,
}

/// What a sweep sees of a table's marks.
#[derive(Debug)]
pub(crate) struct Look {
    /// Buckets less one.
    mask: u32,
    /// Those that may be cleared, as far as is known.
    idle: HashSet<u32>,
    left: HashSet<u32>,
}

impl Marks {
    /// There are some.
    pub(crate) fn are_left(&self) -> bool {
        !self.left.is_empty()
    }

    /// A sweep of a table of so many cells begins.
    pub(crate) fn look(&self, cells: u32) -> Look {
        let mask = (cells / CELLS as u32).saturating_sub(1);
        Look { mask, idle: self.left.clone(), left: HashSet::new() }
    }

    /// It has seen all cells; `clear` puts zero into a cell that has its mark left.
    pub(crate) fn looked(&mut self, look: Look, mut clear: impl FnMut(u32) -> bool) {
        self.left = look.left;
        for bucket in look.idle {
            if self.left.contains(&bucket) && clear(bucket * CELLS as u32 + MARK as u32) {
                self.left.remove(&bucket);
            }
        }
    }
}

impl Look {
    /// A cell is free.
    pub(crate) fn free(&mut self, cell: u32, word: Tracked) {
        if word == Tracked::LEFT {
            self.left.insert(cell / CELLS as u32);
        }
    }

    /// A cell has an entry, which stays.
    pub(crate) fn stays(&mut self, cell: u32, entry: Tracked) {
        if !entry.is_in_first() {
            for bucket in passed(entry, cell / CELLS as u32, self.mask) {
                self.idle.remove(&bucket);
            }
        }
    }

    /// What an entry leaves in its cell.
    pub(crate) fn leaves(&mut self, cell: u32) -> Tracked {
        let bucket = cell / CELLS as u32;
        if cell as usize % CELLS != MARK {
            return Tracked(0);
        }
        self.idle.remove(&bucket);
        Tracked::LEFT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Buckets 0 to 63; whether the left mark of bucket 5 is cleared by a sweep that sees it and these entries.
    fn clears(marks: &mut Marks, entries: &[(u32, Tracked)]) -> bool {
        let mut look = marks.look(64 * CELLS as u32);
        look.free(5 * CELLS as u32, Tracked::LEFT);
        for (bucket, entry) in entries {
            look.stays(bucket * CELLS as u32 + 3, *entry);
        }
        let mut cleared = Vec::new();
        marks.looked(look, |cell| {
            cleared.push(cell);
            true
        });
        assert!(cleared.iter().all(|cell| *cell == 5 * CELLS as u32));
        !cleared.is_empty()
    }

    #[test]
    fn a_left_mark_goes_when_it_is_seen_once_more() {
        let mut marks = Marks::default();
        assert!(!clears(&mut marks, &[]));
        assert!(marks.are_left() && clears(&mut marks, &[]));
        assert!(!marks.are_left());
    }

    #[test]
    fn a_mark_stays_while_an_entry_may_have_passed_it_by() {
        let mut marks = Marks::default();
        let entry = Tracked::name(1, 0x1234).with(7, 0);
        assert!(!clears(&mut marks, &[]));
        for bucket in passed(entry, 5, 63) {
            assert!(!clears(&mut marks, &[(bucket, entry.elsewhere())]));
        }
        assert!(
            clears(&mut marks, &[(passed(entry, 5, 63)[0], entry)]),
            "it is in its first bucket"
        );
    }

    #[test]
    fn a_mark_that_an_entry_left_in_this_sweep_stays() {
        let mut marks = Marks::default();
        assert!(!clears(&mut marks, &[]));
        let mut look = marks.look(64 * CELLS as u32);
        assert_eq!(look.leaves(5 * CELLS as u32 + 1), Tracked(0));
        assert_eq!(look.leaves(5 * CELLS as u32), Tracked::LEFT);
        look.free(5 * CELLS as u32, Tracked::LEFT);
        marks.looked(look, |_| panic!("a packet may be under way that saw it taken"));
        assert!(clears(&mut marks, &[]));
    }
}
