//! Flows that a rule names, or misses by one: drawn from the rule, not from what there is.

use std::net::IpAddr;

use flowgate_policy::{
    model::{
        Direction, Peer, Peers, Policy, PortMatch, Ports, Protocol, Rule, RuleAction, Service,
        Subject,
    },
    outcome::{Flow, FlowProtocol},
};

use super::{
    Case,
    addresses::{edges_of, is_documented, of_nodes, of_workloads, world},
    choices::Choices,
    flows,
};

/// A flow at a rule of a case; any flow if the rule has no subject or no peer.
pub(super) fn flow(choices: &mut Choices, case: &Case) -> Flow {
    aimed(choices, case).unwrap_or_else(|| flows::flow(choices, case))
}

fn aimed(choices: &mut Choices, case: &Case) -> Option<Flow> {
    let (policy, direction, rule) = rule(choices, case)?;
    let subject = some(choices, subjects(case, &policy.subject))?;
    let mut peers = peers(choices, case, &rule.peers);
    peers.retain(|peer| peer.is_ipv4() == subject.is_ipv4() && *peer != subject);
    let peer = some(choices, peers)?;
    let (source, destination) = match direction {
        Direction::Egress => (subject, peer),
        Direction::Ingress => (peer, subject),
    };
    let protocol = protocol(choices, case, &rule.ports, destination)?;
    Some(Flow { source, destination, protocol })
}

/// The addresses of those of whom a policy speaks.
fn subjects(case: &Case, subject: &Subject) -> Vec<IpAddr> {
    match subject {
        Subject::Workloads(selector) => {
            let workloads = case.inventory.workloads.iter();
            let selected = workloads.filter(|w| case.inventory.selects(selector, w));
            selected.flat_map(|w| w.addresses.iter().copied()).collect()
        }
        Subject::Nodes(selector) => {
            let selected = case.inventory.nodes.iter().filter(|n| selector.matches(&n.labels));
            selected.flat_map(|node| node.addresses.iter().copied()).collect()
        }
    }
}

/// Mostly one that denies, where there are any.
fn rule<'c>(choices: &mut Choices, case: &'c Case) -> Option<(&'c Policy, Direction, &'c Rule)> {
    let mut rules = Vec::new();
    for policy in &case.policies {
        for direction in [Direction::Egress, Direction::Ingress] {
            let own = policy.rules(direction).into_iter().flatten();
            rules.extend(own.map(|rule| (policy, direction, rule)));
        }
    }
    let denies = |rule: &Rule| rule.action == RuleAction::Deny;
    if choices.percent(70) && rules.iter().any(|(.., rule)| denies(rule)) {
        rules.retain(|(.., rule)| denies(rule));
    }
    some(choices, rules)
}

fn some<T: Clone>(choices: &mut Choices, items: Vec<T>) -> Option<T> {
    (!items.is_empty()).then(|| choices.one(&items))
}

/// Addresses that one item of a list matches, or lie beside.
fn peers(choices: &mut Choices, case: &Case, peers: &Peers) -> Vec<IpAddr> {
    let all = || [of_workloads(&case.inventory), of_nodes(&case.inventory), world()].concat();
    let Peers::OneOf(items) = peers else { return all() };
    match some(choices, items.iter().collect()) {
        Some(Peer::Workloads(selector)) => subjects(case, &Subject::Workloads(selector.clone())),
        Some(Peer::Cidr { cidr, except }) => {
            let mut edges: Vec<IpAddr> =
                [cidr].into_iter().chain(except).flat_map(|net| edges_of(*net)).collect();
            edges.extend(all().into_iter().filter(|address| cidr.contains(address)));
            edges.retain(|edge| is_documented(*edge));
            edges
        }
        Some(Peer::Nodes(_)) => of_nodes(&case.inventory),
        Some(Peer::Entity(_) | Peer::Domain(_)) => all(),
        None => Vec::new(),
    }
}

/// What one item of a list names, or misses by one.
fn protocol(
    choices: &mut Choices,
    case: &Case,
    ports: &Ports,
    destination: IpAddr,
) -> Option<FlowProtocol> {
    let Ports::OneOf(services) = ports else {
        return Some(flows::protocol(choices, case, destination.is_ipv4()));
    };
    let family = |protocol| match (protocol, destination.is_ipv4()) {
        (FlowProtocol::Icmp { .. }, false) | (FlowProtocol::Icmp6 { .. }, true) => None,
        _ => Some(protocol),
    };
    match some(choices, services.iter().collect())? {
        Service::Port(port) => {
            let numbers = match &port.port {
                PortMatch::All => vec![0, 80, u16::MAX],
                PortMatch::Range(first, last) => at_ends(*first, *last),
                PortMatch::Named(name) => declared(case, name, port.protocol, destination),
            };
            Some(FlowProtocol::to_port(port.protocol, some(choices, numbers)?))
        }
        Service::Icmp(wanted) => family(FlowProtocol::Icmp { icmp_type: wanted.unwrap_or(8) }),
        Service::Icmp6(wanted) => family(FlowProtocol::Icmp6 { icmp_type: wanted.unwrap_or(128) }),
        Service::Protocol(number) => family(of_number(*number)),
    }
}

/// Inside twice as often as beside.
fn at_ends(first: u16, last: u16) -> Vec<u16> {
    vec![first, last, first, last, first.wrapping_sub(1), last.wrapping_add(1)]
}

fn declared(case: &Case, name: &str, protocol: Protocol, destination: IpAddr) -> Vec<u16> {
    let mut workloads = case.inventory.workloads.iter();
    let workload = workloads.find(|w| !w.host_network && w.addresses.contains(&destination));
    let ports = workload.into_iter().flat_map(|workload| &workload.ports);
    let named =
        ports.filter(|port| port.name.as_deref() == Some(name) && port.protocol == protocol);
    named.map(|port| port.port).collect()
}

const fn of_number(number: u8) -> FlowProtocol {
    match number {
        1 => FlowProtocol::Icmp { icmp_type: 8 },
        58 => FlowProtocol::Icmp6 { icmp_type: 128 },
        6 => FlowProtocol::Tcp(80),
        17 => FlowProtocol::Udp(53),
        132 => FlowProtocol::Sctp(9090),
        other => FlowProtocol::Other(other),
    }
}
