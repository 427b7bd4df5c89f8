//! The decisions that an embedder makes before a datapath is opened.

use std::{borrow::Cow, path::PathBuf};

use flowgate_policy::{
    host::HostTables,
    install::{self, Installer},
};

use crate::{
    datapath::Datapath,
    error::OpenError,
    events::SharedNames,
    options::Options,
    pins::{self, Pins},
    report::{BackendKind, ProgramReport, Report, State},
    sys::{attach, kernel::KernelTables, object::Origin, probe, verify},
    tables::Tables,
    verification::Verification,
};

/// Where the tables lie.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    /// In the kernel: live traffic. Needs `CAP_BPF`, `CAP_PERFMON` and `CAP_NET_ADMIN` (or
    /// `CAP_SYS_ADMIN` for the first two), and Linux 6.1.
    #[default]
    Kernel,
    /// In this process: for simulation and tests, without privileges.
    Host,
}

/// What a datapath is made of.
#[must_use]
#[derive(Clone, Debug, Default)]
pub struct Builder {
    backend: Backend,
    options: Options,
    pins: Option<PathBuf>,
    object: Option<Cow<'static, [u8]>>,
    minimum: Option<(u32, u32)>,
}

impl Builder {
    /// Where the tables lie; the kernel, if nothing is said.
    pub const fn backend(mut self, backend: Backend) -> Self {
        self.backend = backend;
        self
    }

    /// Sizes and time-outs. State that is adopted keeps those that it was made with.
    pub const fn options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// Pins all state below a directory of a BPF file system, so that it outlives a killed process
    /// and is adopted by the next one that is opened with the same directory. The layout's hash
    /// becomes part of the path. State of an older build whose layout is known is carried over to this
    /// one's: connections, endpoints and the running generation go on. One datapath at a time has a
    /// directory ([`OpenError::InUse`]); a process that is killed loses it.
    pub fn pin(mut self, directory: impl Into<PathBuf>) -> Self {
        self.pins = Some(directory.into());
        self
    }

    /// Loads another object than the one that ships with `flowgate-ebpf-progs`: one that was rebuilt,
    /// with the same programs and maps.
    pub fn object(mut self, object: impl Into<Cow<'static, [u8]>>) -> Self {
        self.object = Some(object.into());
        self
    }

    /// Opens on kernels from this version on, instead of those that are promised (6.1 and later).
    /// [`Builder::verify`] tells what an older kernel objects to; what it accepts nobody promises to go on
    /// being accepted.
    pub const fn minimum_kernel(mut self, major: u32, minor: u32) -> Self {
        self.minimum = Some((major, minor));
        self
    }

    /// Opens the datapath: fresh, or with the state of an earlier process. While programs are verified, the
    /// calling thread takes no signals.
    ///
    /// # Errors
    /// See [`OpenError`]; nothing is left behind.
    pub fn open(self) -> Result<Datapath, OpenError> {
        self.options.check()?;
        match self.backend {
            Backend::Kernel => self.open_kernel(),
            Backend::Host => Ok(self.open_host()),
        }
    }

    /// The kernel's tables and programs alone, empty and without pins, for tests that watch single
    /// writes.
    ///
    /// # Errors
    /// See [`OpenError`].
    #[doc(hidden)]
    pub fn open_tables(self) -> Result<KernelTables, OpenError> {
        self.options.check()?;
        let hertz = probe::permitted()?;
        KernelTables::load(self.object_bytes(), &self.options, hertz, None)
            .map(|(tables, _)| tables)
    }

    /// Has the running kernel's verifier judge each program, with the maps and settings that
    /// [`Builder::open`] would load it with, and keeps nothing of it. There is no minimum version: what an
    /// older kernel objects to is an answer too.
    ///
    /// Needs `CAP_SYS_ADMIN` beside what opening needs, to find the object's types again.
    ///
    /// # Errors
    /// A missing capability, or maps that the kernel refuses. A program that it refuses is no error.
    pub fn verify(&self) -> Result<Vec<Verification>, OpenError> {
        self.options.check()?;
        let hertz = probe::permitted()?;
        verify::verify(self.object_bytes(), &self.options, hertz)
    }

    fn object_bytes(&self) -> &[u8] {
        self.object.as_deref().unwrap_or(flowgate_ebpf_progs::OBJECT)
    }

    fn open_host(self) -> Datapath {
        let settings = self.options.settings(1000);
        let tables = HostTables::new(settings, self.options.host_room());
        let report = Report {
            backend: BackendKind::Host,
            state: State::Fresh,
            programs: Vec::new(),
            kernel: String::new(),
            memory: self.options.memory(),
        };
        let Ok(installer) = Installer::adopt(tables);
        Datapath::new(Tables::host(installer), None, report, SharedNames::default())
    }

    fn open_kernel(self) -> Result<Datapath, OpenError> {
        let probe = probe::probe(self.minimum.unwrap_or(probe::MINIMUM))?;
        let settings = self.options.settings(probe.hertz);
        let prepare = |pins| {
            Pins::prepare(pins, &pins::POLICY, |migration, from, to| {
                migration.carry_over(from, to, settings)
            })
        };
        let pins = self.pins.as_deref().map(prepare).transpose()?;
        let Some(mut pins) = pins else {
            let (installer, programs, _) = self.load(probe.hertz, None)?;
            return Ok(self.kernel(installer, None, (State::Fresh, programs, probe.release)));
        };
        let from = pins.migrates_from();
        let loaded = self.load(probe.hertz, Some(&pins));
        let (mut installer, programs, origin) = loaded.inspect_err(|_| pins.give_up())?;
        pins.commit(|links| attach::renew(installer.store_mut(), links))?;
        let (generation, endpoints) = (installer.generation(), installer.bindings().count());
        let state = match (origin, from) {
            (Origin::Fresh, _) => State::Fresh,
            (Origin::Adopted, None) => State::Adopted { generation, endpoints },
            (Origin::Adopted, Some(from)) => State::Migrated { from, generation, endpoints },
        };
        Ok(self.kernel(installer, Some(pins), (state, programs, probe.release)))
    }

    /// Loads the programs over pinned maps, or over maps of their own.
    fn load(&self, hertz: u32, pins: Option<&Pins>) -> Result<Loaded, OpenError> {
        let maps = pins.map(Pins::maps);
        let (mut tables, origin) =
            KernelTables::load(self.object_bytes(), &self.options, hertz, maps.as_deref())?;
        let programs = tables.programs();
        if let Some(networks) = pins.map(Pins::networks).transpose()?.flatten() {
            install::restore(&mut tables, networks).map_err(OpenError::carry_over)?;
        }
        let installer = Installer::adopt(tables).map_err(OpenError::Kernel)?;
        Ok((installer, programs, origin))
    }

    fn kernel(
        &self,
        installer: Installer<KernelTables>,
        pins: Option<Pins>,
        (state, programs, kernel): (State, Vec<ProgramReport>, String),
    ) -> Datapath {
        let report = Report {
            backend: BackendKind::Kernel,
            state,
            programs,
            kernel,
            memory: self.options.memory(),
        };
        Datapath::new(Tables::Kernel(Box::new(installer)), pins, report, SharedNames::default())
    }
}

/// Tables taken over, their programs, and whether there was something to take over.
type Loaded = (Installer<KernelTables>, Vec<ProgramReport>, Origin);
