//! The naive oracle: what the specifications of the policy kinds say about one flow, read aloud.
//!
//! It goes through every policy, rule and peer for every question, and shares nothing with the
//! compiler but the model and the inventory. It is the reference that everything else is tested
//! against, so it is written to be checked by eye. Not for packets, nor for large inputs.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use flowgate_abi::policy::Direction;
use flowgate_identity::Labels;

use crate::{
    inventory::{Inventory, Workload, WorkloadRef},
    model::{
        Entity, Mode, Peer, Peers, Policy, PolicyRef, Port, PortMatch, Ports, Response, Rule,
        RuleAction, Service, Subject, Tier,
    },
    options::{EndpointScope, Options},
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
pub(crate) struct End<'a> {
    address: IpAddr,
    /// The workload that has this address; never one on the host's network.
    workload: Option<&'a Workload>,
    /// The node that has this address.
    node: Option<&'a Arc<str>>,
}

/// An end at which flows are judged.
#[derive(Clone, Copy)]
pub(crate) enum Judge<'a> {
    Workload(&'a Workload),
    Node(&'a Arc<str>),
}

impl Judge<'_> {
    /// What plans call it.
    pub(crate) fn id(self) -> WorkloadRef {
        match self {
            Self::Workload(workload) => workload.id.clone(),
            Self::Node(name) => WorkloadRef::node(name.clone()),
        }
    }
}

/// All that a flow is judged by.
pub(crate) struct World<'a> {
    pub(crate) inventory: &'a Inventory,
    pub(crate) policies: &'a [Policy],
    pub(crate) options: &'a Options,
}

impl<'a> World<'a> {
    pub(crate) fn end(&self, address: IpAddr) -> End<'a> {
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

