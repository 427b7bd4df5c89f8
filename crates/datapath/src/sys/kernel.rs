//! The kernel's side: the object loaded, its maps as tables, its programs to attach and to run.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    path::Path,
};

use aya::{
    Ebpf,
    maps::{MapData, RingBuf},
    programs::{SchedClassifier, TestRun, TestRunOptions},
};
use flowgate_abi::{
    Settings,
    event::{Event, Tally, Traffic},
    flow::{Bucket4, Bucket6},
    maps::{self, MapSpec},
};
use flowgate_ebpf_progs as progs;
use flowgate_pipeline::{V4, V6};
use zerocopy::FromBytes;

use super::{
    mapped::Mapped,
    object::{self, Kept, Maps, Origin, map_data},
    probe,
    syscall::{self, Grace},
};
use crate::{
    error::OpenError,
    flows::{TrackedFlow, tracked},
    options::Options,
    report::ProgramReport,
};

/// The programs that run by themselves, and those that user space runs.
pub(super) const ALL_PROGRAMS: [&str; 4] = progs::PROGRAMS;

/// The tables in the kernel.
#[derive(Debug)]
pub struct KernelTables {
    pub(super) settings: Settings,
    pub(super) endpoints: Mapped,
    pub(super) ipcache: Mapped,
    pub(super) peers: Mapped,
    pub(super) active: Mapped,
    pub(super) generations: Mapped,
    pub(super) endpoint_policy: Mapped,
    pub(super) peer_class: Mapped,
    pub(super) port_class: Mapped,
    pub(super) rows: Mapped,
    pub(super) decision_cells: Mapped,
    pub(super) decisions: Mapped,
    pub(super) grace: Grace,
    ebpf: Ebpf,
    cpus: usize,
}

/// What a program did with a frame.
#[derive(Debug)]
pub(crate) struct Run {
    /// The kernel's number.
    pub(crate) action: i32,
    /// The frame as the program left it.
    pub(crate) frame: Vec<u8>,
    /// It is the answer to what it was.
    pub(crate) answered: bool,
}

/// Room for a `struct __sk_buff` of whichever kernel, and where in it the mark lies.
const CONTEXT: usize = 256;
const MARK: usize = 8;

impl KernelTables {
    /// Loads the object with maps of its own, or with those that are pinned in a directory.
    pub(crate) fn load(
        object: &[u8],
        options: &Options,
        hertz: u32,
        pins: Option<&Path>,
    ) -> Result<(Self, Origin), OpenError> {
        let (settings, origin) = object::settings(pins, hertz, || options.settings(hertz))?;
        let ebpf = load(object, options, &settings, pins)?;
        let tables = Self::over(ebpf, settings).map_err(OpenError::Kernel)?;
        object::keep(&tables.ebpf, &settings, origin)?;
        Ok((tables, origin))
    }

    fn over(ebpf: Ebpf, settings: Settings) -> io::Result<Self> {
        let mapped = |spec: &MapSpec| {
            let map = map_data(&ebpf, spec.name);
            let entries = map.info().map_err(io::Error::other)?.max_entries() as usize;
            Mapped::new(map.fd().as_fd(), spec.value, entries)
        };
        Ok(Self {
            settings,
            endpoints: mapped(&maps::ENDPOINTS)?,
            ipcache: mapped(&maps::IPCACHE)?,
            peers: mapped(&maps::PEERS)?,
            active: mapped(&maps::ACTIVE)?,
            generations: mapped(&maps::GENERATIONS)?,
            endpoint_policy: mapped(&maps::ENDPOINT_POLICY)?,
            peer_class: mapped(&maps::PEER_CLASS)?,
            port_class: mapped(&maps::PORT_CLASS)?,
            rows: mapped(&maps::ROW)?,
            decision_cells: mapped(&maps::DECISION)?,
            decisions: mapped(&maps::DECISIONS)?,
            grace: Grace::new()?,
            cpus: syscall::possible_cpus()?,
            ebpf,
        })
    }

