//! The inventory: the workloads, nodes and namespaces that policies speak of.
//!
//! Not here: which addresses are attached to this kernel (that is the embedder's business).
//! Invariant: a workload's labels and its namespace's labels are different maps (GHSA-pfhr-pccp-hwmh).

use std::{collections::BTreeMap, fmt, net::IpAddr, sync::Arc};

use flowgate_identity::Labels;

use crate::model::{NamespaceSelector, Protocol, WorkloadSelector};

/// The label that names a namespace; the API server sets it, and nobody can set it otherwise.
pub const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// Everything that policies can select.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Namespaces by name, with their labels. A namespace that a workload names and that isn't
    /// here counts as one with the label `kubernetes.io/metadata.name` alone.
    pub namespaces: BTreeMap<Arc<str>, Labels>,
    /// Workloads, each with a name of its own.
    pub workloads: Vec<Workload>,
    /// Nodes, each with a name of its own.
    pub nodes: Vec<Node>,
}

impl Inventory {
    /// The labels of a namespace, known or not. [`NAMESPACE_NAME_LABEL`] always tells the truth.
    #[must_use]
    pub fn namespace_labels(&self, name: &Arc<str>) -> Labels {
        Self::labels_among(&self.namespaces, name)
    }

    /// A selector matches a workload: its namespace, and its own labels.
    #[must_use]
    pub fn selects(&self, selector: &WorkloadSelector, workload: &Workload) -> bool {
        let namespace = &workload.id.namespace;
        let in_namespace = match &selector.namespaces {
            NamespaceSelector::Named(name) => name == namespace,
            NamespaceSelector::Matching(labels) => {
                labels.matches(&self.namespace_labels(namespace))
            }
        };
        in_namespace && selector.labels.matches(&workload.labels)
    }

    pub(crate) fn labels_among(namespaces: &BTreeMap<Arc<str>, Labels>, name: &Arc<str>) -> Labels {
        let mut labels = namespaces.get(name).cloned().unwrap_or_default();
        if labels.get(NAMESPACE_NAME_LABEL) != Some(name) {
            labels.insert(NAMESPACE_NAME_LABEL, name.clone());
        }
        labels
    }
}

/// Names one workload, or a node as an end of its own; displays as `namespace/name`, or `node name`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkloadRef {
    /// Its namespace; empty for a node, and for nothing else.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

impl WorkloadRef {
    /// A node, with its host-network workloads, as an end of its own.
    #[must_use]
    pub fn node(name: impl Into<Arc<str>>) -> Self {
        Self { namespace: "".into(), name: name.into() }
    }

    /// The node's name, if it is one.
    #[must_use]
    pub fn as_node(&self) -> Option<&Arc<str>> {
        self.namespace.is_empty().then_some(&self.name)
    }
}

impl fmt::Display for WorkloadRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.as_node() {
            Some(node) => write!(f, "node {node}"),
            None => write!(f, "{}/{}", self.namespace, self.name),
        }
    }
}

/// A pod, or whatever else has an address, labels and a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Its name.
    pub id: WorkloadRef,
    /// Its own labels.
    pub labels: Labels,
    /// Its addresses: any number of either family.
    pub addresses: Vec<IpAddr>,
    /// The ports that it declares, named or not.
    pub ports: Vec<DeclaredPort>,
    /// The node that it runs on, if known.
    pub node: Option<Arc<str>>,
    /// It has no address of its own: it is its node, and no workload selector matches it. Its
    /// addresses count as its node's, if the node is known.
    pub host_network: bool,
}

/// A port that a workload declares.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeclaredPort {
    /// Its name, by which a policy may refer to it.
    pub name: Option<Arc<str>>,
    /// Its protocol.
    pub protocol: Protocol,
    /// Its number, not 0.
    pub port: u16,
}

/// A node: a machine whose own address is an end of traffic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: Arc<str>,
    /// Its labels.
    pub labels: Labels,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}
