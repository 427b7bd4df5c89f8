//! The balancer itself.

use std::{collections::BTreeMap, io, time::Instant};

use flowgate_abi::{DropReason, event::Tally, lb::Counter};
use flowgate_services::{
    Applied, ClientFlow, Cost, Explained, NatTimeouts, Services, Ticked,
    model::{BackendId, BackendState, ServiceName},
    store::Store,
};

use super::{
    ApplyError, AttachedXdp, Balanced, BalancerReport, BalancerStats, Builder, Fate, Notice,
    ReplayError, SampleError, Samples, Sampling, StageMap, XdpAttach, XdpError, tables::Tables,
};
use crate::{
    error::TableError,
    pins::Pins,
    sys::{
        lb::{AttachError, Attachment, components, is_dispatcher, is_taken, program_name},
        link::Link,
    },
};

/// A load balancer: its tables, its services, its interfaces.
///
/// Dropping it detaches every interface and removes its pins, unless [`LoadBalancer::persist`] was called;
/// a process that is killed leaves pinned state behind, to be adopted.
#[derive(Debug)]
pub struct LoadBalancer {
    attachments: BTreeMap<u32, Attachment>,
    tables: Tables,
    pins: Option<Pins>,
    report: BalancerReport,
    epoch: Instant,
}

impl LoadBalancer {
    /// Decides what a balancer is made of.
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(super) fn new(tables: Tables, pins: Option<Pins>, report: BalancerReport) -> Self {
        let attachments = BTreeMap::new();
        Self { attachments, tables, pins, report, epoch: Instant::now() }
    }

    /// What opening found out and did.
    #[must_use]
    pub const fn report(&self) -> &BalancerReport {
        &self.report
    }

    /// Binds the balancer to an interface. One that an earlier process had bound gets this one's program
    /// at once, and keeps its mode.
    ///
    /// # Errors
    /// See [`XdpError`].
    pub fn attach(&mut self, interface: &str, how: XdpAttach) -> Result<AttachedXdp, XdpError> {
        let link = link(interface)?;
        if self.attachments.contains_key(&link.ifindex) {
            return Err(XdpError::Attached { interface: interface.to_owned() });
        }
        let Tables::Kernel(balancer) = &self.tables else {
            return Err(XdpError::NoPrograms);
        };
        let head = balancer.store().head();
        // Before the first packet: a larger one is none that came by a wire.
        head.link_mtu.store(head.link_mtu.load().max(link.mtu));
        let pins = self.pins.as_ref().map(Pins::links);
        let attachment = balancer.store().attach(link.ifindex, pins.as_deref(), how);
        let attachment = attachment.map_err(|error| not_attached(interface, error))?;
        let attached = AttachedXdp {
            ifindex: link.ifindex,
            mode: attachment.mode,
            adopted: attachment.adopted,
            beside: attachment.beside,
            mtu: link.mtu,
        };
        self.attachments.insert(link.ifindex, attachment);
        Ok(attached)
    }

    /// Takes the balancer off an interface; `false`: it wasn't there.
    ///
    /// # Errors
    /// There is no such interface; or its dispatcher couldn't be made anew without the balancer, which doesn't run there
    /// any more all the same.
    pub fn detach(&mut self, interface: &str) -> Result<bool, XdpError> {
        let link = link(interface)?;
        let Some(attachment) = self.attachments.remove(&link.ifindex) else { return Ok(false) };
        let detached = attachment.detach();
        detached.map_err(|error| not_attached(interface, AttachError::Dispatcher(error)))?;
        Ok(true)
    }

    /// What may be wrong with an interface to which the balancer is bound, as it is now; others' settings decide about it,
    /// so it may come and go. See [`Notice`].
    ///
    /// # Errors
    /// There is no such interface.
    pub fn notice(&self, interface: &str) -> Result<Option<Notice>, XdpError> {
        let link = link(interface)?;
        Ok(if self.attachments.contains_key(&link.ifindex) { Notice::of(&link) } else { None })
    }

