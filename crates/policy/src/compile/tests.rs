//! What plans look like, and what they say: the compiler's own cases.

use std::{net::IpAddr, sync::Arc};

use flowgate_abi::policy::Decision;
use flowgate_identity::{
    Labels, LocalAllocator, NumericIdentity, Scope, ScopeCapacities, Selector,
};

use super::*;
use crate::{
    inventory::{DeclaredPort, Node, Workload, WorkloadRef},
    model::*,
    options::EndpointScope,
    outcome::{Flow, FlowProtocol, Side, SideVerdict},
    peer_key::PeerKey,
};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn pod(name: &str, app: &str, address: &str) -> Workload {
    let (namespace, name) = name.split_once('/').unwrap();
    Workload {
        id: WorkloadRef { namespace: namespace.into(), name: name.into() },
        labels: Labels::from_iter([("app", app)]),
        addresses: vec![ip(address)],
        ports: Vec::new(),
        node: None,
        host_network: false,
    }
}

fn declared(name: &str, port: u16) -> DeclaredPort {
    DeclaredPort { name: Some(name.into()), protocol: Protocol::Tcp, port }
}

fn inventory(workloads: Vec<Workload>) -> Inventory {
    Inventory { workloads, ..Inventory::default() }
}

fn app(namespace: &str, app: &str) -> WorkloadSelector {
    WorkloadSelector {
        namespaces: NamespaceSelector::Named(namespace.into()),
        labels: Selector::match_label("app", app),
    }
}

fn all_of(namespace: &str) -> WorkloadSelector {
    WorkloadSelector {
        namespaces: NamespaceSelector::Named(namespace.into()),
        labels: Selector::everything(),
    }
}

fn policy(name: &str, subject: WorkloadSelector, ingress: Option<Vec<Rule>>) -> Policy {
    let id =
        PolicyRef { kind: PolicyKind::NetworkPolicy, namespace: "a".into(), name: name.into() };
    Policy { ingress, ..Policy::new(id, subject) }
}

fn from(peers: Vec<Peer>) -> Rule {
    Rule::allow(Peers::OneOf(peers), Ports::Any)
}

fn cidr(cidr: &str, except: &[&str]) -> Peer {
    let except = except.iter().map(|except| except.parse().unwrap()).collect();
    Peer::Cidr { cidr: cidr.parse().unwrap(), except }
}

fn tcp(port: PortMatch) -> Ports {
    Ports::of([Port { protocol: Protocol::Tcp, port }])
}

fn compile(inventory: &Inventory, policies: &[Policy]) -> Plan {
    let mut compiler = Compiler::new(LocalAllocator::new());
    compiler.compile(inventory, policies, &Options::default()).unwrap()
}

fn tcp80(source: &str, destination: &str) -> Flow {
    Flow { source: ip(source), destination: ip(destination), protocol: FlowProtocol::Tcp(80) }
}

fn ingress(plan: &Plan, flow: &Flow) -> SideVerdict {
    plan.decide(flow).ingress.verdict().unwrap()
}

fn egress(plan: &Plan, flow: &Flow) -> SideVerdict {
    plan.decide(flow).egress.verdict().unwrap()
}

const WEB: &str = "198.18.0.1";
const DB: &str = "198.18.0.2";
const OTHER: &str = "198.18.0.3";
const WORLD: &str = "203.0.113.9";

fn three() -> Inventory {
    inventory(vec![pod("a/web", "web", WEB), pod("a/db", "db", DB), pod("b/web", "web", OTHER)])
}

#[test]
fn without_policies_everything_is_allowed_by_default() {
    let plan = compile(&three(), &[]);
    assert_eq!((plan.peers.len(), plan.peer_classes, plan.port_classes), (5, 2, 1));
    let outcome = plan.decide(&tcp80(WORLD, WEB));
    assert_eq!(outcome.egress, Side::NotAnEndpoint);
    assert_eq!(outcome.ingress.verdict(), Some(SideVerdict::DefaultAllow));
    assert!(plan.decide(&tcp80(WEB, DB)).allowed());
}

