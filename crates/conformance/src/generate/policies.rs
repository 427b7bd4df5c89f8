//! Policies: every feature of the model, over the labels, addresses and ports of an inventory.

use std::{net::IpAddr, sync::Arc};

use flowgate_identity::{Operator, Requirement, Selector};
use flowgate_policy::{
    inventory::Inventory,
    model::{
        Directions, Entity, Mode, NamespaceSelector, Peer, Peers, Policy, PolicyKind, PolicyRef,
        Port, PortMatch, Ports, Protocol, Response, Rule, RuleAction, Service, Subject, Tier,
        WorkloadSelector,
    },
};
use ipnet::IpNet;

use super::{
    addresses::{of_nodes, of_workloads, world},
    choices::Choices,
    inventory::{KEYS, NAMESPACES, PORT_NAMES, values},
};

/// Where rules begin and end.
pub(super) const PORTS: [u16; 9] = [80, 53, 8080, 443, 81, 9090, 1, 65535, 0];

pub(super) fn policies(choices: &mut Choices, inventory: &Inventory) -> Vec<Policy> {
    let mut author = Author { choices, inventory };
    let count = author.choices.between(1, 10);
    (0..count).map(|number| author.policy(number)).collect()
}

struct Author<'a> {
    choices: &'a mut Choices,
    inventory: &'a Inventory,
}

