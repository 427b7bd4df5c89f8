//! Clusters of a size.

use std::net::{IpAddr, Ipv4Addr};

use flowgate_identity::{Labels, Selector};
use flowgate_policy::{
    inventory::{Inventory, Workload, WorkloadRef},
    model::{
        NamespaceSelector, Peer, Peers, Policy, PolicyKind, PolicyRef, Port, PortMatch, Ports,
        Protocol, Rule, WorkloadSelector,
    },
    options::{EndpointScope, Options},
};

pub(crate) const NAMESPACES: usize = 100;
pub(crate) const LOCAL: &str = "this";
/// Pods on this node.
pub(crate) const HERE: usize = 250;

/// Pods of as many identities; the first 250 are on the node.
pub(crate) fn pod(number: usize) -> Workload {
    let [.., b, c, d] = u32::try_from(number).unwrap_or_default().to_be_bytes();
    let namespace = format!("ns-{}", number % NAMESPACES).into();
    Workload {
        id: WorkloadRef { namespace, name: format!("pod-{number}").into() },
        labels: Labels::from_iter([("app", format!("app-{}", number / NAMESPACES))]),
        addresses: vec![IpAddr::from(Ipv4Addr::new(198, 18 + (b & 1), c, d))],
        ports: vec![],
        node: Some(if number < HERE { LOCAL } else { "another" }.into()),
        host_network: false,
    }
}

pub(crate) fn inventory(pods: usize) -> Inventory {
    Inventory { workloads: (0..pods).map(pod).collect(), ..Default::default() }
}

/// What this node's agent compiles.
pub(crate) fn options() -> Options {
    let local_node = Some(LOCAL.into());
    Options { local_node, endpoints: EndpointScope::LocalNode, ..Default::default() }
}

pub(crate) fn select(namespace: usize, app: usize) -> WorkloadSelector {
    WorkloadSelector {
        namespaces: NamespaceSelector::Named(format!("ns-{namespace}").into()),
        labels: Selector::match_label("app", format!("app-{app}")),
    }
}

pub(crate) fn named(namespace: usize, number: usize) -> PolicyRef {
    PolicyRef {
        kind: PolicyKind::NetworkPolicy,
        namespace: format!("ns-{namespace}").into(),
        name: format!("policy-{number}").into(),
    }
}

pub(crate) fn tcp(first: u16, last: u16) -> Ports {
    Ports::of([Port { protocol: Protocol::Tcp, port: PortMatch::Range(first, last) }])
}

/// One app of a namespace may be reached by another one.
pub(crate) fn policy(number: usize, port: u16) -> Policy {
    let (namespace, app) = (number % NAMESPACES, number / NAMESPACES);
    let from = Peers::OneOf(vec![Peer::Workloads(select(namespace, app + 1))]);
    Policy {
        ingress: Some(vec![Rule::allow(from, tcp(port, port))]),
        ..Policy::new(named(namespace, number), select(namespace, app))
    }
}

/// What all policies of a load are about.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum About {
    /// Each is about an app of its own; there are as many apps as pods.
    TheCluster,
    /// Each is about one of this node's apps, and says much.
    ThisNode,
}

impl About {
    pub(crate) fn policy(self, number: usize, size: usize) -> Policy {
        match self {
            Self::TheCluster => policy(number, 1000 + narrow(number % 50)),
            Self::ThisNode => busy(number, size, 0),
        }
    }

    /// The same policy with another rule.
    pub(crate) fn changed(self, number: usize, size: usize) -> Policy {
        match self {
            Self::TheCluster => policy(number, 2000 + narrow(number % 50)),
            Self::ThisNode => busy(number, size, 1),
        }
    }
}

fn narrow(number: usize) -> u16 {
    u16::try_from(number).unwrap_or_default()
}

/// A policy of two rules about an app of this node: one of ten names a network, one of four an app of
/// all namespaces, one of eight a range of ports.
fn busy(number: usize, size: usize, salt: usize) -> Policy {
    let subject = number % HERE;
    let chosen = |salt: usize| (number * 7919 + salt * 104_729 + 13) % size;
    let rule = |salt: usize| {
        let peer = chosen(salt);
        let anywhere = NamespaceSelector::Matching(Selector::everything());
        let mut peers = vec![Peer::Workloads(match number % 4 {
            0 => WorkloadSelector { namespaces: anywhere, ..select(0, peer / NAMESPACES) },
            _ => select(peer % NAMESPACES, peer / NAMESPACES),
        })];
        if number.is_multiple_of(10) {
            let [.., c, d] = u32::try_from(number).unwrap_or_default().to_be_bytes();
            let cidr = IpAddr::from(Ipv4Addr::new(198, 19, c, d)).into();
            peers.push(Peer::Cidr { cidr, except: vec![] });
        }
        let first = 1 + narrow(chosen(salt + 5) % 1000);
        let last = if number.is_multiple_of(8) { first + 20 } else { first };
        Rule::allow(Peers::OneOf(peers), tcp(first, last))
    };
    let (own, other) = (rule(salt), rule(salt + 2));
    let egress = number.is_multiple_of(2).then(|| vec![other.clone()]);
    Policy {
        ingress: Some(vec![own, other]),
        egress,
        ..Policy::new(
            named(subject % NAMESPACES, number),
            select(subject % NAMESPACES, subject / NAMESPACES),
        )
    }
}
