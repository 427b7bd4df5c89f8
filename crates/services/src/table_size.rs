//! How many slots a service's table has.

/// Slots of a service's table: a prime, so that every permutation of Maglev's visits every slot.
///
/// More slots share traffic more evenly and move fewer flows that needn't move when a backend comes or
/// goes; each costs 4 bytes and, after a change, time to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableSize(u32);

impl TableSize {
    /// The sizes that there are, the usual primes near powers of two.
    pub const ALL: [Self; 11] = [
        Self(251),
        Self(509),
        Self(1021),
        Self(2039),
        Self(4093),
        Self(8191),
        Self(16_381),
        Self(32_749),
        Self(65_521),
        Self(65_537),
        Self(131_071),
    ];

    /// The largest.
    pub const LARGEST: Self = Self(131_071);

    /// One of [`TableSize::ALL`] by its number of slots.
    #[must_use]
    pub fn new(slots: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|size| size.0 == slots)
    }

    /// The smallest with a hundred slots or more for each backend, so that what a backend gets is
    /// within a hundredth of its share (Maglev, NSDI 2016); the largest, if there is none.
    #[must_use]
    pub fn for_backends(backends: usize) -> Self {
        let wanted = backends.saturating_mul(100);
        Self::ALL.into_iter().find(|size| size.0 as usize >= wanted).unwrap_or(Self::LARGEST)
    }

    /// The number of slots.
    #[must_use]
    pub const fn slots(self) -> u32 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_is_a_prime_and_larger_than_the_one_before() {
        let is_prime = |n: u32| (2..n).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d));
        assert!(TableSize::ALL.iter().all(|size| is_prime(size.0)));
        assert!(TableSize::ALL.is_sorted());
        assert_eq!(TableSize::ALL.last(), Some(&TableSize::LARGEST));
    }

    #[test]
    fn a_hundred_slots_for_each_backend() {
        let slots = |backends| TableSize::for_backends(backends).slots();
        assert_eq!([slots(0), slots(2), slots(3), slots(10)], [251, 251, 509, 1021]);
        assert_eq!([slots(655), slots(656), slots(5000)], [65_521, 131_071, 131_071]);
    }

    #[test]
    fn there_are_no_other_sizes() {
        assert_eq!(TableSize::new(1021).map(TableSize::slots), Some(1021));
        assert_eq!(TableSize::new(1024), None);
    }
}
