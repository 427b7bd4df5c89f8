//! The naive oracle: what the specification of NetworkPolicy says about one flow, read aloud.
//!
//! It goes through every policy, rule and peer for every question, and shares nothing with the
//! compiler but the model and the inventory. It is the reference that everything else is tested
//! against, so it is written to be checked by eye. Not for packets, nor for large inputs.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use crate::{
    inventory::{Inventory, Workload},
    model::{
        NamespaceSelector, Peer, Peers, Policy, PolicyRef, PortMatch, Ports, Rule, WorkloadSelector,
    },
    options::Options,
    outcome::{Flow, FlowProtocol, Outcome, Side, SideVerdict},
};

/// What becomes of a new flow.
///
/// If one address has two owners, the first workload, then the first node counts; the compiler
/// refuses such input.
pub fn decide(
    inventory: &Inventory,
    policies: &[Policy],
    options: &Options,
    flow: &Flow,
) -> Outcome {
    let world = World { inventory, policies, options };
    let (source, destination) = (world.end(flow.source), world.end(flow.destination));
    Outcome {
        egress: world.egress(&source, &destination, flow.protocol),
        ingress: world.ingress(&source, &destination, flow.protocol),
    }
}

/// One end of a flow.
struct End<'a> {
    address: IpAddr,
    /// The workload that has this address; never one on the host's network.
    workload: Option<&'a Workload>,
    /// The node that has this address.
    node: Option<&'a Arc<str>>,
}

struct World<'a> {
    inventory: &'a Inventory,
    policies: &'a [Policy],
    options: &'a Options,
}

impl<'a> World<'a> {
    fn end(&self, address: IpAddr) -> End<'a> {
        let mut workloads = self.inventory.workloads.iter();
        let workload = workloads.find(|w| !w.host_network && w.addresses.contains(&address));
        let mut nodes = self.inventory.nodes.iter();
        let node = nodes.find(|node| node.addresses.contains(&address)).map(|node| &node.name);
        let host = self.inventory.workloads.iter().find(|workload| {
            workload.host_network
                && workload.node.is_some()
                && workload.addresses.contains(&address)
        });
        let node = node.or_else(|| host.and_then(|host| host.node.as_ref()));
        End { address, workload, node }
    }

    fn egress(&self, source: &End<'_>, destination: &End<'_>, protocol: FlowProtocol) -> Side {
        let Some(subject) = source.workload else { return Side::NotAnEndpoint };
        self.judge(
            subject,
            |policy| policy.egress.as_deref(),
            |rule| self.rule_matches(rule, destination, destination, protocol),
        )
    }

    fn ingress(&self, source: &End<'_>, destination: &End<'_>, protocol: FlowProtocol) -> Side {
        let Some(subject) = destination.workload else { return Side::NotAnEndpoint };
        let side = self.judge(
            subject,
            |policy| policy.ingress.as_deref(),
            |rule| self.rule_matches(rule, source, destination, protocol),
        );
        let isolated = side.verdict() != Some(SideVerdict::DefaultAllow);
        if isolated && self.is_own_node(subject, source) {
            return Side::Verdict { verdict: SideVerdict::Allow, policies: BTreeSet::new() };
        }
        side
    }

    /// The union of the rules of all policies that isolate `subject`.
    fn judge(
        &self,
        subject: &Workload,
        rules: impl Fn(&'a Policy) -> Option<&'a [Rule]>,
        matches: impl Fn(&Rule) -> bool,
    ) -> Side {
        let mut isolating: BTreeSet<PolicyRef> = BTreeSet::new();
        let mut allowing: BTreeSet<PolicyRef> = BTreeSet::new();
        for policy in self.policies {
            let Some(rules) = rules(policy) else { continue };
            if !self.selects(&policy.subject, subject) {
                continue;
            }
            isolating.insert(policy.id.clone());
            if rules.iter().any(&matches) {
                allowing.insert(policy.id.clone());
            }
        }
        let (verdict, policies) = match (isolating.is_empty(), allowing.is_empty()) {
            (true, _) => (SideVerdict::DefaultAllow, BTreeSet::new()),
            (false, true) => (SideVerdict::DefaultDeny, isolating),
            (false, false) => (SideVerdict::Allow, allowing),
        };
        Side::Verdict { verdict, policies }
    }

    fn is_own_node(&self, subject: &Workload, source: &End<'_>) -> bool {
        let node = subject.node.as_ref().or(self.options.local_node.as_ref());
        self.options.allow_local_node && source.node.is_some() && source.node == node
    }

    fn rule_matches(
        &self,
        rule: &Rule,
        peer: &End<'_>,
        destination: &End<'_>,
        protocol: FlowProtocol,
    ) -> bool {
        self.peers_match(&rule.peers, peer) && ports_match(&rule.ports, destination, protocol)
    }

    fn peers_match(&self, peers: &Peers, end: &End<'_>) -> bool {
        match peers {
            Peers::Any => true,
            Peers::OneOf(peers) => peers.iter().any(|peer| self.peer_matches(peer, end)),
        }
    }

    fn peer_matches(&self, peer: &Peer, end: &End<'_>) -> bool {
        match peer {
            Peer::Workloads(selector) => {
                end.workload.is_some_and(|workload| self.selects(selector, workload))
            }
            Peer::Cidr { cidr, except } => {
                cidr.contains(&end.address) && !except.iter().any(|e| e.contains(&end.address))
            }
        }
    }

    fn selects(&self, selector: &WorkloadSelector, workload: &Workload) -> bool {
        let namespace = &workload.id.namespace;
        let in_namespace = match &selector.namespaces {
            NamespaceSelector::Named(name) => name == namespace,
            NamespaceSelector::Matching(labels) => {
                labels.matches(&self.inventory.namespace_labels(namespace))
            }
        };
        in_namespace && selector.labels.matches(&workload.labels)
    }
}

