//! The programs handed to the verifier, one by one, with its log kept: aya keeps the log of a refusal alone.
//!
//! Maps, settings and BTF are those that [`super::kernel`] would load with, since the verifier's walk
//! depends on all three.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use aya::{Ebpf, maps::MapData};
use aya_obj::{Function, Object, Program};
use flowgate_abi::maps;

use super::{
    kernel::{self, ALL_PROGRAMS},
    object::map_data,
    syscall::{self, ProgramKind, ProgramLoad},
};
use crate::{error::OpenError, options::Options, verification::Verification};

/// Loads each program by itself, and drops it.
pub(crate) fn verify(
    object: &[u8],
    options: &Options,
    hertz: u32,
) -> Result<Vec<Verification>, OpenError> {
    let ebpf = kernel::make_maps(object, options, &options.settings(hertz), None)?;
    let typed = map_data(&ebpf, maps::FLOWS4.name);
    all(&ALL_PROGRAMS, ProgramKind::Classifier, (object, &ebpf), typed)
}

/// Loads programs of an object whose maps are made. The kernel knows the object's types by any map whose
/// value is one.
pub(super) fn all(
    programs: &[&'static str],
    kind: ProgramKind,
    (object, ebpf): (&[u8], &Ebpf),
    typed: &MapData,
) -> Result<Vec<Verification>, OpenError> {
    let object = relocated(object, ebpf)?;
    let types = syscall::types_of_map(typed.fd().as_fd()).map_err(OpenError::Kernel)?;
    programs.iter().map(|name| one((name, kind), &object, types.as_ref())).collect()
}

/// The object as it is loaded: with the maps' descriptors, and subprograms behind their callers.
fn relocated(object: &[u8], ebpf: &Ebpf) -> Result<Object, OpenError> {
    let mut object = Object::parse(object).map_err(OpenError::object)?;
    let sections = object.functions.keys().map(|(section, _)| *section).collect();
    let maps = object.maps.clone();
    let maps = maps
        .iter()
        .map(|(name, map)| (name.as_str(), map_data(ebpf, name).fd().as_fd().as_raw_fd(), map));
    object.relocate_maps(maps, &sections).map_err(OpenError::object)?;
    object.relocate_calls(&sections).map_err(OpenError::object)?;
    Ok(object)
}

fn one(
    (name, kind): (&'static str, ProgramKind),
    object: &Object,
    types: Option<&OwnedFd>,
) -> Result<Verification, OpenError> {
    let (program, function) = parts(name, object)?;
    let functions = function.func_info.func_info_bytes();
    let load = ProgramLoad {
        instructions: &function.instructions,
        license: &program.license,
        types: types.map(AsFd::as_fd),
        functions: &functions,
        function_size: function.func_info_rec_size as u32,
        kind,
    };
    let (loaded, log) = syscall::load_program(&load);
    match loaded {
        Ok(program) => {
            let jited = syscall::jited_bytes(program.as_fd()).map_err(OpenError::Kernel)?;
            Ok(Verification::accepted(name, &log, jited))
        }
        Err(error) => Ok(Verification::refused(name, &log, &error)),
    }
}

fn parts<'o>(name: &str, object: &'o Object) -> Result<(&'o Program, &'o Function), OpenError> {
    object
        .programs
        .get(name)
        .and_then(|program| Some((program, object.functions.get(&program.function_key())?)))
        .ok_or_else(|| OpenError::object(std::io::Error::other(format!("no program {name}"))))
}
