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
}

/// How often a packet is run, and in what state it finds the machine.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Sampling {
    /// The same packet, so often in one call.
    Hot(u32),
    /// The same packet, so often in one call, and so many calls: for programs that change the
    /// packet, or tell of it. Events are read after each call.
    Bursts(u32, usize),
    /// The same, while another thread reads the events.
    Read(u32),
    /// Each of so many packets once, in a call of its own; the median packet counts. Between two
    /// packets lie some system calls, so that neither caches nor branch predictors are warm.
    Single(usize),
}

/// Median and extremes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spread {
    pub(crate) least: f64,
    pub(crate) median: f64,
    pub(crate) most: f64,
}

impl Spread {
    /// Of numbers of which there is at least one.
    pub(crate) fn of(numbers: impl Iterator<Item = f64>) -> Self {
        let mut numbers: Vec<f64> = numbers.collect();
        numbers.sort_by(f64::total_cmp);
        Self {
            least: numbers[0],
            median: numbers[numbers.len() / 2],
            most: numbers[numbers.len() - 1],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        let spread = Spread::of([5.0, 1.0, 3.0].into_iter());
        assert_eq!((spread.least, spread.median, spread.most), (1.0, 3.0, 5.0));
    }
}
