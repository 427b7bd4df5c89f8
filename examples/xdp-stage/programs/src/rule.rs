//! What a source may send: one file for the program and for who writes its maps.
//!
//! Not here: maps and packets. No loops, no allocation, no clock: time is a parameter.

/// What the sources of a prefix may send, each for itself: a bucket of tokens that is kept as one word, the time
/// at which it will be full again (the generic cell rate algorithm, ITU-T I.371).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Nanoseconds in which a source gets a token; all ones: it never does.
    interval: u64,
    /// Nanoseconds of tokens that a source may have saved beside the one that it spends.
    tolerance: u64,
}

impl Rule {
    /// Nothing.
    pub const BLOCK: Self = Self { interval: u64::MAX, tolerance: 0 };

    /// So many frames a second (at least one), and so many at once (at least one).
    #[must_use]
    #[allow(dead_code, reason = "the program only reads rules")]
    pub const fn rate(per_second: u32, burst: u32) -> Self {
        let per_second = if per_second == 0 { 1 } else { per_second };
        let interval = 1_000_000_000 / per_second as u64;
        Self { interval, tolerance: interval * (burst as u64).saturating_sub(1) }
    }

    /// As it lies in a map.
    #[must_use]
    #[allow(dead_code, reason = "as above")]
    pub fn bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.interval.to_ne_bytes());
        bytes[8..].copy_from_slice(&self.tolerance.to_ne_bytes());
        bytes
    }

    /// No frame passes.
    #[inline(always)]
    #[must_use]
    pub const fn blocks(self) -> bool {
        self.interval == u64::MAX
    }

    /// When the bucket of a source will be full after a frame at `now`, having been full at `full` before, in
    /// nanoseconds; `None`: it has no token left.
    #[inline(always)]
    #[must_use]
    pub const fn spend(self, full: u64, now: u64) -> Option<u64> {
        let full = if full > now { full } else { now };
        if full - now > self.tolerance { None } else { Some(full + self.interval) }
    }
}
