//! The ends of a probe: who `ns/pod`, `ip:ADDRESS`, or the address alone, and `node:NAME` are.
//!
//! An end has at most one address of each family: the first one that the pod or node lists. An
//! `ip:ADDRESS` has that one address; whose it is, the evaluator knows.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use flowgate_policy::{
    inventory::{Inventory, Node, Workload},
    model::Protocol,
};
use thiserror::Error;

use crate::probe::Family;

/// One end of a probe.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End<'a> {
    v4: Option<Ipv4Addr>,
    v6: Option<Ipv6Addr>,
    /// The pod that it is, be it on its node's network.
    pod: Option<&'a Workload>,
}

impl<'a> End<'a> {
    fn new(addresses: &[IpAddr], pod: Option<&'a Workload>) -> Self {
        let v4 = addresses.iter().find_map(|address| match address {
            IpAddr::V4(address) => Some(*address),
            IpAddr::V6(_) => None,
        });
        let v6 = addresses.iter().find_map(|address| match address {
            IpAddr::V6(address) => Some(*address),
            IpAddr::V4(_) => None,
        });
        Self { v4, v6, pod }
    }

    /// Its address of a family.
    pub(crate) fn address(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::V4 => self.v4.map(IpAddr::V4),
            Family::V6 => self.v6.map(IpAddr::V6),
        }
    }

    /// The number of the port that the pod declares under `name`: the first, as the containers are
    /// listed.
    pub(crate) fn named_port(&self, name: &str, protocol: Protocol) -> Option<u16> {
        let mut declared = self.pod?.ports.iter();
        let named = |name_of: Option<&str>| name_of == Some(name);
        let port = declared.find(|p| p.protocol == protocol && named(p.name.as_deref()));
        port.map(|port| port.port)
    }

    /// Both are one and the same pod, so that what flows between them never leaves it.
    pub(crate) fn is_same_pod(&self, other: &Self) -> bool {
        match (self.pod, other.pod) {
            (Some(pod), Some(other)) => pod.id == other.id,
            _ => false,
        }
    }
}

/// Why a text names no end.
#[derive(Debug, PartialEq, Eq, Error)]
pub(crate) enum EndError {
    #[error("{text:?} is not an end: it must be ns/pod, ip:ADDRESS or node:NAME")]
    NotAnEnd { text: String },
    #[error("unknown pod {text:?} (a pod that is Succeeded or Failed counts as gone)")]
    UnknownPod { text: String },
    #[error("unknown node {name:?}")]
    UnknownNode { name: String },
    #[error("{address:?} is not an IP address")]
    NotAnAddress { address: String },
}

/// Everybody who has a name or an address.
#[derive(Debug)]
pub(crate) struct Ends<'a> {
    pods: HashMap<(&'a str, &'a str), &'a Workload>,
    nodes: HashMap<&'a str, &'a Node>,
    /// Pods with an address of their own.
    by_address: HashMap<IpAddr, &'a Workload>,
}

impl<'a> Ends<'a> {
    pub(crate) fn new(inventory: &'a Inventory) -> Self {
        let pods = inventory.workloads.iter();
        let own = inventory.workloads.iter().filter(|pod| !pod.host_network);
        let addresses = own.flat_map(|pod| pod.addresses.iter().map(move |&a| (a, pod)));
        Self {
            pods: pods.map(|pod| ((&*pod.id.namespace, &*pod.id.name), pod)).collect(),
            nodes: inventory.nodes.iter().map(|node| (&*node.name, node)).collect(),
            by_address: addresses.collect(),
        }
    }

    /// The end that `text` names.
    pub(crate) fn find(&self, text: &str) -> Result<End<'a>, EndError> {
        if let Some(address) = text.strip_prefix("ip:") {
            return self.find_address(address);
        }
        // As differences and flow logs write it.
        if text.parse::<IpAddr>().is_ok() {
            return self.find_address(text);
        }
        if let Some(name) = text.strip_prefix("node:") {
            let node = self.nodes.get(name);
            let node = node.ok_or_else(|| EndError::UnknownNode { name: name.to_owned() })?;
            return Ok(End::new(&node.addresses, None));
        }
        let Some((namespace, name)) = text.split_once('/') else {
            return Err(EndError::NotAnEnd { text: text.to_owned() });
        };
        let pod = self.pods.get(&(namespace, name));
        pod.map(|pod| Self::of_pod(pod))
            .ok_or_else(|| EndError::UnknownPod { text: text.to_owned() })
    }

    /// A pod as an end.
    pub(crate) fn of_pod(pod: &'a Workload) -> End<'a> {
        End::new(&pod.addresses, Some(pod))
    }

    fn find_address(&self, address: &str) -> Result<End<'a>, EndError> {
        let parsed = address.parse::<IpAddr>();
        let parsed = parsed.map_err(|_| EndError::NotAnAddress { address: address.to_owned() })?;
        Ok(End::new(&[parsed], self.by_address.get(&parsed).copied()))
    }
}
