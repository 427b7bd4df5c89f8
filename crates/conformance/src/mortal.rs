//! A store whose process is killed at a write: nothing that is written afterwards reaches the tables.

use crate::attended::{Attendant, Attended};

/// A store that may die. It counts the writes that reach the tables.
pub type Mortal<S> = Attended<S, Lifetime>;

/// How many writes are left, and how many there were.
#[derive(Debug)]
pub struct Lifetime {
    left: usize,
    writes: usize,
}

impl<S> Attendant<S> for Lifetime {
    fn admits(&mut self) -> bool {
        let alive = self.left > 0;
        self.left = self.left.saturating_sub(1);
        self.writes += usize::from(alive);
        alive
    }
}

impl<S> Mortal<S> {
    /// A store that doesn't die.
    pub const fn new(store: S) -> Self {
        Self::with(store, Lifetime { left: usize::MAX, writes: 0 })
    }

    /// Dies after so many more writes.
    pub const fn die_after(&mut self, writes: usize) {
        self.attendant.left = writes;
    }

    /// Writes that have reached the tables.
    #[must_use]
    pub const fn writes(&self) -> usize {
        self.attendant.writes
    }

    /// A write was lost.
    #[must_use]
    pub const fn died(&self) -> bool {
        self.attendant.left == 0
    }
}
