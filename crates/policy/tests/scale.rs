//! The compiler stays far from the product of policies and pods.
//!
//! The figures are printed, since they depend on the machine; what is asserted is the shape of the
//! plan. By hand: `cargo test --release -p flowgate-policy --test scale -- --nocapture --ignored`.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Instant,
};

use flowgate_identity::{Labels, LocalAllocator, Selector};
use flowgate_policy::{
    compile::Compiler,
    inventory::{DeclaredPort, Inventory, Workload, WorkloadRef},
    model::{
        NamespaceSelector, Peer, Peers, Policy, PolicyKind, PolicyRef, Port, PortMatch, Ports,
        Protocol, Rule, WorkloadSelector,
    },
    options::Options,
    plan::Plan,
};

const APPS: usize = 20;

fn namespace(number: usize) -> Arc<str> {
    format!("ns-{number}").into()
}

fn app(number: usize) -> Selector {
    Selector::match_label("app", format!("app-{}", number % APPS))
}

fn workload(number: usize, namespaces: usize) -> Workload {
    let [_, b, c, d] = u32::try_from(number).unwrap().to_be_bytes();
    Workload {
        id: WorkloadRef {
            namespace: namespace(number % namespaces),
            name: format!("pod-{number}").into(),
        },
        labels: Labels::from_iter([
            ("app", format!("app-{}", number / namespaces % APPS)),
            ("zone", format!("zone-{}", number % 3)),
        ]),
        addresses: vec![IpAddr::from(Ipv4Addr::new(198, 18 + b, c, d))],
        ports: vec![DeclaredPort {
            name: Some("http".into()),
            protocol: Protocol::Tcp,
            port: 8080,
        }],
        node: None,
        host_network: false,
    }
}

fn rule(namespace: &Arc<str>, number: usize) -> Rule {
    let namespaces = match number % 4 {
        0 => NamespaceSelector::Matching(Selector::everything()),
        _ => NamespaceSelector::Named(namespace.clone()),
    };
    let peer = Peer::Workloads(WorkloadSelector { namespaces, labels: app(number + 1) });
    let [.., c, d] = u32::try_from(number).unwrap().to_be_bytes();
    let cidr =
        Peer::Cidr { cidr: format!("198.19.{c}.{d}/32").parse().unwrap(), except: Vec::new() };
    let port = match number % 3 {
        0 => PortMatch::Named("http".into()),
        _ => {
            let first = 1000 + u16::try_from(number % 500).unwrap();
            PortMatch::Range(first, first + 2)
        }
    };
    let peers = if number.is_multiple_of(10) { vec![peer, cidr] } else { vec![peer] };
    let ports = Ports::of([Port { protocol: Protocol::Tcp, port }]);
    Rule::allow(Peers::OneOf(peers), ports)
}

fn policy(number: usize, namespaces: usize) -> Policy {
    let namespace = namespace(number % namespaces);
    let turn = number / namespaces;
    let id = PolicyRef {
        kind: PolicyKind::NetworkPolicy,
        namespace: namespace.clone(),
        name: format!("policy-{number}").into(),
    };
    let namespaces = NamespaceSelector::Named(namespace.clone());
    Policy {
        ingress: Some(vec![rule(&namespace, number)]),
        egress: number.is_multiple_of(2).then(|| vec![rule(&namespace, number + 1)]),
        ..Policy::new(id, WorkloadSelector { namespaces, labels: app(turn) })
    }
}

fn compile(pods: usize, policies: usize, namespaces: usize) -> Plan {
    let workloads = (0..pods).map(|number| workload(number, namespaces)).collect();
    let inventory = Inventory { workloads, ..Inventory::default() };
    let policies: Vec<Policy> = (0..policies).map(|number| policy(number, namespaces)).collect();
    let mut compiler = Compiler::new(LocalAllocator::new());
    let begun = Instant::now();
    let plan = compiler.compile(&inventory, &policies, &Options::default()).unwrap();
    println!("{pods} pods, {} policies: {:?}, {:?}", policies.len(), begun.elapsed(), plan.cost());
    plan
}

#[test]
fn fifty_pods_and_policies() {
    let cost = compile(50, 50, 5).cost();
    assert_eq!(cost.endpoints, 50);
    assert!(cost.bytes < 2 << 20, "{cost:?}");
}

#[test]
#[ignore = "takes seconds without optimisation"]
fn ten_thousand_pods_and_policies() {
    let cost = compile(10_000, 10_000, 100).cost();
    assert_eq!(cost.endpoints, 10_000);
}