    /// A map of the object.
    pub(super) fn map(&self, spec: &MapSpec) -> BorrowedFd<'_> {
        map_data(&self.ebpf, spec.name).fd().as_fd()
    }

    /// A program of the object, loaded.
    pub(super) fn program_mut(&mut self, name: &'static str) -> &mut SchedClassifier {
        program(&mut self.ebpf, name)
    }

    /// What the verifier and the JIT said of each program.
    pub(crate) fn programs(&mut self) -> Vec<ProgramReport> {
        let reports = ALL_PROGRAMS.iter().filter_map(|&name| {
            let info = self.program_mut(name).info();
            object::report(name, info)
        });
        reports.collect()
    }

    /// The ring buffer of events, once.
    pub(crate) fn take_events(&mut self) -> Option<RingBuf<MapData>> {
        RingBuf::try_from(self.ebpf.take_map(maps::EVENTS.name)?).ok()
    }

    /// Runs a program on a frame, by `BPF_PROG_TEST_RUN`.
    pub(crate) fn run(&mut self, name: &'static str, frame: &[u8]) -> io::Result<Run> {
        let mut out = vec![0; frame.len() + 256];
        let mut context = [0; CONTEXT];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ctx_out: Some(&mut context),
            ..TestRunOptions::default()
        };
        let result = self.program_mut(name).test_run(options).map_err(io::Error::other)?;
        out.truncate(result.data_size_out as usize);
        let mark = context[MARK..MARK + 4].try_into().expect("4 bytes");
        let answered = u32::from_ne_bytes(mark) == self.settings.answer_mark;
        Ok(Run { action: result.return_value as i32, frame: out, answered })
    }

    /// Runs a program many times on the same frame; nanoseconds per run.
    pub(crate) fn time(
        &mut self,
        name: &'static str,
        frame: &[u8],
        repeat: u32,
    ) -> io::Result<std::time::Duration> {
        let options = TestRunOptions { data_in: Some(frame), repeat, ..TestRunOptions::default() };
        Ok(self.program_mut(name).test_run(options).map_err(io::Error::other)?.duration)
    }

    /// Sums a per-CPU element over all CPUs, word by word.
    fn per_cpu(&self, spec: &MapSpec, index: u32) -> io::Result<Vec<u64>> {
        syscall::sum_per_cpu(self.map(spec), (index, spec.value), self.cpus)
    }

    /// Drops at an index of `DROPS`.
    pub(crate) fn drops(&self, index: u32) -> io::Result<Tally> {
        let sums = self.per_cpu(&maps::DROPS, index)?;
        Ok(Tally { packets: sums[0], bytes: sums[1] })
    }

    /// Traffic of a slot.
    pub(crate) fn traffic(&self, slot: u32) -> io::Result<Traffic> {
        let sums = self.per_cpu(&maps::TRAFFIC, slot)?;
        let tally = |at: usize| Tally { packets: sums[at], bytes: sums[at + 1] };
        Ok([tally(0), tally(2)])
    }

    /// A counter.
    pub(crate) fn counter(&self, index: u32) -> io::Result<u64> {
        Ok(self.per_cpu(&maps::COUNTERS, index)?[0])
    }

    /// Adds all tracked flows to a list.
    pub(crate) fn each_flow(&self, flows: &mut Vec<TrackedFlow>) -> io::Result<()> {
        self.each_bucket(&maps::FLOWS4, self.settings.flow4_mask, |bytes| {
            tracked::<V4>(&Bucket4::read_from_bytes(bytes).expect("of this size"), flows);
        })?;
        self.each_bucket(&maps::FLOWS6, self.settings.flow6_mask, |bytes| {
            tracked::<V6>(&Bucket6::read_from_bytes(bytes).expect("of this size"), flows);
        })
    }

    /// Copies each bucket, locked, so that no way is torn.
    fn each_bucket(
        &self,
        spec: &MapSpec,
        mask: u32,
        mut visit: impl FnMut(&[u8]),
    ) -> io::Result<()> {
        let mut bytes = vec![0; spec.value];
        for index in 0..=mask {
            syscall::lookup(self.map(spec), &index.to_ne_bytes(), &mut bytes, true)?;
            visit(&bytes);
        }
        Ok(())
    }
}

/// Waits until the ring buffer has something to read, at most this long.
pub(crate) fn wait_readable(ring: &RingBuf<MapData>, milliseconds: i32) -> io::Result<bool> {
    syscall::wait_readable(ring.as_fd(), milliseconds)
}

/// The next event of a ring buffer.
pub(crate) fn next_event(ring: &mut RingBuf<MapData>) -> Option<Event> {
    let item = ring.next()?;
    Event::read_from_bytes(&item).ok()
}

fn program<'e>(ebpf: &'e mut Ebpf, name: &'static str) -> &'e mut SchedClassifier {
    let program = ebpf.program_mut(name).and_then(|program| program.try_into().ok());
    program.unwrap_or_else(|| panic!("the object has no TC program {name}"))
}

impl Kept for Settings {
    const STATE: &'static MapSpec = &maps::STATE;

    fn hertz(&self) -> u32 {
        self.hz
    }
}

fn load(
    object: &[u8],
    options: &Options,
    settings: &Settings,
    pins: Option<&Path>,
) -> Result<Ebpf, OpenError> {
    let mut ebpf = make_maps(object, options, settings, pins)?;
    for name in ALL_PROGRAMS {
        object::load(name, || program(&mut ebpf, name).load())?;
    }
    Ok(ebpf)
}

/// The object with its maps made or opened, and its programs not loaded yet.
pub(super) fn make_maps(
    object: &[u8],
    options: &Options,
    settings: &Settings,
    pins: Option<&Path>,
) -> Result<Ebpf, OpenError> {
    let clock = if probe::has_coarse_clock() { Settings::COARSE_CLOCK } else { 0 };
    let constants = Settings { flags: settings.flags | clock, ..*settings };
    let sizes = options.sizes(settings);
    object::make_maps(object, &constants, &Maps { all: maps::ALL, sizes, pins })
}
