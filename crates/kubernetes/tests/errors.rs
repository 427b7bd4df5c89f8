//! Every mistake points at file, document and field, as a table: a manifest, and what is said.

use flowgate_kubernetes::Manifests;

fn refusal(text: &str) -> String {
    let mut manifests = Manifests::default();
    match manifests.read("f.yaml", text) {
        Ok(()) => panic!("was accepted:\n{text}"),
        Err(error) => error.to_string(),
    }
}

/// Mistakes in the `spec` of a policy: path in the spec, and reason.
#[test]
fn in_a_network_policy() {
    let table = [
        ("{ingres: []}", "ingres: unknown field"),
        (
            "{policyTypes: [ingress]}",
            "policyTypes[0]: \"ingress\" is not one of Ingress and Egress",
        ),
        ("{policyTypes: Ingress}", "policyTypes: expected a list, found the string \"Ingress\""),
        ("{podSelector: []}", "podSelector: expected a mapping, found a list"),
        ("{podSelector: {app: web}}", "podSelector.app: unknown field"),
        (
            "{podSelector: {matchLabels: {app: 1}}}",
            "podSelector.matchLabels.app: expected a string, found the integer 1: put it in quotes",
        ),
        (
            "{podSelector: {matchLabels: {a.b/c: true}}}",
            "podSelector.matchLabels[a.b/c]: expected a string, found the boolean true: put it in quotes",
        ),
        (
            "{podSelector: {matchLabels: {app: 1.10}}}",
            "podSelector.matchLabels.app: expected a string, found the number 1.10: put it in quotes",
        ),
        (
            "{podSelector: {matchLabels: {app: }}}",
            "podSelector.matchLabels.app: expected a string, found null",
        ),
        (
            "{podSelector: {matchLabels: {app: a b}}}",
            "podSelector.matchLabels.app: \"a b\" is not a label value (empty, or at most 63 \
             letters, digits, -, _ and ., beginning and ending with a letter or digit)",
        ),
        (
            "{podSelector: {matchLabels: {-app: a}}}",
            "podSelector.matchLabels.-app: \"-app\" is not a label key (at most 63 letters, digits, \
             -, _ and ., beginning and ending with a letter or digit, optionally after a DNS name \
             and a slash)",
        ),
        (
            "{podSelector: {matchExpressions: [{key: a, operator: in, values: [x]}]}}",
            "podSelector.matchExpressions[0].operator: \"in\" is not one of In, NotIn, Exists and \
             DoesNotExist",
        ),
        (
            "{podSelector: {matchExpressions: [{key: a, operator: In}]}}",
            "podSelector.matchExpressions[0]: operator In needs values",
        ),
        (
            "{podSelector: {matchExpressions: [{key: a, operator: NotIn, values: []}]}}",
            "podSelector.matchExpressions[0]: operator NotIn needs values",
        ),
        (
            "{podSelector: {matchExpressions: [{key: a, operator: Exists, values: [x]}]}}",
            "podSelector.matchExpressions[0].values: operator Exists takes no values",
        ),
        (
            "{podSelector: {matchExpressions: [{key: a, operator: DoesNotExist, values: [x]}]}}",
            "podSelector.matchExpressions[0].values: operator DoesNotExist takes no values",
        ),
        (
            "{podSelector: {matchExpressions: [{operator: Exists}]}}",
            "podSelector.matchExpressions[0].key: missing",
        ),
        (
            "{podSelector: {matchExpressions: [{key: a, op: Exists}]}}",
            "podSelector.matchExpressions[0].op: unknown field",
        ),
        ("{ingress: {}}", "ingress: expected a list, found a mapping"),
        ("{ingress: [null]}", "ingress[0]: expected a mapping, found null"),
        ("{ingress: [{to: []}]}", "ingress[0].to: unknown field"),
        ("{egress: [{from: []}]}", "egress[0].from: unknown field"),
        (
            "{ingress: [{from: [{}]}]}",
            "ingress[0].from[0]: a peer needs an ipBlock, a podSelector or a namespaceSelector",
        ),
        (
            "{ingress: [{from: [{podSelector: }]}]}",
            "ingress[0].from[0]: a peer needs an ipBlock, a podSelector or a namespaceSelector",
        ),
        (
            "{ingress: [{from: [{podSelector: {}, ipBlock: {cidr: 198.18.0.0/16}}]}]}",
            "ingress[0].from[0]: a peer with an ipBlock can't have a podSelector or a \
             namespaceSelector",
        ),
        ("{egress: [{to: [{ipBlock: {}}]}]}", "egress[0].to[0].ipBlock.cidr: missing"),
        (
            "{egress: [{to: [{ipBlock: {cidr: 198.18.0.0}}]}]}",
            "egress[0].to[0].ipBlock.cidr: \"198.18.0.0\" is not a network in CIDR notation",
        ),
        (
            "{egress: [{to: [{ipBlock: {cidr: 198.18.0.0/33}}]}]}",
            "egress[0].to[0].ipBlock.cidr: \"198.18.0.0/33\" is not a network in CIDR notation",
        ),
        (
            "{egress: [{to: [{ipBlock: {cidr: 198.18.0.0/16, except: [198.18.0.0/16]}}]}]}",
            "egress[0].to[0].ipBlock.except[0]: 198.18.0.0/16 is not strictly inside 198.18.0.0/16",
        ),
        (
            "{egress: [{to: [{ipBlock: {cidr: 198.18.0.0/16, except: ['2001:db8::/64']}}]}]}",
            "egress[0].to[0].ipBlock.except[0]: 2001:db8::/64 is not strictly inside 198.18.0.0/16",
        ),
        (
            "{egress: [{to: [{ipBlock: {cidr: 198.18.0.0/16, excepts: []}}]}]}",
            "egress[0].to[0].ipBlock.excepts: unknown field",
        ),
        (
            "{ingress: [{ports: [{port: 0}]}]}",
            "ingress[0].ports[0].port: 0 is not a port number between 1 and 65535",
        ),
        (
            "{ingress: [{ports: [{port: 65536}]}]}",
            "ingress[0].ports[0].port: 65536 is not a port number between 1 and 65535",
        ),
        (
            "{ingress: [{ports: [{port: -1}]}]}",
            "ingress[0].ports[0].port: -1 is not a port number between 1 and 65535",
        ),
        (
            "{ingress: [{ports: [{port: 80.5}]}]}",
            "ingress[0].ports[0].port: expected an integer, found the number 80.5",
        ),
        (
            "{ingress: [{ports: [{port: '80'}]}]}",
            "ingress[0].ports[0].port: \"80\" is not a port name (at most 15 of a-z, 0-9 and single \
             -, with at least one letter, beginning and ending with a letter or digit)",
        ),
        (
            "{ingress: [{ports: [{port: 80, endPort: 79}]}]}",
            "ingress[0].ports[0].endPort: 79 is less than port 80",
        ),
        (
            "{ingress: [{ports: [{port: 80, endPort: 70000}]}]}",
            "ingress[0].ports[0].endPort: 70000 is not a port number between 1 and 65535",
        ),
        (
            "{ingress: [{ports: [{port: http, endPort: 80}]}]}",
            "ingress[0].ports[0].endPort: endPort needs a port that is a number",
        ),
        (
            "{ingress: [{ports: [{endPort: 80}]}]}",
            "ingress[0].ports[0].endPort: endPort needs a port that is a number",
        ),
        (
            "{ingress: [{ports: [{protocol: tcp}]}]}",
            "ingress[0].ports[0].protocol: \"tcp\" is not one of TCP, UDP and SCTP",
        ),
        ("{ingress: [{ports: [{name: http}]}]}", "ingress[0].ports[0].name: unknown field"),
    ];
    for (spec, expected) in table {
        let error = refusal(&format!(
            "---\nkind: ConfigMap\napiVersion: v1\n---\napiVersion: networking.k8s.io/v1\n\
             kind: NetworkPolicy\nmetadata: {{name: web, namespace: prod}}\nspec: {spec}\n"
        ));
        let expected =
            format!("f.yaml: document 2 (NetworkPolicy/prod/web): spec.{expected} (line 8)");
        assert_eq!(error, expected, "{spec}");
    }
}

