//! How a row is measured, and what comes of it.

/// One round of one row, in nanoseconds per packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// The program under test.
    pub(crate) program: f64,
    /// The empty program, right before it, in the same way.
    pub(crate) empty: f64,
}

impl Sample {
    /// The cost of what the program does.
    pub(crate) fn net(&self) -> f64 {
        self.program - self.empty
    }

    pub(crate) fn mean(samples: &[Self]) -> Self {
        let mean =
            |of: fn(&Self) -> f64| samples.iter().map(of).sum::<f64>() / samples.len() as f64;
        Self { program: mean(|sample| sample.program), empty: mean(|sample| sample.empty) }
    }
}

/// How many packets a round has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sampling {
    /// Packets of a call.
    pub(crate) runs: u32,
    /// Calls of a round; events are read after each.
    pub(crate) calls: u32,
    /// Another thread reads the events meanwhile.
    pub(crate) read: bool,
}

impl Sampling {
    /// One call.
    pub(crate) const fn once(runs: u32) -> Self {
        Self { runs, calls: 1, read: false }
    }

    /// Packets of a round.
    pub(crate) const fn packets(&self) -> u64 {
        self.runs as u64 * self.calls as u64
    }
}