    /// A map of a stage; `None`: there is no such stage, or it has no such map.
    ///
    /// # Errors
    /// The kernel doesn't tell its sizes.
    pub fn stage_map(&self, stage: &str, map: &str) -> Result<Option<StageMap<'_>>, TableError> {
        match &self.tables {
            Tables::Kernel(balancer) => Ok(balancer.store().stage_map(stage, map)?),
            Tables::Host(_) => Ok(None),
        }
    }

    /// Makes the services what they should be. Those that are the same aren't touched; what is visible to
    /// packets when it returns, and what is staged, is in the result.
    ///
    /// # Errors
    /// Services that don't fit, or can't be balanced over this uplink, change nothing. A table couldn't be
    /// written: applying again goes on.
    pub fn apply(&mut self, services: &Services, now: Instant) -> Result<Applied, ApplyError> {
        let time = now.saturating_duration_since(self.epoch);
        self.tables.apply(services, time)
    }

    /// The services as they were applied last.
    #[must_use]
    pub fn services(&self) -> &Services {
        self.tables.services()
    }

    /// Services that an earlier process applied and this one hasn't yet. They go on, and the next
    /// [`LoadBalancer::apply`] takes those out that it doesn't name.
    #[must_use]
    pub fn adopted(&self) -> usize {
        self.tables.adopted()
    }

    /// What services need, and what applying them would move.
    #[must_use]
    pub fn cost(&self, services: &Services) -> Cost {
        self.tables.cost(services)
    }

    /// Gives a backend no new flows; live ones stay.
    ///
    /// # Errors
    /// There is no such service or backend; otherwise as [`LoadBalancer::apply`].
    pub fn drain(
        &mut self,
        service: &ServiceName,
        backend: BackendId,
        now: Instant,
    ) -> Result<Applied, ApplyError> {
        let services = self.services().with_state(service, backend, BackendState::Draining)?;
        self.apply(&services, now)
    }

    /// Takes a backend out: its flows go to others.
    ///
    /// # Errors
    /// There is no such service or backend; otherwise as [`LoadBalancer::apply`].
    pub fn remove(
        &mut self,
        service: &ServiceName,
        backend: BackendId,
        now: Instant,
    ) -> Result<Applied, ApplyError> {
        let services = self.services().without_backend(service, backend)?;
        self.apply(&services, now)
    }

    /// How long flows with a port of a source may be silent from now on, those that live as well. A process that adopts
    /// them says it anew ([`NatOptions::timeouts`](super::NatOptions::timeouts)).
    pub fn set_nat_timeouts(&mut self, timeouts: NatTimeouts) {
        self.tables.set_nat_timeouts(timeouts);
    }

    /// Lets time do its part: slots move on, tracked flows expire. Call it when [`Ticked::next`] is over.
    /// It may wait for a grace period, some milliseconds.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn tick(&mut self, now: Instant) -> Result<Ticked, TableError> {
        Ok(self.tables.tick(now.saturating_duration_since(self.epoch))?)
    }

    /// Everything that was counted.
    ///
    /// # Errors
    /// The tables couldn't be read.
    pub fn stats(&self) -> Result<BalancerStats, TableError> {
        let (services, drops) = (self.tables.stats()?, self.drops()?);
        let sources = self.tables.sources();
        let mut stats = BalancerStats { services, sources, drops, ..Default::default() };
        for &counter in Counter::ALL {
            let count = match &self.tables {
                Tables::Kernel(balancer) => balancer.store().counted(counter)?,
                Tables::Host(balancer) => balancer.store().counted(counter),
            };
            stats.counters.insert(counter, count);
        }
        Ok(stats)
    }

    /// What was dropped, by reason: a part of [`LoadBalancer::stats`] that costs the same whatever there is
    /// of services.
    ///
    /// # Errors
    /// The tables couldn't be read.
    pub fn drops(&self) -> Result<BTreeMap<DropReason, Tally>, TableError> {
        let mut drops = BTreeMap::new();
        for &reason in DropReason::ALL {
            let tally = match &self.tables {
                Tables::Kernel(balancer) => balancer.store().dropped(reason)?,
                Tables::Host(balancer) => balancer.store().dropped(reason),
            };
            if tally.packets > 0 {
                drops.insert(reason, tally);
            }
        }
        Ok(drops)
    }

    /// Runs a frame through the balancer as if it had come by an interface, with all effects. The kernel
    /// backend asks the loaded program (`BPF_PROG_TEST_RUN`); the frame goes nowhere.
    ///
    /// # Errors
    /// See [`ReplayError`].
    pub fn replay(&mut self, frame: &[u8]) -> Result<Balanced, ReplayError> {
        let bytes = frame.len();
        if bytes < 14 {
            return Err(ReplayError::TooShort { bytes });
        }
        match &mut self.tables {
            Tables::Kernel(balancer) => Ok(balancer.store().replay(frame).map_err(TableError)?),
            Tables::Host(balancer) => {
                let passed = balancer.store().run(frame);
                Ok(Balanced { fate: Fate::of(passed.action), frame: passed.frame })
            }
        }
    }

    /// Samples frames of all interfaces until [`LoadBalancer::stop_sampling`], as they are when the last program
    /// of an interface has said its word; in the place of an earlier sampling, whose samples end. Interfaces
    /// get a program in front of theirs, each atomically; while nobody samples, nothing of it is there. Beside others
    /// ([`Builder::dispatched`](super::Builder::dispatched)) it takes `CAP_SYS_ADMIN`.
    ///
    /// # Errors
    /// See [`SampleError`].
    pub fn sample(&mut self, sampling: &Sampling) -> Result<Samples, SampleError> {
        let constants = sampling.constants()?;
        let Tables::Kernel(balancer) = &mut self.tables else {
            return Err(SampleError::NoPrograms);
        };
        let pins = self.pins.as_ref().map(Pins::links);
        let tables = balancer.store_mut();
        Ok(Samples::new(tables.sample(&constants, pins.as_deref(), &self.attachments)?))
    }

    /// Ends sampling, if it is going on: interfaces run their own programs alone. It waits for a grace period,
    /// some milliseconds.
    ///
    /// # Errors
    /// An interface refused; it goes on to be sampled.
    pub fn stop_sampling(&mut self) -> Result<(), TableError> {
        match &mut self.tables {
            Tables::Kernel(balancer) => {
                Ok(balancer.store_mut().stop_sampling(&self.attachments)?)
            }
            Tables::Host(_) => Ok(()),
        }
    }

    /// Why a flow has its backend; no effect on anything. `None`: no service has its frontend.
    #[must_use]
    pub fn explain(&self, flow: &ClientFlow) -> Option<Explained> {
        self.tables.explain(flow)
    }

    /// Leaves everything running when this is dropped, for a later process to adopt.
    ///
    /// # Errors
    /// The balancer wasn't opened with [`Builder::pin`]: its maps would go with the process.
    pub fn persist(mut self) -> Result<(), NotPinned> {
        // Nobody will read samples; an interface that refuses loses no packet by it.
        let _ = self.stop_sampling();
        // Held until everything is left in order.
        let Some(_pins) = self.pins.take() else {
            return Err(NotPinned { balancer: Box::new(self) });
        };
        std::mem::take(&mut self.attachments).into_values().for_each(Attachment::keep);
        Ok(())
    }
}

