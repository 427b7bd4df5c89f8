//! Every mistake in a policy of the cluster points at its field, as tables: a piece of manifest, and
//! what is said.

use flowgate_kubernetes::Manifests;

const CLUSTER: &str = "policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy";
const ADMIN: &str = "policy.networking.k8s.io/v1alpha1, kind: AdminNetworkPolicy";
const BASELINE: &str = "policy.networking.k8s.io/v1alpha1, kind: BaselineAdminNetworkPolicy";

fn refusal(kind: &str, metadata: &str, spec: &str) -> String {
    let mut manifests = Manifests::default();
    let text = format!("{{apiVersion: {kind}, metadata: {{{metadata}}}, spec: {{{spec}}}}}");
    let error = match manifests.read("f.yaml", &text) {
        Ok(()) => panic!("was accepted:\n{text}"),
        Err(error) => error.to_string(),
    };
    assert!(manifests.policies.is_empty() && manifests.warnings.is_empty());
    let (_, said) = error.split_once("default): ").unwrap_or_else(|| panic!("{error}"));
    said.strip_suffix(" (line 1)").unwrap_or_else(|| panic!("{error}")).to_owned()
}

/// Mistakes in the spec of an object called default.
fn check(kind: &str, table: &[(&str, &str)]) {
    for (spec, expected) in table {
        assert_eq!(refusal(kind, "name: default", spec), format!("spec.{expected}"), "{spec}");
    }
}

#[test]
fn in_the_metadata() {
    let spec = "tier: Admin, priority: 1, subject: {namespaces: {}}";
    assert_eq!(
        refusal(CLUSTER, "name: default, namespace: prod", spec).split(": ").last(),
        Some("ClusterNetworkPolicy belongs to the cluster and has no namespace")
    );
    let said = "metadata.namespace: AdminNetworkPolicy belongs to the cluster and has no namespace";
    let text = format!("{{apiVersion: {ADMIN}, metadata: {{name: a, namespace: b}}, spec: {{}}}}");
    let error = Manifests::default().read("f.yaml", &text).unwrap_err().to_string();
    let expected = format!("f.yaml: document 1 (AdminNetworkPolicy/b/a): {said} (line 1)");
    assert_eq!(error, expected);
    assert_eq!(refusal(CLUSTER, "name: default, nam: a", spec), "metadata.nam: unknown field");
    let text = format!("{{apiVersion: {BASELINE}, metadata: {{name: other}}, spec: {{}}}}");
    let error = Manifests::default().read("f.yaml", &text).unwrap_err().to_string();
    assert!(
        error.ends_with("metadata.name: is \"other\", but must be \"default\" (line 1)"),
        "{error}"
    );
}

#[test]
fn in_the_spec() {
    let subject = "subject: {namespaces: {}}";
    let of = |given: &str| format!("{given}, {subject}");
    let table = [
        (CLUSTER, of("priority: 1"), "tier: missing"),
        (
            CLUSTER,
            of("tier: admin, priority: 1"),
            "tier: \"admin\" is not one of Admin and Baseline",
        ),
        (CLUSTER, of("tier: Admin"), "priority: missing"),
        (CLUSTER, of("tier: Admin, priority: -1"), "priority: -1 is not between 0 and 1000"),
        (CLUSTER, of("tier: Admin, priority: 1001"), "priority: 1001 is not between 0 and 1000"),
        (CLUSTER, of("tier: Admin, priority: 65536"), "priority: 65536 is not between 0 and 1000"),
        (
            CLUSTER,
            of("tier: Admin, priority: high"),
            "priority: expected an integer, found the string \"high\"",
        ),
        (CLUSTER, of("tier: Admin, priority: 1, mode: Audit"), "mode: unknown field"),
        (CLUSTER, "tier: Admin, priority: 1".into(), "subject: missing"),
        (ADMIN, subject.into(), "priority: missing"),
        (ADMIN, of("tier: Admin, priority: 1"), "tier: unknown field"),
        (ADMIN, of("priority: 1001"), "priority: 1001 is not between 0 and 1000"),
        (BASELINE, of("priority: 1"), "priority: unknown field"),
        (BASELINE, of("ingress: {}"), "ingress: expected a list, found a mapping"),
        (BASELINE, "ingress: []".into(), "subject: missing"),
    ];
    for (kind, spec, expected) in table {
        check(kind, &[(&spec, expected)]);
    }
}

