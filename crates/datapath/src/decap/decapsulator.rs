//! The decapsulator itself.

use std::{collections::BTreeMap, net::IpAddr};

use flowgate_abi::{DropReason, decap::Counter, event::Tally};

use super::{
    AttachError, Attached, Builder, Decapsulated, Ends, Hook, ServicesError, host::HostEnds,
};
use crate::{
    error::TableError,
    lb::ReplayError,
    pins::LinkPins,
    report::{BackendKind, ProgramReport},
    sys::{
        decap::{Attachment, KernelEnds},
        link::Link,
    },
};

/// A decapsulator: what it takes, and its interfaces.
///
/// Dropping it detaches every interface and removes its pins, unless [`Decapsulator::persist`] was called; a
/// process that is killed leaves pinned links behind, to be adopted. A clsact filter ([`super::Way::Clsact`]) is removed by
/// its interface's index: drop it in the network namespace in which it was attached.
#[derive(Debug)]
pub struct Decapsulator {
    attachments: BTreeMap<u32, Attachment>,
    tables: Tables,
    ends: Ends,
    pins: Option<LinkPins>,
    report: Report,
}

/// Where addresses lie.
#[derive(Debug)]
pub(super) enum Tables {
    Kernel(Box<KernelEnds>),
    Host(Box<HostEnds>),
}

/// What opening a decapsulator found out.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Where addresses lie.
    pub backend: BackendKind,
    /// The programs, as the kernel sees them; empty for the host backend.
    pub programs: Vec<ProgramReport>,
    /// The kernel's release; empty for the host backend.
    pub kernel: String,
}

/// Everything that was counted since it was opened, summed over all CPUs. What never occurred isn't there.
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// What came out of tunnels: packets, and bytes from the inner IP header on.
    pub counters: BTreeMap<Counter, Tally>,
    /// What was dropped, by reason: packets, and bytes from the outer IP header on.
    pub drops: BTreeMap<DropReason, Tally>,
}

impl Decapsulator {
    /// Decides what a decapsulator is made of.
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(super) fn new(
        (tables, ends): (Tables, Ends),
        pins: Option<LinkPins>,
        report: Report,
    ) -> Self {
        Self { attachments: BTreeMap::new(), tables, ends, pins, report }
    }

    /// What opening found out.
    #[must_use]
    pub const fn report(&self) -> &Report {
        &self.report
    }

    /// Binds the decapsulator to an Ethernet interface. One that an earlier process had bound gets this one's
    /// program at once; at XDP it keeps its mode.
    ///
    /// # Errors
    /// See [`AttachError`].
    pub fn attach(&mut self, interface: &str, hook: Hook) -> Result<Attached, AttachError> {
        let link = link(interface)?;
        if self.attachments.contains_key(&link.ifindex) {
            return Err(AttachError::Attached { interface: interface.to_owned() });
        }
        let Tables::Kernel(kernel) = &mut self.tables else {
            return Err(AttachError::NoPrograms);
        };
        let pins = self.pins.as_ref().map(LinkPins::directory);
        let attachment = kernel
            .attach((interface, link.ifindex), pins, hook)
            .map_err(|source| AttachError::Refused { interface: interface.to_owned(), source })?;
        let attached = Attached {
            ifindex: link.ifindex,
            way: attachment.way(),
            adopted: attachment.adopted(),
        };
        self.attachments.insert(link.ifindex, attachment);
        Ok(attached)
    }

    /// Takes the decapsulator off an interface; `false`: it wasn't there.
    ///
    /// # Errors
    /// There is no such interface.
    pub fn detach(&mut self, interface: &str) -> Result<bool, AttachError> {
        Ok(self.attachments.remove(&link(interface)?.ifindex).is_some())
    }

    /// Makes these the services' addresses: those that are new first, then the others go.
    ///
    /// # Errors
    /// See [`ServicesError`].
    pub fn set_services(
        &mut self,
        services: impl IntoIterator<Item = IpAddr>,
    ) -> Result<(), ServicesError> {
        let ends = Ends { services: services.into_iter().collect(), ..self.ends.clone() };
        ends.check()?;
        let (before, after) = (self.ends.roles(), ends.roles());
        let gone = before.keys().filter(|address| !after.contains_key(address));
        for (address, role) in after.iter().map(|(a, r)| (*a, *r)).chain(gone.map(|a| (*a, 0))) {
            if before.get(&address) != Some(&role) {
                self.set_role(address, role)?;
            }
        }
        self.ends = ends;
        Ok(())
    }

    fn set_role(&mut self, address: IpAddr, role: u32) -> Result<(), TableError> {
        match &mut self.tables {
            Tables::Kernel(kernel) => kernel.set_role(address, role)?,
            Tables::Host(host) => host.set_role(address, role),
        }
        Ok(())
    }

    /// Everything that was counted.
    ///
    /// # Errors
    /// The tables couldn't be read.
    pub fn stats(&self) -> Result<Stats, TableError> {
        let mut stats = Stats::default();
        for &counter in Counter::ALL {
            let tally = match &self.tables {
                Tables::Kernel(kernel) => kernel.counted(counter)?,
                Tables::Host(host) => host.counted(counter),
            };
            if tally.packets > 0 {
                stats.counters.insert(counter, tally);
            }
        }
        for &reason in DropReason::ALL {
            let tally = match &self.tables {
                Tables::Kernel(kernel) => kernel.dropped(reason)?,
                Tables::Host(host) => host.dropped(reason),
            };
            if tally.packets > 0 {
                stats.drops.insert(reason, tally);
            }
        }
        Ok(stats)
    }

    /// Runs a frame through the decapsulator as if it had come by an interface, with all effects. The kernel
    /// backend asks the loaded program of a hook (`BPF_PROG_TEST_RUN`), which at TC wants a whole IP header;
    /// the frame goes nowhere.
    ///
    /// # Errors
    /// See [`ReplayError`].
    pub fn replay(&mut self, hook: Hook, frame: &[u8]) -> Result<Decapsulated, ReplayError> {
        let bytes = frame.len();
        if bytes < 14 {
            return Err(ReplayError::TooShort { bytes });
        }
        match &mut self.tables {
            Tables::Kernel(kernel) => Ok(kernel.replay(hook, frame).map_err(TableError)?),
            Tables::Host(host) => Ok(host.run(frame)),
        }
    }

    /// Leaves everything running when this is dropped, for a later process to adopt.
    ///
    /// # Errors
    /// The decapsulator wasn't opened with [`Builder::pin`]: its links would go with the process.
    pub fn persist(mut self) -> Result<(), NotPinned> {
        if self.pins.is_none() {
            return Err(NotPinned { decapsulator: Box::new(self) });
        }
        std::mem::take(&mut self.attachments).into_values().for_each(Attachment::keep);
        Ok(())
    }
}

fn link(interface: &str) -> Result<Link, AttachError> {
    Link::by_name(interface)
        .map_err(|source| AttachError::UnknownInterface { interface: interface.to_owned(), source })
}

/// A decapsulator that was opened without a directory for pins can't be persisted.
#[derive(Debug, thiserror::Error)]
#[error("the decapsulator has no pins: open it with Builder::pin")]
pub struct NotPinned {
    /// The decapsulator, as it was.
    pub decapsulator: Box<Decapsulator>,
}