    /// Who judges what `source` opens to `destination`, on the source's side.
    pub(crate) fn sender(&self, source: &End<'a>, destination: &End<'a>) -> Option<Judge<'a>> {
        match self.judge_at(source) {
            Some(Judge::Node(node)) if self.node_of(destination) == Some(node) => None,
            judge => judge,
        }
    }

    /// Who judges what is opened to `destination`.
    pub(crate) fn receiver(&self, destination: &End<'a>) -> Option<Judge<'a>> {
        self.judge_at(destination)
    }

    /// Workloads and nodes whose policies are enforced here; nodes that a policy selects.
    fn judge_at(&self, end: &End<'a>) -> Option<Judge<'a>> {
        let Options { endpoints, local_node, .. } = self.options;
        let is_here = |node: &Option<Arc<str>>| match endpoints {
            EndpointScope::All => true,
            EndpointScope::LocalNode => node == local_node,
        };
        if let Some(workload) = end.workload {
            let is_here = workload.node.is_none() || is_here(&workload.node);
            return is_here.then_some(Judge::Workload(workload));
        }
        let node = Judge::Node(end.node.filter(|node| is_here(&Some(Arc::clone(node))))?);
        self.policies.iter().any(|policy| self.speaks_of(policy, node)).then_some(node)
    }

    /// The node that an end is or runs on.
    fn node_of(&self, end: &End<'a>) -> Option<&'a Arc<str>> {
        match end.workload {
            Some(workload) => workload.node.as_ref().or(self.options.local_node.as_ref()),
            None => end.node,
        }
    }

    fn egress(&self, source: &End<'a>, destination: &End<'a>, protocol: FlowProtocol) -> Side {
        let Some(subject) = self.sender(source, destination) else { return Side::NotAnEndpoint };
        let matches = |rule: &Rule| self.rule_matches(rule, destination, destination, protocol);
        self.judge(&self.applying(subject, Direction::Egress), Direction::Egress, &matches)
    }

    fn ingress(&self, source: &End<'a>, destination: &End<'a>, protocol: FlowProtocol) -> Side {
        let Some(subject) = self.receiver(destination) else { return Side::NotAnEndpoint };
        let applying = self.applying(subject, Direction::Ingress);
        if !applying.is_empty() && self.is_own_node(subject, source) {
            return Said { verdict: SideVerdict::Allow, deciding: BTreeSet::new() }.side(&[]);
        }
        let matches = |rule: &Rule| self.rule_matches(rule, source, destination, protocol);
        self.judge(&applying, Direction::Ingress, &matches)
    }

    /// The policies that speak of `subject` in a direction, by name.
    pub(crate) fn applying(&self, subject: Judge<'_>, direction: Direction) -> Vec<&'a Policy> {
        let policies = self.policies.iter();
        let mut applying: Vec<&Policy> = policies
            .filter(|policy| policy.rules(direction).is_some())
            .filter(|policy| self.speaks_of(policy, subject))
            .collect();
        applying.sort_by(|a, b| a.id.cmp(&b.id));
        applying
    }

    fn speaks_of(&self, policy: &Policy, subject: Judge<'_>) -> bool {
        match (&policy.subject, subject) {
            (Subject::Workloads(selector), Judge::Workload(one)) => {
                self.inventory.selects(selector, one)
            }
            (Subject::Nodes(selector), Judge::Node(name)) => {
                selector.matches(&self.node_labels(name))
            }
            _ => false,
        }
    }

    /// What the policies say, those on trial beside.
    fn judge(
        &self,
        applying: &[&Policy],
        direction: Direction,
        matches: &dyn Fn(&Rule) -> bool,
    ) -> Side {
        let now: Vec<&Policy> =
            applying.iter().filter(|policy| policy.mode != Mode::Staged).copied().collect();
        let said = audited(&now, direction, matches);
        let then = audited(applying, direction, matches);
        let mut side = said.side(applying);
        if let Side::Verdict { verdict, staged, response, .. } = &mut side {
            *staged = (then.verdict != *verdict).then_some(then.verdict);
            *response = told(&now, direction, matches);
        }
        side
    }

    pub(crate) fn is_own_node(&self, subject: Judge<'_>, source: &End<'_>) -> bool {
        let node = match subject {
            Judge::Workload(workload) => workload.node.as_ref(),
            Judge::Node(name) => Some(name),
        };
        let node = node.or(self.options.local_node.as_ref());
        self.options.allow_local_node && source.node.is_some() && source.node == node
    }

    pub(crate) fn rule_matches(
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
                end.workload.is_some_and(|workload| self.inventory.selects(selector, workload))
            }
            Peer::Cidr { cidr, except } => {
                cidr.contains(&end.address) && !except.iter().any(|e| e.contains(&end.address))
            }
            Peer::Nodes(selector) => {
                end.node.is_some_and(|node| selector.matches(&self.node_labels(node)))
            }
            Peer::Entity(entity) => self.is_one_of(*entity, end),
            Peer::Domain(_) => false,
        }
    }

    fn node_labels(&self, name: &str) -> Labels {
        let mut nodes = self.inventory.nodes.iter();
        nodes.find(|node| &*node.name == name).map(|node| node.labels.clone()).unwrap_or_default()
    }

    fn is_one_of(&self, entity: Entity, end: &End<'_>) -> bool {
        let known = end.workload.is_some() || end.node.is_some();
        let local = end.node.is_some() && end.node == self.options.local_node.as_ref();
        match entity {
            Entity::All => true,
            Entity::World => !known,
            Entity::WorldIpv4 => !known && end.address.is_ipv4(),
            Entity::WorldIpv6 => !known && end.address.is_ipv6(),
            Entity::Cluster => known,
            Entity::Host => local,
            Entity::RemoteNode => end.node.is_some() && !local,
            Entity::None => false,
        }
    }
}

/// A verdict, and the policies that say so.
struct Said {
    verdict: SideVerdict,
    deciding: BTreeSet<PolicyRef>,
}

impl Said {
    /// As an end's answer; the policies that decide are among `applying`.
    fn side(self, applying: &[&Policy]) -> Side {
        let log = among(applying, &self.deciding).filter_map(|policy| policy.log.clone()).collect();
        Side::Verdict {
            verdict: self.verdict,
            policies: self.deciding,
            staged: None,
            response: Response::Silence,
            log,
        }
    }
}

fn among<'p>(
    policies: &'p [&'p Policy],
    named: &BTreeSet<PolicyRef>,
) -> impl Iterator<Item = &'p Policy> {
    policies.iter().copied().filter(|policy| named.contains(&policy.id))
}

/// What policies come to: a denial that isn't there without those in audit mode passes.
fn audited(policies: &[&Policy], direction: Direction, matches: &dyn Fn(&Rule) -> bool) -> Said {
    let said = evaluate(policies, direction, matches);
    let without = evaluate(&enforced(policies), direction, matches);
    if !said.verdict.allowed() && without.verdict.allowed() {
        return Said { verdict: SideVerdict::Audit, ..said };
    }
    said
}

/// What the sender is told: by those that deny if those in audit mode aren't asked, the quietest of
/// what they say.
fn told(policies: &[&Policy], direction: Direction, matches: &dyn Fn(&Rule) -> bool) -> Response {
    let denies = |policies: &[&Policy]| {
        Some(evaluate(policies, direction, matches)).filter(|said| !said.verdict.allowed())
    };
    let enforced = enforced(policies);
    let (Some(_), Some(said)) = (denies(policies), denies(&enforced)) else {
        return Response::Silence;
    };
    let responses: Vec<Response> =
        among(&enforced, &said.deciding).filter_map(|policy| policy.response).collect();
    for quiet in [Response::Silence, Response::Icmp, Response::Reset] {
        if responses.contains(&quiet) {
            return quiet;
        }
    }
    Response::Silence
}

fn enforced<'p>(policies: &[&'p Policy]) -> Vec<&'p Policy> {
    policies.iter().filter(|policy| policy.mode != Mode::Audit).copied().collect()
}

