//! How a row is measured, and what comes of it.

/// One round of one row, in nanoseconds per packet.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// The program under test.
    pub program: f64,
    /// The empty program, right before it, in the same way.
    pub empty: f64,
}

impl Sample {
    /// The cost of what the program does.
    #[must_use]
    pub fn net(&self) -> f64 {
        self.program - self.empty
    }

    /// Of calls that make up a round.
    #[must_use]
    pub fn mean(samples: &[Self]) -> Self {
        let mean =
            |of: fn(&Self) -> f64| samples.iter().map(of).sum::<f64>() / samples.len() as f64;
        Self { program: mean(|sample| sample.program), empty: mean(|sample| sample.empty) }
    }
}

/// How many packets a round has.
#[derive(Clone, Copy, Debug)]
pub struct Sampling {
    /// Packets of a call.
    pub runs: u32,
    /// Calls of a round; events are read after each.
    pub calls: u32,
    /// Another thread reads the events meanwhile.
    pub read: bool,
}

impl Sampling {
    /// One call.
    #[must_use]
    pub const fn once(runs: u32) -> Self {
        Self { runs, calls: 1, read: false }
    }

    /// Packets of a round.
    #[must_use]
    pub const fn packets(&self) -> u64 {
        self.runs as u64 * self.calls as u64
    }
}