#[test]
fn in_the_subject() {
    let table = [
        ("{}", "subject: needs exactly one of namespaces, pods"),
        (
            "{namespaces: {}, pods: {namespaceSelector: {}, podSelector: {}}}",
            "subject: needs exactly one of namespaces, pods",
        ),
        ("{nodes: {}}", "subject.nodes: unknown field"),
        ("{namespaces: {app: web}}", "subject.namespaces.app: unknown field"),
        (
            "{namespaces: {namespaceSelector: {}}}",
            "subject.namespaces.namespaceSelector: this field of an older version of the API is not \
             supported",
        ),
        ("{pods: {namespaceSelector: {}}}", "subject.pods.podSelector: missing"),
        (
            "{pods: {namespaceSelector: {}, podSelector: {}, ports: []}}",
            "subject.pods.ports: unknown field",
        ),
    ];
    for (subject, expected) in table {
        check(BASELINE, &[(&format!("subject: {subject}"), expected)]);
        let cluster = format!("tier: Admin, priority: 1, subject: {subject}");
        check(CLUSTER, &[(&cluster, expected)]);
    }
    let pods = "subject: {pods: {podSelector: {}}}";
    check(BASELINE, &[(pods, "subject.pods.namespaceSelector: missing")]);
}

/// Mistakes in the first egress rule of a ClusterNetworkPolicy: path in the rule, and reason.
#[test]
fn in_a_rule() {
    let to = "to: [{namespaces: {}}]";
    let long = "n".repeat(101);
    let table = [
        (to.into(), "action: missing".into()),
        (
            format!("action: Allow, {to}"),
            "action: \"Allow\" is not one of Accept, Deny and Pass".into(),
        ),
        ("action: Deny".into(), "to: missing".into()),
        ("action: Deny, to: []".into(), "to: needs at least one item".into()),
        ("action: Deny, from: [{namespaces: {}}]".into(), "from: unknown field".into()),
        (format!("action: Deny, {to}, ports: []"), "ports: unknown field".into()),
        (format!("action: Deny, {to}, protocols: []"), "protocols: needs at least one item".into()),
        (
            format!("name: {long}, action: Deny, {to}"),
            "name: has 101 characters, and may have 100".into(),
        ),
        (
            format!("name: 1, action: Deny, {to}"),
            "name: expected a string, found the integer 1: put it in quotes".into(),
        ),
        (
            format!("action: Deny, to: [{}]", vec!["{namespaces: {}}"; 26].join(", ")),
            "to: has 26 items, and may have 25".into(),
        ),
        (
            format!(
                "action: Deny, {to}, protocols: [{}]",
                vec!["{destinationNamedPort: a}"; 26].join(", ")
            ),
            "protocols: has 26 items, and may have 25".to_owned(),
        ),
    ];
    for (rule, expected) in table {
        check_rule(&rule, &expected);
    }
}

fn check_rule(rule: &str, expected: &str) {
    let spec =
        format!("tier: Admin, priority: 1, subject: {{namespaces: {{}}}}, egress: [{{{rule}}}]");
    check(CLUSTER, &[(&spec, &format!("egress[0].{expected}"))]);
}

#[test]
fn in_too_many_rules() {
    for (kind, place, limit) in [
        (CLUSTER, "tier: Admin, priority: 1, ", 25),
        (ADMIN, "priority: 1, ", 100),
        (BASELINE, "", 100),
    ] {
        for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
            let rule = format!("{{action: Deny, {peers}: [{{namespaces: {{}}}}]}}");
            let rules = vec![rule; limit + 1].join(", ");
            let spec = format!("{place}subject: {{namespaces: {{}}}}, {direction}: [{rules}]");
            let expected = format!("{direction}: has {} items, and may have {limit}", limit + 1);
            check(kind, &[(&spec, &expected)]);
        }
    }
}

