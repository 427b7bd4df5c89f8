//! No text makes the reader panic, and what is refused changes nothing.

use flowgate_kubernetes::{AddressRanges, Manifests};
use proptest::prelude::*;

const PIECES: [&str; 51] = [
    "kind: Pod",
    "kind: NetworkPolicy",
    "kind: ClusterNetworkPolicy",
    "kind: BaselineAdminNetworkPolicy",
    "kind: List",
    "kind: PodList",
    "apiVersion: v1",
    "apiVersion: networking.k8s.io/v1",
    "apiVersion: policy.networking.k8s.io/v1alpha2",
    "apiVersion: policy.networking.k8s.io/v1alpha1",
    "metadata: {name: a}",
    "metadata:",
    "  name: a",
    "spec:",
    "  podSelector: {}",
    "  ingress:",
    "  tier: Admin\n  priority: 1\n  subject: {namespaces: {}}",
    "  - action: Deny\n    from: [{namespaces: {}}]",
    "    protocols: [{destinationNamedPort: a}]",
    "  - from:",
    "    - ipBlock: {cidr: 198.18.0.0/16}",
    "    ports: [{port: 80, endPort: 79}]",
    "kind: FlowgatePolicy",
    "apiVersion: policy.flowgate.dev/v1alpha1",
    "kind: CiliumNetworkPolicy",
    "kind: CiliumClusterwideNetworkPolicy",
    "apiVersion: cilium.io/v2",
    "  endpointSelector: {matchLabels: {'k8s:a': b}}",
    "    toPorts: [{ports: [{port: '80', protocol: ANY}]}]",
    "  specs:",
    "items:",
    "- ",
    "---",
    "...",
    "&a",
    "*a",
    "!!str",
    "<<: *a",
    "{",
    "}",
    "[",
    "]",
    "\"",
    "é",
    "\t",
    "|",
    ">",
    "%YAML 1.1",
    "status: {podIP: 198.18.0.1}",
    ": ",
    "#",
];

fn read(source: &str, text: &str) {
    let mut manifests = Manifests::default();
    match manifests.read(source, text) {
        Ok(()) => manifests.assign_addresses(&AddressRanges::default()).unwrap(),
        Err(error) => {
            assert!(error.to_string().starts_with(source));
            assert!(manifests.inventory.workloads.is_empty() && manifests.policies.is_empty());
        }
    }
}

proptest! {
    #[test]
    fn whatever_the_characters(text in "\\PC*", json in any::<bool>()) {
        read(if json { "f.json" } else { "f.yaml" }, &text);
    }

    #[test]
    fn whatever_the_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        read("f.yaml", &String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn whatever_the_order_of_pieces(
        pieces in proptest::collection::vec((0..PIECES.len(), any::<bool>()), 0..20),
    ) {
        let text: String = pieces.iter()
            .map(|&(piece, newline)| format!("{}{}", PIECES[piece], if newline { "\n" } else { " " }))
            .collect();
        read("f.yaml", &text);
    }
}
