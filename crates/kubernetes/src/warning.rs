//! What was noticed in manifests that were accepted.

use std::sync::Arc;

use flowgate_policy::{
    inventory::WorkloadRef,
    model::{Directions, PolicyRef},
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use thiserror::Error;

use crate::Location;

/// Something in the manifests that was accepted, and perhaps isn't what was meant.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Warning {
    /// An object of a kind that isn't read; the location names kind and name.
    #[error("{at}: this kind is ignored")]
    IgnoredKind {
        /// The object.
        at: Box<Location>,
    },
    /// A network with host bits, which count as zero.
    #[error("{at}: {cidr} has host bits: it is read as {}", .cidr.trunc())]
    HostBits {
        /// The field.
        at: Box<Location>,
        /// The network as it was written.
        cidr: IpNet,
    },
    /// Rules for a direction that `policyTypes` leaves out: they say nothing.
    #[error("{at}: these rules have no effect, because policyTypes lacks {policy_type}")]
    RulesWithoutType {
        /// The field.
        at: Box<Location>,
        /// The missing type.
        policy_type: &'static str,
    },
    /// An empty list of egress rules without `policyTypes`: Kubernetes doesn't isolate egress then.
    #[error("{at}: empty, and without policyTypes this does not isolate egress")]
    EmptyEgressWithoutType {
        /// The field.
        at: Box<Location>,
    },
    /// An empty list of rules in a Cilium policy: it says nothing about the direction.
    #[error("{at}: empty, and so it isolates nothing")]
    EmptySection {
        /// The field.
        at: Box<Location>,
    },
    /// A rule of a Cilium policy that names neither peers nor ports.
    #[error("{at}: names neither peers nor ports, and so it allows nothing")]
    EmptyRule {
        /// The rule.
        at: Box<Location>,
    },
    /// A Cilium policy asks for default denial in a direction for which it has no rule.
    #[error("{at}: has no effect without a rule for this direction")]
    DefaultDenyWithoutRules {
        /// The field.
        at: Box<Location>,
    },
    /// Networks of a Cilium policy: Cilium matches what is outside of the cluster alone.
    #[error("{at}: matches the addresses of pods and nodes too, unlike in Cilium")]
    NetworksMatchCluster {
        /// The list of networks.
        at: Box<Location>,
    },
    /// A string that Kubernetes' YAML reader takes for a boolean.
    #[error("{at}: read as the string {text:?}, but Kubernetes reads a boolean: put it in quotes")]
    BooleanElsewhere {
        /// The field.
        at: Box<Location>,
        /// The text.
        text: Box<str>,
    },
    /// Domain names as peers: nothing resolves them here, so the rule doesn't allow what it means to.
    #[error("{at}: domain names match nothing as long as nothing resolves them")]
    UnresolvedDomains {
        /// The field.
        at: Box<Location>,
    },
    /// Two policies of one ordered tier and one priority may contradict each other, and no
    /// specification says which of them counts.
    #[error(
        "{at}: has the tier and priority of {other}, and their rules of {} may contradict each \
         other: which one counts is undefined (here {first})",
        named(.directions)
    )]
    EqualPriority {
        /// The one that was read last.
        at: Box<Location>,
        /// The one that was read first.
        other: PolicyRef,
        /// The directions in which they may.
        directions: Directions,
        /// The one that counts here: the first by kind and name.
        first: PolicyRef,
    },
    /// Some ends had no address and got one, while policies name addresses.
    #[error(
        "addresses from {ipv4} and {ipv6} were given to what had none ({}), and policies with an \
         ipBlock or networks are judged by them",
        listed(.workloads, .nodes)
    )]
    AssignedAddresses {
        /// The pods that got an address.
        workloads: Vec<WorkloadRef>,
        /// The nodes that got an address.
        nodes: Vec<Arc<str>>,
        /// Where IPv4 addresses came from.
        ipv4: Ipv4Net,
        /// Where IPv6 addresses came from.
        ipv6: Ipv6Net,
    },
}

fn named(directions: &Directions) -> &'static str {
    match (directions.contains(Directions::INGRESS), directions.contains(Directions::EGRESS)) {
        (true, true) => "ingress and egress",
        (true, false) => "ingress",
        _ => "egress",
    }
}

fn listed(workloads: &[WorkloadRef], nodes: &[Arc<str>]) -> String {
    let pods = workloads.iter().map(|id| format!("Pod/{id}"));
    let nodes = nodes.iter().map(|name| format!("Node/{name}"));
    pods.chain(nodes).collect::<Vec<_>>().join(", ")
}