#[test]
fn in_a_peer() {
    let one_of = "needs exactly one of namespaces, pods, nodes, networks, domainNames";
    let domain = "is not a domain name (at least two parts of letters, digits, - and _, each ending \
                  with a letter or digit and none beginning with -, optionally after \"*.\")";
    let older = "this field of an older version of the API is not supported";
    let networks: Vec<_> = (0..26).map(|n| format!("198.18.{n}.0/24")).collect();
    let table = [
        ("{}".into(), format!(": {one_of}")),
        ("{nodes: }".into(), format!(": {one_of}")),
        ("{nodes: {}, networks: [198.18.0.0/16]}".into(), format!(": {one_of}")),
        ("{ipBlock: {}}".into(), ".ipBlock: unknown field".into()),
        ("{namespaces: {sameLabels: [a]}}".into(), format!(".namespaces.sameLabels: {older}")),
        (
            "{namespaces: {notSameLabels: [a]}}".into(),
            format!(".namespaces.notSameLabels: {older}"),
        ),
        (
            "{namespaces: {namespaceSelector: {}}}".into(),
            format!(".namespaces.namespaceSelector: {older}"),
        ),
        (
            "{pods: {namespaces: {namespaceSelector: {}}, podSelector: {}}}".into(),
            format!(".pods.namespaces: {older}"),
        ),
        ("{pods: {namespaceSelector: {}}}".into(), ".pods.podSelector: missing".into()),
        ("{nodes: {name: a}}".into(), ".nodes.name: unknown field".into()),
        ("{networks: []}".into(), ".networks: needs at least one item".into()),
        (
            "{networks: 198.18.0.0/16}".into(),
            ".networks: expected a list, found the string \
             \"198.18.0.0/16\""
                .into(),
        ),
        (
            "{networks: [198.18.0.1]}".into(),
            ".networks[0]: \"198.18.0.1\" is not a network in CIDR notation".into(),
        ),
        (
            "{networks: [198.18.0.0/16, 198.18.0.0/16]}".into(),
            ".networks[1]: this item occurs twice".into(),
        ),
        (
            format!("{{networks: [{}]}}", networks.join(", ")),
            ".networks: has 26 items, and may have 25".into(),
        ),
        ("{domainNames: []}".into(), ".domainNames: needs at least one item".into()),
        ("{domainNames: [a.b, a.b]}".into(), ".domainNames[1]: this item occurs twice".into()),
        ("{domainNames: [com]}".into(), format!(".domainNames[0]: \"com\" {domain}")),
        ("{domainNames: ['a.*.b']}".into(), format!(".domainNames[0]: \"a.*.b\" {domain}")),
    ];
    for (peer, expected) in table {
        check_rule(&format!("action: Accept, to: [{peer}]"), &format!("to[0]{expected}"));
    }
}

#[test]
fn domain_names_only_allow() {
    for action in ["Deny", "Pass"] {
        let rule = format!("action: {action}, to: [{{domainNames: [a.example]}}]");
        check_rule(&rule, "to[0].domainNames: domain names need the action Accept");
    }
    let of = |action| {
        format!(
            "subject: {{namespaces: {{}}}}, \
             egress: [{{action: {action}, to: [{{domainNames: [a.example]}}]}}]"
        )
    };
    let expected = "egress[0].to[0].domainNames: domain names need the action Allow";
    check(ADMIN, &[(&format!("priority: 1, {}", of("Pass")), expected)]);
    check(BASELINE, &[(&of("Allow"), "egress[0].to[0].domainNames: unknown field")]);
}

/// What may be opened to a subject by other than pods isn't for these policies to say.
#[test]
fn only_pods_are_sources() {
    for peer in ["nodes: {}", "networks: [198.18.0.0/16]", "domainNames: [a.example]"] {
        let rule = format!("{{action: Accept, from: [{{{peer}}}]}}");
        let spec =
            format!("tier: Admin, priority: 1, subject: {{namespaces: {{}}}}, ingress: [{rule}]");
        let (field, _) = peer.split_once(':').unwrap();
        let expected = format!("ingress[0].from[0].{field}: unknown field");
        check(CLUSTER, &[(&spec, &expected)]);
    }
}

