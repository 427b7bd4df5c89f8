//! The kernel's answer: the loaded programs, run on the first packet of each flow
//! (`BPF_PROG_TEST_RUN`).
//!
//! The programs are attached to links in network namespaces made for it, which are gone with the
//! process; no packet is sent. What the program does with the packet says whether it is allowed, and
//! the event that it tells says what either end decided.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use flowgate_datapath::{
    ApplyError, AttachError, Backend, Datapath, EndpointId, EndpointSpec, Events, OpenError,
    Options, ReplayError, Stage,
};
use flowgate_lab::{LabError, Node, Pod, Unavailable};
use flowgate_policy::{
    inventory::WorkloadRef,
    outcome::{Flow, Outcome, Side},
    plan::Plan,
};
use thiserror::Error;

use crate::frame;

/// Why the kernel can't be asked.
#[derive(Debug, Error)]
pub(crate) enum KernelError {
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    #[error(transparent)]
    Lab(#[from] LabError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Attach(#[from] AttachError),
    #[error(transparent)]
    Apply(#[from] ApplyError),
    #[error(transparent)]
    Replay(#[from] ReplayError),
}

/// What the kernel's program did with the first packet of a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Testimony {
    /// It judged it.
    Judged {
        /// It let it pass.
        passed: bool,
        /// What it told of either end; `None`: nothing.
        outcome: Option<Outcome>,
    },
    /// It wasn't asked: no packet of this kind opens a flow.
    NotAsked,
}

impl Testimony {
    /// It says what `outcome` says.
    pub(crate) fn agrees_with(&self, outcome: &Outcome) -> bool {
        match self {
            Self::NotAsked => true,
            Self::Judged { passed, outcome: told } => {
                *passed == outcome.allowed() && told.as_ref() == Some(outcome)
            }
        }
    }
}

/// The programs in the kernel.
#[derive(Debug)]
pub(crate) struct Kernel {
    // Before the links to which its programs are attached.
    datapath: Datapath,
    events: Events,
    endpoints: HashMap<IpAddr, EndpointId>,
    next_port: u16,
    _links: Vec<Pod>,
    _node: Node,
}

/// Source ports and identifiers, each of which makes a flow that is new to the kernel.
const FIRST_PORT: u16 = 1024;

impl Kernel {
    /// Loads the programs and applies a plan, with every endpoint of it local.
    ///
    /// Moves the calling thread into namespaces of its own.
    pub(crate) fn load(plan: &Plan) -> Result<Self, KernelError> {
        flowgate_lab::available()?;
        let mut node = Node::enter()?;
        let mut datapath =
            Datapath::builder().backend(Backend::Kernel).options(options(plan)).open()?;
        let mut endpoints = HashMap::new();
        let mut links = Vec::new();
        for (workload, addresses) in halves(plan) {
            let link = node.add_pod(&workload.to_string(), &[])?;
            let spec = EndpointSpec::new(workload, link.host_interface());
            let spec = addresses.iter().fold(spec, |spec, &address| spec.address(address));
            let attached = datapath.attach(&spec)?;
            endpoints.extend(addresses.into_iter().map(|address| (address, attached.id)));
            links.push(link);
        }
        let _ = datapath.apply(&Arc::new(plan.clone()))?;
        let events = datapath.events().expect("nobody else takes them");
        let next_port = FIRST_PORT;
        Ok(Self { datapath, events, endpoints, next_port, _links: links, _node: node })
    }

    /// Asks the program that meets the flow first: the source's, else the destination's.
    pub(crate) fn ask(&mut self, flow: &Flow) -> Result<Testimony, KernelError> {
        let stage = |end: IpAddr, stage: Stage| Some((*self.endpoints.get(&end)?, stage));
        let from = stage(flow.source, Stage::FromEndpoint);
        let Some((id, stage)) = from.or_else(|| stage(flow.destination, Stage::ToEndpoint)) else {
            let outcome = Outcome { egress: Side::NotAnEndpoint, ingress: Side::NotAnEndpoint };
            return Ok(Testimony::Judged { passed: true, outcome: Some(outcome) });
        };
        let Some(frame) = frame::opening(flow, self.next_port) else {
            return Ok(Testimony::NotAsked);
        };
        let replayed = self.datapath.replay(id, stage, &frame)?;
        let passed = replayed.action.passes();
        let outcome = self.told(flow);
        self.next_port = self.next_port.checked_add(1).unwrap_or(FIRST_PORT);
        Ok(Testimony::Judged { passed, outcome })
    }

    /// What was told of the flow just opened; of others, only that they ended to make room.
    fn told(&mut self, flow: &Flow) -> Option<Outcome> {
        while let Some(event) = self.events.try_next() {
            let is_it = event.source.address == flow.source && event.source.port == self.next_port;
            if is_it && event.destination.address == flow.destination {
                return event.outcome;
            }
        }
        None
    }
}

/// A plan's endpoints, each with at most one address of a family: a workload with more of them counts
/// as several.
fn halves(plan: &Plan) -> Vec<(WorkloadRef, Vec<IpAddr>)> {
    let mut halves = Vec::new();
    for endpoint in &plan.endpoints {
        let of = |v4: bool| endpoint.addresses.iter().copied().filter(move |a| a.is_ipv4() == v4);
        let (mut v4, mut v6) = (of(true), of(false));
        loop {
            let addresses: Vec<_> = [v4.next(), v6.next()].into_iter().flatten().collect();
            if addresses.is_empty() {
                break;
            }
            halves.push((endpoint.workload.clone(), addresses));
        }
    }
    halves
}

/// Tables with room for the plan, and an event for every flow.
fn options(plan: &Plan) -> Options {
    let default = Options::default();
    let addresses = plan.ipcache.len();
    Options {
        endpoints: default.endpoints.max(2 * addresses),
        peers: default.peers.max(2 * plan.peers.len()),
        row_cells: default.row_cells.max(2 * plan.row.len()),
        decision_cells: default.decision_cells.max(2 * plan.decision.len()),
        decisions: default.decisions.max(plan.decisions.len()),
        ipcache_nodes: default.ipcache_nodes.max(plan.cost().ipcache_nodes),
        events_per_second: 10_000_000,
        ..default
    }
}
