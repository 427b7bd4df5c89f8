//! The datapath itself.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use flowgate_abi::{Addr6, Be32, event::Counter};
use flowgate_pipeline::{Family, V4, V6};
use flowgate_policy::{
    extension::Extension,
    install::{Applied, EndpointAddress, Pressure},
    inventory::WorkloadRef,
    outcome::{Flow, Outcome},
    plan::Plan,
    roster::Placement,
    simulate::Simulator,
};

use crate::{
    builder::Builder,
    counters::{Counters, DropKey, EndpointTraffic},
    endpoint::{Attached, Delivery, EndpointId, EndpointSpec, HookKind, UNKNOWN_MAC},
    error::{ApplyError, AskError, AttachError, TableError},
    events::{Events, SharedNames, Source},
    flows::{TrackedFlow, tracked},
    pins::Pins,
    report::Report,
    sys::{
        attach::{self, Attachment},
        link::Link,
    },
    tables::Tables,
};

/// A datapath: its tables, its endpoints, its programs.
///
/// Dropping it detaches every endpoint and removes its pins, unless [`Datapath::persist`] was
/// called; a process that is killed leaves pinned state behind, to be adopted.
#[derive(Debug)]
pub struct Datapath {
    attachments: BTreeMap<u32, Attachment>,
    pub(crate) tables: Tables,
    pins: Option<Pins>,
    report: Report,
    names: SharedNames,
    simulator: Option<Simulator>,
    virtual_ifindex: u32,
}

