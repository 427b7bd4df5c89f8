//! What fits into Cilium's tables by default fits here: 16,384 entries, each an identity and a port, for each
//! of 250 endpoints, no two endpoints alike.
//!
//! Not here: how long a change takes (the benchmark `scale`), and what has no numbers left (`narrow.rs`).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Instant,
};

use flowgate_identity::{Labels, LocalAllocator, Operator, Requirement, Selector};
use flowgate_policy::{
    compile::Compiler,
    cost::Cost,
    inventory::{Inventory, Workload, WorkloadRef},
    model::{
        NamespaceSelector, Peer, Peers, Policy, PolicyKind, PolicyRef, Port, PortMatch, Ports,
        Protocol, Rule, WorkloadSelector,
    },
    options::{EndpointScope, Options},
};

const ENDPOINTS: usize = 250;
const ENTRIES: usize = 16_384;

/// By set of ports: the identities that may use them.
type Rules = BTreeMap<Vec<u16>, Vec<usize>>;

/// As even as a hash.
fn mixed(of: usize, salt: usize) -> usize {
    let mut mixed =
        of.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ salt.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    for _ in 0..2 {
        mixed = (mixed ^ mixed >> 31).wrapping_mul(0x94d0_49bb_1331_11eb);
    }
    mixed ^ mixed >> 29
}

fn pod(number: usize) -> Workload {
    let [.., b, c, d] = u32::try_from(number).expect("few").to_be_bytes();
    Workload {
        id: WorkloadRef { namespace: "a".into(), name: format!("pod-{number}").into() },
        labels: Labels::from_iter([("app", number.to_string())]),
        addresses: vec![IpAddr::from([198, 18 + b, c, d])],
        ports: vec![],
        node: Some(if number < ENDPOINTS { "this" } else { "another" }.into()),
        host_network: false,
    }
}

fn apps(numbers: &[usize]) -> WorkloadSelector {
    let values = numbers.iter().map(|number| number.to_string().into()).collect();
    let requirement = Requirement { key: "app".into(), operator: Operator::In(values) };
    let namespaces = NamespaceSelector::Named("a".into());
    WorkloadSelector { namespaces, labels: Selector::new(vec![requirement]) }
}

fn policy(endpoint: usize, rules: Rules) -> Policy {
    let name = format!("policy-{endpoint}").into();
    let id = PolicyRef { kind: PolicyKind::NetworkPolicy, namespace: "a".into(), name };
    let rule = |(ports, from): (Vec<u16>, Vec<usize>)| {
        let port = |port| Port { protocol: Protocol::Tcp, port: PortMatch::Range(port, port) };
        let ports = Ports::of(ports.into_iter().map(port));
        Rule::allow(Peers::OneOf(vec![Peer::Workloads(apps(&from))]), ports)
    };
    let ingress = Some(rules.into_iter().map(rule).collect());
    Policy { ingress, ..Policy::new(id, apps(&[endpoint])) }
}

/// What it costs that each endpoint has `rules`, of so many identities in all.
fn cost(identities: usize, rules: impl Fn(usize) -> Rules) -> Cost {
    let workloads = (0..ENDPOINTS + identities).map(pod).collect();
    let inventory = Inventory { workloads, ..Inventory::default() };
    let entries = |rules: &Rules| rules.iter().map(|(ports, from)| ports.len() * from.len()).sum();
    let rules: Vec<Rules> = (0..ENDPOINTS).map(rules).collect();
    assert!(rules.iter().all(|rules| ENTRIES == entries(rules)));
    let policies: Vec<Policy> = (0..).zip(rules).map(|(at, rules)| policy(at, rules)).collect();
    let options = Options {
        local_node: Some("this".into()),
        endpoints: EndpointScope::LocalNode,
        ..Options::default()
    };
    let mut compiler = Compiler::new(LocalAllocator::new());
    let begun = Instant::now();
    let plan = compiler.compile(&inventory, &policies, &options).expect("it fits");
    let (took, cost) = (begun.elapsed(), plan.cost());
    println!("{cost:?}: {} MiB in both generations, in {took:.1?}", (2 * cost.bytes) >> 20);
    cost
}

fn port(number: usize) -> u16 {
    u16::try_from(1 + number).expect("a port")
}

#[test]
#[ignore = "takes minutes without optimisation"]
fn many_identities_at_one_port_each() {
    let rules = |endpoint: usize| {
        let mut rules = Rules::new();
        for identity in 0..ENTRIES {
            let port = port(endpoint * 64 + mixed(identity, endpoint) % 64);
            rules.entry(vec![port]).or_default().push(ENDPOINTS + identity);
        }
        rules
    };
    assert!(2 * cost(ENTRIES, rules).bytes < 64 << 20);
}

#[test]
#[ignore = "takes minutes without optimisation"]
fn many_ports_each_of_one_identity() {
    let rules = |endpoint: usize| {
        let mut ports = vec![vec![]; 128];
        for at in 0..ENTRIES {
            ports[mixed(at, endpoint) % 128].push(port(at));
        }
        let identity = |at: usize| ENDPOINTS + (endpoint * 39 + at) % 10_000;
        ports.into_iter().enumerate().map(|(at, ports)| (ports, vec![identity(at)])).collect()
    };
    assert!(2 * cost(10_000, rules).bytes < 64 << 20);
}

/// Nothing is shared: what a table of pairs of identity and port holds, and nothing else.
#[test]
#[ignore = "takes minutes without optimisation"]
fn identities_and_ports_at_random() {
    let rules = |endpoint: usize| {
        let mut pairs = BTreeSet::new();
        for at in 0.. {
            if pairs.len() == ENTRIES {
                break;
            }
            let pair = mixed(at, endpoint);
            pairs.insert((pair % 1000, (pair >> 20) % 10_000));
        }
        let mut rules = Rules::new();
        for (at, identity) in pairs {
            rules.entry(vec![port(at)]).or_default().push(ENDPOINTS + identity);
        }
        rules
    };
    assert!(2 * cost(10_000, rules).bytes < 64 << 20);
}

#[test]
#[ignore = "takes minutes without optimisation"]
fn identities_with_ports_at_random() {
    let rules = |endpoint: usize| {
        let ports = |at: usize| {
            let mut ports: Vec<usize> = (0..1000).collect();
            ports.sort_by_key(|port| mixed(*port, endpoint << 8 | at));
            ports.truncate(64);
            ports.into_iter().map(port).collect()
        };
        let identity = |at: usize| ENDPOINTS + (endpoint * 39 + at) % 10_000;
        (0..256).map(|at| (ports(at), vec![identity(at)])).collect()
    };
    assert!(2 * cost(10_000, rules).bytes < 96 << 20);
}