#[test]
fn the_first_numbers_are_reserved() {
    let plan = compile(&three(), &[policy("p", all_of("a"), Some(vec![]))]);
    assert_eq!(plan.decisions[0], Decision::UNREACHABLE);
    assert!(plan.cookies[0].policies.is_empty());
    assert!(plan.row[..plan.peer_classes as usize].iter().all(|&row| row == 0));
    assert!(plan.decision[..plan.port_classes as usize].iter().all(|&decision| decision == 0));
    assert!(plan.row.chunks(plan.peer_classes as usize).all(|group| group[0] == 0));
    assert!(plan.peers.iter().all(|peer| peer.class != 0));
    assert!(plan.endpoints.iter().all(|endpoint| endpoint.egress != 0 && endpoint.ingress != 0));
}

#[test]
fn a_policy_without_rules_isolates_one_direction() {
    let plan = compile(&three(), &[policy("deny", app("a", "db"), Some(vec![]))]);
    assert_eq!(ingress(&plan, &tcp80(WEB, DB)), SideVerdict::DefaultDeny);
    assert_eq!(egress(&plan, &tcp80(DB, WEB)), SideVerdict::DefaultAllow);
    let Side::Verdict { policies, .. } = plan.decide(&tcp80(WEB, DB)).ingress else { panic!() };
    let names: Vec<String> = policies.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["NetworkPolicy/a/deny"]);
}

#[test]
fn the_union_of_rules_is_named_by_all_that_allow() {
    let one =
        policy("one", app("a", "db"), Some(vec![from(vec![Peer::Workloads(app("a", "web"))])]));
    let two = policy("two", all_of("a"), Some(vec![from(vec![Peer::Workloads(all_of("a"))])]));
    let plan = compile(&three(), &[two, one]);
    let Side::Verdict { verdict, policies, .. } = plan.decide(&tcp80(WEB, DB)).ingress else {
        panic!()
    };
    assert_eq!((verdict, policies.len()), (SideVerdict::Allow, 2));
    assert_eq!(ingress(&plan, &tcp80(OTHER, DB)), SideVerdict::DefaultDeny);
}

#[test]
fn equal_policies_of_endpoints_are_shared_and_equal_rows_stored_once() {
    let plan = compile(&three(), &[policy("p", all_of("a"), Some(vec![]))]);
    assert_eq!(plan.endpoints[0].ingress, plan.endpoints[1].ingress);
    assert_eq!(plan.endpoints[0].egress, plan.endpoints[2].ingress);
    assert_eq!(plan.row.len() / plan.peer_classes as usize, 3);
    assert_eq!(plan.decision.len() / plan.port_classes as usize, 3);
}

#[test]
fn a_cidr_matches_pods_and_world_and_spares_its_exceptions() {
    let rule = from(vec![cidr("198.18.0.0/15", &["198.18.0.3/32"]), cidr("203.0.113.0/24", &[])]);
    let plan = compile(&three(), &[policy("p", app("a", "db"), Some(vec![rule]))]);
    assert_eq!(ingress(&plan, &tcp80(WEB, DB)), SideVerdict::Allow);
    assert_eq!(ingress(&plan, &tcp80(OTHER, DB)), SideVerdict::DefaultDeny);
    assert_eq!(ingress(&plan, &tcp80(WORLD, DB)), SideVerdict::Allow);
    assert_eq!(ingress(&plan, &tcp80("198.51.100.1", DB)), SideVerdict::DefaultDeny);
}

#[test]
fn identities_follow_the_peer() {
    let mut inventory = three();
    let addresses = vec![ip("198.51.100.1"), ip("2001:db8::1")];
    inventory.nodes.push(Node { name: "n1".into(), labels: Labels::new(), addresses });
    let rule = from(vec![cidr("203.0.113.0/24", &[])]);
    let policies = [policy("p", app("a", "db"), Some(vec![rule]))];
    let identity = |options: &Options, address: &str| {
        let mut compiler = Compiler::new(LocalAllocator::new());
        let plan = compiler.compile(&inventory, &policies, options).unwrap();
        plan.peers[plan.peer_of(ip(address)).unwrap() as usize].identity
    };
    let nowhere = Options::default();
    let local = Options { local_node: Some("n1".into()), ..Options::default() };
    assert_eq!(identity(&nowhere, "198.51.100.1"), NumericIdentity::REMOTE_NODE);
    assert_eq!(identity(&local, "2001:db8::1"), NumericIdentity::HOST);
    assert_eq!(identity(&nowhere, "198.51.100.2"), NumericIdentity::WORLD_IPV4);
    assert_eq!(identity(&nowhere, "2001:db8::2"), NumericIdentity::WORLD_IPV6);
    assert_eq!(identity(&nowhere, WORLD), Scope::Local.first());
    assert_eq!(identity(&nowhere, WEB).scope(), Scope::Global);
}

