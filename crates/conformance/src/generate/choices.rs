//! Where chance comes from: a seed, or a list of choices that someone else has drawn.

/// A source of choices.
#[derive(Clone, Debug)]
pub(super) enum Choices {
    /// The state of `SplitMix64` (Steele, Lea and Flood 2014).
    Seeded(u64),
    /// What is left of the given choices.
    Replayed(std::vec::IntoIter<u32>),
}

impl Choices {
    pub(super) fn seeded(seed: u64) -> Self {
        Self::Seeded(seed)
    }

    pub(super) fn replayed(choices: Vec<u32>) -> Self {
        Self::Replayed(choices.into_iter())
    }

    fn next(&mut self) -> u32 {
        match self {
            Self::Seeded(state) => {
                *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mut z = *state;
                z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                ((z ^ (z >> 31)) >> 32) as u32
            }
            Self::Replayed(choices) => choices.next().unwrap_or(0),
        }
    }

    /// A number below `bound`, which isn't 0. Small choices give small numbers.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        let scaled = (u64::from(self.next()) * bound as u64) >> 32;
        usize::try_from(scaled).unwrap_or(0)
    }

    /// A number from `first` to `last`.
    pub(super) fn between(&mut self, first: usize, last: usize) -> usize {
        first + self.below(last - first + 1)
    }

    /// True so many times of a hundred; false if the choices have ended.
    pub(super) fn percent(&mut self, percent: usize) -> bool {
        self.below(100) >= 100 - percent
    }

    /// One of `items`, of which there must be some.
    pub(super) fn one<T: Clone>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())].clone()
    }

    /// The position of one of `weights`, by weight.
    pub(super) fn weighted(&mut self, weights: &[usize]) -> usize {
        let mut left = self.below(weights.iter().sum());
        for (position, weight) in weights.iter().enumerate() {
            if left < *weight {
                return position;
            }
            left -= weight;
        }
        0
    }
}
