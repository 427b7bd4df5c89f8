//! When results in a row change what somebody is taken for.

use super::Health;

/// Counts results in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Threshold {
    rise: u32,
    fall: u32,
    health: Health,
    /// Results in a row that speak against `health`.
    against: u32,
}

impl Threshold {
    /// Begins with what is known; both numbers are at least 1.
    #[must_use]
    pub fn new(health: Health, rise: u32, fall: u32) -> Self {
        Self { rise, fall, health, against: 0 }
    }

    /// What it is taken for.
    #[must_use]
    pub fn health(&self) -> Health {
        self.health
    }

    /// Takes a result; what it is taken for from now on, if that is something else.
    pub fn result(&mut self, good: bool) -> Option<Health> {
        let says = if good { Health::Up } else { Health::Down };
        let needed = match self.health {
            Health::Unknown => 1,
            Health::Up => self.fall,
            Health::Down => self.rise,
        };
        self.against = if says == self.health { 0 } else { self.against + 1 };
        if self.against < needed {
            return None;
        }
        self.against = 0;
        self.health = says;
        Some(says)
    }
}

#[cfg(test)]
mod tests {
    use super::{Health::*, *};

    fn after(results: &[bool], start: Health) -> Vec<Option<Health>> {
        let mut threshold = Threshold::new(start, 2, 3);
        results.iter().map(|&good| threshold.result(good)).collect()
    }

    #[test]
    fn the_first_result_decides() {
        assert_eq!(after(&[true, false], Unknown), [Some(Up), None]);
        assert_eq!(after(&[false, true], Unknown), [Some(Down), None]);
    }

    #[test]
    fn results_in_a_row_change_it() {
        assert_eq!(after(&[false, false, false, false], Up), [None, None, Some(Down), None]);
        assert_eq!(after(&[true, true, true], Down), [None, Some(Up), None]);
    }

    #[test]
    fn a_result_in_between_begins_the_row_anew() {
        let flapping = [false, false, true, false, false, true, false, false];
        assert_eq!(after(&flapping, Up), [None; 8]);
        assert_eq!(after(&[true, false, true, false], Down), [None; 4]);
    }
}
