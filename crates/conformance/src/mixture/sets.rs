//! The two sets, and the flows that tell them apart.

use std::net::IpAddr;

use flowgate_identity::{Labels, Selector};
use flowgate_policy::{
    inventory::{Inventory, Workload, WorkloadRef},
    model::{
        Direction, Entity, NamespaceSelector, Peer, Peers, Policy, PolicyKind, PolicyRef, Port,
        PortMatch, Ports, Protocol, Rule, RuleAction, Service, WorkloadSelector,
    },
    outcome::{Flow, FlowProtocol},
};

const NAMESPACE: &str = "mixture";

/// Two policy sets about the same endpoints.
///
/// What differs from one to the other: the numbers of port classes, peer classes and endpoint policies;
/// the network that IPv4 peers belong to; and the labels that client, server and twin hand on in a circle.
#[derive(Clone, Debug)]
pub struct Pair {
    /// What is there, in each set.
    pub inventories: [Inventory; 2],
    /// What it is judged by, in each set.
    pub policies: [Vec<Policy>; 2],
    /// The flows.
    pub probes: Vec<Probe>,
}

/// A flow from the client to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The flow.
    pub flow: Flow,
    /// Whether it is allowed, in each set.
    pub allowed: [bool; 2],
}

/// A port, and what becomes of it: at egress and ingress, in each set.
struct Row {
    port: u16,
    actions: [[RuleAction; 2]; 2],
}

const fn row(port: u16, first: [RuleAction; 2], second: [RuleAction; 2]) -> Row {
    Row { port, actions: [first, second] }
}

use RuleAction::{Allow, Deny};

/// Every combination of allowed and denied, and of who denies.
const ROWS: [Row; 6] = [
    row(80, [Allow, Allow], [Allow, Allow]),
    row(81, [Allow, Allow], [Allow, Deny]),
    row(82, [Deny, Allow], [Allow, Allow]),
    row(83, [Deny, Deny], [Deny, Deny]),
    row(84, [Deny, Allow], [Allow, Deny]),
    row(85, [Allow, Deny], [Deny, Allow]),
];

/// Sorts before the other ports and the other pods, in the first set alone: everything behind is numbered
/// otherwise.
const EARLIER_PORT: u16 = 79;
const EARLIER_POD: &str = "aa-first";
/// Addresses more of that pod. In the first set each of its addresses is in another network, so that the pod
/// is more peers there, and one class of peers more.
const EARLIER_ADDRESSES: [&str; 2] = ["198.18.1.200", "198.18.5.1"];
/// The network of its own address, named beside everybody: it tells peers apart, and no classes.
const EARLIER_NETWORK: &str = "198.18.4.0/24";

/// The client, whose frames are met.
pub(super) const CLIENT: &str = "client";
const SERVER: &str = "server";
const TWIN: &str = "twin";

impl Pair {
    /// The pair; it is always the same.
    ///
    /// # Panics
    /// Never: the addresses are right.
    #[must_use]
    pub fn new() -> Self {
        Self {
            inventories: [0, 1].map(inventory),
            policies: [0, 1].map(policies),
            probes: ROWS.iter().flat_map(probes).collect(),
        }
    }

    /// The workload that sends.
    #[must_use]
    pub fn client() -> WorkloadRef {
        name(CLIENT)
    }
}

impl Default for Pair {
    fn default() -> Self {
        Self::new()
    }
}

fn name(pod: &str) -> WorkloadRef {
    WorkloadRef { namespace: NAMESPACE.into(), name: pod.into() }
}

/// Pods with their addresses.
const PODS: [(&str, [&str; 2]); 4] = [
    (EARLIER_POD, ["198.18.4.1", "2001:db8:4::1"]),
    (CLIENT, ["198.18.1.1", "2001:db8:1::1"]),
    (SERVER, ["198.18.2.1", "2001:db8:2::1"]),
    (TWIN, ["198.18.1.2", "2001:db8:1::2"]),
];

/// The roles in a set: each of the three takes over another's.
fn role(pod: &str, set: usize) -> &'static str {
    match (pod, set) {
        (CLIENT, 0) | (SERVER, 1) => "red",
        (SERVER, 0) | (TWIN, 1) => "green",
        (TWIN, 0) | (CLIENT, 1) => "blue",
        _ => "grey",
    }
}

fn addresses(pod: &str, own: &[&str]) -> Vec<IpAddr> {
    let more = EARLIER_ADDRESSES.iter().filter(|_| pod == EARLIER_POD);
    own.iter().chain(more).map(|text| text.parse().expect("an address")).collect()
}

