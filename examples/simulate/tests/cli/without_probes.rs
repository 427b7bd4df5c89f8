//! Without probes: every ordered pair of pods, on every port that any container declares.

use std::{collections::BTreeSet, fs};

use crate::run::{SHOP, run_in};

const PODS: &str = r#"
apiVersion: v1
kind: List
items:
  - apiVersion: v1
    kind: Pod
    metadata: { name: a, namespace: x }
    spec: { containers: [{ name: a, ports: [{ containerPort: 80 }, { containerPort: 81, protocol: UDP }] }] }
  - apiVersion: v1
    kind: Pod
    metadata: { name: b, namespace: x }
    spec:
      containers:
        - { name: b, ports: [{ containerPort: 80 }] }
        - { name: c, ports: [{ containerPort: 80, protocol: SCTP }] }
  - { apiVersion: v1, kind: Pod, metadata: { name: silent } }
  - { apiVersion: v1, kind: Pod, metadata: { name: gone }, status: { phase: Failed } }
"#;

#[test]
fn every_pair_on_every_declared_port() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("pods.yaml"), PODS).unwrap();
    let run = run_in(directory.path(), &["--manifests", "pods.yaml", "-o", "json"]);
    let asked = run.answers();
    let asked = asked.iter().map(|answer| {
        let text = |key: &str| answer[key].as_str().unwrap().to_owned();
        (text("from"), text("to"), text("proto"), answer["port"].as_u64().unwrap())
    });
    let asked: Vec<_> = asked.collect();
    let mut expected = BTreeSet::new();
    let pods = ["x/a", "x/b", "default/silent"];
    for (from, to) in pods.iter().flat_map(|from| pods.iter().map(move |to| (from, to))) {
        for (proto, port) in [("TCP", 80), ("UDP", 81), ("SCTP", 80)] {
            if from != to {
                expected.insert(((*from).to_owned(), (*to).to_owned(), proto.to_owned(), port));
            }
        }
    }
    assert_eq!(asked.len(), expected.len(), "none twice");
    assert_eq!(asked.iter().cloned().collect::<BTreeSet<_>>(), expected);
    let from: Vec<_> = asked.iter().map(|(from, ..)| from.as_str()).collect();
    let pods = ["x/a", "x/b", "default/silent"].map(|pod| [pod; 6]);
    assert_eq!(from, pods.concat(), "in the order of the manifests");
}

#[test]
fn pairs_without_a_common_family_are_left_out() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("shop")).unwrap();
    fs::write(directory.path().join("shop/shop.yaml"), SHOP).unwrap();
    let run = run_in(directory.path(), &["--manifests", "shop", "-o", "json"]);
    // Six pods, of which two have no family in common; four ports.
    assert_eq!(run.answers().len(), (6 * 5 - 2) * 4);
    let warning = "other/modern to other/legacy is left out: they have no address family in common";
    assert!(run.stderr.contains(warning), "{}", run.stderr);
}

#[test]
fn nothing_to_ask_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: { name: lonely }\n";
    fs::write(directory.path().join("pod.yaml"), pod).unwrap();
    let run = run_in(directory.path(), &["--manifests", "pod.yaml", "-o", "json"]);
    assert_eq!((run.status, run.stdout.as_str()), (0, ""));
    assert!(run.stderr.contains("warning: there is nothing to ask"), "{}", run.stderr);
}

#[test]
fn a_file_without_probes_is_told() {
    let run = crate::run::ask(SHOP, "\n\n");
    assert_eq!((run.status, run.stdout.as_str()), (0, ""));
    let told = "warning: there is nothing to ask: no probe is in probes.jsonl\n";
    assert_eq!(run.stderr, told);
}
