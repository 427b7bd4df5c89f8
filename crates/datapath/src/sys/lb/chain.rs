//! The balancer's program between its stages: each loaded, each in its slot.
//!
//! A program in slot `n` hands on to slot `n + 1`; the balancer's slot is always the same, and stages in front
//! of it count from there. So a slot is the rest of the chain whoever calls it, and a process that adopts pinned
//! state puts its programs into the slots one by one, from the last to the first, while frames pass. Without
//! stages there are no slots.
//!
//! Invariant: nothing is put into a slot before every program is loaded. Tested by `kernel_stages` and
//! `netns_stages`.

use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
};

use aya::{Ebpf, EbpfLoader};
use aya_obj::{EbpfSectionKind, Object, Program, ProgramSection};
use flowgate_abi::lb::maps;

use super::hand_on::{self, Next, hand_on};
use crate::{
    error::OpenError,
    lb::{MOST, Place, Position, Stage, StageError, StageReport, Stages, XdpAction},
    sys::{
        object::{any_map, map_data, parsed, parts, relocated},
        syscall::{self, ProgramKind, ProgramLoad, xdp},
    },
    verification::VerifierCost,
};

/// The balancer's slot.
const BALANCER: u32 = MOST as u32;
pub(super) const SLOTS: u32 = 2 * BALANCER + 1;

/// The name of the slots' pin, beside the links: slots take programs of one kind.
pub(super) const fn pin(kind: ProgramKind) -> &'static str {
    match kind {
        ProgramKind::XdpFragsForExtensions => "stages-dispatched",
        _ => "stages",
    }
}

/// The kind of the chain's programs.
pub(super) const fn kind(place: Option<Place>) -> ProgramKind {
    match place {
        Some(_) => ProgramKind::XdpFragsForExtensions,
        None => ProgramKind::XdpFrags,
    }
}

/// The balancer's program, of which `alone` runs if nothing stands behind it.
#[derive(Clone, Copy)]
pub(super) struct Balancer<'a> {
    pub(super) object: &'a [u8],
    pub(super) ebpf: &'a Ebpf,
    pub(super) program: &'a str,
    pub(super) alone: BorrowedFd<'a>,
    /// Of all programs of the chain.
    pub(super) kind: ProgramKind,
}

/// Stages that are loaded, and what holds them together.
#[derive(Debug, Default)]
pub(super) struct Chain {
    /// The kernel empties the array when nobody in user space holds it.
    slots: Option<OwnedFd>,
    before: Vec<Loaded>,
    /// The balancer's program, if something stands behind it, or if it isn't attached by itself.
    balancer: Option<OwnedFd>,
    behind: Vec<Loaded>,
}

#[derive(Debug)]
struct Loaded {
    program: OwnedFd,
    maps: Ebpf,
    report: StageReport,
}

impl Chain {
    /// Loads all stages and puts them into slots: those that are pinned beside the links, if they are pinned.
    pub(super) fn load(
        stages: &Stages,
        balancer: Balancer<'_>,
        pins: Option<&Path>,
    ) -> Result<Self, OpenError> {
        let pin = pins.map(|pins| pins.join(pin(balancer.kind)));
        let pin = pin.as_deref();
        let mut chain = Self::default();
        // The program that is loaded alone is of another kind.
        let anew = balancer.kind != ProgramKind::XdpFrags;
        if stages.first().is_none() && !pin.is_some_and(Path::exists) {
            if anew {
                chain.balancer = Some(load_balancer(balancer, None)?);
            }
            return Ok(chain);
        }
        let slots = slots(pin)?;
        let before = stages.before.iter().zip(BALANCER - stages.before.len() as u32..);
        for (number, (stage, slot)) in before.enumerate() {
            let on = stages.before.get(number + 1).map_or(PASSED, |next| next.takes);
            let next = Some(Next { slots: slots.as_fd(), slot: slot + 1, on });
            chain.before.push(load(stage, Position::Before, (next, balancer.kind))?);
        }
        let behind = stages.behind.first();
        if behind.is_some() || anew {
            let next =
                |first: &Stage| Next { slots: slots.as_fd(), slot: BALANCER + 1, on: first.takes };
            chain.balancer = Some(load_balancer(balancer, behind.map(next))?);
        }
        for (number, stage) in stages.behind.iter().enumerate() {
            let slot = BALANCER + 2 + number as u32;
            let next = stages.behind.get(number + 1);
            let next = next.map(|next| Next { slots: slots.as_fd(), slot, on: next.takes });
            chain.behind.push(load(stage, Position::Behind, (next, balancer.kind))?);
        }
        chain.fill(slots.as_fd(), balancer.alone).map_err(OpenError::Kernel)?;
        chain.slots = Some(slots);
        Ok(chain)
    }

