//! What loading has in common for all objects: whose state it is, maps made or opened, instructions relocated,
//! programs reported.
//!
//! Not here: which maps and programs an object has ([`super::kernel`], [`super::lb`]).

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
    path::Path,
};

use aya::{
    Ebpf, EbpfError, EbpfLoader,
    maps::{MapData, MapError},
    programs::{ProgramError, ProgramInfo},
};
use aya_obj::{Function, Object, Program, btf::Btf};
use flowgate_abi::maps::MapSpec;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::syscall;
use crate::{error::OpenError, report::ProgramReport};

/// The maps could be found pinned, or had to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Made, empty.
    Fresh,
    /// Pinned by an earlier process.
    Adopted,
}

/// Settings of which element 0 of a map keeps what state was made with.
pub(super) trait Kept: FromBytes + IntoBytes + Immutable {
    /// The map.
    const STATE: &'static MapSpec;

    /// Jiffies of a second; never 0.
    fn hertz(&self) -> u32;
}

/// The settings of the state that is pinned in a directory, or of state to be made.
pub(super) fn settings<S: Kept>(
    pins: Option<&Path>,
    hertz: u32,
    fresh: impl FnOnce() -> S,
) -> Result<(S, Origin), OpenError> {
    match pins.map(pinned::<S>).transpose()?.flatten() {
        Some(settings) if settings.hertz() != hertz => {
            Err(OpenError::ForeignClock { pinned: settings.hertz(), running: hertz })
        }
        Some(settings) => Ok((settings, Origin::Adopted)),
        None => Ok((fresh(), Origin::Fresh)),
    }
}

fn pinned<S: Kept>(pins: &Path) -> Result<Option<S>, OpenError> {
    let path = pins.join(S::STATE.name);
    if !path.exists() {
        return Ok(None);
    }
    let failed = |source| OpenError::Pin { path: path.clone(), source };
    let map = MapData::from_pin(&path).map_err(|error| failed(io::Error::other(error)))?;
    let mut bytes = vec![0; size_of::<S>()];
    syscall::lookup(map.fd().as_fd(), &0u32.to_ne_bytes(), &mut bytes, false).map_err(failed)?;
    let settings = S::read_from_bytes(&bytes).expect("of this size");
    // Killed between making the map and writing it: nothing can have run yet.
    Ok((settings.hertz() != 0).then_some(settings))
}

/// Writes down what fresh state was made with.
pub(super) fn keep<S: Kept>(ebpf: &Ebpf, settings: &S, origin: Origin) -> Result<(), OpenError> {
    if origin == Origin::Adopted {
        return Ok(());
    }
    let map = map_data(ebpf, S::STATE.name).fd().as_fd();
    syscall::update(map, &0u32.to_ne_bytes(), settings.as_bytes()).map_err(OpenError::Kernel)
}

/// Maps of an object.
pub(super) struct Maps<'a> {
    /// All of them.
    pub(super) all: &'a [MapSpec],
    /// Entries of those whose number depends on the options.
    pub(super) sizes: Vec<(&'static MapSpec, u32)>,
    /// The directory in which they are pinned.
    pub(super) pins: Option<&'a Path>,
}

/// The object with its maps made or opened, and its programs not loaded yet. `constants` are what programs
/// know as `SETTINGS`.
pub(super) fn make_maps(
    object: &[u8],
    constants: &(impl IntoBytes + Immutable),
    maps: &Maps<'_>,
) -> Result<Ebpf, OpenError> {
    let mut loader = EbpfLoader::new();
    loader.override_global("SETTINGS", constants.as_bytes(), true);
    for (spec, entries) in &maps.sizes {
        loader.map_max_entries(spec.name, *entries);
    }
    if let Some(pins) = maps.pins {
        for spec in maps.all {
            loader.map_pin_path(spec.name, pins.join(spec.name));
        }
    }
    parsed(&mut loader, object)
        .map_err(|error| no_memory(&error, maps).unwrap_or_else(|| OpenError::object(error)))
}

/// A map's size is what the kernel had no memory for.
fn no_memory(error: &EbpfError, maps: &Maps<'_>) -> Option<OpenError> {
    let EbpfError::MapError(MapError::CreateError { name, io_error, .. }) = error else {
        return None;
    };
    let is_so = io_error.raw_os_error() == Some(libc::ENOMEM);
    let (spec, entries) = maps.sizes.iter().find(|(spec, _)| is_so && spec.name == name)?;
    Some(OpenError::Memory { table: spec.name, bytes: u64::from(*entries) * spec.value as u64 })
}

