//! One installer over whichever tables the backend has.

use std::{
    convert::Infallible,
    io,
    net::IpAddr,
    sync::{Arc, mpsc},
};

use flowgate_abi::event::Event;
use flowgate_policy::{
    extension::Extension,
    host::HostTables,
    install::{Applied, Binding, EndpointAddress, InstallError, Installer, Pressure},
    inventory::WorkloadRef,
    plan::Plan,
    roster::Placement,
};

use crate::{error::TableError, sys::kernel::KernelTables};

/// The tables of a backend.
#[derive(Debug)]
pub(crate) enum Tables {
    Kernel(Box<Installer<KernelTables>>),
    Host(Box<HostSide>),
}

/// Host tables, and where their events go.
#[derive(Debug)]
pub(crate) struct HostSide {
    pub(crate) installer: Installer<HostTables>,
    events: mpsc::Sender<Event>,
    reader: Option<mpsc::Receiver<Event>>,
}

impl HostSide {
    /// Hands over what the tables have told.
    pub(crate) fn pump(&self) {
        for event in self.installer.store().take_events() {
            // Nobody listens any more: then nobody misses it.
            let _ = self.events.send(event);
        }
    }

    pub(crate) fn take_reader(&mut self) -> Option<mpsc::Receiver<Event>> {
        self.reader.take()
    }
}

fn io_error(error: InstallError<io::Error>) -> InstallError<TableError> {
    error.map_store(TableError)
}

fn never(error: InstallError<Infallible>) -> InstallError<TableError> {
    error.map_store(|never| match never {})
}

impl Tables {
    pub(crate) fn host(installer: Installer<HostTables>) -> Self {
        let (events, reader) = mpsc::channel();
        Self::Host(Box::new(HostSide { installer, events, reader: Some(reader) }))
    }

    pub(crate) fn attach(
        &mut self,
        workload: WorkloadRef,
        address: EndpointAddress,
    ) -> Result<u32, InstallError<TableError>> {
        match self {
            Self::Kernel(installer) => installer.attach(workload, address).map_err(io_error),
            Self::Host(host) => host.installer.attach(workload, address).map_err(never),
        }
    }

    pub(crate) fn detach(&mut self, slots: &[u32]) -> Result<usize, InstallError<TableError>> {
        match self {
            Self::Kernel(installer) => installer.detach(slots).map_err(io_error),
            Self::Host(host) => host.installer.detach(slots).map_err(never),
        }
    }

    pub(crate) fn apply(&mut self, plan: &Arc<Plan>) -> Result<Applied, InstallError<TableError>> {
        match self {
            Self::Kernel(installer) => installer.apply(plan).map_err(io_error),
            Self::Host(host) => host.installer.apply(plan).map_err(never),
        }
    }

    pub(crate) fn add(&mut self, placement: &Placement) -> Result<usize, InstallError<TableError>> {
        match self {
            Self::Kernel(installer) => installer.add(placement).map_err(io_error),
            Self::Host(host) => host.installer.add(placement).map_err(never),
        }
    }

    pub(crate) fn extend(
        &mut self,
        extension: &Extension,
    ) -> Result<usize, InstallError<TableError>> {
        match self {
            Self::Kernel(installer) => installer.extend(extension).map_err(io_error),
            Self::Host(host) => host.installer.extend(extension).map_err(never),
        }
    }

    pub(crate) fn remove(
        &mut self,
        workload: &WorkloadRef,
        addresses: &[IpAddr],
    ) -> Result<usize, InstallError<TableError>> {
        match self {
            Self::Kernel(installer) => installer.remove(workload, addresses).map_err(io_error),
            Self::Host(host) => host.installer.remove(workload, addresses).map_err(never),
        }
    }

    pub(crate) fn settle(&mut self) -> Result<(), TableError> {
        match self {
            Self::Kernel(installer) => Ok(installer.settle()?),
            Self::Host(host) => host.installer.settle().map_err(|never| match never {}),
        }
    }

    pub(crate) fn generation(&self) -> u32 {
        match self {
            Self::Kernel(installer) => installer.generation(),
            Self::Host(host) => host.installer.generation(),
        }
    }

    pub(crate) fn pressure(&self) -> Vec<Pressure> {
        match self {
            Self::Kernel(installer) => installer.pressure(),
            Self::Host(host) => host.installer.pressure(),
        }
    }

    pub(crate) fn is_bound(&self, ifindex: u32) -> bool {
        let bound = |mut bindings: Box<dyn Iterator<Item = u32> + '_>| {
            bindings.any(|taken| taken == ifindex)
        };
        match self {
            Self::Kernel(installer) => {
                bound(Box::new(installer.bindings().map(|(_, b)| b.address.ifindex)))
            }
            Self::Host(host) => {
                bound(Box::new(host.installer.bindings().map(|(_, b)| b.address.ifindex)))
            }
        }
    }

    pub(crate) fn plan(&self) -> Option<&Arc<Plan>> {
        match self {
            Self::Kernel(installer) => installer.plan(),
            Self::Host(host) => host.installer.plan(),
        }
    }

    /// Slot and interface index of endpoints that were adopted and not claimed.
    pub(crate) fn unclaimed(&self) -> Vec<(u32, u32)> {
        let unclaimed = |(slot, binding): (u32, &Binding)| {
            binding.workload.is_none().then_some((slot, binding.address.ifindex))
        };
        match self {
            Self::Kernel(installer) => installer.bindings().filter_map(unclaimed).collect(),
            Self::Host(host) => host.installer.bindings().filter_map(unclaimed).collect(),
        }
    }

    pub(crate) fn slots(&self) -> Vec<u32> {
        match self {
            Self::Kernel(installer) => installer.bindings().map(|(slot, _)| slot).collect(),
            Self::Host(host) => host.installer.bindings().map(|(slot, _)| slot).collect(),
        }
    }
}
