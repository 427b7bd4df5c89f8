//! Who gets which address where the manifests give none.

use flowgate_kubernetes::{AddressRanges, AssignError, Manifests, Warning};

/// One pod per line: its name, then fields after a bar.
fn manifests(pods: &[(&str, &str)]) -> Manifests {
    let mut manifests = Manifests::default();
    for (name, fields) in pods {
        let text = format!("kind: Pod\napiVersion: v1\nmetadata: {{name: {name}}}\n{fields}\n");
        manifests.read(&format!("{name}.yaml"), &text).unwrap();
    }
    manifests
}

fn addresses(manifests: &Manifests) -> Vec<String> {
    let pods = manifests.inventory.workloads.iter().map(|pod| (&pod.id.name, &pod.addresses));
    let nodes = manifests.inventory.nodes.iter().map(|node| (&node.name, &node.addresses));
    let line = |(name, addresses): (&std::sync::Arc<str>, &Vec<std::net::IpAddr>)| {
        let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
        format!("{name}: {}", addresses.join(" "))
    };
    pods.chain(nodes).map(line).collect()
}

fn assigned(pods: &[(&str, &str)]) -> Vec<String> {
    let mut manifests = manifests(pods);
    manifests.assign_addresses(&AddressRanges::default()).unwrap();
    let once = addresses(&manifests);
    manifests.assign_addresses(&AddressRanges::default()).unwrap();
    assert_eq!(addresses(&manifests), once, "a second time changes nothing");
    once
}

#[test]
fn both_families_where_no_pod_says_otherwise() {
    assert_eq!(
        assigned(&[("a", ""), ("b", "")]),
        ["a: 198.18.128.1 2001:db8:f::1", "b: 198.18.128.2 2001:db8:f::2"]
    );
}

#[test]
fn the_one_family_that_pods_have() {
    assert_eq!(
        assigned(&[("a", ""), ("b", "status: {podIP: 198.18.0.1}")]),
        ["a: 198.18.128.1", "b: 198.18.0.1"]
    );
    assert_eq!(
        assigned(&[("a", ""), ("b", "status: {podIP: '2001:db8::1'}")]),
        ["a: 2001:db8:f::1", "b: 2001:db8::1"]
    );
    assert_eq!(
        assigned(&[
            ("a", "status: {podIP: '2001:db8::1'}"),
            ("b", "status: {podIP: 198.18.0.1}"),
            ("c", ""),
        ])[2],
        "c: 198.18.128.1 2001:db8:f::1"
    );
}

#[test]
fn taken_addresses_are_passed_over() {
    assert_eq!(
        assigned(&[("a", ""), ("b", "status: {podIP: 198.18.128.1}")]),
        ["a: 198.18.128.2", "b: 198.18.128.1"]
    );
}

#[test]
fn a_host_network_pod_has_its_nodes_addresses() {
    let host = "spec: {hostNetwork: true, nodeName: n}";
    assert_eq!(
        assigned(&[("a", host), ("b", "spec: {nodeName: n}")]),
        [
            "a: 198.18.128.2 2001:db8:f::2",
            "b: 198.18.128.1 2001:db8:f::1",
            "n: 198.18.128.2 2001:db8:f::2",
        ]
    );
    let reported = "spec: {hostNetwork: true, nodeName: n}\nstatus: {podIP: 198.51.100.1}";
    assert_eq!(
        assigned(&[("a", host), ("b", reported)]),
        ["a: 198.51.100.1", "b: 198.51.100.1", "n: 198.51.100.1"]
    );
}

#[test]
fn host_network_pods_share_their_nodes_address_and_no_other_pod_does() {
    let host = "spec: {hostNetwork: true, nodeName: n}\nstatus: {podIP: 198.51.100.1}";
    let mut manifests = manifests(&[("a", host), ("b", host)]);
    let pod = "{kind: Pod, apiVersion: v1, metadata: {name: c}, status: {podIP: 198.51.100.1}}";
    let error = manifests.read("c.yaml", pod).unwrap_err().to_string();
    assert!(error.contains("198.51.100.1 is already the address of Node/n"), "{error}");
}

#[test]
fn an_assigned_address_is_taken() {
    let mut manifests = manifests(&[("a", "")]);
    manifests.assign_addresses(&AddressRanges::default()).unwrap();
    let pod = "{kind: Pod, apiVersion: v1, metadata: {name: b}, status: {podIP: 198.18.128.1}}";
    let error = manifests.read("b.yaml", pod).unwrap_err().to_string();
    assert!(
        error.ends_with("198.18.128.1 is already the address of Pod/default/a (line 1)"),
        "{error}"
    );
}

#[test]
fn policies_that_name_addresses_are_a_reason_to_warn() {
    let policy = |peers: &str| {
        format!(
            "{{kind: NetworkPolicy, apiVersion: networking.k8s.io/v1, metadata: {{name: p}}, \
             spec: {{egress: [{{to: [{peers}]}}]}}}}"
        )
    };
    let warnings = |peers: &str, pod: &str| {
        let mut manifests = manifests(&[("a", pod)]);
        manifests.read("p.yaml", &policy(peers)).unwrap();
        manifests.assign_addresses(&AddressRanges::default()).unwrap();
        manifests.warnings
    };
    assert_eq!(warnings("{podSelector: {}}", ""), []);
    assert_eq!(warnings("{ipBlock: {cidr: 198.18.0.0/16}}", "status: {podIP: 198.18.0.1}"), []);
    let warnings = warnings("{ipBlock: {cidr: 198.18.0.0/16}}", "");
    assert!(matches!(&warnings[..], [Warning::AssignedAddresses { .. }]));
    assert_eq!(
        warnings[0].to_string(),
        "addresses from 198.18.128.0/17 and 2001:db8:f::/64 were given to what had none \
         (Pod/default/a), and policies with an ipBlock or networks are judged by them"
    );
}

#[test]
fn an_exhausted_range_changes_nothing() {
    let ranges = AddressRanges { ipv4: "198.18.0.0/30".parse().unwrap(), ..Default::default() };
    let mut manifests = manifests(&[("a", ""), ("b", ""), ("c", "")]);
    let before = manifests.inventory.clone();
    let error = manifests.assign_addresses(&ranges).unwrap_err();
    assert!(matches!(error, AssignError::Exhausted { .. }));
    assert_eq!(error.to_string(), "no address is left in 198.18.0.0/30 for Pod/default/c");
    assert_eq!(manifests.inventory, before);
}
