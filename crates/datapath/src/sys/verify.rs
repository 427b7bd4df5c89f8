//! The programs handed to the verifier, one by one, with its log kept: aya keeps the log of a refusal alone.
//!
//! Maps, settings and BTF are those that [`super::kernel`] would load with, since the verifier's walk
//! depends on all three.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use aya::{Ebpf, maps::MapData};
use aya_obj::Object;
use flowgate_abi::maps;

use super::{
    kernel::{self, ALL_PROGRAMS},
    object::{self, map_data},
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
    let relocated = object::relocated(object, ebpf);
    let object =
        relocated.map_err(|error| OpenError::Object { source: io::Error::other(error) })?;
    let types = syscall::types_of_map(typed.fd().as_fd()).map_err(OpenError::Kernel)?;
    programs.iter().map(|name| one((name, kind), &object, types.as_ref())).collect()
}

fn one(
    (name, kind): (&'static str, ProgramKind),
    object: &Object,
    types: Option<&OwnedFd>,
) -> Result<Verification, OpenError> {
    let none = || OpenError::object(io::Error::other(format!("no program {name}")));
    let (program, function) = object::parts(name, object).ok_or_else(none)?;
    let functions = function.func_info.func_info_bytes();
    let load = ProgramLoad {
        name,
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
