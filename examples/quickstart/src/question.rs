//! What is asked: from every pod to every other, on every port that any container declares, by
//! every family that both have.
//!
//! Pings are asked too. No port of a policy means them, so they pass where all ports do.
//! Invariant: a question has at least one flow.

use std::{collections::BTreeSet, fmt, net::IpAddr};

use flowgate_policy::{
    inventory::Workload,
    model::Protocol,
    outcome::{Flow, FlowProtocol},
};
use serde::Serialize;

/// An address family; displays as `IPv4` or `IPv6`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) enum Family {
    #[serde(rename = "4")]
    V4,
    #[serde(rename = "6")]
    V6,
}

impl Family {
    const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// A pod's own address: the first one of the family.
    fn address_of(self, pod: &Workload) -> Option<IpAddr> {
        pod.addresses.iter().copied().find(|address| address.is_ipv4() == (self == Self::V4))
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// What is wanted of the destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Service {
    /// A port.
    Port(Protocol, u16),
    /// An answer to an ICMP or ICMPv6 echo request.
    Ping,
}

impl Service {
    fn flow_protocol(self, family: Family) -> FlowProtocol {
        match (self, family) {
            (Self::Port(protocol, port), _) => FlowProtocol::to_port(protocol, port),
            (Self::Ping, Family::V4) => FlowProtocol::Icmp { icmp_type: 8 },
            (Self::Ping, Family::V6) => FlowProtocol::Icmp6 { icmp_type: 128 },
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(protocol, port) => write!(f, "{protocol}/{port}"),
            Self::Ping => f.write_str("ping"),
        }
    }
}

/// May this pod reach that one?
#[derive(Debug)]
pub(crate) struct Question<'a> {
    pub(crate) from: &'a Workload,
    pub(crate) to: &'a Workload,
    pub(crate) service: Service,
    /// One for each family, IPv4 first; at least one.
    pub(crate) flows: Vec<(Family, Flow)>,
}

/// Every question about these pods, in their order.
pub(crate) fn questions<'a>(pods: &[&'a Workload]) -> Vec<Question<'a>> {
    let services = services(pods);
    let mut questions = Vec::new();
    for &from in pods {
        for &to in pods.iter().filter(|to| to.id != from.id) {
            let asked = services.iter().map(|&service| question(from, to, service));
            let asked: Vec<_> = asked.filter(|question| !question.flows.is_empty()).collect();
            if asked.is_empty() {
                let (from, to) = (&from.id, &to.id);
                eprintln!("warning: {from} to {to} is left out: no address family in common");
            }
            questions.extend(asked);
        }
    }
    if questions.is_empty() {
        eprintln!("warning: there is nothing to ask: no two pods that share an address family");
    }
    questions
}

/// The ports that any container declares, and the ping.
pub(crate) fn services(pods: &[&Workload]) -> BTreeSet<Service> {
    let declared = pods.iter().flat_map(|pod| &pod.ports);
    let ports = declared.map(|declared| Service::Port(declared.protocol, declared.port));
    ports.chain([Service::Ping]).collect()
}

fn question<'a>(from: &'a Workload, to: &'a Workload, service: Service) -> Question<'a> {
    let flow = |family: Family| {
        let source = family.address_of(from)?;
        let destination = family.address_of(to)?;
        Some((family, Flow { source, destination, protocol: service.flow_protocol(family) }))
    };
    Question { from, to, service, flows: Family::ALL.into_iter().filter_map(flow).collect() }
}
