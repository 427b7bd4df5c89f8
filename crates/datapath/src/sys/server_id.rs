//! The program that names servers: its object loaded, attached to a control group.

use std::{fs::File, io, os::fd::AsFd};

use aya::{
    Ebpf,
    programs::{CgroupAttachMode, SockOps},
};
use flowgate_abi::server_id::{Counter, Settings, maps};
use flowgate_ebpf_progs::server_id as progs;

use super::{
    object::{self, Maps, map_data},
    syscall::{self, ProgramKind},
    verify,
};
use crate::{error::OpenError, verification::Verification};

/// The object loaded. What it is attached to goes with it.
#[derive(Debug)]
pub(crate) struct Attached {
    ebpf: Ebpf,
    cpus: usize,
}

impl Attached {
    /// Attached to nothing yet.
    pub(crate) fn load(settings: &Settings) -> Result<Self, OpenError> {
        let mut ebpf = make_maps(settings)?;
        object::load(progs::SOCK_SERVER_ID, || program(&mut ebpf).load())?;
        let cpus = syscall::possible_cpus().map_err(OpenError::Kernel)?;
        Ok(Self { ebpf, cpus })
    }

    /// What the verifier says of it.
    pub(crate) fn verify(settings: &Settings) -> Result<Vec<Verification>, OpenError> {
        let ebpf = make_maps(settings)?;
        let typed = map_data(&ebpf, maps::COUNTERS.name);
        verify::all(&progs::PROGRAMS, ProgramKind::SocketOperations, (progs::OBJECT, &ebpf), typed)
    }

    /// To a control group, by its directory.
    pub(crate) fn attach(&mut self, cgroup: &File) -> io::Result<()> {
        // A link (Linux 5.7), beside whatever else is attached there: the mode is that of older kernels.
        let attached = program(&mut self.ebpf).attach(cgroup, CgroupAttachMode::Single);
        attached.map(drop).map_err(io::Error::other)
    }

    /// How often something has happened.
    pub(crate) fn counted(&self, counter: Counter) -> io::Result<u64> {
        let map = map_data(&self.ebpf, maps::COUNTERS.name).fd().as_fd();
        Ok(syscall::sum_per_cpu(map, (counter as u32, maps::COUNTERS.value), self.cpus)?[0])
    }
}

fn make_maps(settings: &Settings) -> Result<Ebpf, OpenError> {
    let maps = Maps { all: maps::ALL, sizes: Vec::new(), pins: None };
    object::make_maps(progs::OBJECT, settings, &maps)
}

fn program(ebpf: &mut Ebpf) -> &mut SockOps {
    let program = ebpf.program_mut(progs::SOCK_SERVER_ID).expect("the object has it");
    program.try_into().expect("it is of that kind")
}