impl Author<'_> {
    /// Half of them NetworkPolicies, the others of every tier and kind of rule.
    fn policy(&mut self, number: usize) -> Policy {
        let policy = self.network_policy(number);
        let policy = match self.choices.weighted(&[50, 20, 15, 15]) {
            0 => policy,
            1 => self.of_cluster(policy, |priority| Tier::Admin { priority }),
            2 => self.of_cluster(policy, |priority| Tier::Baseline { priority }),
            _ => self.of_flowgate(policy),
        };
        let policy = self.with_words(policy);
        if self.choices.percent(10) { self.of_nodes(policy) } else { policy }
    }

    /// A policy of the same rules, tier and mode that speaks of nodes. Half of them of all nodes.
    fn of_nodes(&mut self, policy: Policy) -> Policy {
        let id =
            PolicyRef { kind: PolicyKind::FlowgateNodePolicy, namespace: "".into(), ..policy.id };
        let labels = match self.choices.percent(50) {
            true => Selector::everything(),
            false => self.selector(&KEYS[..2]),
        };
        Policy { id, subject: Subject::Nodes(labels), ..policy }
    }

    /// What it tells a sender, and its value for the log: of every kind, though manifests of some can't
    /// say it.
    fn with_words(&mut self, policy: Policy) -> Policy {
        const RESPONSES: [Response; 3] = [Response::Silence, Response::Icmp, Response::Reset];
        let response = match self.choices.weighted(&[30, 10, 30, 30]) {
            0 => None,
            said => Some(RESPONSES[said - 1]),
        };
        let log = self.choices.percent(30).then(|| self.choices.one(&["audit", "team-a"]).into());
        Policy { response, log, ..policy }
    }

    /// Priorities are few, so that policies meet at one, and include both ends.
    fn of_cluster(&mut self, policy: Policy, tier: impl Fn(u16) -> Tier) -> Policy {
        let id =
            PolicyRef { kind: PolicyKind::ClusterNetworkPolicy, namespace: "".into(), ..policy.id };
        let mut policy = Policy { id, tier: tier(self.choices.one(&[5, 0, 1000])), ..policy };
        if let Subject::Workloads(selector) = &mut policy.subject
            && self.choices.percent(60)
        {
            selector.namespaces = self.namespaces();
        }
        self.draw_actions(&mut policy, &[40, 35, 25]);
        policy
    }

    fn of_flowgate(&mut self, policy: Policy) -> Policy {
        let id = PolicyRef { kind: PolicyKind::FlowgatePolicy, ..policy.id };
        let mode = self.mode();
        let default_deny = self.choices.one(&[
            Directions::all(),
            Directions::empty(),
            Directions::EGRESS,
            Directions::INGRESS,
        ]);
        let mut policy = Policy { id, mode, default_deny, ..policy };
        self.draw_actions(&mut policy, &[55, 45, 0]);
        policy
    }

    fn mode(&mut self) -> Mode {
        [Mode::Enforce, Mode::Audit, Mode::Staged][self.choices.weighted(&[50, 25, 25])]
    }

    fn draw_actions(&mut self, policy: &mut Policy, weights: &[usize; 3]) {
        const ACTIONS: [RuleAction; 3] = [RuleAction::Allow, RuleAction::Deny, RuleAction::Pass];
        for rule in [&mut policy.ingress, &mut policy.egress].into_iter().flatten().flatten() {
            rule.action = ACTIONS[self.choices.weighted(weights)];
            if self.choices.percent(25) {
                let other = self.other_peer();
                match &mut rule.peers {
                    Peers::OneOf(peers) => peers.push(other),
                    Peers::Any => rule.peers = Peers::OneOf(vec![other]),
                }
            }
            if self.choices.percent(20) {
                let other = self.other_service();
                match &mut rule.ports {
                    Ports::OneOf(services) => services.push(other),
                    Ports::Any => rule.ports = Ports::of([other]),
                }
            }
        }
    }

    /// A peer that NetworkPolicy can't name.
    fn other_peer(&mut self) -> Peer {
        const ENTITIES: [Entity; 8] = [
            Entity::World,
            Entity::All,
            Entity::WorldIpv4,
            Entity::WorldIpv6,
            Entity::Cluster,
            Entity::Host,
            Entity::RemoteNode,
            Entity::None,
        ];
        match self.choices.weighted(&[60, 30, 10]) {
            0 => Peer::Entity(self.choices.one(&ENTITIES)),
            1 => Peer::Nodes(self.selector(&KEYS)),
            _ => Peer::Domain("example.org".into()),
        }
    }

    /// What has no port.
    fn other_service(&mut self) -> Service {
        let icmp_type = [None, Some(self.choices.one(&[8, 0, 3, 128, 1]))];
        match self.choices.weighted(&[30, 30, 40]) {
            0 => Service::Icmp(self.choices.one(&icmp_type)),
            1 => Service::Icmp6(self.choices.one(&icmp_type)),
            _ => Service::Protocol(self.choices.one(&[47, 6, 17, 132, 1, 58, 50])),
        }
    }

    fn network_policy(&mut self, number: usize) -> Policy {
        let namespace = self.namespace();
        let id = PolicyRef {
            kind: PolicyKind::NetworkPolicy,
            namespace: namespace.clone(),
            name: format!("policy-{number}").into(),
        };
        let labels = match self.choices.percent(60) {
            true => Selector::everything(),
            false => self.selector(&KEYS[..2]),
        };
        let namespaces = NamespaceSelector::Named(namespace.clone());
        let (ingress, egress) = match self.choices.weighted(&[4, 3, 3]) {
            0 => (Some(self.rules(&namespace)), None),
            1 => (None, Some(self.rules(&namespace))),
            _ => (Some(self.rules(&namespace)), Some(self.rules(&namespace))),
        };
        Policy { ingress, egress, ..Policy::new(id, WorkloadSelector { namespaces, labels }) }
    }

    /// The namespace of a workload, or now and then one in which nobody may be.
    fn namespace(&mut self) -> Arc<str> {
        if self.choices.percent(10) {
            return self.choices.one(&NAMESPACES).into();
        }
        self.choices.one(&self.inventory.workloads).id.namespace
    }

    fn rules(&mut self, namespace: &Arc<str>) -> Vec<Rule> {
        let count = self.choices.weighted(&[10, 45, 30, 15]);
        (0..count).map(|_| Rule::allow(self.peers(namespace), self.ports())).collect()
    }

    fn peers(&mut self, namespace: &Arc<str>) -> Peers {
        match self.choices.weighted(&[20, 77, 3]) {
            0 => Peers::Any,
            1 => {
                let count = self.choices.between(1, 3);
                Peers::OneOf((0..count).map(|_| self.peer(namespace)).collect())
            }
            _ => Peers::OneOf(Vec::new()),
        }
    }

    fn peer(&mut self, namespace: &Arc<str>) -> Peer {
        let named = NamespaceSelector::Named(namespace.clone());
        let (namespaces, labels) = match self.choices.weighted(&[25, 20, 20, 35]) {
            0 => (named, self.selector(&KEYS)),
            1 => (self.namespaces(), Selector::everything()),
            2 => (self.namespaces(), self.selector(&KEYS)),
            _ => return self.cidr(),
        };
        Peer::Workloads(WorkloadSelector { namespaces, labels })
    }

    fn namespaces(&mut self) -> NamespaceSelector {
        NamespaceSelector::Matching(self.selector(&KEYS[1..]))
    }

    fn selector(&mut self, keys: &[&'static str]) -> Selector {
        let count = self.choices.weighted(&[35, 50, 15]);
        (0..count).map(|_| self.requirement(keys)).collect()
    }

    fn requirement(&mut self, keys: &[&'static str]) -> Requirement {
        let key = self.choices.one(keys);
        let operator = match self.choices.weighted(&[50, 20, 15, 15]) {
            0 => Operator::In(self.values(key)),
            1 => Operator::NotIn(self.values(key)),
            2 => Operator::Exists,
            _ => Operator::DoesNotExist,
        };
        Requirement { key: key.into(), operator }
    }

    fn values(&mut self, key: &str) -> std::collections::BTreeSet<Arc<str>> {
        let count = self.choices.between(1, 2);
        (0..count).map(|_| self.choices.one(values(key)).into()).collect()
    }

    /// A network around an address that matters, with exceptions around others inside it.
    fn cidr(&mut self) -> Peer {
        let address = self.address();
        let lengths: &[u8] = match address {
            IpAddr::V4(_) => &[32, 31, 24, 25, 30, 28, 16, 15, 0],
            IpAddr::V6(_) => &[128, 127, 64, 48, 65, 112, 32, 0],
        };
        let cidr = network(address, self.choices.one(lengths));
        let wanted = self.choices.weighted(&[50, 30, 20]);
        let except = (0..wanted).filter_map(|_| self.exception(cidr, lengths)).collect();
        Peer::Cidr { cidr, except }
    }

    fn exception(&mut self, cidr: IpNet, lengths: &[u8]) -> Option<IpNet> {
        let address = self.address();
        let except = network(address, self.choices.one(lengths).min(longest(address)));
        (cidr.contains(&except) && cidr != except).then_some(except)
    }

    fn address(&mut self) -> IpAddr {
        let (workloads, nodes) = (of_workloads(self.inventory), of_nodes(self.inventory));
        match self.choices.weighted(&[55, 15, 30]) {
            0 if !workloads.is_empty() => self.choices.one(&workloads),
            1 => self.choices.one(&nodes),
            _ => self.choices.one(&world()),
        }
    }

    fn ports(&mut self) -> Ports {
        match self.choices.weighted(&[35, 62, 3]) {
            0 => Ports::Any,
            1 => {
                let count = self.choices.between(1, 3);
                Ports::of((0..count).map(|_| self.port()).collect::<Vec<_>>())
            }
            _ => Ports::OneOf(Vec::new()),
        }
    }

    fn port(&mut self) -> Port {
        let protocol = self.choices.one(&[Protocol::Tcp, Protocol::Udp, Protocol::Sctp]);
        let first = self.choices.one(&PORTS);
        let port = match self.choices.weighted(&[40, 20, 25, 15]) {
            0 => PortMatch::Range(first, first),
            1 => PortMatch::Range(first, first.saturating_add(self.choices.one(&[1, 10, 20000]))),
            2 => return self.named_port(),
            _ => PortMatch::All,
        };
        Port { protocol, port }
    }

    /// Mostly under the protocol under which workloads declare it.
    fn named_port(&mut self) -> Port {
        let name = self.choices.one(&PORT_NAMES);
        let protocol = match name {
            "signal" => Protocol::Sctp,
            "dns" => self.choices.one(&[Protocol::Udp, Protocol::Tcp]),
            _ => self.choices.one(&[Protocol::Tcp, Protocol::Tcp, Protocol::Tcp, Protocol::Udp]),
        };
        Port { protocol, port: PortMatch::Named(name.into()) }
    }
}

const fn longest(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The network of this length around an address; the address alone if there is none.
fn network(address: IpAddr, length: u8) -> IpNet {
    IpNet::new(address, length).map_or_else(|_| IpNet::from(address), |network| network.trunc())
}