#[test]
fn in_an_object() {
    let policy = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n";
    let table = [
        ("kind: Pod".into(), "f.yaml: document 1 (Pod/default): apiVersion: missing (line 1)"),
        ("kind: ''\napiVersion: v1".into(), "f.yaml: document 1: kind: missing (line 1)"),
        ("apiVersion: v1".into(), "f.yaml: document 1: kind: missing (line 1)"),
        ("- 1".into(), "f.yaml: document 1: expected a mapping, found a list (line 1)"),
        ("hello".into(), "f.yaml: document 1: expected a mapping, found the string \"hello\" (line 1)"),
        (
            "kind: Pod\napiVersion: v1".into(),
            "f.yaml: document 1 (Pod/default): metadata: missing (line 1)",
        ),
        (
            "kind: Pod\napiVersion: v1\nmetadata: {generateName: a-}".into(),
            "f.yaml: document 1 (Pod/default): metadata.name: missing (line 3)",
        ),
        (
            "kind: Pod\napiVersion: v1\nmetadata: {name: 5}".into(),
            "f.yaml: document 1 (Pod/default): metadata.name: expected a string, found the integer 5: \
             put it in quotes (line 3)",
        ),
        (
            "kind: Namespace\napiVersion: v1\nmetadata: {name: a.b}".into(),
            "f.yaml: document 1 (Namespace/a.b): metadata.name: \"a.b\" is not a DNS label (at most 63 \
             of a-z, 0-9 and -, beginning and ending with a letter or digit) (line 3)",
        ),
        (
            "kind: Namespace\napiVersion: v1\nmetadata: {name: a, labels: {kubernetes.io/metadata.name: b}}".into(),
            "f.yaml: document 1 (Namespace/a): metadata.labels[kubernetes.io/metadata.name]: is \"b\", \
             but must be the namespace's own name, \"a\" (line 3)",
        ),
        (
            format!("{policy}metadata: {{name: p}}"),
            "f.yaml: document 1 (NetworkPolicy/default/p): spec: missing (line 1)",
        ),
        (
            format!("{policy}metadata: {{name: p, label: {{}}}}\nspec: {{}}"),
            "f.yaml: document 1 (NetworkPolicy/default/p): metadata.label: unknown field (line 3)",
        ),
        (
            format!("{policy}metadata: {{name: p}}\nspec: {{}}\nspecs: {{}}"),
            "f.yaml: document 1 (NetworkPolicy/default/p): specs: unknown field (line 5)",
        ),
        (
            "kind: NetworkPolicy\napiVersion: extensions/v1beta1\nmetadata: {name: p}".into(),
            "f.yaml: document 1 (NetworkPolicy/default/p): NetworkPolicy of extensions/v1beta1 is not \
             supported, only that of networking.k8s.io/v1 (line 1)",
        ),
        (
            "kind: NetworkPolicy\napiVersion: networking.k8s.io/v2".into(),
            "f.yaml: document 1 (NetworkPolicy/default): NetworkPolicy of networking.k8s.io/v2 is not \
             supported, only that of networking.k8s.io/v1 (line 1)",
        ),
        (
            "kind: Pod\napiVersion: v2".into(),
            "f.yaml: document 1 (Pod/default): Pod of v2 is not supported, only that of v1 (line 1)",
        ),
        (
            "kind: CiliumNetworkPolicy\napiVersion: cilium.io/v3\nmetadata: {name: p}".into(),
            "f.yaml: document 1 (CiliumNetworkPolicy/default/p): CiliumNetworkPolicy of cilium.io/v3 \
             is a policy that is not supported, and can't be left out (line 1)",
        ),
        (
            "kind: CiliumEgressGatewayPolicy\napiVersion: cilium.io/v2\nmetadata: {name: p}".into(),
            "f.yaml: document 1 (CiliumEgressGatewayPolicy/p): CiliumEgressGatewayPolicy of \
             cilium.io/v2 is a policy that is not supported, and can't be left out (line 1)",
        ),
        (
            "kind: FlowgatePolicy\napiVersion: policy.flowgate.dev/v1\nmetadata: {name: p}".into(),
            "f.yaml: document 1 (FlowgatePolicy/default/p): FlowgatePolicy of policy.flowgate.dev/v1 \
             is a policy that is not supported, and can't be left out (line 1)",
        ),
        (
            "kind: networkpolicy\napiVersion: networking.k8s.io/v1\nmetadata: {name: p}".into(),
            "f.yaml: document 1 (networkpolicy/p): networkpolicy of networking.k8s.io/v1 is a policy \
             that is not supported, and can't be left out (line 1)",
        ),
        (
            "kind: AdminNetworkPolicy\napiVersion: policy.networking.k8s.io/v1alpha2".into(),
            "f.yaml: document 1 (AdminNetworkPolicy): AdminNetworkPolicy of \
             policy.networking.k8s.io/v1alpha2 is not supported, only that of \
             policy.networking.k8s.io/v1alpha1 (line 1)",
        ),
        (
            "kind: ClusterNetworkPolicy\napiVersion: networking.k8s.aws/v1alpha1".into(),
            "f.yaml: document 1 (ClusterNetworkPolicy): ClusterNetworkPolicy of \
             networking.k8s.aws/v1alpha1 is a policy that is not supported, and can't be left out \
             (line 1)",
        ),
        (
            "kind: TenantPolicy\napiVersion: policy.networking.k8s.io/v1alpha2".into(),
            "f.yaml: document 1 (TenantPolicy): TenantPolicy of policy.networking.k8s.io/v1alpha2 is \
             a policy that is not supported, and can't be left out (line 1)",
        ),
        (
            "kind: NetworkPolicy\napiVersion: crd.projectcalico.org/v1".into(),
            "f.yaml: document 1 (NetworkPolicy/default): NetworkPolicy of crd.projectcalico.org/v1 is \
             a policy that is not supported, and can't be left out (line 1)",
        ),
        (
            "kind: Tier\napiVersion: crd.antrea.io/v1beta1".into(),
            "f.yaml: document 1 (Tier): Tier of crd.antrea.io/v1beta1 is a policy that is not \
             supported, and can't be left out (line 1)",
        ),
        (
            "kind: FancyNetworkPolicy\napiVersion: example.com/v1".into(),
            "f.yaml: document 1 (FancyNetworkPolicy): FancyNetworkPolicy of example.com/v1 is a policy \
             that is not supported, and can't be left out (line 1)",
        ),
        (
            "kind: List\napiVersion: v1\nitems:\n- {kind: Namespace, apiVersion: v1, metadata: {name: a}}\n\
             - kind: Namespace\n  apiVersion: v1\n  metadata: {}".into(),
            "f.yaml: document 1 (Namespace): items[1].metadata.name: missing (line 7)",
        ),
        ("kind: List\napiVersion: v1".into(), "f.yaml: document 1 (List): items: missing (line 1)"),
    ];
    for (text, expected) in table {
        assert_eq!(refusal(&text), expected, "{text}");
    }
}