#[test]
fn in_a_port() {
    let one_of = "needs exactly one of";
    let name = "is not a port name (at most 15 of a-z, 0-9 and single -, with at least one letter, \
                beginning and ending with a letter or digit)";
    let table = [
        ("{}", format!(": {one_of} tcp, udp, sctp, destinationNamedPort")),
        (
            "{tcp: {destinationPort: {number: 1}}, destinationNamedPort: a}",
            format!(": {one_of} tcp, udp, sctp, destinationNamedPort"),
        ),
        ("{icmp: {}}", ".icmp: unknown field".into()),
        ("{tcp: {}}", ".tcp.destinationPort: missing".into()),
        ("{tcp: {sourcePort: {}}}", ".tcp.sourcePort: unknown field".into()),
        ("{udp: {destinationPort: {}}}", format!(".udp.destinationPort: {one_of} number, range")),
        (
            "{udp: {destinationPort: {number: 1, range: {start: 1, end: 2}}}}",
            format!(".udp.destinationPort: {one_of} number, range"),
        ),
        (
            "{sctp: {destinationPort: {number: 0}}}",
            ".sctp.destinationPort.number: 0 is not a port number between 1 and 65535".into(),
        ),
        (
            "{tcp: {destinationPort: {range: {start: 1}}}}",
            ".tcp.destinationPort.range.end: missing".into(),
        ),
        (
            "{tcp: {destinationPort: {range: {start: 2, end: 2}}}}",
            ".tcp.destinationPort.range.end: 2 is not more than start 2".into(),
        ),
        (
            "{tcp: {destinationPort: {range: {start: 2, end: 3, step: 1}}}}",
            ".tcp.destinationPort.range.step: unknown field".into(),
        ),
        ("{destinationNamedPort: '80'}", format!(".destinationNamedPort: \"80\" {name}")),
        ("{destinationNamedPort: ''}", format!(".destinationNamedPort: \"\" {name}")),
    ];
    for (port, expected) in table {
        let rule = format!("action: Deny, to: [{{namespaces: {{}}}}], protocols: [{port}]");
        check_rule(&rule, &format!("protocols[0]{expected}"));
    }
}

#[test]
fn in_a_port_of_the_older_version() {
    let table = [
        ("{}", ": needs exactly one of portNumber, portRange, namedPort"),
        ("{tcp: {}}", ".tcp: unknown field"),
        ("{portNumber: {protocol: TCP}}", ".portNumber.port: missing"),
        ("{portNumber: {port: 80, endPort: 90}}", ".portNumber.endPort: unknown field"),
        (
            "{portNumber: {protocol: ICMP, port: 80}}",
            ".portNumber.protocol: \"ICMP\" is not one of TCP, UDP and SCTP",
        ),
        ("{portRange: {start: 80, end: 79}}", ".portRange.end: 79 is not more than start 80"),
        ("{portRange: {start: 80, end: 80, port: 1}}", ".portRange.port: unknown field"),
    ];
    for (port, expected) in table {
        let spec = format!(
            "subject: {{namespaces: {{}}}}, \
             ingress: [{{action: Deny, from: [{{namespaces: {{}}}}], ports: [{port}]}}]"
        );
        check(BASELINE, &[(&spec, &format!("ingress[0].ports[0]{expected}"))]);
        let spec = format!("priority: 1, {spec}");
        check(ADMIN, &[(&spec, &format!("ingress[0].ports[0]{expected}"))]);
    }
    let pass = "subject: {namespaces: {}}, ingress: [{action: Pass, from: [{namespaces: {}}]}]";
    check(BASELINE, &[(pass, "ingress[0].action: \"Pass\" is not one of Allow and Deny")]);
}

#[test]
fn a_named_port_needs_peers_that_declare_ports() {
    let said = "a named port can't go with nodes, networks or domainNames, which declare none";
    for peer in ["nodes: {}", "networks: [198.18.0.0/16]", "domainNames: [a.example]"] {
        let peers = format!("to: [{{namespaces: {{}}}}, {{{peer}}}]");
        let port = "protocols: [{tcp: {destinationPort: {number: 1}}}, {destinationNamedPort: a}]";
        let rule = format!("action: Accept, {peers}, {port}");
        check_rule(&rule, &format!("protocols[1].destinationNamedPort: {said}"));
        let of = |action| {
            format!(
                "subject: {{namespaces: {{}}}}, \
                 egress: [{{action: {action}, {peers}, ports: [{{namedPort: a}}]}}]"
            )
        };
        let expected = format!("egress[0].ports[0].namedPort: {said}");
        check(ADMIN, &[(&format!("priority: 1, {}", of("Allow")), &expected)]);
    }
}
