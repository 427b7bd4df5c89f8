//! What makes an identity: the canonical description that gets a number.
//!
//! Invariant: the namespace, its labels and the workload's labels are three fields, never one map.

use std::{fmt, sync::Arc};

use ipnet::IpNet;

use crate::{Labels, NumericIdentity};

/// What makes an identity: two ends of the same description share one number.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IdentityLabels {
    /// Workloads of one namespace with the same labels.
    Workload {
        /// The namespace.
        namespace: Arc<str>,
        /// The namespace's labels.
        namespace_labels: Labels,
        /// The workload's own labels.
        labels: Labels,
    },
    /// Addresses that belong to the same networks.
    Cidrs(CidrSet),
    /// An identity that the system itself defines; it always has this number.
    Reserved(NumericIdentity),
}

impl IdentityLabels {
    /// A workload's identity.
    #[must_use]
    pub fn workload(
        namespace: impl Into<Arc<str>>,
        namespace_labels: Labels,
        labels: Labels,
    ) -> Self {
        Self::Workload { namespace: namespace.into(), namespace_labels, labels }
    }

    /// The identity of addresses that belong to these networks, in whatever order.
    pub fn cidrs(networks: impl IntoIterator<Item = IpNet>) -> Self {
        Self::Cidrs(networks.into_iter().collect())
    }
}

impl fmt::Display for IdentityLabels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Workload { namespace, namespace_labels, labels } => {
                write!(f, "{namespace}({namespace_labels})/{labels}")
            }
            Self::Cidrs(networks) => write!(f, "cidrs({networks})"),
            Self::Reserved(id) => write!(f, "reserved({id})"),
        }
    }
}

/// A set of networks: sorted, without duplicates and host bits.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CidrSet(Vec<IpNet>);

impl CidrSet {
    /// The networks, sorted.
    #[must_use]
    pub fn as_slice(&self) -> &[IpNet] {
        &self.0
    }
}

impl FromIterator<IpNet> for CidrSet {
    fn from_iter<I: IntoIterator<Item = IpNet>>(networks: I) -> Self {
        let mut networks: Vec<IpNet> =
            networks.into_iter().map(|network| network.trunc()).collect();
        networks.sort();
        networks.dedup();
        Self(networks)
    }
}

impl fmt::Display for CidrSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, network) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{network}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn order_repetition_and_host_bits_make_no_difference() {
        let one = IdentityLabels::cidrs([net("198.51.100.0/24"), net("198.18.0.0/15")]);
        let other = IdentityLabels::cidrs([
            net("198.18.0.0/15"),
            net("198.51.100.7/24"),
            net("198.18.0.0/15"),
        ]);
        assert_eq!(one, other);
        assert_eq!(one.to_string(), "cidrs(198.18.0.0/15,198.51.100.0/24)");
    }

    #[test]
    fn a_namespaces_label_is_not_the_workloads() {
        let team = Labels::from_iter([("team", "a")]);
        let of_namespace = IdentityLabels::workload("prod", team.clone(), Labels::new());
        let of_workload = IdentityLabels::workload("prod", Labels::new(), team);
        assert_ne!(of_namespace, of_workload);
    }
}