#[test]
fn addresses_in_different_networks_are_different_peers() {
    let mut web = pod("a/web", "web", WEB);
    web.addresses.extend([ip("2001:db8::1"), ip("198.51.100.1")]);
    let rule = from(vec![cidr("198.51.100.0/24", &[])]);
    let inventory = inventory(vec![web, pod("a/db", "db", DB)]);
    let plan = compile(&inventory, &[policy("p", app("a", "db"), Some(vec![rule]))]);
    let endpoint = &plan.endpoints[1];
    assert_eq!(endpoint.peer4, plan.peer_of(ip(WEB)));
    assert_eq!(endpoint.peer6, plan.peer_of(ip("2001:db8::1")));
    assert_ne!(endpoint.peer4, plan.peer_of(ip("198.51.100.1")));
    assert_eq!(ingress(&plan, &tcp80("198.51.100.1", DB)), SideVerdict::Allow);
    assert_eq!(ingress(&plan, &tcp80(WEB, DB)), SideVerdict::DefaultDeny);
}

#[test]
fn a_node_reaches_its_own_workloads() {
    let mut inventory = three();
    for (name, address) in [("n1", "198.51.100.1"), ("n2", "198.51.100.2")] {
        let addresses = vec![ip(address)];
        inventory.nodes.push(Node { name: name.into(), labels: Labels::new(), addresses });
    }
    inventory.workloads[1].node = Some("n1".into());
    let policies = [policy("p", all_of("a"), Some(vec![]))];
    let plan = compile(&inventory, &policies);
    assert_eq!(ingress(&plan, &tcp80("198.51.100.1", DB)), SideVerdict::Allow);
    assert_eq!(ingress(&plan, &tcp80("198.51.100.2", DB)), SideVerdict::DefaultDeny);
    assert_eq!(ingress(&plan, &tcp80("198.51.100.1", WEB)), SideVerdict::DefaultDeny);
    let strict = Options { allow_local_node: false, ..Options::default() };
    let plan =
        Compiler::new(LocalAllocator::new()).compile(&inventory, &policies, &strict).unwrap();
    assert_eq!(ingress(&plan, &tcp80("198.51.100.1", DB)), SideVerdict::DefaultDeny);
    let local = Options { local_node: Some("n2".into()), ..Options::default() };
    let plan = Compiler::new(LocalAllocator::new()).compile(&inventory, &policies, &local).unwrap();
    assert_eq!(ingress(&plan, &tcp80("198.51.100.2", WEB)), SideVerdict::Allow);
}

#[test]
fn a_host_network_workload_is_its_node() {
    let mut host = pod("a/host", "web", "198.51.100.1");
    host.host_network = true;
    host.node = Some("n1".into());
    let mut inventory = three();
    inventory.workloads.push(host);
    let rule = from(vec![Peer::Workloads(app("a", "web"))]);
    let plan = compile(&inventory, &[policy("p", app("a", "db"), Some(vec![rule]))]);
    assert_eq!(plan.endpoints.len(), 3);
    assert_eq!(ingress(&plan, &tcp80(WEB, DB)), SideVerdict::Allow);
    assert_eq!(ingress(&plan, &tcp80("198.51.100.1", DB)), SideVerdict::DefaultDeny);
    let peer = &plan.peers[plan.peer_of(ip("198.51.100.1")).unwrap() as usize];
    assert!(matches!(&peer.key, PeerKey::Node { name, .. } if &**name == "n1"));
}

