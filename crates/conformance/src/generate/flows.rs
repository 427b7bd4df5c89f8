//! Flows between addresses that matter to a case, at ports where its rules begin and end.

use std::net::IpAddr;

use flowgate_policy::{
    model::{PortMatch, Ports, Protocol, Service},
    outcome::{Flow, FlowProtocol},
};

use super::{
    Case,
    addresses::{edges, of_nodes, of_workloads, world},
    choices::Choices,
    policies::PORTS,
};

pub(super) fn flow(choices: &mut Choices, case: &Case) -> Flow {
    let source = address(choices, case, [60, 12, 14, 14], None);
    let others = if of_workloads(&case.inventory).contains(&source) {
        [60, 10, 15, 15]
    } else {
        [92, 2, 3, 3]
    };
    let destination = address(choices, case, others, Some(source));
    Flow { source, destination, protocol: protocol(choices, case, source.is_ipv4()) }
}

/// An address of a workload, a node, the world, or at the edge of a network, by weight; not `other`
/// but of its family.
fn address(
    choices: &mut Choices,
    case: &Case,
    weights: [usize; 4],
    other: Option<IpAddr>,
) -> IpAddr {
    let fits = |address: &IpAddr| {
        other.is_none_or(|other| other != *address && other.is_ipv4() == address.is_ipv4())
    };
    let mut pool = match choices.weighted(&weights) {
        0 => of_workloads(&case.inventory),
        1 => of_nodes(&case.inventory),
        2 => world(),
        _ => edges(&case.policies),
    };
    pool.retain(fits);
    if pool.is_empty() {
        // There are several of each family in the world, so one of them is another.
        pool = world();
        pool.retain(fits);
    }
    choices.one(&pool)
}

pub(super) fn protocol(choices: &mut Choices, case: &Case, ipv4: bool) -> FlowProtocol {
    match choices.weighted(&[80, 14, 6]) {
        0 => {
            let (protocol, port) = port(choices, case);
            FlowProtocol::to_port(protocol, port)
        }
        1 if ipv4 => FlowProtocol::Icmp { icmp_type: choices.one(&[8, 0, 3, 13]) },
        1 => FlowProtocol::Icmp6 { icmp_type: choices.one(&[128, 129, 1, 2]) },
        _ => FlowProtocol::Other(choices.one(&[47, 50, 89, 4])),
    }
}

/// A port that a rule names or a workload declares, or one beside it, or any other.
fn port(choices: &mut Choices, case: &Case) -> (Protocol, u16) {
    let protocol = choices.one(&[Protocol::Tcp, Protocol::Udp, Protocol::Sctp]);
    match choices.weighted(&[50, 25, 25]) {
        0 => {
            let named = boundaries(case);
            if named.is_empty() { (protocol, 80) } else { choices.one(&named) }
        }
        1 => {
            let ports = case.inventory.workloads.iter().flat_map(|workload| &workload.ports);
            let declared: Vec<_> = ports.map(|port| (port.protocol, port.port)).collect();
            if declared.is_empty() { (protocol, 80) } else { choices.one(&declared) }
        }
        _ => (protocol, choices.one(&PORTS)),
    }
}

/// The first and last port of every range, and the ports before and behind.
fn boundaries(case: &Case) -> Vec<(Protocol, u16)> {
    let rules = case.policies.iter().flat_map(|policy| [&policy.ingress, &policy.egress]);
    let ports = rules.flatten().flatten().filter_map(|rule| match &rule.ports {
        Ports::OneOf(services) => Some(services),
        Ports::Any => None,
    });
    let ports = ports.flatten().filter_map(|service| match service {
        Service::Port(port) => Some(port),
        _ => None,
    });
    let ends = ports.flat_map(|port| match port.port {
        PortMatch::Range(first, last) => {
            let ports = [first, last, first.wrapping_sub(1), last.wrapping_add(1)];
            ports.map(|number| (port.protocol, number)).to_vec()
        }
        PortMatch::All => vec![(port.protocol, 0), (port.protocol, u16::MAX)],
        PortMatch::Named(_) => Vec::new(),
    });
    ends.collect()
}
