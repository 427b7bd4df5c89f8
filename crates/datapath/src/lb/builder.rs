//! The decisions that an embedder makes before a balancer is opened.

use std::{borrow::Cow, io, path::PathBuf};

use flowgate_ebpf_progs::lb as progs;
use flowgate_services::{ApplyError, Balancer, host::HostTables, store::Store};

use super::{
    BalancerOptions, BalancerReport, BalancerState, LoadBalancer, Place, Stage, StageError, Stages,
    tables::Tables,
};
use crate::{
    builder::Backend,
    error::OpenError,
    pins::{self, Pins},
    report::BackendKind,
    sys::{
        lb::{self, BalancerTables},
        object::Origin,
        probe,
    },
    verification::Verification,
};

/// What a balancer is made of.
#[must_use]
#[derive(Clone, Debug, Default)]
pub struct Builder {
    backend: Backend,
    options: BalancerOptions,
    pins: Option<PathBuf>,
    object: Option<Cow<'static, [u8]>>,
    minimum: Option<(u32, u32)>,
    stages: Stages,
    place: Option<Place>,
}

impl Builder {
    /// Where the tables lie; the kernel, if nothing is said.
    pub const fn backend(mut self, backend: Backend) -> Self {
        self.backend = backend;
        self
    }

    /// Sizes, and the network.
    pub fn options(mut self, options: BalancerOptions) -> Self {
        self.options = options;
        self
    }

    /// Pins all state below a directory of a BPF file system, so that it outlives a killed process and is
    /// adopted by the next one that is opened with the same directory: attached interfaces balance all
    /// the time, and no flow loses its backend. One balancer at a time has a directory; a policy datapath
    /// needs another one.
    pub fn pin(mut self, directory: impl Into<PathBuf>) -> Self {
        self.pins = Some(directory.into());
        self
    }

    /// Loads another object than the one that ships with `flowgate-ebpf-progs`.
    pub fn object(mut self, object: impl Into<Cow<'static, [u8]>>) -> Self {
        self.object = Some(object.into());
        self
    }

    /// Opens on kernels from this version on, instead of those that are promised (6.1 and later).
    pub const fn minimum_kernel(mut self, major: u32, minor: u32) -> Self {
        self.minimum = Some((major, minor));
        self
    }

    /// Puts a stage in front of the balancer, behind those that were put there before. On state that is
    /// adopted, the stages of each opening stand instead of those of the one before.
    pub fn before(mut self, stage: Stage) -> Self {
        self.stages.before.push(stage);
        self
    }

    /// Puts a stage behind the balancer, behind those that were put there before. It gets what the balancer
    /// passes because no service has it, or what [`Stage::takes`] says.
    pub fn behind(mut self, stage: Stage) -> Self {
        self.stages.behind.push(stage);
        self
    }

    /// Has the balancer take a place in the dispatcher of libxdp's protocol on each interface, beside programs of others,
    /// instead of having the interface alone; where there is no dispatcher, one is made, which others can join. Stages
    /// and samples stay the balancer's own. [`super::AttachedXdp::beside`] says what came of it.
    ///
    /// Linux 5.18 and later with types of its own (`/sys/kernel/btf/vmlinux`), where lockdown doesn't refuse it.
    pub const fn dispatched(mut self, place: Place) -> Self {
        self.place = Some(place);
        self
    }

    /// Opens the balancer: fresh, or with the state of an earlier process. While programs are verified, the
    /// calling thread takes no signals.
    ///
    /// # Errors
    /// See [`OpenError`]; nothing is left behind.
    pub fn open(self) -> Result<LoadBalancer, OpenError> {
        self.options.check()?;
        self.stages.check()?;
        match (self.backend, self.stages.first()) {
            (Backend::Kernel, _) => self.open_kernel(),
            (Backend::Host, None) => self.open_host(),
            (Backend::Host, Some(stage)) => Err(StageError::NoPrograms.of(&stage.program)),
        }
    }

    /// Has the running kernel's verifier judge each program, and keeps nothing of it; see
    /// [`crate::Builder::verify`].
    ///
    /// # Errors
    /// A missing capability, or maps that the kernel refuses. A program that it refuses is no error.
    pub fn verify(&self) -> Result<Vec<Verification>, OpenError> {
        self.options.check()?;
        lb::verify(self.object_bytes(), &self.options, probe::permitted()?)
    }

    fn object_bytes(&self) -> &[u8] {
        self.object.as_deref().unwrap_or(progs::OBJECT)
    }

    fn open_host(self) -> Result<LoadBalancer, OpenError> {
        let settings = self.options.settings(1000);
        let tables = HostTables::new(settings, self.options.room(&settings));
        let report = BalancerReport {
            backend: BackendKind::Host,
            state: BalancerState::Fresh,
            programs: Vec::new(),
            stages: Vec::new(),
            kernel: String::new(),
            memory: self.options.memory(1),
        };
        let Ok(mut balancer) = Balancer::adopt(tables, self.options.uplink, self.options.seed);
        self.prepare_nat(&mut balancer)?;
        Ok(LoadBalancer::new(Tables::Host(Box::new(balancer)), None, report))
    }

    fn open_kernel(self) -> Result<LoadBalancer, OpenError> {
        let probe = probe::probe(self.minimum.unwrap_or(probe::MINIMUM))?;
        // There is no older layout yet.
        let prepare = |pins| Pins::prepare(pins, &pins::BALANCER, |_, _, _| Ok(()));
        let mut pins = self.pins.as_deref().map(prepare).transpose()?;
        let opened = self.load(probe.hertz, pins.as_ref());
        let (balancer, programs, origin) = opened.inspect_err(|_| {
            if let Some(pins) = &pins {
                pins.give_up();
            }
        })?;
        if let Some(pins) = &mut pins {
            pins.commit(|_| Ok(()))?;
        }
        let state = match origin {
            Origin::Fresh => BalancerState::Fresh,
            Origin::Adopted => BalancerState::Adopted { services: balancer.adopted() },
        };
        let report = BalancerReport {
            backend: BackendKind::Kernel,
            state,
            programs,
            stages: balancer.store().stages(),
            kernel: probe.release,
            memory: balancer.store().memory(),
        };
        Ok(LoadBalancer::new(Tables::Kernel(Box::new(balancer)), pins, report))
    }

    fn load(&self, hertz: u32, pins: Option<&Pins>) -> Result<Loaded, OpenError> {
        let maps = pins.map(Pins::maps);
        let (mut tables, origin) =
            BalancerTables::load(self.object_bytes(), &self.options, hertz, maps.as_deref())?;
        let links = pins.map(Pins::links);
        tables.compose(self.object_bytes(), (&self.stages, self.place), links.as_deref())?;
        let programs = tables.programs();
        let balancer = Balancer::adopt(tables, self.options.uplink, self.options.seed);
        let mut balancer = balancer.map_err(OpenError::Kernel)?;
        self.prepare_nat(&mut balancer)?;
        Ok((balancer, programs, origin))
    }

    fn prepare_nat<S: Store>(&self, balancer: &mut Balancer<S>) -> Result<(), OpenError> {
        balancer.set_nat_timeouts(self.options.nat.timeouts);
        balancer.set_sources(&self.options.nat.sources).map_err(|error| match error {
            ApplyError::Sources(error) => OpenError::Sources(error),
            other => OpenError::Kernel(io::Error::other(other)),
        })
    }
}

/// A balancer over tables, their programs, and whether there was something to take over.
type Loaded = (Balancer<BalancerTables>, Vec<crate::report::ProgramReport>, Origin);
