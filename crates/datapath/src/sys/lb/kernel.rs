//! The object loaded, with maps of its own or with those of an earlier process.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    path::Path,
};

use aya::{Ebpf, programs::Xdp};
use flowgate_abi::{
    DropReason,
    event::Tally,
    lb::{
        CELLS, Counter, Load, SLOTS, Settings,
        maps::{self},
    },
    maps::MapSpec,
};
use flowgate_ebpf_progs::lb as progs;
use flowgate_services::store::Room;

use super::{
    attach::{self, AttachError, Attachment},
    chain::{self, Chain},
    sampler::Sampler,
    stage_map::StageMap,
};
use crate::{
    error::OpenError,
    lb::{Balanced, BalancerOptions, Fate, Place, StageReport, Stages, XdpAttach},
    report::ProgramReport,
    sys::{
        mapped::Mapped,
        object::{self, Kept, Maps, Origin, map_data},
        syscall::{self, Grace, xdp},
    },
};

/// The balancer's tables in the kernel.
#[derive(Debug)]
pub(crate) struct BalancerTables {
    pub(super) settings: Settings,
    pub(super) room: Room,
    pub(super) head: Mapped,
    pub(super) displacements: Mapped,
    pub(super) frontends: Mapped,
    pub(super) slots: Mapped,
    pub(super) backends: Mapped,
    pub(super) sources: Mapped,
    pub(super) tracked: Mapped,
    pub(super) pins: Mapped,
    pub(super) refused: Mapped,
    pub(super) nat: Nat,
    pub(super) grace: Grace,
    pub(super) cpus: usize,
    memory: usize,
    ebpf: Ebpf,
    chain: Chain,
    /// Where dispatchers run it.
    pub(super) place: Option<Place>,
    /// In front of the chain while frames are sampled.
    pub(super) sampler: Option<Sampler>,
}

/// The tables of full NAT.
#[derive(Debug)]
pub(super) struct Nat {
    pub(super) sources: Mapped,
    pub(super) taken: Mapped,
    pub(super) ports: Mapped,
    pub(super) flows: Mapped,
}

impl BalancerTables {
    /// Loads the object with maps of its own, or with those that are pinned in a directory.
    pub(crate) fn load(
        object: &[u8],
        options: &BalancerOptions,
        hertz: u32,
        pins: Option<&Path>,
    ) -> Result<(Self, Origin), OpenError> {
        let (settings, origin) = object::settings(pins, hertz, || options.settings(hertz))?;
        let mut ebpf = make_maps(object, options, &settings, pins)?;
        for name in progs::PROGRAMS {
            object::load(name, || program(&mut ebpf, name).load())?;
        }
        let tables = Self::over(ebpf, settings).map_err(OpenError::Kernel)?;
        object::keep(&tables.ebpf, &settings, origin)?;
        Ok((tables, origin))
    }

    fn over(ebpf: Ebpf, settings: Settings) -> io::Result<Self> {
        let entries = |spec: &MapSpec| -> io::Result<usize> {
            let info = map_data(&ebpf, spec.name).info().map_err(io::Error::other)?;
            Ok(info.max_entries() as usize)
        };
        let mapped = |spec: &MapSpec| {
            Mapped::new(map_data(&ebpf, spec.name).fd().as_fd(), spec.value, entries(spec)?)
        };
        let cpus = syscall::possible_cpus()?;
        let room = Room {
            frontends: entries(&maps::FRONTENDS)? as u32,
            slots: (entries(&maps::SLOTS)? * SLOTS) as u32,
            lines: entries(&maps::BACKENDS)? as u32,
            services: entries(&maps::REFUSED)? as u32,
            sources: entries(&maps::SOURCES)? as u32,
            tracked: (entries(&maps::TRACKED)? * CELLS) as u32,
            nat_sources: entries(&maps::NAT_SOURCES)? as u32,
            pins: (entries(&maps::PINS)? * CELLS) as u32,
        };
        let mut memory = 0;
        for spec in maps::ALL {
            let times =
                if spec.kind == flowgate_abi::maps::MapKind::PerCpuArray { cpus } else { 1 };
            memory += entries(spec)? * spec.value * times;
        }
        Ok(Self {
            settings,
            room,
            head: mapped(&maps::HEAD)?,
            displacements: mapped(&maps::DISPLACEMENTS)?,
            frontends: mapped(&maps::FRONTENDS)?,
            slots: mapped(&maps::SLOTS)?,
            backends: mapped(&maps::BACKENDS)?,
            sources: mapped(&maps::SOURCES)?,
            tracked: mapped(&maps::TRACKED)?,
            pins: mapped(&maps::PINS)?,
            refused: mapped(&maps::REFUSED)?,
            nat: Nat {
                sources: mapped(&maps::NAT_SOURCES)?,
                taken: mapped(&maps::NAT_TAKEN)?,
                ports: mapped(&maps::NAT_PORTS)?,
                flows: mapped(&maps::NAT_FLOWS)?,
            },
            grace: Grace::new()?,
            cpus,
            memory,
            ebpf,
            chain: Chain::default(),
            place: None,
            sampler: None,
        })
    }

