//! For which node the answer is.

use std::fs;

use crate::run::{Run, SHOP, directory, run_in};

/// The entity `host` alone may come in, and nobody else.
const HOST_ALONE: &str = "
apiVersion: policy.flowgate.dev/v1alpha1
kind: FlowgatePolicy
metadata: { name: hosts, namespace: shop }
spec:
  podSelector: { matchLabels: { app: web } }
  egress:
    - to: [{ entity: host }]
";

const WARNING: &str =
    "warning: FlowgatePolicy/shop/hosts speaks of host or remote-node: without --node";

fn run(arguments: &str) -> Run {
    let directory = directory(&[SHOP, HOST_ALONE].join("---\n"), "");
    fs::write(directory.path().join("shop.yaml"), SHOP).unwrap();
    let probe = r#"{"from":"shop/web","to":"node:n1","port":80}"#;
    fs::write(directory.path().join("probe.jsonl"), probe).unwrap();
    let log = r#"{"event":"new","from":"shop/web","to":"198.51.100.1","service":"TCP/80","reason":null,"egress":{"verdict":"allow","policies":[]},"ingress":null,"policies":[],"generation":1,"times":1}"#;
    fs::write(directory.path().join("log.jsonl"), log).unwrap();
    run_in(directory.path(), &arguments.split(' ').collect::<Vec<_>>())
}

/// The pod's own node is `host` to the agent of that node, and to nobody else.
#[test]
fn a_host_is_a_host_where_the_answer_is_its_nodes() {
    let explain = "explain shop/web node:n1 80/TCP --manifests manifests.yaml";
    let said = |run: &Run| run.stdout.lines().next().unwrap().to_owned();
    let anywhere = run(explain);
    assert!(said(&anywhere).ends_with("denied; what is established ends"), "{}", anywhere.stdout);
    assert!(anywhere.stderr.contains(WARNING), "{}", anywhere.stderr);
    let at_home = run(&format!("{explain} --node n1"));
    assert!(said(&at_home).ends_with(": allowed"), "{}", at_home.stdout);
    assert_eq!(at_home.stderr, "");
    let other = run("explain shop/web node:n2 80/TCP --manifests manifests.yaml --node n1");
    assert!(said(&other).ends_with("denied; what is established ends"), "{}", other.stdout);
}

/// What agents of other nodes say isn't theirs to say.
#[test]
fn pods_elsewhere_are_no_endpoints() {
    let run = run("explain shop/front shop/web 8080/TCP --manifests manifests.yaml --node n2");
    let first = "shop/front -> shop/web 8080/TCP on node n2 over IPv4 and IPv6: allowed\n";
    assert!(run.stdout.starts_with(first), "{}", run.stdout);
    let row = |end: &str| run.stdout.lines().find(|line| line.starts_with(end)).unwrap();
    assert!(row("egress").contains("shop/front"), "{}", run.stdout);
    assert!(row("ingress").contains("n/a"), "{}", run.stdout);
}

#[test]
fn every_command_is_asked_for_a_node() {
    let probes = "--manifests manifests.yaml --probes probe.jsonl -o json";
    assert!(run(probes).stderr.contains(WARNING));
    assert_eq!(run(probes).answers()[0]["allowed"], false);
    let at_home = run(&format!("{probes} --node n1"));
    assert_eq!((&at_home.answers()[0]["allowed"], &*at_home.stderr), (&true.into(), ""));
    let replay = "replay --manifests manifests.yaml --flows log.jsonl";
    assert_eq!(run(replay).status, 1);
    assert_eq!(run(&format!("{replay} --node n1")).status, 0);
    let diff = "diff --before shop.yaml --after manifests.yaml";
    assert!(!run(diff).stdout.contains("node n1"));
    let here = run(&format!("{diff} --node n1")).stdout;
    assert!(here.contains("opens   shop/web   to     node n1 "), "{here}");
    assert_eq!(run(&format!("{diff} --node n2")).status, 0, "the pod isn't there");
}

#[test]
fn a_node_that_nobody_knows_is_refused() {
    for command in [
        "--manifests manifests.yaml",
        "explain shop/web node:n1 80/TCP --manifests manifests.yaml",
        "diff --before shop.yaml --after manifests.yaml",
        "replay --manifests manifests.yaml --flows log.jsonl",
    ] {
        run(&format!("{command} --node n3")).is_refused(r#"--node: unknown node "n3""#);
    }
}