/// By name.
fn link(interface: &str) -> Result<Link, XdpError> {
    let unknown = |source| XdpError::UnknownInterface { interface: interface.to_owned(), source };
    Link::by_name(interface).map_err(unknown)
}

fn not_attached(interface: &str, error: AttachError) -> XdpError {
    match error {
        AttachError::Kernel(source) => refused(interface, source),
        AttachError::Dispatcher(source) => {
            XdpError::Dispatched { interface: interface.to_owned(), source }
        }
    }
}

/// Why the kernel refused to attach; a program of somebody else's is named.
fn refused(interface: &str, source: io::Error) -> XdpError {
    let interface = interface.to_owned();
    let other = Link::by_name(&interface).ok().filter(|_| is_taken(&source));
    let other = other.and_then(|link| Some((link.ifindex, link.xdp_program?)));
    let Some((ifindex, id)) = other else { return XdpError::Refused { interface, source } };
    // It may have gone meanwhile.
    let program = program_name(id).unwrap_or_default();
    if is_dispatcher(&program) {
        return XdpError::Dispatcher { interface, programs: components(ifindex, id), id };
    }
    XdpError::Occupied { interface, program, id }
}

/// A balancer that was opened without a directory for pins can't be persisted.
#[derive(Debug, thiserror::Error)]
#[error("the balancer has no pins: open it with Builder::pin")]
pub struct NotPinned {
    /// The balancer, as it was.
    pub balancer: Box<LoadBalancer>,
}

impl Drop for LoadBalancer {
    fn drop(&mut self) {
        self.attachments.clear();
        if let Some(pins) = &self.pins {
            pins.remove();
        }
    }
}
