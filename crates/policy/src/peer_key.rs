//! What makes a peer one and the same from plan to plan.
//!
//! The networks that contain an address are nested, so the longest of them names them all: one
//! network stands for a whole set of memberships.

use std::{collections::BTreeSet, fmt, sync::Arc};

use flowgate_abi::endpoint::{MAX_PEERS, Peer as Owner};
use flowgate_identity::{IdentityLabels, Labels, NumericIdentity};
use ipnet::IpNet;

use crate::{inventory::Workload, model::Protocol};

/// What makes a peer one and the same from plan to plan; cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PeerKey {
    /// Workloads that no policy can tell apart.
    Workload {
        /// Their namespace.
        namespace: Arc<str>,
        /// Its labels.
        namespace_labels: Labels,
        /// Their own labels.
        labels: Labels,
        /// The named ports that they declare.
        ports: NamedPorts,
        /// The longest network named by a policy, or else the default route, that contains them.
        network: IpNet,
    },
    /// Addresses of a node.
    Node {
        /// The node.
        name: Arc<str>,
        /// The longest network named by a policy, or else the default route, that contains them.
        network: IpNet,
    },
    /// What is inside this network, and inside no longer one that has an entry of its own.
    Network(IpNet),
}

impl PeerKey {
    /// The longest network named by a policy, or else the default route, that contains the peer.
    #[must_use]
    pub const fn network(&self) -> IpNet {
        match self {
            Self::Workload { network, .. }
            | Self::Node { network, .. }
            | Self::Network(network) => *network,
        }
    }

    /// The ports that the peer declares under `name` for `protocol`, ascending.
    #[must_use]
    pub fn resolve(&self, name: &str, protocol: Protocol) -> Vec<u16> {
        match self {
            Self::Workload { ports, .. } => ports.resolve(name, protocol),
            Self::Node { .. } | Self::Network(_) => Vec::new(),
        }
    }

    /// In whose hands its addresses are, hashed to 20 bits, not 0 (`flowgate_abi::endpoint::Peer::owner`):
    /// those of workloads that are alike in namespace and labels, a node's, or the world's. What policies make
    /// of them (networks, named ports, the namespace's labels) is no part of it.
    pub(crate) fn owner(&self, seed: u64) -> u32 {
        let mut hash = Fnv(seed ^ 0xcbf2_9ce4_8422_2325);
        match self {
            Self::Workload { namespace, labels, .. } => {
                hash.text("workload").text(namespace);
                for (key, value) in labels.iter() {
                    hash.text(key).text(value);
                }
            }
            Self::Node { name, .. } => {
                hash.text("node").text(name);
            }
            Self::Network(_) => return Owner::WORLD,
        }
        (hash.0 >> 40) as u32 % (MAX_PEERS - 2) + 2
    }

    /// What its numeric identity stands for.
    pub(crate) fn identity(&self, local_node: Option<&Arc<str>>) -> IdentityLabels {
        match self {
            Self::Workload { namespace, namespace_labels, labels, .. } => IdentityLabels::workload(
                namespace.clone(),
                namespace_labels.clone(),
                labels.clone(),
            ),
            Self::Node { name, .. } if Some(name) == local_node => {
                IdentityLabels::Reserved(NumericIdentity::HOST)
            }
            Self::Node { .. } => IdentityLabels::Reserved(NumericIdentity::REMOTE_NODE),
            Self::Network(network) => network_identity(*network),
        }
    }
}

/// FNV-1a over texts: the same for every process and version.
struct Fnv(u64);

impl Fnv {
    fn text(&mut self, text: &str) -> &mut Self {
        // No byte of a text in UTF-8 is 0xff.
        for byte in text.bytes().chain([0xff]) {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        self
    }
}

fn network_identity(network: IpNet) -> IdentityLabels {
    match (network.prefix_len(), network) {
        (0, IpNet::V4(_)) => IdentityLabels::Reserved(NumericIdentity::WORLD_IPV4),
        (0, IpNet::V6(_)) => IdentityLabels::Reserved(NumericIdentity::WORLD_IPV6),
        _ => IdentityLabels::cidrs([network]),
    }
}

impl fmt::Display for PeerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Workload { namespace, labels, network, .. } => {
                write!(f, "{namespace}/{{{labels}}} in {network}")
            }
            Self::Node { name, network } => write!(f, "node {name} in {network}"),
            Self::Network(network) => network.fmt(f),
        }
    }
}

/// The named ports that a workload declares, free of order and repetition; cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamedPorts(Arc<BTreeSet<(Arc<str>, Protocol, u16)>>);

impl NamedPorts {
    /// Those of `workload`.
    #[must_use]
    pub fn of(workload: &Workload) -> Self {
        let named = workload.ports.iter().filter_map(|declared| {
            Some((declared.name.clone()?, declared.protocol, declared.port))
        });
        Self(Arc::new(named.collect()))
    }

    /// None is declared.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The ports under `name` for `protocol`, ascending.
    #[must_use]
    pub fn resolve(&self, name: &str, protocol: Protocol) -> Vec<u16> {
        let declared = self.0.iter().filter(|(n, p, _)| &**n == name && *p == protocol);
        declared.map(|&(_, _, port)| port).collect()
    }
}
