//! The balancer's clock: milliseconds that somebody counted.
//!
//! It counts what passes between two ticks, but no more than one age of tracked flows: while nobody ticks,
//! programs stamp entries with an age that stands still, so a leap would make live flows look silent. So
//! this clock is never ahead of the real one, and whatever waits by it waits long enough.

use std::time::Duration;

use flowgate_abi::lb::{AGES, Frontend, Head, Settings};

/// Milliseconds of this clock.
pub(crate) type Millis = u64;

/// Ages that are beyond doubt: the one that runs, and the one in which an entry was stamped.
const SLACK: u64 = 2;

/// Whole milliseconds, rounded up.
pub(crate) fn millis(duration: Duration) -> Millis {
    u64::try_from(duration.as_micros().div_ceil(1000)).unwrap_or(u64::MAX)
}

/// The clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    now: Millis,
    ticked: Option<Duration>,
    age_length: Millis,
}

impl Clock {
    /// Goes on where the tables say that it stood.
    pub(crate) fn adopt(head: &Head, settings: &Settings) -> Self {
        let age_length = u64::from(settings.age_length).max(1);
        Self { now: head.clock.load(), ticked: None, age_length }
    }

    /// Counts what has passed, by the caller's monotonic time, and tells programs. `true`: another age has
    /// begun.
    pub(crate) fn tick(&mut self, time: Duration, head: &Head) -> bool {
        let passed = self.ticked.map_or(0, |ticked| time.saturating_sub(ticked).as_millis());
        let counted = u64::try_from(passed).unwrap_or(u64::MAX).min(self.age_length);
        // Parts of a millisecond aren't lost: they count next time.
        let whole = self.ticked.map(|ticked| ticked + Duration::from_millis(passed as u64));
        self.ticked = Some(whole.unwrap_or(time));
        let before = self.age();
        self.now += counted;
        head.clock.store(self.now);
        head.age.store(self.age());
        before != self.age()
    }

    /// Milliseconds so far.
    pub(crate) const fn now(&self) -> Millis {
        self.now
    }

    /// The age that entries are stamped with.
    pub(crate) const fn age(&self) -> u32 {
        (self.now / self.age_length % AGES as u64) as u32
    }

    /// An entry of this age has been silent for longer than this.
    pub(crate) const fn is_over(&self, age: u32, idle: Millis) -> bool {
        let passed = self.age().wrapping_sub(age) % AGES;
        passed as u64 > idle.div_ceil(self.age_length) + SLACK
    }

    /// The binary logarithm of the milliseconds of an age of pins that last so long: a sixteenth of that, but
    /// no less than may pass between two ticks.
    pub(crate) const fn pin_shift(timeout: Millis, age_length: Millis) -> u32 {
        let (least, wanted) = (age_length.next_power_of_two().ilog2(), (timeout / 16 + 1).ilog2());
        let shift = if wanted > least { wanted } else { least };
        if shift > 31 { 31 } else { shift }
    }

    /// A pin of this age, by these flags, has been silent for longer than this.
    pub(crate) const fn is_pin_over(&self, age: u32, (flags, timeout): (u32, Millis)) -> bool {
        let passed = Frontend::pin_age(flags, self.now).wrapping_sub(age) % AGES;
        passed as u64 > timeout.div_ceil(1 << Frontend::pin_shift(flags)) + SLACK
    }

    /// The longest idle time that ages can tell.
    pub(crate) const fn longest_idle(age_length: Millis) -> Millis {
        (AGES as u64 / 2) * age_length
    }

    /// Milliseconds of an age.
    pub(crate) const fn age_length(&self) -> Millis {
        self.age_length
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock(head: &Head) -> Clock {
        let settings = Settings { age_length: 1000, ..Settings::default() };
        Clock::adopt(head, &settings)
    }

    #[test]
    fn no_more_than_an_age_is_counted_at_once() {
        let head = Head::default();
        let mut clock = clock(&head);
        let mut at = |millis| clock.tick(Duration::from_millis(millis), &head);
        assert_eq!([at(50_000), at(50_999), at(51_000), at(51_001)], [false, false, true, false]);
        assert!(at(1_000_000));
        assert_eq!((clock.now(), head.clock.load(), head.age.load()), (2001, 2001, 2));
    }

    #[test]
    fn parts_of_a_millisecond_add_up() {
        let head = Head::default();
        let mut clock = clock(&head);
        for tick in 0..=100 {
            clock.tick(Duration::from_micros(tick * 100), &head);
        }
        assert_eq!(clock.now(), 10);
    }

    #[test]
    fn an_entry_is_over_when_it_was_silent_for_certain() {
        let head = Head::default();
        let mut clock = clock(&head);
        for tick in 0..=70 {
            clock.tick(Duration::from_secs(tick), &head);
        }
        assert_eq!(clock.age(), 70 % AGES);
        assert!(
            !clock.is_over(66 % AGES, 2000),
            "stamped up to 4.999 s ago, or as little as 3.001 s"
        );
        assert!(clock.is_over(65 % AGES, 2000));
        assert!(!clock.is_over(clock.age(), 0));
    }
}
