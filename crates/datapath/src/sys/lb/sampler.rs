//! The sampler: it takes the place of an interface's first program, runs that, and looks at what came of it.
//!
//! That program is in the first slot of an array of slots. Where links are pinned, it is the array of the stages
//! and pinned as well, so that a process that is killed while it samples leaves an interface whose programs run
//! on, and the next one puts its own into the same slots ([`super::chain`]).
//!
//! Not here: what samples mean ([`crate::lb::Samples`]). Tested by `kernel_samples` and `netns_samples`.

use std::{
    collections::BTreeMap,
    io, mem,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
    time::Duration,
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Map, MapData, RingBuf},
};
use flowgate_abi::sample::{Sample, Sampling};
use flowgate_ebpf_progs::sampler as progs;
use zerocopy::{FromBytes, IntoBytes};

use super::{Attachment, BalancerTables, chain, kernel};
use crate::{
    error::{OpenError, TableError},
    lb::SampleError,
    sys::{
        object::{self, any_map},
        syscall::{self, ProgramKind},
    },
};

/// Where programs run, by interface index.
type Interfaces = BTreeMap<u32, Attachment>;

/// The sampler, loaded.
#[derive(Debug)]
pub(super) struct Sampler {
    /// The kernel empties the slots when nobody in user space holds them.
    _maps: Ebpf,
    program: OwnedFd,
}

impl Sampler {
    /// In front of the program that frames met first until now.
    pub(super) fn load(
        sampling: &Sampling,
        (entry, kind): (BorrowedFd<'_>, ProgramKind),
        pins: Option<&Path>,
    ) -> Result<(Self, SampleRing), OpenError> {
        let mut loader = EbpfLoader::new();
        loader.override_global("SAMPLING", sampling.as_bytes(), true);
        loader.map_max_entries(progs::STAGES, chain::SLOTS);
        if let Some(pins) = pins {
            loader.map_pin_path(progs::STAGES, pins.join(chain::pin(kind)));
        }
        let mut ebpf = object::parsed(&mut loader, progs::OBJECT).map_err(OpenError::object)?;
        let slots = any_map(&ebpf, progs::STAGES).expect("the object has it").fd().as_fd();
        let entry = entry.as_raw_fd().to_ne_bytes();
        syscall::update(slots, &0u32.to_ne_bytes(), &entry).map_err(OpenError::Kernel)?;
        let program = match kind {
            ProgramKind::XdpFrags => load(&mut ebpf)?,
            // aya doesn't know the others.
            kind => {
                let program = (progs::XDP_SAMPLE, progs::LOST);
                chain::load_typed((progs::OBJECT, &ebpf), program, None, kind)?
            }
        };
        let ring = SampleRing::take(&mut ebpf).map_err(OpenError::Kernel)?;
        Ok((Self { _maps: ebpf, program }, ring))
    }
}

fn load(ebpf: &mut Ebpf) -> Result<OwnedFd, OpenError> {
    let program = kernel::program(ebpf, progs::XDP_SAMPLE);
    object::load(progs::XDP_SAMPLE, || program.load())?;
    let fd = program.fd().map_err(|error| OpenError::program(progs::XDP_SAMPLE, error))?;
    fd.as_fd().try_clone_to_owned().map_err(OpenError::Kernel)
}

impl BalancerTables {
    /// Puts a sampler in front of the chain on all interfaces, in the place of another one.
    pub(crate) fn sample(
        &mut self,
        sampling: &Sampling,
        pins: Option<&Path>,
        interfaces: &Interfaces,
    ) -> Result<SampleRing, SampleError> {
        let entry = self.entry().map_err(TableError)?;
        let (sampler, ring) = Sampler::load(sampling, (entry, chain::kind(self.place)), pins)?;
        self.interpose(Some(sampler), interfaces).map_err(TableError)?;
        Ok(ring)
    }

    /// Has interfaces run the chain alone.
    pub(crate) fn stop_sampling(&mut self, interfaces: &Interfaces) -> io::Result<()> {
        match self.sampler {
            Some(_) => self.interpose(None, interfaces),
            None => Ok(()),
        }
    }

    /// The program that interfaces run: the sampler, or the chain's first.
    pub(super) fn first(&self) -> io::Result<BorrowedFd<'_>> {
        self.sampler.as_ref().map_or_else(|| self.entry(), |sampler| Ok(sampler.program.as_fd()))
    }

    /// One sampler, or none, in the place of another; nothing has changed if an interface refuses.
    fn interpose(&mut self, sampler: Option<Sampler>, interfaces: &Interfaces) -> io::Result<()> {
        let mut gone = mem::replace(&mut self.sampler, sampler);
        let renewed = self.renew(interfaces);
        if renewed.is_err() {
            mem::swap(&mut self.sampler, &mut gone);
            // One that refuses this, too, runs on as it does: both have the same slots' programs.
            let _ = self.renew(interfaces);
        }
        if gone.is_some() {
            // Frames are on their way through its slots.
            self.grace.wait()?;
        }
        renewed
    }

    fn renew(&self, interfaces: &Interfaces) -> io::Result<()> {
        let program = self.first()?;
        interfaces.values().try_for_each(|interface| interface.renew(program))
    }
}

/// Samples that were taken and not read yet.
pub(crate) struct SampleRing {
    ring: RingBuf<MapData>,
    lost: MapData,
    cpus: usize,
}

impl SampleRing {
    fn take(ebpf: &mut Ebpf) -> io::Result<Self> {
        let mut take = |name| ebpf.take_map(name).expect("the object has it");
        let ring = RingBuf::try_from(take(progs::SAMPLES)).map_err(io::Error::other)?;
        let Map::PerCpuArray(lost) = take(progs::LOST) else { unreachable!("the object's own") };
        Ok(Self { ring, lost, cpus: syscall::possible_cpus()? })
    }

    /// The clock that times are of, now.
    pub(crate) fn clock() -> Duration {
        syscall::monotonic()
    }

    pub(crate) fn next(&mut self) -> Option<Sample> {
        let item = self.ring.next()?;
        Sample::read_from_bytes(&item).ok()
    }

    /// Waits until there is something to read, at most this long.
    pub(crate) fn wait(&self, time: Duration) -> io::Result<bool> {
        syscall::wait_readable(self.ring.as_fd(), time.as_millis().max(1) as i32)
    }

    /// Samples that there was no room for.
    pub(crate) fn lost(&self) -> io::Result<u64> {
        Ok(syscall::sum_per_cpu(self.lost.fd().as_fd(), (0, size_of::<u64>()), self.cpus)?[0])
    }
}