/// Admin tier, namespaces, baseline tier, allow.
fn evaluate(policies: &[&Policy], direction: Direction, matches: &dyn Fn(&Rule) -> bool) -> Said {
    let mut admin = Vec::new();
    let mut namespaces = Vec::new();
    let mut baseline = Vec::new();
    for policy in policies {
        match policy.tier {
            Tier::Admin { priority } => admin.push((priority, *policy)),
            Tier::Namespace => namespaces.push(*policy),
            Tier::Baseline { priority } => baseline.push((priority, *policy)),
        }
    }
    in_order(admin, direction, matches)
        .or_else(|| of_namespaces(&namespaces, direction, matches))
        .or_else(|| in_order(baseline, direction, matches))
        .unwrap_or(Said { verdict: SideVerdict::DefaultAllow, deciding: BTreeSet::new() })
}

/// The first rule that matches, by priority, then by the policy's name, then in the policy's order.
fn in_order(
    mut policies: Vec<(u16, &Policy)>,
    direction: Direction,
    matches: &dyn Fn(&Rule) -> bool,
) -> Option<Said> {
    policies.sort_by_key(|(priority, policy)| (*priority, policy.id.clone()));
    for (_, policy) in policies {
        for rule in policy.rules(direction).into_iter().flatten() {
            if !matches(rule) {
                continue;
            }
            let verdict = match rule.action {
                RuleAction::Allow => SideVerdict::Allow,
                RuleAction::Deny => SideVerdict::Deny,
                RuleAction::Pass => return None,
            };
            return Some(Said { verdict, deciding: BTreeSet::from([policy.id.clone()]) });
        }
    }
    None
}

/// Any denial, else any allowance, else isolation.
fn of_namespaces(
    policies: &[&Policy],
    direction: Direction,
    matches: &dyn Fn(&Rule) -> bool,
) -> Option<Said> {
    let with = |action: RuleAction| -> BTreeSet<PolicyRef> {
        let says = |policy: &&&Policy| {
            let mut rules = policy.rules(direction).into_iter().flatten();
            rules.any(|rule| rule.action == action && matches(rule))
        };
        policies.iter().filter(says).map(|policy| policy.id.clone()).collect()
    };
    let isolating = policies.iter().filter(|policy| policy.isolates(direction));
    let isolating: BTreeSet<PolicyRef> = isolating.map(|policy| policy.id.clone()).collect();
    let (denying, allowing) = (with(RuleAction::Deny), with(RuleAction::Allow));
    if !denying.is_empty() {
        Some(Said { verdict: SideVerdict::Deny, deciding: denying })
    } else if !allowing.is_empty() {
        Some(Said { verdict: SideVerdict::Allow, deciding: allowing })
    } else if !isolating.is_empty() {
        Some(Said { verdict: SideVerdict::DefaultDeny, deciding: isolating })
    } else {
        None
    }
}

fn ports_match(ports: &Ports, destination: &End<'_>, protocol: FlowProtocol) -> bool {
    let Ports::OneOf(services) = ports else { return true };
    services.iter().any(|service| match service {
        Service::Port(port) => port_matches(port, destination, protocol),
        Service::Icmp(wanted) => match protocol {
            FlowProtocol::Icmp { icmp_type } => wanted.is_none_or(|wanted| wanted == icmp_type),
            _ => false,
        },
        Service::Icmp6(wanted) => match protocol {
            FlowProtocol::Icmp6 { icmp_type } => wanted.is_none_or(|wanted| wanted == icmp_type),
            _ => false,
        },
        Service::Protocol(number) => protocol.number() == *number,
    })
}

fn port_matches(port: &Port, destination: &End<'_>, protocol: FlowProtocol) -> bool {
    let Some((protocol, number)) = protocol.port() else { return false };
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
}

#[cfg(test)]
mod tests {
    use flowgate_identity::Selector;

    use super::*;
    use crate::{
        inventory::{DeclaredPort, Node, WorkloadRef},
        model::{NamespaceSelector, PolicyKind, Protocol, WorkloadSelector},
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
        Policy { ingress: Some(rules), ..Policy::new(id, subject) }
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
        let rule = Rule::allow(Peers::Any, Ports::of([named]));
        let policies = [policy(vec![rule])];
        assert_eq!(verdict(&policies, WORLD, FlowProtocol::Tcp(80)), SideVerdict::Allow);
        assert_eq!(verdict(&policies, WORLD, FlowProtocol::Tcp(81)), SideVerdict::DefaultDeny);
        assert_eq!(verdict(&policies, WORLD, FlowProtocol::Udp(80)), SideVerdict::DefaultDeny);
        let ping = FlowProtocol::Icmp { icmp_type: 8 };
        assert_eq!(verdict(&policies, WORLD, ping), SideVerdict::DefaultDeny);
    }
}
