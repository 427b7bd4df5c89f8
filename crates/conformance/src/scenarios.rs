//! The scenarios of the Kubernetes end-to-end suite for `NetworkPolicy`, in our own words, and 35 more
//! for the tiers of `policy.networking.k8s.io` around it.
//!
//! Three namespaces x, y and z with three pods a, b and c each, dual stack, with the ports 80 and 81 of
//! TCP, UDP and SCTP. Each step of a scenario has manifests and says of every pair of pods, port,
//! protocol and family whether it is allowed: 864 expectations. A scenario with several steps changes
//! policies or labels from one to the next.
//!
//! They are data, in `scenarios/` of this crate, whose README says how to write one.
//!
//! Not here: the evaluators. What a pod sends to itself isn't asked, as in that suite.
//! Invariant: the data is complete; every line of what is expected matches something.
//! Tested by `tests/scenarios.rs`: files and list agree, and so do the
//! oracle, the plan and the pipeline over host tables.
//!
//! ```
//! use flowgate_conformance::scenarios;
//!
//! let all = scenarios::all();
//! assert_eq!(all.len(), 85);
//! let closed = &all[0].steps[0];
//! let to_x = closed.probes.iter().find(|probe| probe.to.to_string() == "x/a").unwrap();
//! assert!(!to_x.allowed);
//! ```

mod expect;
mod list;

use std::{fmt, net::IpAddr};

use flowgate_policy::{
    inventory::{Inventory, WorkloadRef},
    model::Protocol,
    outcome::{Flow, FlowProtocol},
};

use self::list::{SCENARIOS, Source, StepSource, WORLD};

/// A situation, and how it changes.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Number and name, such as `14-ports`.
    pub name: &'static str,
    /// At least one. Each one's manifests replace those of the one before.
    pub steps: Vec<Step>,
}

/// A situation.
#[derive(Clone, Debug)]
pub struct Step {
    /// Number and name, such as `2-after`; empty if it is the only step.
    pub name: &'static str,
    /// All manifests of the situation, pods and namespaces included: YAML of several documents.
    pub manifests: String,
    /// What is expected of all that can be asked.
    pub probes: Vec<Expectation>,
}

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// What is expected of one flow. Displays as `x/a -> y/b TCP/80 over IPv4`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expectation {
    /// The pod that opens it.
    pub from: WorkloadRef,
    /// The pod to which it is opened; another one.
    pub to: WorkloadRef,
    /// The protocol.
    pub protocol: Protocol,
    /// The destination port.
    pub port: u16,
    /// The family of both addresses.
    pub family: Family,
    /// Whether it comes through.
    pub allowed: bool,
}

impl Expectation {
    /// The flow, between the addresses that the two pods have in `inventory`; `None` if one has
    /// none of the family.
    #[must_use]
    pub fn flow(&self, inventory: &Inventory) -> Option<Flow> {
        Some(Flow {
            source: self.address(inventory, &self.from)?,
            destination: self.address(inventory, &self.to)?,
            protocol: FlowProtocol::to_port(self.protocol, self.port),
        })
    }

    fn address(&self, inventory: &Inventory, id: &WorkloadRef) -> Option<IpAddr> {
        let pod = inventory.workloads.iter().find(|pod| pod.id == *id)?;
        let mut addresses = pod.addresses.iter().copied();
        addresses.find(|address| address.is_ipv4() == (self.family == Family::V4))
    }
}

impl fmt::Display for Expectation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to, protocol, port, .. } = self;
        let family = match self.family {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        };
        write!(f, "{from} -> {to} {protocol}/{port} over {family}")
    }
}

/// All scenarios, in the order of their numbers.
///
/// # Panics
///
/// If the data of this crate is wrong, which its tests rule out.
#[must_use]
pub fn all() -> Vec<Scenario> {
    SCENARIOS.iter().map(scenario).collect()
}

fn scenario(source: &Source) -> Scenario {
    Scenario { name: source.name, steps: source.steps.iter().map(step).collect() }
}

fn step(source: &StepSource) -> Step {
    Step { name: source.name, manifests: manifests(source), probes: expect::read(source.expect) }
}

/// The world, with the objects that the step defines anew, and the step's own policies.
fn manifests(source: &StepSource) -> String {
    let of_world = WORLD.iter().map(|&(object, text)| {
        let replaced = source.replaced.iter().find(|(name, _)| *name == object);
        replaced.map_or(text, |&(_, text)| text)
    });
    let documents: Vec<&str> = of_world.chain([source.manifests]).collect();
    documents.join("---\n")
}