#[test]
fn in_a_pod_or_node() {
    let table = [
        (
            "spec: {hostNetwork: 'true'}",
            "spec.hostNetwork: expected a boolean, found the string \"true\"",
        ),
        (
            "spec: {nodeName: 1}",
            "spec.nodeName: expected a string, found the integer 1: put it in quotes",
        ),
        (
            "spec: {containers: [{ports: [{containerPort: http}]}]}",
            "spec.containers[0].ports[0].containerPort: expected an integer, found the string \"http\"",
        ),
        (
            "spec: {containers: [{ports: [{}]}]}",
            "spec.containers[0].ports[0].containerPort: missing",
        ),
        (
            "spec: {containers: [{ports: [{containerPort: 80, protocol: ICMP}]}]}",
            "spec.containers[0].ports[0].protocol: \"ICMP\" is not one of TCP, UDP and SCTP",
        ),
        ("status: {podIP: 198.18.0.256}", "status.podIP: \"198.18.0.256\" is not an IP address"),
        ("status: {podIPs: [{ip: x}]}", "status.podIPs[0].ip: \"x\" is not an IP address"),
        ("status: {phase: []}", "status.phase: expected a string, found a list"),
    ];
    for (fields, expected) in table {
        let error = refusal(&format!("kind: Pod\napiVersion: v1\nmetadata: {{name: a}}\n{fields}"));
        assert_eq!(error, format!("f.yaml: document 1 (Pod/default/a): {expected} (line 4)"));
    }
    let error = refusal(
        "kind: Node\napiVersion: v1\nmetadata: {name: n}\n\
         status: {addresses: [{type: Hostname, address: n}, {type: InternalIP, address: n}]}",
    );
    assert_eq!(
        error,
        "f.yaml: document 1 (Node/n): status.addresses[1].address: \"n\" is not an IP address (line 4)"
    );
}