fn inventory(set: usize) -> Inventory {
    let workload = |(pod, own): &(&str, [&str; 2])| Workload {
        id: name(pod),
        labels: Labels::from_iter([("app", *pod), ("role", role(pod, set))]),
        addresses: addresses(pod, own),
        ports: vec![],
        node: None,
        host_network: false,
    };
    Inventory { workloads: PODS.iter().map(workload).collect(), ..Inventory::default() }
}

/// The networks that a set tells apart.
fn networks(set: usize) -> [&'static str; 2] {
    if set == 0 { ["198.18.1.0/24", "198.18.2.0/24"] } else { ["198.18.1.0/25", "198.18.2.0/25"] }
}

/// Whoever a rule may name, with a name for it.
fn blocks(set: usize) -> Vec<(&'static str, Peer)> {
    let roles = ["red", "blue", "green", "grey"];
    let workloads = roles.map(|role| (role, Peer::Workloads(selector("role", role))));
    let networks = networks(set).map(|text| (text, network(text)));
    workloads.into_iter().chain(networks).collect()
}

fn network(text: &str) -> Peer {
    Peer::Cidr { cidr: text.parse().expect("a network"), except: Vec::new() }
}

fn selector(key: &str, value: &str) -> WorkloadSelector {
    WorkloadSelector {
        namespaces: NamespaceSelector::Named(NAMESPACE.into()),
        labels: Selector::match_label(key, value),
    }
}

/// A policy for each pod, direction, port and block, so that each cell is decided by other ones.
fn policies(set: usize) -> Vec<Policy> {
    let mut policies: Vec<Policy> = (set == 0).then(of_everybody).into_iter().collect();
    for (pod, _) in PODS.iter().filter(|(pod, _)| set == 0 || *pod != EARLIER_POD) {
        for direction in [Direction::Egress, Direction::Ingress] {
            for (port, action) in actions(set, direction) {
                for (block, peer) in blocks(set) {
                    let name = format!("{set}-{pod}-{direction:?}-{port}-{block}");
                    let rule = Rule { action, peers: Peers::OneOf(vec![peer]), ports: ports(port) };
                    policies.push(policy(&name, pod, direction, rule));
                }
            }
        }
    }
    policies
}

fn of_everybody() -> Policy {
    let everybody = vec![network(EARLIER_NETWORK), Peer::Entity(Entity::All)];
    let rule = Rule::allow(Peers::OneOf(everybody), Ports::Any);
    policy("0-everybody", EARLIER_POD, Direction::Ingress, rule)
}

fn actions(set: usize, direction: Direction) -> Vec<(u16, RuleAction)> {
    let earlier = (set == 0).then_some((EARLIER_PORT, Allow));
    let rows = ROWS.iter().map(|row| (row.port, row.actions[set][direction as usize]));
    earlier.into_iter().chain(rows).collect()
}

fn policy(name: &str, pod: &str, direction: Direction, rule: Rule) -> Policy {
    let id = PolicyRef {
        kind: PolicyKind::FlowgatePolicy,
        namespace: NAMESPACE.into(),
        name: name.into(),
    };
    let policy = Policy::new(id, selector("app", pod));
    match direction {
        Direction::Egress => Policy { egress: Some(vec![rule]), ..policy },
        Direction::Ingress => Policy { ingress: Some(vec![rule]), ..policy },
    }
}

const PROTOCOLS: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];

fn ports(port: u16) -> Ports {
    Ports::of(
        PROTOCOLS
            .map(|protocol| Service::Port(Port { protocol, port: PortMatch::Range(port, port) })),
    )
}

/// The flows of a row: of both families, TCP, and UDP where it is denied in both sets and so never
/// tracked.
fn probes(row: &Row) -> Vec<Probe> {
    let allowed = row.actions.map(|actions| actions == [Allow, Allow]);
    let protocols = if allowed == [false, false] { &PROTOCOLS[..] } else { &PROTOCOLS[..1] };
    let address = |pod: &str, family: usize| -> IpAddr {
        let (_, addresses) = PODS.iter().find(|(name, _)| *name == pod).expect("one of them");
        addresses[family].parse().expect("an address")
    };
    let flow = |protocol, family| Flow {
        source: address(CLIENT, family),
        destination: address(SERVER, family),
        protocol: FlowProtocol::to_port(protocol, row.port),
    };
    let families = [0, 1].into_iter();
    families
        .flat_map(|family| protocols.iter().map(move |protocol| flow(*protocol, family)))
        .map(|flow| Probe { flow, allowed })
        .collect()
}
