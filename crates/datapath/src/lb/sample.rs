//! Frames that were sampled, as they are when the last program of the interface has said its word.
//!
//! Not here: files of them (`flowgate-lb sample` writes pcapng), and to which service they belong. Invariant:
//! whoever doesn't read loses samples, and no packet waits. Tested by `kernel_samples`, and on a wire by
//! `netns_samples`.

use std::{
    fmt, io,
    time::{Duration, Instant, SystemTime},
};

use flowgate_abi::sample::{ROOM, Sample};
use thiserror::Error;

use super::XdpAction;
use crate::{
    error::{OpenError, TableError},
    sys::lb::SampleRing,
};

/// How often the ring is looked into while somebody waits: a wake-up costs a packet more than a sample does.
const INTERVAL: Duration = Duration::from_millis(10);

/// Which frames are sampled, and how much of them is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampling {
    /// One frame of so many, at random; 1: every frame.
    pub one_in: u32,
    /// Bytes that are kept of a frame at most, from its Ethernet header on; up to [`Sampling::MOST_BYTES`].
    pub bytes: usize,
}

impl Sampling {
    /// Bytes of a frame that a sample has room for.
    pub const MOST_BYTES: usize = ROOM;

    pub(crate) fn constants(&self) -> Result<flowgate_abi::sample::Sampling, SampleError> {
        let Self { one_in, bytes } = *self;
        if one_in == 0 {
            return Err(SampleError::NoRate);
        }
        if !(1..=Self::MOST_BYTES).contains(&bytes) {
            return Err(SampleError::Bytes { bytes, most: Self::MOST_BYTES });
        }
        Ok(flowgate_abi::sample::Sampling { threshold: u32::MAX / one_in, keep: bytes as u32 })
    }
}

/// One frame of 1,000, and 256 bytes of it.
impl Default for Sampling {
    fn default() -> Self {
        Self { one_in: 1000, bytes: 256 }
    }
}

/// A frame that was sampled.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sampled {
    /// When its fate was known.
    pub time: SystemTime,
    /// What the last program of its interface said; `None`: a word that the kernel doesn't know, which drops
    /// the frame.
    pub action: Option<XdpAction>,
    /// Index of the interface by which it came.
    pub ifindex: u32,
    /// How many bytes it had, from its Ethernet header on.
    pub length: usize,
    /// The first of them as they were when it went on or was dropped: with the outer headers that the
    /// balancer gave it.
    pub bytes: Vec<u8>,
}

/// Samples, in the order in which each CPU took them. Some 2,000 may wait to be read; more are counted as lost.
pub struct Samples {
    ring: SampleRing,
    /// When the kernel's clock began.
    boot: SystemTime,
}

impl fmt::Debug for Samples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Samples")
    }
}

impl Samples {
    pub(super) fn new(ring: SampleRing) -> Self {
        let boot = SystemTime::now() - SampleRing::clock();
        Self { ring, boot }
    }

    /// The next one that is there already.
    pub fn try_next(&mut self) -> Option<Sampled> {
        let sample = self.ring.next()?;
        Some(sampled(self.boot, &sample))
    }

    /// The next one, if it comes in time.
    ///
    /// # Errors
    /// The ring couldn't be waited for.
    pub fn next_timeout(&mut self, timeout: Duration) -> io::Result<Option<Sampled>> {
        let end = Instant::now() + timeout;
        loop {
            if let Some(sampled) = self.try_next() {
                return Ok(Some(sampled));
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.ring.wait(left.min(INTERVAL))?;
        }
    }

    /// Samples that weren't taken since sampling began, because those before them weren't read in time.
    ///
    /// # Errors
    /// The kernel doesn't tell.
    pub fn lost(&self) -> Result<u64, TableError> {
        Ok(self.ring.lost()?)
    }
}

fn sampled(boot: SystemTime, sample: &Sample) -> Sampled {
    let kept = (sample.kept as usize).min(sample.bytes.len());
    Sampled {
        time: boot + Duration::from_nanos(sample.time),
        action: XdpAction::from_kernel(sample.action),
        ifindex: sample.ifindex,
        length: sample.length as usize,
        bytes: sample.bytes[..kept].to_vec(),
    }
}

/// Why frames can't be sampled. Interfaces run what they ran before.
#[non_exhaustive]
#[derive(Debug, Error)]
pub enum SampleError {
    /// The host backend has no programs.
    #[error("the host backend has no frames to sample: open the balancer with Backend::Kernel")]
    NoPrograms,
    /// One frame of none is no rate.
    #[error("one frame of 0 can't be sampled: 1 samples every frame")]
    NoRate,
    /// No sample has room for that.
    #[error("{bytes} bytes of a frame can't be kept: 1 to {most} can")]
    Bytes {
        /// Bytes that were asked for.
        bytes: usize,
        /// The most that can be kept.
        most: usize,
    },
    /// The kernel refused the sampler.
    #[error("the sampler: {0}")]
    Program(#[from] OpenError),
    /// The kernel refused to give it to an interface, or to fill its slots.
    #[error("the sampler: {0}")]
    Interface(#[from] TableError),
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn what_can_not_be_sampled_is_refused() {
        let error = |one_in, bytes| Sampling { one_in, bytes }.constants().unwrap_err().to_string();
        assert_eq!(error(0, 256), "one frame of 0 can't be sampled: 1 samples every frame");
        assert_eq!(error(1, 0), "0 bytes of a frame can't be kept: 1 to 2048 can");
        assert_eq!(error(1, 2049), "2049 bytes of a frame can't be kept: 1 to 2048 can");
    }

    #[test]
    fn a_rate_is_a_share_of_all_random_numbers() {
        let threshold = |one_in| Sampling { one_in, bytes: 1 }.constants().unwrap().threshold;
        assert_eq!([1, 2, 1 << 31].map(threshold), [u32::MAX, u32::MAX / 2, 1]);
    }

    #[test]
    fn a_sample_says_when_it_was_taken_and_what_of_it_is_there() {
        let mut bytes = [9; ROOM];
        bytes[..3].copy_from_slice(&[1, 2, 3]);
        let sample = Sample { time: 5, length: 60, action: 3, kept: 3, ifindex: 7, bytes };
        let Sampled { time, action, ifindex, length, bytes } = sampled(UNIX_EPOCH, &sample);
        assert_eq!((time, ifindex, length), (UNIX_EPOCH + Duration::from_nanos(5), 7, 60));
        assert_eq!((action, bytes), (Some(XdpAction::Transmit), vec![1, 2, 3]));
        assert_eq!(XdpAction::from_kernel(5), None);
    }
}