#[test]
fn in_the_text() {
    let table = [
        ("a: 1\n---\nb: [1\n", "f.yaml: document 2: "),
        ("a: {b: 1, b: 2}", "f.yaml: document 1: a.b: this key occurs twice (line 1)"),
        ("a:\n- b: 1\n  b: 2", "f.yaml: document 1: a[0].b: this key occurs twice (line 3)"),
        ("{\"a\": 1, \"a\": 2}", "f.yaml: document 1: a: this key occurs twice"),
        (
            "a: &x {b: 1}\nc: {<<: *x}",
            "f.yaml: document 1: c[<<]: merge keys (<<) are not supported: write the fields out",
        ),
        (
            "1: a",
            "f.yaml: document 1: a key must be a string, and the integer 1 isn't one: put it in quotes (line 1)",
        ),
        (
            "[a]: b",
            "f.yaml: document 1: a key must be a string, and a collection isn't one: put it in quotes (line 1)",
        ),
        (
            "a: !!binary aGk=",
            "f.yaml: document 1: the tag tag:yaml.org,2002:binary is not supported (line 1)",
        ),
        ("a: !x y", "f.yaml: document 1: the tag !x is not supported (line 1)"),
    ];
    for (text, expected) in table {
        let error = refusal(text);
        assert!(error.starts_with(expected), "{text}:\n{error}\n{expected}");
    }
    let deep = format!("{}{}", "[".repeat(101), "]".repeat(101));
    assert!(refusal(&deep).contains("nested more than 100 levels deep"));
}