fn ports_match(ports: &Ports, destination: &End<'_>, protocol: FlowProtocol) -> bool {
    let Ports::OneOf(ports) = ports else { return true };
    let Some((protocol, number)) = protocol.port() else { return false };
    ports.iter().any(|port| {
        port.protocol == protocol
            && match &port.port {
                PortMatch::All => true,
                PortMatch::Range(first, last) => (*first..=*last).contains(&number),
                PortMatch::Named(name) => destination.workload.is_some_and(|workload| {
                    workload.ports.iter().any(|declared| {
                        declared.name.as_ref() == Some(name)
                            && declared.protocol == protocol
                            && declared.port == number
                    })
                }),
            }
    })
}

#[cfg(test)]
mod tests {
    use flowgate_identity::{Labels, Selector};

    use super::*;
    use crate::{
        inventory::{DeclaredPort, Node, WorkloadRef},
        model::{PolicyKind, Port, Protocol},
    };

    const POD: &str = "198.18.0.1";
    const NODE: &str = "198.51.100.1";
    const WORLD: &str = "203.0.113.1";

    fn inventory() -> Inventory {
        let http = DeclaredPort { name: Some("http".into()), protocol: Protocol::Tcp, port: 80 };
        let pod = Workload {
            id: WorkloadRef { namespace: "a".into(), name: "web".into() },
            labels: Labels::from_iter([("app", "web")]),
            addresses: vec![POD.parse().unwrap()],
            ports: vec![http],
            node: Some("n1".into()),
            host_network: false,
        };
        let node = Node {
            name: "n1".into(),
            labels: Labels::new(),
            addresses: vec![NODE.parse().unwrap()],
        };
        Inventory { workloads: vec![pod], nodes: vec![node], ..Inventory::default() }
    }

    fn policy(rules: Vec<Rule>) -> Policy {
        let id =
            PolicyRef { kind: PolicyKind::NetworkPolicy, namespace: "a".into(), name: "p".into() };
        let subject = WorkloadSelector {
            namespaces: NamespaceSelector::Named("a".into()),
            labels: Selector::everything(),
        };
        Policy { id, subject, ingress: Some(rules), egress: None }
    }

    fn verdict(policies: &[Policy], source: &str, protocol: FlowProtocol) -> SideVerdict {
        let flow =
            Flow { source: source.parse().unwrap(), destination: POD.parse().unwrap(), protocol };
        let outcome = decide(&inventory(), policies, &Options::default(), &flow);
        assert_eq!(outcome.egress, Side::NotAnEndpoint);
        outcome.ingress.verdict().unwrap()
    }

    #[test]
    fn isolation_begins_with_the_first_policy() {
        assert_eq!(verdict(&[], WORLD, FlowProtocol::Tcp(80)), SideVerdict::DefaultAllow);
        let deny = policy(vec![]);
        assert_eq!(verdict(&[deny], WORLD, FlowProtocol::Tcp(80)), SideVerdict::DefaultDeny);
    }

    #[test]
    fn a_node_reaches_its_workloads() {
        assert_eq!(verdict(&[policy(vec![])], NODE, FlowProtocol::Tcp(80)), SideVerdict::Allow);
    }

    #[test]
    fn a_named_port_is_the_destinations() {
        let named = Port { protocol: Protocol::Tcp, port: PortMatch::Named("http".into()) };
        let rule = Rule { peers: Peers::Any, ports: Ports::OneOf(vec![named]) };
        let policies = [policy(vec![rule])];
        assert_eq!(verdict(&policies, WORLD, FlowProtocol::Tcp(80)), SideVerdict::Allow);
        assert_eq!(verdict(&policies, WORLD, FlowProtocol::Tcp(81)), SideVerdict::DefaultDeny);
        assert_eq!(verdict(&policies, WORLD, FlowProtocol::Udp(80)), SideVerdict::DefaultDeny);
        let ping = FlowProtocol::Icmp { icmp_type: 8 };
        assert_eq!(verdict(&policies, WORLD, ping), SideVerdict::DefaultDeny);
    }
}
