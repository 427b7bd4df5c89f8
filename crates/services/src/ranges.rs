//! Which stretches of a table are free.
//!
//! First fit, in steps of a unit. Not here: when what was given back may be used again.

use std::collections::BTreeMap;

use flowgate_abi::lb::Lines;

/// A stretch of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Range {
    /// The first element.
    pub(crate) start: u32,
    /// How many.
    pub(crate) length: u32,
}

impl Range {
    /// As a frontend says it.
    pub(crate) const fn as_lines(self) -> Lines {
        Lines::new(self.start, self.length)
    }

    /// Its elements.
    pub(crate) fn elements(&self) -> std::ops::Range<u32> {
        self.start..self.start + self.length
    }
}

/// The free stretches of a table.
#[derive(Clone, Debug)]
pub(crate) struct Ranges {
    /// By start.
    free: BTreeMap<u32, u32>,
    unit: u32,
    total: u32,
}

impl Ranges {
    /// All of a table of `total` elements is free; stretches begin and end at multiples of `unit`.
    pub(crate) fn new(total: u32, unit: u32) -> Self {
        let total = total / unit * unit;
        Self { free: BTreeMap::from([(0, total)]), unit, total }
    }

    /// Elements of the whole table.
    pub(crate) const fn total(&self) -> u32 {
        self.total
    }

    /// Elements that are free.
    pub(crate) fn left(&self) -> u32 {
        self.free.values().sum()
    }

    /// Takes the first stretch that is long enough.
    pub(crate) fn take(&mut self, length: u32) -> Option<Range> {
        let length = length.next_multiple_of(self.unit);
        let found = self.free.iter().find(|(_, free)| **free >= length);
        let (&start, &free) = found?;
        self.free.remove(&start);
        if free > length {
            self.free.insert(start + length, free - length);
        }
        Some(Range { start, length })
    }

    /// Takes a stretch that somebody else has put to use; `false`: it isn't free.
    pub(crate) fn claim(&mut self, range: Range) -> bool {
        let end = range.start + range.length;
        let around = self.free.range(..=range.start).next_back();
        let Some((&start, &length)) = around.filter(|(start, free)| **start + **free >= end) else {
            return false;
        };
        self.free.remove(&start);
        for (from, to) in [(start, range.start), (end, start + length)] {
            if to > from {
                self.free.insert(from, to - from);
            }
        }
        true
    }

    /// Gives a stretch back.
    pub(crate) fn give(&mut self, range: Range) {
        let Range { mut start, mut length } = range;
        if let Some((&before, &free)) = self.free.range(..start).next_back()
            && before + free == start
        {
            self.free.remove(&before);
            (start, length) = (before, length + free);
        }
        if let Some(free) = self.free.remove(&(start + length)) {
            length += free;
        }
        self.free.insert(start, length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_grows_together() {
        let mut ranges = Ranges::new(100, 16);
        assert_eq!(ranges.total(), 96);
        let taken: Vec<Range> = (0..3).map(|_| ranges.take(17).expect("room")).collect();
        assert_eq!(taken[2], Range { start: 64, length: 32 });
        assert_eq!((ranges.take(1), ranges.left()), (None, 0));
        for index in [0, 2, 1] {
            ranges.give(taken[index]);
        }
        assert_eq!(ranges.take(96), Some(Range { start: 0, length: 96 }));
    }

    #[test]
    fn a_stretch_is_claimed_once() {
        let mut ranges = Ranges::new(96, 16);
        let middle = Range { start: 32, length: 16 };
        assert!(ranges.claim(middle));
        assert!(!ranges.claim(middle));
        assert!(!ranges.claim(Range { start: 16, length: 32 }));
        assert_eq!(ranges.take(48), Some(Range { start: 48, length: 48 }));
        assert_eq!(ranges.take(32), Some(Range { start: 0, length: 32 }));
    }
}