#[test]
fn between_objects() {
    let pod = |namespace: &str, name: &str, address: &str| {
        format!(
            "---\nkind: Pod\napiVersion: v1\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
             status: {{podIP: {address}}}\n"
        )
    };
    let mut manifests = Manifests::default();
    manifests.read("a.yaml", &pod("x", "a", "198.18.0.1")).unwrap();
    let before = manifests.clone();

    let mut refused = |text: String| {
        let error = manifests.read("b.yaml", &text).unwrap_err().to_string();
        assert_eq!(manifests.inventory, before.inventory);
        assert_eq!(manifests.warnings, before.warnings);
        error
    };
    assert_eq!(
        refused(pod("y", "b", "198.18.0.2") + &pod("x", "a", "198.18.0.3")),
        "b.yaml: document 2 (Pod/x/a): already defined in a.yaml: document 1 (Pod/x/a) (line 7)"
    );
    assert_eq!(
        refused(pod("y", "b", "198.18.0.2") + &pod("y", "b", "198.18.0.3")),
        "b.yaml: document 2 (Pod/y/b): already defined in b.yaml: document 1 (Pod/y/b) (line 7)"
    );
    assert_eq!(
        refused(pod("y", "b", "198.18.0.1")),
        "b.yaml: document 1 (Pod/y/b): status.podIP: 198.18.0.1 is already the address of Pod/x/a, \
         defined in a.yaml: document 1 (Pod/x/a): status.podIP (line 5)"
    );
    let node = "---\nkind: Node\napiVersion: v1\nmetadata: {name: n}\n\
                status: {addresses: [{type: InternalIP, address: 198.18.0.1}]}";
    assert!(refused(node.into()).contains("already the address of Pod/x/a"));
    assert!(
        refused(pod("y", "b", "198.18.0.2") + "---\nkind: ConfigMap\napiVersion: v1\n---\n[")
            .starts_with("b.yaml: document 3: ")
    );

    manifests.read("b.yaml", &pod("y", "b", "198.18.0.2")).unwrap();
    assert_eq!(manifests.inventory.workloads.len(), 2);
}
