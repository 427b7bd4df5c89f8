//! The scenario: pods and policies, built in or the user's.
//!
//! Invariant: every pod here has an address of its own. A host-network pod is its node, which this
//! example doesn't build, so it is left out, with a warning.

use std::path::PathBuf;

use flowgate_kubernetes::{AddressRanges, AssignError, ManifestError, Manifests};
use flowgate_policy::inventory::Workload;
use thiserror::Error;

const BUILT_IN: [(&str, &str); 2] = [
    ("manifests/pods.yaml", include_str!("../manifests/pods.yaml")),
    ("manifests/policies.yaml", include_str!("../manifests/policies.yaml")),
];

/// Why manifests were refused.
#[derive(Debug, Error)]
pub(crate) enum ScenarioError {
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error(transparent)]
    Assign(#[from] AssignError),
}

/// Reads the user's manifests, or those that are built in if there are none.
pub(crate) fn read(paths: &[PathBuf]) -> Result<Manifests, ScenarioError> {
    let mut manifests = match paths {
        [] => built_in()?,
        paths => Manifests::from_paths(paths)?,
    };
    manifests.assign_addresses(&AddressRanges::default())?;
    for warning in &manifests.warnings {
        eprintln!("warning: {warning}");
    }
    Ok(manifests)
}

/// The pods that get a network namespace.
pub(crate) fn pods(manifests: &Manifests) -> Vec<&Workload> {
    let (own, of_node): (Vec<_>, Vec<_>) =
        manifests.inventory.workloads.iter().partition(|pod| !pod.host_network);
    for pod in of_node {
        eprintln!("warning: {} is left out: a pod on its node's network is the node", pod.id);
    }
    own
}

fn built_in() -> Result<Manifests, ManifestError> {
    let mut manifests = Manifests::default();
    for (name, text) in BUILT_IN {
        manifests.read(name, text)?;
    }
    Ok(manifests)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    #[test]
    fn the_built_in_example_is_what_it_says() {
        let manifests = read(&[]).unwrap();
        assert_eq!(manifests.warnings, []);
        assert_eq!(manifests.inventory.namespaces.len(), 2);
        assert_eq!(pods(&manifests).len(), 5);
        assert_eq!(manifests.policies.len(), 4);
        let dual = |pod: &&Workload| pod.addresses.iter().any(IpAddr::is_ipv6);
        assert!(pods(&manifests).iter().all(dual));
    }
}
