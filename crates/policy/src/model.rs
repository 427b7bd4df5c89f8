//! The typed policy model: what a policy says, free of the API that it came from.
//!
//! Not here: parsing (`flowgate-kubernetes`), and deciding ([`crate::compile`], [`crate::oracle`]).
//! Invariant: the namespace of a subject or peer is a field of its own, never a label, so no label
//! selector can widen it (CVE-2023-41333).

use std::{fmt, sync::Arc};

use flowgate_identity::Selector;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// The kinds of policy object that flowgate knows.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PolicyKind {
    /// `networking.k8s.io/v1` NetworkPolicy.
    NetworkPolicy,
}

impl fmt::Display for PolicyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NetworkPolicy => f.write_str("NetworkPolicy"),
        }
    }
}

/// Names one policy object; displays as `kind/namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PolicyRef {
    /// The kind of object.
    pub kind: PolicyKind,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

impl fmt::Display for PolicyRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.kind, self.namespace, self.name)
    }
}

/// One policy: whom it isolates, in which directions, and what it allows nevertheless.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Its name, for logs and explanations.
    pub id: PolicyRef,
    /// The workloads that it isolates.
    pub subject: WorkloadSelector,
    /// `None`: says nothing about ingress. `Some(vec![])`: isolates, allows nothing.
    pub ingress: Option<Vec<Rule>>,
    /// `None`: says nothing about egress. `Some(vec![])`: isolates, allows nothing.
    pub egress: Option<Vec<Rule>>,
}

/// What a rule allows: these peers, on these ports.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    /// The other ends.
    pub peers: Peers,
    /// The destination's ports.
    pub ports: Ports,
}

/// The other ends that a rule names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Peers {
    /// Everything, known or not.
    Any,
    /// What one of these matches. An empty list matches nothing.
    OneOf(Vec<Peer>),
}

/// One kind of other end.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Peer {
    /// Workloads by namespace and labels. Never matches a node or a host-network workload.
    Workloads(WorkloadSelector),
    /// Addresses: inside `cidr` and in none of `except`. Matches the addresses of workloads too.
    Cidr {
        /// The network.
        cidr: IpNet,
        /// Networks inside it that are left out.
        except: Vec<IpNet>,
    },
}

/// Selects workloads: namespace AND labels.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WorkloadSelector {
    /// The namespaces.
    pub namespaces: NamespaceSelector,
    /// The workload's own labels.
    pub labels: Selector,
}

/// Selects namespaces.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum NamespaceSelector {
    /// This one, by name.
    Named(Arc<str>),
    /// Those whose labels match; the empty selector matches all.
    Matching(Selector),
}

/// The destination ports that a rule names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Ports {
    /// Every protocol and every port.
    Any,
    /// What one of these matches. An empty list matches nothing.
    OneOf(Vec<Port>),
}

/// A port of a protocol that has ports.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Port {
    /// The protocol.
    pub protocol: Protocol,
    /// The port or ports.
    pub port: PortMatch,
}

/// Which ports of a protocol.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PortMatch {
    /// Every port of the protocol.
    All,
    /// From the first to the last, both included.
    Range(u16, u16),
    /// What the destination workload declares under this name for this protocol; if it declares
    /// none, nothing. Addresses without a workload have no named ports.
    Named(Arc<str>),
}

/// A transport protocol that has ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// RFC 9293, protocol number 6.
    Tcp,
    /// RFC 768, protocol number 17.
    Udp,
    /// RFC 9260, protocol number 132.
    Sctp,
}

impl Protocol {
    /// The IANA protocol number.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}
