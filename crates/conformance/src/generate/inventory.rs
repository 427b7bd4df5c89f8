//! Inventories: namespaces, nodes, and workloads that are alike in some ways and not in others.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use flowgate_identity::Labels;
use flowgate_policy::{
    inventory::{DeclaredPort, Inventory, NAMESPACE_NAME_LABEL, Node, Workload, WorkloadRef},
    model::Protocol,
};

use super::{addresses::ipv6, choices::Choices};

pub(super) const NAMESPACES: [&str; 4] = ["alpha", "beta", "gamma", "delta"];
pub(super) const KEYS: [&str; 4] = ["app", "tier", "team", NAMESPACE_NAME_LABEL];
pub(super) const PORT_NAMES: [&str; 4] = ["http", "metrics", "dns", "signal"];

/// The values that a label of this key may have.
pub(super) fn values(key: &str) -> &'static [&'static str] {
    match key {
        "app" => &["web", "db", "cache"],
        "tier" => &["front", "back"],
        "team" => &["red", "blue"],
        _ => &NAMESPACES,
    }
}

pub(super) fn inventory(choices: &mut Choices) -> Inventory {
    let count = choices.between(2, 4);
    let names = &NAMESPACES[..count];
    let nodes = nodes(choices);
    let mut workloads: Vec<Workload> = Vec::new();
    for number in 0..choices.between(3, 12) {
        let workload = workload(choices, names, &nodes, number);
        workloads.push(workload);
    }
    Inventory { namespaces: namespaces(choices, names), workloads, nodes }
}

/// Some namespaces are left out: they exist nevertheless, with their name as their only label.
fn namespaces(choices: &mut Choices, names: &[&str]) -> BTreeMap<Arc<str>, Labels> {
    let mut namespaces = BTreeMap::new();
    for &name in names {
        let mut labels = Labels::from_iter([(NAMESPACE_NAME_LABEL, name)]);
        for key in ["team", "tier"] {
            if choices.percent(60) {
                labels.insert(key, choices.one(values(key)));
            }
        }
        if !choices.percent(15) {
            namespaces.insert(name.into(), labels);
        }
    }
    namespaces
}

fn nodes(choices: &mut Choices) -> Vec<Node> {
    let node = |number: u8| Node {
        name: format!("node-{number}").into(),
        labels: match number {
            1 => Labels::from_iter([("app", "web")]),
            _ => Labels::from_iter([("app", "web"), ("tier", "back")]),
        },
        addresses: vec![
            IpAddr::from(Ipv4Addr::new(198, 51, 100, number)),
            ipv6(0xffff, 0, number.into()),
        ],
    };
    (1..=choices.between(1, 3)).filter_map(|number| u8::try_from(number).ok()).map(node).collect()
}

fn workload(choices: &mut Choices, names: &[&str], nodes: &[Node], number: usize) -> Workload {
    let node = (!choices.percent(20)).then(|| choices.one(nodes));
    let host = node.as_ref().filter(|_| choices.percent(10)).cloned();
    Workload {
        id: WorkloadRef {
            namespace: choices.one(names).into(),
            name: format!("pod-{number}").into(),
        },
        labels: labels(choices),
        addresses: match &host {
            Some(node) => host_addresses(choices, node, number),
            None => addresses(choices, number),
        },
        ports: ports(choices),
        node: node.map(|node| node.name),
        host_network: host.is_some(),
    }
}

/// Few labels of few values, so that workloads share them; some imitate a namespace's.
fn labels(choices: &mut Choices) -> Labels {
    let mut labels = Labels::new();
    for (key, percent) in KEYS.into_iter().zip([85, 40, 15, 5]) {
        if choices.percent(percent) {
            labels.insert(key, choices.one(values(key)));
        }
    }
    labels
}

/// One address of each family, or of one, and now and then two of the same.
fn addresses(choices: &mut Choices, number: usize) -> Vec<IpAddr> {
    let host = u8::try_from(number + 1).unwrap_or(u8::MAX);
    let (third, subnet) = (choices.one(&[0, 1, 128]), choices.one(&[0, 1, 0x8000]));
    let v4 = IpAddr::from(Ipv4Addr::new(198, 18, third, host));
    let v6 = ipv6(1, subnet, host.into());
    match choices.weighted(&[70, 12, 12, 6]) {
        0 => vec![v4, v6],
        1 => vec![v4],
        2 => vec![v6],
        _ => vec![v4, IpAddr::from(Ipv4Addr::new(198, 19, third, host)), v6],
    }
}

/// The node's addresses, or one that the node itself doesn't name.
fn host_addresses(choices: &mut Choices, node: &Node, number: usize) -> Vec<IpAddr> {
    let unnamed = 64 + u8::try_from(number).unwrap_or_default();
    match choices.percent(30) {
        true => vec![IpAddr::from(Ipv4Addr::new(198, 51, 100, unnamed))],
        false => node.addresses.clone(),
    }
}

fn ports(choices: &mut Choices) -> Vec<DeclaredPort> {
    let mut ports = Vec::new();
    for name in PORT_NAMES {
        if choices.percent(45) {
            let protocol = match name {
                "dns" => choices.one(&[Protocol::Udp, Protocol::Tcp]),
                "signal" => Protocol::Sctp,
                _ => Protocol::Tcp,
            };
            let port = choices.one(&[80, 8080, 53, 9090]);
            ports.push(DeclaredPort { name: Some(name.into()), protocol, port });
        }
    }
    if choices.percent(30) {
        ports.push(DeclaredPort { name: None, protocol: Protocol::Tcp, port: 443 });
    }
    ports
}