#[test]
fn named_ports_are_the_destinations() {
    let mut inventory = three();
    inventory.workloads[0].ports = vec![declared("http", 80)];
    inventory.workloads[1].ports = vec![declared("http", 8080)];
    let rule = Rule::allow(Peers::Any, tcp(PortMatch::Named("http".into())));
    let mut both = policy("p", all_of("a"), Some(vec![rule.clone()]));
    both.egress = Some(vec![rule]);
    let plan = compile(&inventory, &[both]);
    for (destination, port) in [(WEB, 80), (DB, 8080)] {
        for probe in [80, 8080] {
            let source = if destination == WEB { DB } else { WEB };
            let protocol = FlowProtocol::Tcp(probe);
            let flow = Flow { source: ip(source), destination: ip(destination), protocol };
            assert_eq!(egress(&plan, &flow).allowed(), probe == port, "{flow}");
            assert_eq!(ingress(&plan, &flow).allowed(), probe == port, "{flow}");
        }
    }
    assert_eq!(egress(&plan, &tcp80(WEB, OTHER)), SideVerdict::DefaultDeny);
    assert_eq!(egress(&plan, &tcp80(WEB, WORLD)), SideVerdict::DefaultDeny);
}

#[test]
fn the_order_of_the_input_makes_no_difference() {
    let mut inventory = three();
    let rule = from(vec![cidr("198.18.0.0/15", &[]), Peer::Workloads(app("b", "web"))]);
    let ports = Rule::allow(Peers::Any, tcp(PortMatch::Range(80, 90)));
    let mut policies = vec![
        policy("one", app("a", "db"), Some(vec![rule, ports.clone()])),
        policy("two", all_of("a"), Some(vec![ports])),
    ];
    let plan = compile(&inventory, &policies);
    inventory.workloads.reverse();
    policies.reverse();
    policies[1].ingress.as_mut().unwrap().reverse();
    assert_eq!(compile(&inventory, &policies), plan);
}

#[test]
fn contradictions_are_errors_that_name_both_sides() {
    let mut compiler = Compiler::new(LocalAllocator::new());
    let mut error = |inventory: &Inventory, policies: &[Policy]| {
        compiler.compile(inventory, policies, &Options::default()).unwrap_err().to_string()
    };
    let twice = policy("p", all_of("a"), None);
    assert_eq!(error(&three(), &[twice.clone(), twice]), "NetworkPolicy/a/p is there twice");
    let mut shared = three();
    shared.workloads[1].addresses = vec![ip(WEB)];
    let text = "198.18.0.1 belongs to workload a/db and to workload a/web";
    assert_eq!(error(&shared, &[]), text);
    let mut same = three();
    same.workloads[1].id = same.workloads[0].id.clone();
    assert_eq!(error(&same, &[]), "workload a/web is there twice");
}

#[test]
fn what_the_tables_cannot_express_is_refused() {
    let options = Options { max_cells: 1, ..Options::default() };
    let mut compiler = Compiler::new(LocalAllocator::new());
    let error = compiler.compile(&three(), &[], &options).unwrap_err();
    assert!(matches!(error, CompileError::TooMany { limit: 1, .. }), "{error}");
    assert_eq!(compiler.allocator().iter().count(), 0);
}

/// A line of rows has a cell for each class of peers, and where rows are narrow or scattered others beside.
#[test]
fn a_plan_gets_the_cells_that_it_takes_and_is_refused_with_one_less() {
    let peers = vec![cidr("203.0.113.0/24", &[]), cidr("198.51.100.0/24", &[])];
    let rule = Rule { ports: tcp(PortMatch::Range(80, 90)), ..from(peers) };
    let policies = [policy("p", all_of("a"), Some(vec![rule]))];
    let layouts = [(usize::MAX, usize::MAX), (0, usize::MAX), (0, 0)];
    for (dense_cells, narrow_cells) in layouts {
        let roomy = Options { dense_cells, narrow_cells, ..Options::default() };
        let compile = |max_cells| {
            let options = Options { max_cells, ..roomy.clone() };
            Compiler::new(LocalAllocator::new()).compile(&three(), &policies, &options)
        };
        let cost = compile(roomy.max_cells).unwrap().cost();
        let (most, what) = match cost.row_cells >= cost.decision_cells {
            true => (cost.row_cells, Numbered::RowCells),
            false => (cost.decision_cells, Numbered::DecisionCells),
        };
        assert_eq!(compile(most).err(), None, "{cost:?}");
        let limit = most - 1;
        let refused = CompileError::TooMany { what, limit };
        assert_eq!(compile(limit).err(), Some(refused), "{cost:?}");
    }
}