impl Datapath {
    /// Decides what a datapath is made of.
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) fn new(
        tables: Tables,
        pins: Option<Pins>,
        report: Report,
        names: SharedNames,
    ) -> Self {
        Self {
            attachments: BTreeMap::new(),
            tables,
            pins,
            report,
            names,
            simulator: None,
            virtual_ifindex: 0,
        }
    }

    /// What opening found out and did.
    #[must_use]
    pub const fn report(&self) -> &Report {
        &self.report
    }

    /// The number of the running generation; 0: none was applied yet.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.tables.generation()
    }

    /// How full each table is: to be watched, since a plan that doesn't fit is refused and the running one
    /// stays. In metrics: `flowgate_table_used` and `flowgate_table_capacity`, each with a label
    /// `table` of [`Table::name`](flowgate_policy::cost::Table::name).
    #[must_use]
    pub fn pressure(&self) -> Vec<Pressure> {
        self.tables.pressure()
    }

    /// Attaches an endpoint. Nothing passes it until a plan is applied that contains it; a node's is open
    /// until then.
    ///
    /// An endpoint of the same interface, addresses and workload that an earlier process left is
    /// claimed: its flows go on all the time.
    ///
    /// # Errors
    /// See [`AttachError`]; nothing is left of the attempt.
    pub fn attach(&mut self, spec: &EndpointSpec) -> Result<Attached, AttachError> {
        if spec.v4.is_none() && spec.v6.is_none() {
            return Err(AttachError::NoAddress { workload: spec.workload.to_string() });
        }
        if let Some(address) = unusable(spec) {
            return Err(AttachError::Address { workload: spec.workload.to_string(), address });
        }
        let (link, delivery) = self.resolve(spec)?;
        let adopted = self.tables.is_bound(link.ifindex);
        let address = EndpointAddress {
            ifindex: link.ifindex,
            v4: spec.v4,
            v6: spec.v6,
            mac: spec.mac,
            router_mac: link.mac,
            flags: spec.flags(delivery),
        };
        let slot = self.tables.attach(spec.workload.clone(), address)?;
        let hook = match self.attach_hooks(slot, spec, link.ifindex) {
            Ok(hook) => hook,
            Err(error) => {
                // The first error is the one that tells what to do.
                let _ = self.tables.detach(&[slot]);
                return Err(error);
            }
        };
        self.names.workload(slot, &spec.workload);
        Ok(Attached { id: EndpointId(slot), hook, delivery, adopted })
    }

    /// The link, and how packets are handed over to it. The host backend makes links up.
    fn resolve(&mut self, spec: &EndpointSpec) -> Result<(Link, Delivery), AttachError> {
        let asked = if spec.is_node() { Delivery::Stack } else { spec.delivery };
        let (Some(interface), Tables::Kernel(_)) = (&spec.interface, &self.tables) else {
            let delivery = delivery_of(asked, Delivery::RedirectPeer);
            return Ok((self.made_up_link(), delivery));
        };
        let link = Link::by_name(interface).map_err(|source| AttachError::UnknownInterface {
            interface: interface.clone(),
            source,
        })?;
        let pair = matches!(link.kind.as_str(), "veth" | "netkit") && link.peer_netns.is_some();
        let known = spec.mac != UNKNOWN_MAC;
        let best = if pair && known { Delivery::RedirectPeer } else { Delivery::Stack };
        let delivery = delivery_of(asked, best);
        if delivery == Delivery::RedirectPeer && !pair {
            let interface = interface.clone();
            return Err(AttachError::Delivery { interface, delivery: "RedirectPeer" });
        }
        Ok((link, delivery))
    }

    /// Interface indexes that no kernel gives out: its own grow from 1.
    fn made_up_link(&mut self) -> Link {
        self.virtual_ifindex += 1;
        let ifindex = (1 << 30) + self.virtual_ifindex;
        let mac = [2, 0, 0, 0, 0, 1];
        Link {
            ifindex,
            mac,
            kind: "veth".to_owned(),
            peer: None,
            peer_netns: Some(0),
            mtu: 1500,
            xdp_program: None,
            xdp_mode: None,
            tx_dropped: 0,
        }
    }

    fn attach_hooks(
        &mut self,
        slot: u32,
        spec: &EndpointSpec,
        ifindex: u32,
    ) -> Result<HookKind, AttachError> {
        let (Tables::Kernel(installer), Some(interface)) = (&mut self.tables, &spec.interface)
        else {
            return Ok(HookKind::None);
        };
        let pins = self.pins.as_ref().map(Pins::links);
        let tables = installer.store_mut();
        let place = attach::Place { interface, ifindex, is_uplink: spec.is_node() };
        let attachment = attach::attach(tables, place, pins.as_deref(), spec.hook)?;
        let kind = attachment.kind;
        self.attachments.insert(slot, attachment);
        Ok(kind)
    }

    /// Detaches endpoints: their programs go, nothing of them is allowed any more, and their addresses
    /// are world's again until a plan says otherwise. Returns how many were attached.
    ///
    /// # Errors
    /// The tables couldn't be written.
    pub fn detach(&mut self, ids: &[EndpointId]) -> Result<usize, ApplyError> {
        // Tables first: closed before the programs go.
        let slots: Vec<u32> = ids.iter().map(|id| id.0).collect();
        let known = self.tables.detach(&slots)?;
        for slot in slots {
            self.attachments.remove(&slot);
        }
        Ok(known)
    }

    /// Detaches the adopted endpoints that nobody has claimed: what they belonged to went while no
    /// process was there. Call it once everything that is still there has been attached again.
    /// Returns how many there were. Their addresses are in the networks around them again.
    ///
    /// # Errors
    /// The tables couldn't be written.
    pub fn detach_unclaimed(&mut self) -> Result<usize, ApplyError> {
        let unclaimed = self.tables.unclaimed();
        let slots: Vec<u32> = unclaimed.iter().map(|(slot, _)| *slot).collect();
        let count = self.tables.detach(&slots)?;
        self.remove_hooks(&unclaimed);
        Ok(count)
    }

    /// Removes what an earlier process attached to interfaces that this one has no endpoint for.
    fn remove_hooks(&self, unclaimed: &[(u32, u32)]) {
        let Some(pins) = &self.pins else { return };
        for (_, ifindex) in unclaimed {
            attach::remove(&pins.links(), *ifindex);
        }
    }

    /// Publishes a plan as one generation: a packet sees the old one or the new one. Flows that it
    /// no longer allows end with their next packet.
    ///
    /// # Errors
    /// The plan doesn't fit, or has policies for a node of which no uplink is attached, or a table couldn't
    /// be written: the running generation is untouched.
    pub fn apply(&mut self, plan: &Arc<Plan>) -> Result<Applied, ApplyError> {
        // Known before it is published, so that its first event finds its names.
        self.names.plan(self.tables.generation().wrapping_add(1), plan);
        let applied = self.tables.apply(plan)?;
        self.simulator = None;
        Ok(applied)
    }

    /// Lets a workload join the running generation without another one: a constant number of writes,
    /// whatever the plan. Its endpoint, if it is on this node, is attached before; once more after it
    /// was attached, the same placement opens it. Flows that its addresses had before are judged again.
    ///
    /// [`Datapath::sweep`] ends what this began: it waits for a grace period, and has those flows judged
    /// again that a packet has tracked at the moment of the change.
    ///
    /// The plan stays what it was: [`Datapath::simulate`] doesn't know the workload, and the next plan
    /// has to contain it.
    ///
    /// # Errors
    /// The placement is of another plan than the running one, or there is no room: nothing was written.
    /// Or a table couldn't be written.
    pub fn add(&mut self, placement: &Placement) -> Result<usize, ApplyError> {
        self.tables.add(placement)
    }

    /// Brings the running generation to an extension of its plan, without another generation: workloads
    /// join, though nobody has met their combination of labels, ports and networks before, at a cell for
    /// each policy of endpoints, and others leave. Flows that their addresses had are judged again, all
    /// others go on. Endpoints on this node are attached before; once more after one was attached, the
    /// same extension opens it.
    ///
    /// The running plan is [`Extension::plan`] afterwards, of which the next extension is made; who
    /// joined by [`Datapath::add`] and isn't in it has left.
    /// [`Datapath::sweep`] ends what this began, as it does for [`Datapath::add`].
    ///
    /// # Errors
    /// The extension is of another plan than the running one ([`ApplyError::NotRunning`]), or there is no
    /// room: nothing was written, and the plan is to be applied. Or a table couldn't be written: the call
    /// may be repeated.
    pub fn extend(&mut self, extension: &Extension) -> Result<usize, ApplyError> {
        if self.tables.plan().is_some_and(|running| extension.extends(running)) {
            // Known before anything is decided by it; who was decided about before has the same names.
            self.names.plan(self.tables.generation(), extension.plan());
        }
        let written = self.tables.extend(extension)?;
        self.simulator = None;
        Ok(written)
    }

    /// Lets a workload leave the running generation: its addresses belong to whatever is around them,
    /// and its endpoint, if it has one, is closed. Returns how many addresses left.
    ///
    /// # Errors
    /// A table couldn't be written.
    pub fn remove(
        &mut self,
        workload: &WorkloadRef,
        addresses: &[IpAddr],
    ) -> Result<usize, ApplyError> {
        self.tables.remove(workload, addresses)
    }

    /// What would become of the first packet of a flow under the plan that was applied last, with
    /// every endpoint of the plan taken for local. Nothing is tracked, counted or told.
    ///
    /// # Errors
    /// No plan was applied, or the flow's ends are of different families.
    pub fn simulate(&mut self, flow: &Flow) -> Result<Outcome, AskError> {
        let simulator = match self.simulator.take() {
            Some(simulator) => simulator,
            None => {
                let plan = self.tables.plan();
                let plan = plan.ok_or(flowgate_policy::simulate::SimulateError::NoPlan)?;
                Simulator::new(plan).map_err(|error| AskError::Install(error.to_string()))?
            }
        };
        Ok(self.simulator.insert(simulator).simulate(flow)?)
    }

    /// The events, once: `None` if they were taken before.
    pub fn events(&mut self) -> Option<Events> {
        let source = match &mut self.tables {
            Tables::Kernel(installer) => Source::Ring(installer.store_mut().take_events()?),
            Tables::Host(host) => Source::Channel(host.take_reader()?),
        };
        Some(Events::new(source, self.names.clone()))
    }

    /// Everything that was counted.
    ///
    /// # Errors
    /// The tables couldn't be read.
    pub fn counters(&self) -> Result<Counters, TableError> {
        let mut counters = Counters::default();
        for slot in self.tables.slots() {
            let [egress, ingress] = match &self.tables {
                Tables::Kernel(installer) => installer.store().traffic(slot)?,
                Tables::Host(host) => host.installer.store().traffic()[slot as usize],
            };
            counters.traffic.insert(EndpointId(slot), EndpointTraffic { egress, ingress });
        }
        for (index, key) in DropKey::all() {
            let tally = match &self.tables {
                Tables::Kernel(installer) => installer.store().drops(index)?,
                Tables::Host(host) => host.installer.store().drops()[index as usize],
            };
            if tally.packets > 0 {
                counters.drops.insert(key, tally);
            }
        }
        for counter in Counter::ALL {
            let count = match &self.tables {
                Tables::Kernel(installer) => installer.store().counter(counter as u32)?,
                Tables::Host(host) => host.installer.store().counters()[counter as usize],
            };
            counters.others.insert(counter, count);
        }
        Ok(counters)
    }

    /// The flows that are tracked, in no particular order; expired ones that no sweep has met yet are
    /// among them.
    ///
    /// # Errors
    /// The tables couldn't be read.
    pub fn flows(&self) -> Result<Vec<TrackedFlow>, TableError> {
        let mut flows = Vec::new();
        match &self.tables {
            Tables::Kernel(installer) => installer.store().each_flow(&mut flows)?,
            Tables::Host(host) => {
                let tables = host.installer.store();
                tables.flows4().iter().for_each(|bucket| tracked::<V4>(bucket, &mut flows));
                tables.flows6().iter().for_each(|bucket| tracked::<V6>(bucket, &mut flows));
            }
        }
        Ok(flows)
    }

    /// Leaves everything running when this is dropped: programs attached, state pinned, for a later
    /// process to adopt.
    ///
    /// # Errors
    /// The datapath wasn't opened with [`Builder::pin`]: its maps would go with the process.
    pub fn persist(mut self) -> Result<(), NotPinned> {
        // Held until everything is left in order.
        let Some(_pins) = self.pins.take() else {
            return Err(NotPinned { datapath: Box::new(self) });
        };
        for (_, attachment) in std::mem::take(&mut self.attachments) {
            attachment.keep();
        }
        Ok(())
    }
}

/// A datapath that was opened without a directory for pins can't be persisted.
#[derive(Debug, thiserror::Error)]
#[error("the datapath has no pins: open it with Builder::pin")]
pub struct NotPinned {
    /// The datapath, as it was.
    pub datapath: Box<Datapath>,
}

impl Drop for Datapath {
    fn drop(&mut self) {
        self.attachments.clear();
        if self.pins.is_some() {
            self.remove_hooks(&self.tables.unclaimed());
        }
        if let Some(pins) = &self.pins {
            pins.remove();
        }
    }
}

/// An address from which the programs would let no packet pass.
fn unusable(spec: &EndpointSpec) -> Option<IpAddr> {
    let v4 = spec.v4.filter(|v4| V4::is_martian_source(Be32::new((*v4).into())));
    let v6 = spec.v6.filter(|v6| V6::is_martian_source(Addr6::from_octets(v6.octets())));
    v4.map(IpAddr::V4).or(v6.map(IpAddr::V6))
}

const fn delivery_of(asked: Delivery, best: Delivery) -> Delivery {
    match asked {
        Delivery::Automatic => best,
        other => other,
    }
}
