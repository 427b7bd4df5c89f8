//! What many measurements come to.

use std::fmt;

/// Median and extremes.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    /// The smallest.
    pub least: f64,
    /// The one in the middle.
    pub median: f64,
    /// The largest.
    pub most: f64,
}

impl Spread {
    /// Of numbers of which there is at least one.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn of(numbers: impl Iterator<Item = f64>) -> Self {
        let mut numbers: Vec<f64> = numbers.collect();
        numbers.sort_by(f64::total_cmp);
        Self {
            least: numbers[0],
            median: numbers[numbers.len() / 2],
            most: numbers[numbers.len() - 1],
        }
    }
}

/// As three cells of a table: median, least, most.
impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { least, median, most } = self;
        let digits = f.precision().unwrap_or(0);
        write!(f, "{median:.digits$} | {least:.digits$} | {most:.digits$}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        let spread = Spread::of([5.0, 1.0, 3.0].into_iter());
        assert_eq!((spread.least, spread.median, spread.most), (1.0, 3.0, 5.0));
        assert_eq!(format!("{spread:.1}"), "3.0 | 1.0 | 5.0");
    }
}
