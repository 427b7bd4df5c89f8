//! What would become of a flow: the pipeline itself, over host tables.
//!
//! The same code that decides in the kernel, asked without a packet: who the ends are, and what
//! the running generation says at each. Nothing is tracked, counted or told.

use std::{net::IpAddr, sync::Arc};

use flowgate_abi::{
    Addr6, Be16, Be32, DropReason,
    endpoint::Endpoint,
    event::Event,
    flow::NO_SLOT,
    policy::{Judgement, NOT_JUDGED},
};
use flowgate_pipeline::{
    FlowTable, Tables, V4, V6,
    family::Tuple,
    policy::{self, Service},
    wire::protocol,
};
use thiserror::Error;
use zerocopy::FromZeros;

use crate::{
    host::HostTables,
    install::{EndpointAddress, InstallError, Installer},
    outcome::{Flow, FlowProtocol, Outcome, Side},
    plan::Plan,
};

/// Why a flow couldn't be simulated.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SimulateError {
    /// Its ends are of different families.
    #[error("{from} and {to} are of different address families")]
    MixedFamilies {
        /// The source.
        from: IpAddr,
        /// The destination.
        to: IpAddr,
    },
    /// No plan was applied.
    #[error("no plan was applied yet")]
    NoPlan,
    /// The tables don't answer: a defect of flowgate.
    #[error("the tables have no answer: {0}")]
    Incomplete(DropReason),
}

/// Simulates flows under one plan, with every endpoint of the plan local.
#[derive(Debug)]
pub struct Simulator {
    installer: Installer<HostTables>,
}

impl Simulator {
    /// Installs a plan into host tables of its own.
    ///
    /// # Errors
    /// The plan doesn't fit: it has more than 65,534 endpoints.
    pub fn new(plan: &Plan) -> Result<Self, InstallError<std::convert::Infallible>> {
        let tables = HostTables::for_plan(plan);
        let mut installer = Installer::adopt(tables).map_err(InstallError::Store)?;
        let mut ifindex = 0;
        for endpoint in &plan.endpoints {
            let node = endpoint.workload.as_node().is_some();
            let flags = if node { Endpoint::NODE } else { 0 };
            for (v4, v6) in EndpointAddress::pairs(&endpoint.addresses) {
                ifindex += 1;
                let address =
                    EndpointAddress { ifindex, v4, v6, flags, ..EndpointAddress::default() };
                installer.attach(endpoint.workload.clone(), address)?;
            }
        }
        let _ = installer.apply(&Arc::new(plan.clone()))?;
        Ok(Self { installer })
    }

    /// What would become of the first packet of a flow.
    ///
    /// # Errors
    /// The flow's ends are of different families.
    pub fn simulate(&self, flow: &Flow) -> Result<Outcome, SimulateError> {
        let plan = self.installer.plan().ok_or(SimulateError::NoPlan)?;
        simulate(self.installer.store(), plan, flow)
    }
}

/// What would become of the first packet of a flow in tables that run a plan.
///
/// # Errors
/// See [`SimulateError`].
pub fn simulate<T>(tables: &T, plan: &Plan, flow: &Flow) -> Result<Outcome, SimulateError>
where
    T: FlowTable<V4> + FlowTable<V6>,
{
    let judgement = match (flow.source, flow.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let tuple = tuple(Be32::new(source.into()), Be32::new(destination.into()), flow);
            judge::<V4, T>(tables, plan, flow, &tuple)?
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let address = |a: std::net::Ipv6Addr| Addr6::from_octets(a.octets());
            let tuple = tuple(address(source), address(destination), flow);
            judge::<V6, T>(tables, plan, flow, &tuple)?
        }
        (from, to) => return Err(SimulateError::MixedFamilies { from, to }),
    };
    Ok(outcome(plan, judgement))
}

fn tuple<A>(source: A, destination: A, flow: &Flow) -> Tuple<A> {
    let (protocol, port, icmp_type) = match flow.protocol {
        FlowProtocol::Tcp(port) => (protocol::TCP, port, 0),
        FlowProtocol::Udp(port) => (protocol::UDP, port, 0),
        FlowProtocol::Sctp(port) => (protocol::SCTP, port, 0),
        FlowProtocol::Icmp { icmp_type } => (protocol::ICMP, 0, icmp_type),
        FlowProtocol::Icmp6 { icmp_type } => (protocol::ICMPV6, 0, icmp_type),
        FlowProtocol::Other(number) => (number, 0, 0),
    };
    Tuple {
        source,
        destination,
        source_port: Be16::new(0),
        destination_port: Be16::new(port),
        protocol,
        icmp_type,
    }
}

fn judge<F: flowgate_pipeline::Family, T: FlowTable<F>>(
    tables: &T,
    plan: &Plan,
    flow: &Flow,
    tuple: &Tuple<F::Addr>,
) -> Result<Judgement, SimulateError> {
    let incomplete = SimulateError::Incomplete;
    let mut source = policy::identify::<F, T>(tables, &tuple.source).map_err(incomplete)?;
    let destination = policy::identify::<F, T>(tables, &tuple.destination).map_err(incomplete)?;
    if is_node(tables, source.slot) && stays_on_node(plan, flow) {
        source.slot = NO_SLOT;
    }
    let mut event = Event::new_zeroed();
    event.judgement = Judgement::NONE;
    let generation = Tables::generation(tables);
    let service = Service::of::<F>(tuple);
    let result = policy::judge(tables, generation, (source, destination), service, &mut event);
    let judgement = event.judgement;
    match result {
        Ok(()) => Ok(judgement),
        Err(reason) if reason.is_policy() => Ok(judgement),
        // Neither end is local: nobody judges.
        Err(DropReason::UnknownIdentity) if judgement == Judgement::NONE => Ok(judgement),
        Err(reason) => Err(SimulateError::Incomplete(reason)),
    }
}

fn is_node<T: Tables>(tables: &T, slot: u32) -> bool {
    slot != NO_SLOT && tables.slot(slot).is_some_and(|end| end.flags & Endpoint::NODE != 0)
}

/// The hooks tell by the link on which they sit; where the endpoints of all nodes are local, only the
/// plan knows which of them are on one.
fn stays_on_node(plan: &Plan, flow: &Flow) -> bool {
    let source = plan.endpoint(flow.source);
    source.is_some_and(|source| plan.stays_on_node(source, plan.endpoint(flow.destination)))
}

/// What a judgement says, in the plan's terms.
pub fn outcome(plan: &Plan, judgement: Judgement) -> Outcome {
    Outcome { egress: side(plan, judgement.egress), ingress: side(plan, judgement.ingress) }
}

fn side(plan: &Plan, number: u32) -> Side {
    if number == NOT_JUDGED { Side::NotAnEndpoint } else { plan.decided(number) }
}
