//! What is read of pods, nodes and namespaces, and from which files and formats.

use std::{fs, path::PathBuf};

use flowgate_identity::Labels;
use flowgate_kubernetes::{Manifests, Warning};
use flowgate_policy::{inventory::DeclaredPort, model::Protocol};

fn read(text: &str) -> Manifests {
    let mut manifests = Manifests::default();
    manifests.read("f.yaml", text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    manifests
}

fn pod_names(manifests: &Manifests) -> Vec<String> {
    manifests.inventory.workloads.iter().map(|workload| workload.id.to_string()).collect()
}

/// What `kubectl get pods -o yaml` prints has many more fields than are read.
#[test]
fn a_pod_as_the_api_server_shows_it() {
    let manifests = read(include_str!("pods-as-listed.yaml"));
    assert_eq!(manifests.warnings, []);
    assert_eq!(pod_names(&manifests), ["shop/web-7d4b9c6f5-x2x9p"]);
    let pod = &manifests.inventory.workloads[0];
    assert_eq!(pod.labels.to_string(), "app=web,pod-template-hash=7d4b9c6f5");
    let addresses: [std::net::IpAddr; 2] =
        ["198.18.0.5".parse().unwrap(), "2001:db8::5".parse().unwrap()];
    assert_eq!(pod.addresses, addresses);
    assert_eq!(pod.node.as_deref(), Some("node-a"));
    assert!(!pod.host_network);
    let port = |name: Option<&str>, protocol, port| DeclaredPort {
        name: name.map(Into::into),
        protocol,
        port,
    };
    assert_eq!(
        pod.ports,
        [
            port(Some("metrics"), Protocol::Tcp, 9090),
            port(Some("http"), Protocol::Tcp, 8080),
            port(None, Protocol::Udp, 53),
        ]
    );
    assert_eq!(manifests.inventory.nodes.len(), 1);
}

#[test]
fn namespaces_have_their_name_as_a_label() {
    let manifests = read(
        "kind: Pod\napiVersion: v1\nmetadata: {name: a}\n---\n\
         kind: Pod\napiVersion: v1\nmetadata: {name: a, namespace: given}\n---\n\
         kind: Namespace\napiVersion: v1\nmetadata: {name: given, labels: {env: dev}}\n---\n\
         kind: Namespace\napiVersion: v1\n\
         metadata: {name: own, labels: {kubernetes.io/metadata.name: own}}\n",
    );
    let labels: Vec<_> = manifests
        .inventory
        .namespaces
        .iter()
        .map(|(name, labels)| format!("{name}: {labels}"))
        .collect();
    assert_eq!(
        labels,
        [
            "default: kubernetes.io/metadata.name=default",
            "given: env=dev,kubernetes.io/metadata.name=given",
            "own: kubernetes.io/metadata.name=own",
        ]
    );
}

#[test]
fn finished_pods_are_left_out_and_their_addresses_are_free() {
    let pod = |name: &str, phase: &str| {
        format!(
            "---\nkind: Pod\napiVersion: v1\nmetadata: {{name: {name}}}\n\
             status: {{phase: {phase}, podIP: 198.18.0.1}}\n"
        )
    };
    let text = pod("a", "Succeeded") + &pod("b", "Failed") + &pod("c", "Running");
    assert_eq!(pod_names(&read(&text)), ["default/c"]);
}

#[test]
fn a_node_manifest_completes_a_node_that_was_only_named() {
    let manifests = read(
        "kind: Pod\napiVersion: v1\nmetadata: {name: a}\nspec: {nodeName: n}\n---\n\
         kind: Node\napiVersion: v1\nmetadata: {name: n, labels: {zone: z}}\n\
         status: {addresses: [{type: InternalIP, address: 198.18.0.9}, {type: Hostname, address: n}]}",
    );
    assert_eq!(manifests.inventory.nodes.len(), 1);
    assert_eq!(manifests.inventory.nodes[0].labels, Labels::from_iter([("zone", "z")]));
    assert_eq!(manifests.inventory.nodes[0].addresses.len(), 1);
}

#[test]
fn lists_are_opened() {
    let manifests = read(
        "kind: List\napiVersion: v1\nitems:\n\
         - {kind: Pod, apiVersion: v1, metadata: {name: a}}\n\
         - kind: PodList\n  apiVersion: v1\n  items: [{metadata: {name: b}}]\n\
         - {kind: NetworkPolicyList, apiVersion: networking.k8s.io/v1, items: }\n",
    );
    assert_eq!(pod_names(&manifests), ["default/a", "default/b"]);
}

#[test]
fn other_kinds_are_warned_of() {
    let manifests = read(
        "kind: Deployment\napiVersion: apps/v1\nmetadata: {name: d, namespace: n}\n---\n\
         kind: Node\napiVersion: example.com/v1\nmetadata: {name: n}\n---\n\
         kind: AllowList\napiVersion: example.com/v1\n",
    );
    let warnings: Vec<_> = manifests.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "f.yaml: document 1 (Deployment/n/d): this kind is ignored",
            "f.yaml: document 2 (Node/n): this kind is ignored",
            "f.yaml: document 3 (AllowList): this kind is ignored",
        ]
    );
}