    fn fill(&self, slots: BorrowedFd<'_>, alone: BorrowedFd<'_>) -> io::Result<()> {
        let put = |slot: u32, program: BorrowedFd<'_>| {
            syscall::update(slots, &slot.to_ne_bytes(), &program.as_raw_fd().to_ne_bytes())
        };
        for (number, stage) in self.behind.iter().enumerate().rev() {
            put(BALANCER + 1 + number as u32, stage.program.as_fd())?;
        }
        put(BALANCER, self.balancer.as_ref().map_or(alone, AsFd::as_fd))?;
        let first = BALANCER - self.before.len() as u32;
        for (number, stage) in self.before.iter().enumerate().rev() {
            put(first + number as u32, stage.program.as_fd())?;
        }
        // A longer chain of an earlier process is still attached: its first stage goes on with this one.
        (0..first).try_for_each(|slot| put(slot, self.entry().unwrap_or(alone)))?;
        let mut behind = BALANCER + 1 + self.behind.len() as u32..SLOTS;
        behind.try_for_each(|slot| syscall::delete(slots, &slot.to_ne_bytes()))
    }

    /// The first program that frames meet, if it isn't the balancer's as it was loaded.
    pub(super) fn entry(&self) -> Option<BorrowedFd<'_>> {
        let first = self.before.first().map(|stage| &stage.program);
        first.or(self.balancer.as_ref()).map(AsFd::as_fd)
    }

    /// The stages in their order.
    pub(super) fn reports(&self) -> Vec<StageReport> {
        self.before.iter().chain(&self.behind).map(|stage| stage.report.clone()).collect()
    }

    /// A map of a stage.
    pub(super) fn map(&self, stage: &str, map: &str) -> Option<BorrowedFd<'_>> {
        let mut all = self.before.iter().chain(&self.behind);
        let stage = all.find(|loaded| loaded.report.name == stage)?;
        any_map(&stage.maps, map).map(|map| map.fd().as_fd())
    }
}

const PASSED: u8 = 1 << XdpAction::Pass as u8;

/// The slots that are pinned, or new ones.
fn slots(pin: Option<&Path>) -> Result<OwnedFd, OpenError> {
    if let Some(pin) = pin.filter(|pin| pin.exists()) {
        let failed = |source| OpenError::Pin { path: pin.to_owned(), source };
        return xdp::pinned(pin).map_err(failed);
    }
    let slots = xdp::program_array("stages", SLOTS).map_err(OpenError::Kernel)?;
    if let Some(pin) = pin {
        let failed = |source| OpenError::Pin { path: pin.to_owned(), source };
        syscall::pin(slots.as_fd(), pin).map_err(failed)?;
    }
    Ok(slots)
}

