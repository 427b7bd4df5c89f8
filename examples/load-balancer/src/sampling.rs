//! Sampling on behalf of a client of the admin API: it goes on as long as somebody takes the samples.
//!
//! Not here: how frames are sampled ([`Plane::sample`]), and the client (`sample`). Invariant: whoever began and
//! died without a word leaves nothing behind for longer than [`PATIENCE`]. Tested in `tests/sampling.rs`.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tracing::{info, warn};

use crate::{
    api::answer::{self, Done},
    balancer::Balancer,
    capture::hex,
    plane::{Plane, PlaneError, Sampled, Sampling},
};

/// For how long frames are sampled after somebody last asked for them.
const PATIENCE: Duration = Duration::from_secs(10);
/// Frames of one answer.
const FRAMES: usize = 64;

/// Until when frames are sampled.
#[derive(Debug, Default)]
pub(crate) struct Lease(Option<Instant>);

impl Lease {
    pub(crate) const fn end(&self) -> Option<Instant> {
        self.0
    }

    fn renew(&mut self, now: Instant) {
        self.0 = Some(now + PATIENCE);
    }
}

impl<P: Plane> Balancer<P> {
    /// Begins, if nobody else has.
    pub(crate) fn sample(&mut self, sampling: Sampling, now: Instant) -> Result<Done, PlaneError> {
        if self.sampling.end().is_some() {
            return Err("somebody samples already: wait until they end".into());
        }
        self.plane.sample(Some(sampling))?;
        self.sampling.renew(now);
        let Sampling { every, snaplen } = sampling;
        info!(every, snaplen, "frames are sampled");
        Ok(Done { changed: vec![format!("one frame of {every} is sampled")] })
    }

    /// What was sampled meanwhile.
    pub(crate) fn samples(&mut self, now: Instant) -> Result<answer::Samples, PlaneError> {
        let samples = self.plane.samples(FRAMES)?;
        self.sampling.renew(now);
        let frames = samples.frames.into_iter().map(answered).collect();
        Ok(answer::Samples { frames, lost: samples.lost })
    }

    /// Ends, whoever began.
    pub(crate) fn unsample(&mut self) -> Result<Done, PlaneError> {
        if self.sampling.end().is_none() {
            return Ok(Done::default());
        }
        self.plane.sample(None)?;
        self.sampling = Lease::default();
        info!("frames are sampled no more");
        Ok(Done { changed: vec!["frames are sampled no more".into()] })
    }

    /// Ends what nobody takes.
    pub(crate) fn end_unread(&mut self, now: Instant) {
        if self.sampling.end().is_some_and(|end| end <= now)
            && let Err(error) = self.unsample()
        {
            warn!(%error, "frames that nobody takes are sampled on");
            self.sampling.renew(now);
        }
    }
}

fn answered(sampled: Sampled) -> answer::Sampled {
    answer::Sampled {
        time: microseconds(sampled.time),
        interface: sampled.interface,
        action: sampled.action,
        verdict: sampled.verdict,
        service: sampled.service.map(|service| service.to_string()),
        backend: sampled.backend,
        length: sampled.frame.length,
        frame: hex::digits(&sampled.frame.bytes),
    }
}

fn microseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