#[test]
fn who_gets_no_identity_leaves_none_taken() {
    let few = ScopeCapacities { global: 1, ..ScopeCapacities::default() };
    let mut compiler = Compiler::new(LocalAllocator::with_capacities(few));
    let error = compiler.compile(&three(), &[], &Options::default()).unwrap_err();
    assert!(matches!(error, CompileError::Identity(_)), "{error}");
    assert_eq!(compiler.allocator().iter().count(), 0);
}

#[test]
fn a_released_plan_holds_no_identity() {
    let mut compiler = Compiler::new(LocalAllocator::new());
    let plan = compiler.compile(&three(), &[], &Options::default()).unwrap();
    assert_eq!(compiler.allocator().iter().count(), 3);
    compiler.release(&plan).unwrap();
    assert_eq!(compiler.allocator().iter().count(), 0);
    assert!(compiler.release(&plan).is_err());
}

#[test]
fn a_peer_keeps_its_key_from_plan_to_plan() {
    let before = compile(&three(), &[]);
    let rule = from(vec![cidr("203.0.113.0/24", &[]), cidr("0.0.0.0/0", &[])]);
    let after = compile(&three(), &[policy("p", all_of("a"), Some(vec![rule]))]);
    let keys = |plan: &Plan| plan.peers.iter().map(|peer| peer.key.clone()).collect::<Vec<_>>();
    let (before, after) = (keys(&before), keys(&after));
    assert!(before.iter().all(|key| after.contains(key)));
    assert_eq!(after.len(), before.len() + 1);
}

#[test]
fn a_missing_namespace_has_its_name_as_label() {
    let name: Arc<str> = "b".into();
    let selector = Selector::match_label("kubernetes.io/metadata.name", name.clone());
    let subject = WorkloadSelector {
        namespaces: NamespaceSelector::Matching(selector),
        labels: Selector::everything(),
    };
    let rule = from(vec![Peer::Workloads(subject)]);
    let mut inventory = three();
    inventory
        .namespaces
        .insert("a".into(), Labels::from_iter([("kubernetes.io/metadata.name", "b")]));
    let plan = compile(&inventory, &[policy("p", app("a", "db"), Some(vec![rule]))]);
    assert_eq!(ingress(&plan, &tcp80(OTHER, DB)), SideVerdict::Allow);
    assert_eq!(ingress(&plan, &tcp80(WEB, DB)), SideVerdict::DefaultDeny);
}

fn on(node: &str, pod: Workload) -> Workload {
    Workload { node: Some(node.into()), ..pod }
}

fn compile_for(node: &str, inventory: &Inventory, policies: &[Policy]) -> Plan {
    let local_node = Some(node.into());
    let options = Options { local_node, endpoints: EndpointScope::LocalNode, ..Options::default() };
    Compiler::new(LocalAllocator::new()).compile(inventory, policies, &options).unwrap()
}

#[test]
fn who_runs_elsewhere_is_a_peer_alone() {
    let [web, db, other] = three().workloads.try_into().unwrap();
    let inventory = inventory(vec![on("here", web), on("there", db), other]);
    let rule = from(vec![Peer::Workloads(app("a", "db"))]);
    let plan = compile_for("here", &inventory, &[policy("p", all_of("a"), Some(vec![rule]))]);
    let names: Vec<_> = plan.endpoints.iter().map(|e| e.workload.to_string()).collect();
    assert_eq!(names, ["a/web", "b/web"], "whose node isn't known counts as here");
    assert_eq!(ingress(&plan, &tcp80(DB, WEB)), SideVerdict::Allow);
    assert_eq!(plan.decide(&tcp80(WEB, DB)).ingress, Side::NotAnEndpoint);
    assert!(plan.peer_of(ip(DB)).is_some_and(|peer| plan.peers[peer as usize].class != 0));
}

#[test]
fn a_policy_for_nobody_here_costs_nothing_here() {
    let [web, db, other] = three().workloads.try_into().unwrap();
    let inventory = inventory(vec![on("here", web), on("there", db), on("there", other)]);
    let rule = |net| Rule { ports: tcp(PortMatch::Range(80, 90)), ..from(vec![cidr(net, &[])]) };
    let here = policy("here", app("a", "web"), Some(vec![rule("203.0.113.0/24")]));
    let there = policy("there", app("a", "db"), Some(vec![rule("198.51.100.0/24")]));
    let alone = compile_for("here", &inventory, std::slice::from_ref(&here));
    assert_eq!(compile_for("here", &inventory, &[here, there]), alone);
}