/// An object with its maps made. Signals don't disturb it: aya tries out what the kernel can by loading programs, once
/// in a process, and what fails it never does.
pub(super) fn parsed(loader: &mut EbpfLoader<'_>, object: &[u8]) -> Result<Ebpf, EbpfError> {
    syscall::undisturbed(|| loader.load(object))
}

/// Loads a program of one of our objects. Signals don't disturb it.
pub(super) fn load(
    name: &'static str,
    program: impl FnOnce() -> Result<(), ProgramError>,
) -> Result<(), OpenError> {
    syscall::undisturbed(program).map_err(|error| OpenError::program(name, error))
}

/// A map of one of our objects.
pub(super) fn map_data<'e>(ebpf: &'e Ebpf, name: &str) -> &'e MapData {
    any_map(ebpf, name).unwrap_or_else(|| panic!("the object has no map {name} that we know"))
}

/// A map of an object, if it is of a kind that our programs use.
pub(super) fn any_map<'e>(ebpf: &'e Ebpf, name: &str) -> Option<&'e MapData> {
    use aya::maps::Map;
    match ebpf.map(name)? {
        Map::Array(map)
        | Map::ArrayOfMaps(map)
        | Map::BloomFilter(map)
        | Map::CpuMap(map)
        | Map::DevMap(map)
        | Map::DevMapHash(map)
        | Map::HashMap(map)
        | Map::HashOfMaps(map)
        | Map::LpmTrie(map)
        | Map::LruHashMap(map)
        | Map::PerCpuArray(map)
        | Map::PerCpuHashMap(map)
        | Map::PerCpuLruHashMap(map)
        | Map::PerfEventArray(map)
        | Map::ProgramArray(map)
        | Map::Queue(map)
        | Map::RingBuf(map)
        | Map::SkStorage(map)
        | Map::Stack(map)
        | Map::XskMap(map) => Some(map),
        _ => None,
    }
}

/// An object as it is loaded: with the descriptors of maps that are made, and subprograms behind their callers.
pub(super) fn relocated(bytes: &[u8], ebpf: &Ebpf) -> Result<Object, BoxedError> {
    let mut object = Object::parse(bytes)?;
    if object.has_btf_relocations() {
        object.relocate_btf(&Btf::from_sys_fs()?)?;
    }
    let sections = object.functions.keys().map(|(section, _)| *section).collect();
    let maps = object.maps.clone();
    let maps = maps.iter().filter_map(|(name, map)| {
        let made = any_map(ebpf, name)?;
        Some((name.as_str(), made.fd().as_fd().as_raw_fd(), map))
    });
    object.relocate_maps(maps, &sections)?;
    object.relocate_calls(&sections)?;
    Ok(object)
}

/// Whatever is wrong with an object.
pub(super) type BoxedError = Box<dyn std::error::Error + Send + Sync>;

/// A program of an object, if it is there, with its instructions.
pub(super) fn parts<'o>(name: &str, object: &'o Object) -> Option<(&'o Program, &'o Function)> {
    let program = object.programs.get(name)?;
    Some((program, object.functions.get(&program.function_key())?))
}

/// What the verifier and the JIT said of a program.
pub(super) fn report(
    name: &'static str,
    info: Result<ProgramInfo, ProgramError>,
) -> Option<ProgramReport> {
    let info = info.ok()?;
    Some(ProgramReport {
        name,
        id: info.id(),
        verified_instructions: info.verified_instruction_count(),
        jited_bytes: info.size_jitted(),
    })
}

#[cfg(test)]
mod tests {
    use flowgate_abi::lb::maps;

    use super::*;

    #[test]
    fn a_table_for_which_there_is_no_memory_is_named() {
        let of = |name: &str, code| {
            let io_error = io::Error::from_raw_os_error(code);
            EbpfError::MapError(MapError::CreateError { name: name.to_owned(), io_error })
        };
        let sizes = vec![(&maps::NAT_PORTS, 1 << 26)];
        let all = Maps { all: maps::ALL, sizes, pins: None };
        let told = no_memory(&of(maps::NAT_PORTS.name, libc::ENOMEM), &all);
        let Some(OpenError::Memory { table, bytes }) = told else { panic!("{told:?}") };
        assert_eq!((table, bytes), (maps::NAT_PORTS.name, (1 << 26) * 128));
        assert!(no_memory(&of(maps::NAT_PORTS.name, libc::EPERM), &all).is_none());
        assert!(no_memory(&of(maps::HEAD.name, libc::ENOMEM), &all).is_none());
    }
}
