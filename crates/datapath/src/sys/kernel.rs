//! The kernel's side: the object loaded, its maps as tables, its programs to attach and to run.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    path::Path,
};

use aya::{
    Ebpf, EbpfLoader,
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
use zerocopy::{FromBytes, IntoBytes};

use super::{
    mapped::Mapped,
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

/// The maps could be found pinned, or had to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Made, empty.
    Fresh,
    /// Pinned by an earlier process.
    Adopted,
}

impl KernelTables {
    /// Loads the object with maps of its own, or with those that are pinned in a directory.
    pub(crate) fn load(
        object: &[u8],
        options: &Options,
        hertz: u32,
        pins: Option<&Path>,
    ) -> Result<(Self, Origin), OpenError> {
        let adopted = pins.map(pinned_settings).transpose()?.flatten();
        let origin = if adopted.is_some() { Origin::Adopted } else { Origin::Fresh };
        let settings = match adopted {
            Some(settings) if settings.hz != hertz => {
                return Err(OpenError::ForeignClock { pinned: settings.hz, running: hertz });
            }
            Some(settings) => settings,
            None => options.settings(hertz),
        };
        let ebpf = load(object, options, &settings, pins)?;
        let tables = Self::over(ebpf, settings).map_err(OpenError::Kernel)?;
        if origin == Origin::Fresh {
            let state = tables.map(&maps::STATE);
            syscall::update(state, &0u32.to_ne_bytes(), settings.as_bytes())
                .map_err(OpenError::Kernel)?;
        }
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
        let mut reports = Vec::new();
        for name in ALL_PROGRAMS {
            if let Ok(info) = self.program_mut(name).info() {
                reports.push(ProgramReport {
                    name,
                    id: info.id(),
                    verified_instructions: info.verified_instruction_count(),
                    jited_bytes: info.size_jitted(),
                });
            }
        }
        reports
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

pub(super) fn map_data<'e>(ebpf: &'e Ebpf, name: &str) -> &'e MapData {
    use aya::maps::Map;
    match ebpf.map(name) {
        Some(Map::Array(map) | Map::HashMap(map) | Map::PerCpuArray(map) | Map::RingBuf(map)) => {
            map
        }
        other => panic!("the object has no map {name} that we know: {other:?}"),
    }
}

fn program<'e>(ebpf: &'e mut Ebpf, name: &'static str) -> &'e mut SchedClassifier {
    let program = ebpf.program_mut(name).and_then(|program| program.try_into().ok());
    program.unwrap_or_else(|| panic!("the object has no TC program {name}"))
}

/// The settings of the state that is pinned in a directory, if any is.
fn pinned_settings(pins: &Path) -> Result<Option<Settings>, OpenError> {
    let path = pins.join(maps::STATE.name);
    if !path.exists() {
        return Ok(None);
    }
    let map = MapData::from_pin(&path)
        .map_err(|error| OpenError::Pin { path: path.clone(), source: io::Error::other(error) })?;
    let mut settings = [0; size_of::<Settings>()];
    syscall::lookup(map.fd().as_fd(), &0u32.to_ne_bytes(), &mut settings, false)
        .map_err(|source| OpenError::Pin { path, source })?;
    let settings = Settings::read_from_bytes(&settings).expect("of this size");
    // Killed between making the map and writing it: nothing can have run yet.
    Ok((settings.hz != 0).then_some(settings))
}

fn load(
    object: &[u8],
    options: &Options,
    settings: &Settings,
    pins: Option<&Path>,
) -> Result<Ebpf, OpenError> {
    let mut ebpf = make_maps(object, options, settings, pins)?;
    for name in ALL_PROGRAMS {
        program(&mut ebpf, name).load().map_err(|error| OpenError::program(name, error))?;
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
    let mut loader = EbpfLoader::new();
    loader.override_global("SETTINGS", constants.as_bytes(), true);
    for (spec, entries) in options.sizes(settings) {
        loader.map_max_entries(spec.name, entries);
    }
    if let Some(pins) = pins {
        for spec in maps::ALL {
            loader.map_pin_path(spec.name, pins.join(spec.name));
        }
    }
    loader.load(object).map_err(OpenError::object)
}