    /// Bytes of all maps.
    pub(crate) const fn memory(&self) -> usize {
        self.memory
    }

    /// A map of the object.
    pub(super) fn map(&self, spec: &MapSpec) -> BorrowedFd<'_> {
        map_data(&self.ebpf, spec.name).fd().as_fd()
    }

    /// What the verifier and the JIT said of each program.
    pub(crate) fn programs(&mut self) -> Vec<ProgramReport> {
        let reports = progs::PROGRAMS.iter().filter_map(|&name| {
            let info = program(&mut self.ebpf, name).info();
            object::report(name, info)
        });
        reports.collect()
    }

    /// Loads stages around the program of the object that was loaded.
    pub(crate) fn compose(
        &mut self,
        object: &[u8],
        (stages, place): (&Stages, Option<Place>),
        pins: Option<&Path>,
    ) -> Result<(), OpenError> {
        let alone = alone(&self.ebpf).map_err(OpenError::Kernel)?;
        let program = progs::XDP_BALANCE;
        let balancer =
            chain::Balancer { object, ebpf: &self.ebpf, program, alone, kind: chain::kind(place) };
        self.place = place;
        self.chain = Chain::load(stages, balancer, pins)?;
        Ok(())
    }

    /// The stages, as the kernel sees them.
    pub(crate) fn stages(&self) -> Vec<StageReport> {
        self.chain.reports()
    }

    /// A map of a stage.
    pub(crate) fn stage_map(&self, stage: &str, map: &str) -> io::Result<Option<StageMap<'_>>> {
        self.chain.map(stage, map).map(StageMap::new).transpose()
    }

    /// The program that frames meet first.
    pub(super) fn entry(&self) -> io::Result<BorrowedFd<'_>> {
        self.chain.entry().map_or_else(|| alone(&self.ebpf), Ok)
    }

    /// Binds the program to an interface.
    pub(crate) fn attach(
        &self,
        ifindex: u32,
        pins: Option<&Path>,
        how: XdpAttach,
    ) -> Result<Attachment, AttachError> {
        let first = self.first()?;
        match self.place {
            Some(place) => attach::attach_beside(first, ifindex, pins, (how, place)),
            None => Ok(attach::attach(first, ifindex, pins, how)?),
        }
    }

    /// Runs a frame through the program (`BPF_PROG_TEST_RUN`).
    pub(crate) fn replay(&self, frame: &[u8]) -> io::Result<Balanced> {
        let mut out = vec![0; frame.len() + 256];
        let (said, length) = xdp::run(self.first()?, frame, &mut out)?;
        out.truncate(length);
        Ok(Balanced { fate: Fate::from_kernel(said), frame: out })
    }

    /// What was dropped for a reason.
    pub(crate) fn dropped(&self, reason: DropReason) -> io::Result<Tally> {
        let sums = self.per_cpu(&maps::DROPS, reason as u32)?;
        Ok(Tally { packets: sums[0], bytes: sums[1] })
    }

    /// What else was counted.
    pub(crate) fn counted(&self, counter: Counter) -> io::Result<u64> {
        Ok(self.per_cpu(&maps::COUNTERS, counter as u32)?[0])
    }

    /// What a backend got.
    pub(super) fn load_of(&self, line: u32) -> io::Result<Load> {
        let sums = self.per_cpu(&maps::LOADS, line)?;
        Ok(Load { packets: sums[0], bytes: sums[1], opened: sums[2], tracked: sums[3] })
    }

    fn per_cpu(&self, spec: &MapSpec, index: u32) -> io::Result<Vec<u64>> {
        syscall::sum_per_cpu(self.map(spec), (index, spec.value), self.cpus)
    }
}

/// The balancer's program, without stages.
fn alone(ebpf: &Ebpf) -> io::Result<BorrowedFd<'_>> {
    let program = ebpf.program(progs::XDP_BALANCE).expect("it was loaded");
    program.fd().map(AsFd::as_fd).map_err(io::Error::other)
}

pub(super) fn program<'e>(ebpf: &'e mut Ebpf, name: &'static str) -> &'e mut Xdp {
    let program = ebpf.program_mut(name).and_then(|program| program.try_into().ok());
    program.unwrap_or_else(|| panic!("the object has no XDP program {name}"))
}

impl Kept for Settings {
    const STATE: &'static MapSpec = &maps::STATE;

    fn hertz(&self) -> u32 {
        self.hz
    }
}

/// The object with its maps made or opened, and its programs not loaded yet.
pub(super) fn make_maps(
    object: &[u8],
    options: &BalancerOptions,
    settings: &Settings,
    pins: Option<&Path>,
) -> Result<Ebpf, OpenError> {
    let sizes = options.sizes(settings);
    object::make_maps(object, settings, &Maps { all: maps::ALL, sizes, pins })
}