fn load(
    stage: &Stage,
    position: Position,
    (next, kind): (Option<Next<'_>>, ProgramKind),
) -> Result<Loaded, OpenError> {
    let failed = |error: StageError| error.of(&stage.program);
    let maps = make_maps(stage).map_err(failed)?;
    let (program, cost) =
        load_program((&stage.object, &maps), &stage.program, (next, None), kind).map_err(failed)?;
    let id = syscall::program_id(program.as_fd()).map_err(OpenError::Kernel)?;
    let report = StageReport { name: stage.program.clone(), position, id, cost };
    Ok(Loaded { program, maps, report })
}

fn load_balancer(balancer: Balancer<'_>, next: Option<Next<'_>>) -> Result<OwnedFd, OpenError> {
    let Balancer { object, ebpf, program, kind, .. } = balancer;
    load_typed((object, ebpf), (program, maps::FRONTENDS.name), next, kind)
}

/// Loads a program of an object of ours, with its types, which a map with types belongs to: they are had by their number
/// (`CAP_SYS_ADMIN`). A kernel without types of its own doesn't know by them what a context is, and gets none.
pub(super) fn load_typed(
    object: (&[u8], &Ebpf),
    (program, typed): (&str, &str),
    next: Option<Next<'_>>,
    kind: ProgramKind,
) -> Result<OwnedFd, OpenError> {
    let types = match Path::new("/sys/kernel/btf/vmlinux").exists() {
        true => syscall::types_of_map(map_data(object.1, typed).fd().as_fd()),
        false => Ok(None),
    };
    let types = types.map_err(OpenError::Kernel)?;
    let types = types.as_ref().map(AsFd::as_fd);
    let loaded = load_program(object, program, (next, types), kind);
    loaded.map(|(program, _)| program).map_err(|error| error.of(program))
}

/// A stage's maps, with its globals set.
fn make_maps(stage: &Stage) -> Result<Ebpf, StageError> {
    let names = match stage.pins() {
        Some(pins) => {
            let failed = |source| StageError::Pin { path: pins.to_owned(), source };
            fs::create_dir_all(pins).map_err(failed)?;
            map_names(&stage.object)?
        }
        None => Vec::new(),
    };
    let mut loader = EbpfLoader::new();
    for (name, value) in &stage.globals {
        loader.override_global(name, &value[..], true);
    }
    for (name, pins) in names.iter().zip(std::iter::repeat(stage.pins()).flatten()) {
        loader.map_pin_path(name, pins.join(name));
    }
    parsed(&mut loader, &stage.object).map_err(StageError::object)
}

/// An object's maps without its global variables, whose names no pin could have.
fn map_names(object: &[u8]) -> Result<Vec<String>, StageError> {
    use EbpfSectionKind::{BtfMaps, Maps};
    let object = Object::parse(object).map_err(StageError::object)?;
    let maps = object.maps.into_iter();
    Ok(maps
        .filter(|(_, map)| matches!(map.section_kind(), Maps | BtfMaps))
        .map(|(name, _)| name)
        .collect())
}

/// Loads a program that hands on, or one that doesn't, with types of its functions if it needs them.
fn load_program(
    (object, maps): (&[u8], &Ebpf),
    name: &str,
    (next, types): (Option<Next<'_>>, Option<BorrowedFd<'_>>),
    kind: ProgramKind,
) -> Result<(OwnedFd, Option<VerifierCost>), StageError> {
    let object = relocated(object, maps)
        .map_err(|error| StageError::Object { source: io::Error::other(error) })?;
    let (program, function) = parts(name, &object)
        .filter(|(program, _)| is_xdp(program))
        .ok_or_else(|| StageError::NoProgram { programs: xdp_programs(&object) })?;
    let whole = next.map(|next| hand_on(&function.instructions, next));
    let function_size = function.func_info_rec_size;
    let functions = function.func_info.func_info_bytes();
    let functions = match next {
        Some(_) => hand_on::types(&functions, function_size),
        None => functions,
    };
    let load = ProgramLoad {
        name,
        instructions: whole.as_ref().unwrap_or(&function.instructions),
        license: &program.license,
        types,
        functions: &functions,
        function_size: function_size as u32,
        kind,
    };
    let (loaded, log) = syscall::load_program(&load);
    match loaded {
        Ok(program) => {
            let jited = syscall::jited_bytes(program.as_fd()).unwrap_or(0);
            Ok((program, VerifierCost::read(&log, jited)))
        }
        Err(source) => Err(StageError::Refused { source, log }),
    }
}

fn is_xdp(program: &Program) -> bool {
    matches!(program.section, ProgramSection::Xdp { .. })
}

fn xdp_programs(object: &Object) -> Vec<String> {
    let programs = object.programs.iter().filter(|(_, program)| is_xdp(program));
    let mut names: Vec<String> = programs.map(|(name, _)| name.clone()).collect();
    names.sort_unstable();
    names
}
