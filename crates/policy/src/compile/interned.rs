//! Values that are stored once, by number. Numbers stay what they are as values are added.

use std::{
    collections::{HashMap, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
};

/// Values, each stored once, numbered in the order in which they came.
#[derive(Clone, Debug)]
pub(super) struct Interned<T> {
    values: Vec<T>,
    numbers: HashMap<T, u32>,
}

impl<T> Default for Interned<T> {
    fn default() -> Self {
        Self { values: Vec::new(), numbers: HashMap::new() }
    }
}

impl<T: Clone + Eq + Hash> Interned<T> {
    /// The number of a value.
    pub(super) fn intern(&mut self, value: &T) -> u32 {
        if let Some(&number) = self.numbers.get(value) {
            return number;
        }
        let number = index(self.values.len());
        self.values.push(value.clone());
        self.numbers.insert(value.clone(), number);
        number
    }

    /// The value of a number.
    pub(super) fn get(&self, number: u32) -> &T {
        &self.values[number as usize]
    }

    /// All values, by number.
    pub(super) fn all(&self) -> &[T] {
        &self.values
    }
}

/// Slices, each stored once, end to end; numbered in the order in which they came.
#[derive(Clone, Debug)]
pub(super) struct Slices<T> {
    items: Vec<T>,
    ends: Vec<usize>,
    /// By hash: the slice of that hash that came last.
    last: HashMap<u64, u32>,
    /// By slice: the one of the same hash that came before.
    before: Vec<Option<u32>>,
}

impl<T> Default for Slices<T> {
    fn default() -> Self {
        Self { items: Vec::new(), ends: Vec::new(), last: HashMap::new(), before: Vec::new() }
    }
}

impl<T: Copy + Eq + Hash> Slices<T> {
    /// The number of a slice.
    pub(super) fn intern(&mut self, slice: &[T]) -> u32 {
        let mut hasher = DefaultHasher::new();
        slice.hash(&mut hasher);
        let hash = hasher.finish();
        let newest = self.last.get(&hash).copied();
        let mut candidate = newest;
        while let Some(number) = candidate {
            if self.get(number) == slice {
                return number;
            }
            candidate = self.before[number as usize];
        }
        let number = index(self.ends.len());
        self.items.extend_from_slice(slice);
        self.ends.push(self.items.len());
        self.before.push(newest);
        self.last.insert(hash, number);
        number
    }

    /// The slice of a number.
    pub(super) fn get(&self, number: u32) -> &[T] {
        let number = number as usize;
        let start = number.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.items[start..self.ends[number]]
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }
}

/// An index as a number. Nothing here comes near 2^32 before memory ends.
pub(super) fn index(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_slice_has_one_number() {
        let mut slices = Slices::default();
        let numbers = [&[1, 2][..], &[], &[1], &[1, 2], &[]].map(|slice| slices.intern(slice));
        assert_eq!(numbers, [0, 1, 2, 0, 1]);
        assert_eq!((slices.get(0), slices.get(1), slices.get(2)), (&[1, 2][..], &[][..], &[1][..]));
        assert_eq!(slices.len(), 3);
    }

    #[test]
    fn the_same_value_has_one_number() {
        let mut values = Interned::default();
        assert_eq!(["a", "b", "a"].map(|value| values.intern(&value)), [0, 1, 0]);
        assert_eq!((*values.get(1), values.all().len()), ("b", 2));
    }
}