#[test]
fn words_that_kubernetes_takes_for_booleans_are_strings_with_a_warning() {
    let manifests = read(
        "kind: Pod\napiVersion: v1\nmetadata: {name: a, labels: {x: yes, y: 'no', z: 'true'}}\n",
    );
    assert_eq!(manifests.inventory.workloads[0].labels.to_string(), "x=yes,y=no,z=true");
    let [Warning::BooleanElsewhere { at, text }] = &manifests.warnings[..] else {
        panic!("{:?}", manifests.warnings);
    };
    assert_eq!((at.path.as_str(), text.as_ref()), ("metadata.labels.x", "yes"));
}

#[test]
fn json_objects_follow_one_another() {
    let pod = |name: &str| {
        format!(r#"{{"kind": "Pod", "apiVersion": "v1", "metadata": {{"name": "{name}"}}}}"#)
    };
    for (source, text) in [
        ("f.json", pod("a") + &pod("b")),
        ("-", format!("\n{}\n{}\n", pod("a"), pod("b"))),
        ("-", format!("{}\n---\n{}\n", pod("a"), pod("b"))),
    ] {
        let mut manifests = Manifests::default();
        manifests.read(source, &text).unwrap();
        assert_eq!(pod_names(&manifests), ["default/a", "default/b"], "{text}");
    }
    let error = Manifests::default().read("f.json", "kind: Pod").unwrap_err().to_string();
    assert!(error.starts_with("f.json: document 1: expected"), "{error}");
    let wrong =
        r#"{"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "a", "labels": {"a": 1}}}"#;
    let error = Manifests::default().read("f.json", wrong).unwrap_err().to_string();
    assert_eq!(
        error,
        "f.json: document 1 (Pod/default/a): metadata.labels.a: expected a string, found the \
         integer 1: put it in quotes"
    );
}

#[test]
fn anchors_and_byte_order_marks_are_read() {
    let manifests = read(
        "\u{feff}kind: Pod\napiVersion: v1\nmetadata: {name: a, labels: &l {app: web}, annotations: *l}\n",
    );
    assert_eq!(manifests.inventory.workloads[0].labels.to_string(), "app=web");
    assert!(read("").inventory.workloads.is_empty());
    assert!(read("# nothing\n---\n---\n").inventory.workloads.is_empty());
}

#[test]
fn a_directory_is_read_sorted_and_in_depth() {
    let directory = tempfile::tempdir().unwrap();
    let write = |path: &str, pod: &str| {
        let path = directory.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let text = format!("{{kind: Pod, apiVersion: v1, metadata: {{name: {pod}}}}}");
        fs::write(path, text).unwrap();
    };
    write("b.yml", "b");
    write("a.yaml", "a");
    write("c/d.yaml", "d");
    write("ignored.txt", "x");
    fs::write(
        directory.path().join("e.json"),
        r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"e"}}"#,
    )
    .unwrap();
    let manifests = Manifests::from_paths(&[directory.path().to_owned()]).unwrap();
    assert_eq!(pod_names(&manifests), ["default/a", "default/b", "default/d", "default/e"]);
}

#[test]
fn paths_without_manifests_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_owned();
    let error = Manifests::from_paths(std::slice::from_ref(&path)).unwrap_err().to_string();
    let expected = format!("{}: no *.yaml, *.yml or *.json in this directory", path.display());
    assert_eq!(error, expected);
    let missing = path.join("missing.yaml");
    let error = Manifests::from_paths(std::slice::from_ref(&missing)).unwrap_err();
    assert!(error.to_string().starts_with(&format!("{}: can't be read: ", missing.display())));
    assert!(std::error::Error::source(&error).is_some());
    let binary = path.join("binary.yaml");
    fs::write(&binary, [0xff, 0xfe, 0x00]).unwrap();
    assert!(Manifests::from_paths(&[PathBuf::from(&binary)]).is_err());
}
