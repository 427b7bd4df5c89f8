//! Checks' side of the kernel: the programs at TC, and the table of checks under way.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use aya::{
    Ebpf,
    programs::{SchedClassifier, TcAttachType, tc::SchedClassifierLink},
};
use flowgate_abi::{
    decap::{Settings, maps},
    probe::{PROBES, Probe},
};
use flowgate_ebpf_progs::decap as progs;
use zerocopy::{FromBytes, IntoBytes};

use super::{
    object::{self, Maps, map_data},
    syscall,
    tc::{self, Filter, Spot},
};
use crate::{
    endpoint::HookKind,
    error::{OpenError, TableError},
};

/// How our clsact filters are known.
const FILTER: Filter = Filter { preference: 0xf10a, handle: 1 };
/// The programs and where they run.
const PLACES: [(&str, TcAttachType); 2] = [
    (progs::TC_PROBE_EGRESS, TcAttachType::Egress),
    (progs::TC_PROBE_INGRESS, TcAttachType::Ingress),
];

/// The programs, loaded.
#[derive(Debug)]
pub(crate) struct Programs(Ebpf);

/// The programs on one interface. Detaches when dropped.
#[derive(Debug)]
pub(crate) struct Attachment {
    _links: Vec<SchedClassifierLink>,
}

impl Programs {
    /// Loads the object.
    pub(crate) fn load(object: &[u8]) -> Result<(Self, Table), OpenError> {
        let sizes = vec![(&maps::PROBES, PROBES)];
        let maps_of = Maps { all: maps::ALL, sizes, pins: None };
        let mut ebpf = object::make_maps(object, &Settings::default(), &maps_of)?;
        for (name, _) in PLACES {
            object::load(name, || program(&mut ebpf, name).load())?;
        }
        let table = map_data(&ebpf, maps::PROBES.name).fd().as_fd().try_clone_to_owned();
        Ok((Self(ebpf), Table(table.map_err(OpenError::Kernel)?)))
    }

    /// Binds both to an interface, or none.
    pub(crate) fn attach(&mut self, interface: &str) -> io::Result<Attachment> {
        let mut links = Vec::new();
        for (name, direction) in PLACES {
            // Behind whoever is there going out, and before whoever is there coming in.
            let first = direction == TcAttachType::Ingress;
            let spot = Spot { interface, direction, first, filter: FILTER };
            let (link, _) = tc::fresh(program(&mut self.0, name), spot, HookKind::Tcx, None)?;
            links.push(link);
        }
        Ok(Attachment { _links: links })
    }
}

fn program<'e>(ebpf: &'e mut Ebpf, name: &str) -> &'e mut SchedClassifier {
    let program = ebpf.program_mut(name);
    program.and_then(|program| program.try_into().ok()).expect("the object has that program")
}

/// Checks under way.
#[derive(Debug)]
pub(crate) struct Table(OwnedFd);

impl Table {
    /// A check begins.
    pub(crate) fn insert(&self, kind: u64, mut probe: Probe) -> Result<(), TableError> {
        Ok(syscall::update(self.0.as_fd(), &kind.to_ne_bytes(), probe.as_mut_bytes())?)
    }

    /// It is over.
    pub(crate) fn remove(&self, kind: u64) {
        // It is there, and nothing else can go wrong.
        let _ = syscall::delete(self.0.as_fd(), &kind.to_ne_bytes());
    }

    /// Packets of it have gone into the tunnel.
    pub(crate) fn sent(&self, kind: u64) -> Result<bool, TableError> {
        let mut value = [0; size_of::<Probe>()];
        syscall::lookup(self.0.as_fd(), &kind.to_ne_bytes(), &mut value, false)?;
        let probe = Probe::read_from_bytes(&value).expect("of this size");
        Ok(probe.sent.load() != 0)
    }
}
