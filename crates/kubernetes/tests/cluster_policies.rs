//! What ClusterNetworkPolicy, AdminNetworkPolicy and BaselineAdminNetworkPolicy mean, as tables: a
//! piece of manifest, and the model that comes of it.

use flowgate_identity::Selector;
use flowgate_kubernetes::{Manifests, Warning};
use flowgate_policy::model::{
    Directions, NamespaceSelector, Peer, Peers, Policy, Port, PortMatch, Ports, Protocol, Rule,
    RuleAction, Tier, WorkloadSelector,
};

const CLUSTER: &str = "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\n\
                       metadata: {name: default}\n";
const ADMIN: &str = "apiVersion: policy.networking.k8s.io/v1alpha1\nkind: AdminNetworkPolicy\n\
                     metadata: {name: default}\n";
const BASELINE: &str = "apiVersion: policy.networking.k8s.io/v1alpha1\n\
                        kind: BaselineAdminNetworkPolicy\nmetadata: {name: default}\n";

fn manifests(text: &str) -> Manifests {
    let mut manifests = Manifests::default();
    manifests.read("p.yaml", text).unwrap_or_else(|error| panic!("{text}: {error}"));
    manifests
}

fn policy(kind: &str, spec: &str) -> Policy {
    manifests(&format!("{kind}spec: {{{spec}}}\n")).policies.remove(0)
}

/// The spec of a ClusterNetworkPolicy with one egress rule.
fn egress(rule: &str) -> String {
    format!("tier: Admin, priority: 1, subject: {{namespaces: {{}}}}, egress: [{{{rule}}}]")
}

/// The only egress rule of a policy of either version.
fn egress_rule(kind: &str, rule: &str) -> Rule {
    let tier = if kind == CLUSTER { "tier: Admin, " } else { "" };
    let priority = if kind == BASELINE { "" } else { "priority: 1, " };
    let spec = format!("{tier}{priority}subject: {{namespaces: {{}}}}, egress: [{{{rule}}}]");
    policy(kind, &spec).egress.expect("has a rule").remove(0)
}

fn pods(namespaces: Selector, labels: Selector) -> WorkloadSelector {
    WorkloadSelector { namespaces: NamespaceSelector::Matching(namespaces), labels }
}

#[test]
fn tiers_and_priorities() {
    let subject = "subject: {namespaces: {}}";
    let table = [
        (CLUSTER, "tier: Admin, priority: 0, ", Tier::Admin { priority: 0 }),
        (CLUSTER, "tier: Admin, priority: 1000, ", Tier::Admin { priority: 1000 }),
        (CLUSTER, "tier: Baseline, priority: 7, ", Tier::Baseline { priority: 7 }),
        (CLUSTER, "tier: Baseline, priority: 1000, ", Tier::Baseline { priority: 1000 }),
        (ADMIN, "priority: 0, ", Tier::Admin { priority: 0 }),
        (ADMIN, "priority: 1000, ", Tier::Admin { priority: 1000 }),
        (BASELINE, "", Tier::Baseline { priority: 1001 }),
    ];
    for (kind, given, tier) in table {
        assert_eq!(policy(kind, &format!("{given}{subject}")).tier, tier, "{kind}{given}");
    }
}

/// Each kind has objects of its own under one name, and none of them implies a namespace.
#[test]
fn they_belong_to_the_cluster() {
    let subject = "subject: {namespaces: {}}";
    let text = format!(
        "{CLUSTER}spec: {{tier: Admin, priority: 1, {subject}}}\n---\n\
         {ADMIN}spec: {{priority: 2, {subject}}}\n---\n{BASELINE}spec: {{{subject}}}\n"
    );
    let manifests = manifests(&text);
    let names: Vec<_> = manifests.policies.iter().map(|policy| policy.id.to_string()).collect();
    assert_eq!(
        names,
        [
            "ClusterNetworkPolicy/default",
            "AdminNetworkPolicy/default",
            "BaselineAdminNetworkPolicy/default",
        ]
    );
    assert!(manifests.policies.iter().all(|policy| policy.id.namespace.is_empty()));
    assert!(manifests.inventory.namespaces.is_empty());
    assert_eq!(manifests.warnings, []);
}

#[test]
fn what_the_api_server_adds_is_known() {
    let text = "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicyList\nitems:\n\
        - metadata: {name: a, namespace: '', uid: u, managedFields: []}\n  \
          spec: {tier: Admin, priority: 1, subject: {namespaces: {}}}\n  status: {conditions: []}\n";
    assert_eq!(manifests(text).policies[0].id.to_string(), "ClusterNetworkPolicy/a");
}

#[test]
fn subjects() {
    let prod = || Selector::match_label("env", "prod");
    let web = || Selector::match_label("app", "web");
    let all = Selector::everything;
    let namespaces = "namespaceSelector: {matchLabels: {env: prod}}";
    let table = [
        ("namespaces: {}".into(), pods(all(), all())),
        ("namespaces: {matchLabels: {env: prod}}".into(), pods(prod(), all())),
        ("pods: {namespaceSelector: {}, podSelector: {}}".into(), pods(all(), all())),
        (format!("pods: {{{namespaces}, podSelector: {{}}}}"), pods(prod(), all())),
        (
            format!("pods: {{{namespaces}, podSelector: {{matchLabels: {{app: web}}}}}}"),
            pods(prod(), web()),
        ),
    ];
    for (subject, expected) in table {
        let subject = format!("subject: {{{subject}}}");
        for (kind, place) in
            [(CLUSTER, "tier: Baseline, priority: 3, "), (ADMIN, "priority: 3, "), (BASELINE, "")]
        {
            let policy = policy(kind, &format!("{place}{subject}"));
            assert_eq!(policy.subject, expected.clone().into(), "{kind}{subject}");
        }
    }
    let spec = "tier: Admin, priority: 0, subject: {pods: {podSelector: {}}}";
    assert_eq!(policy(CLUSTER, spec).subject, pods(all(), all()).into());
}

/// Without rules for a direction a policy doesn't speak of it, and never isolates.
#[test]
fn empty_and_missing_lists_of_rules_say_nothing() {
    for lists in ["", ", ingress: []", ", ingress: , egress: []", ", egress: "] {
        let spec = format!("tier: Admin, priority: 1, subject: {{namespaces: {{}}}}{lists}");
        let policy = policy(CLUSTER, &spec);
        assert_eq!((policy.ingress, policy.egress), (None, None), "{spec}");
    }
}

#[test]
fn directions_are_apart() {
    let rule = "action: Deny, from: [{namespaces: {}}]";
    let spec = format!("priority: 1, subject: {{namespaces: {{}}}}, ingress: [{{{rule}}}]");
    let policy = policy(ADMIN, &spec);
    let all = Peer::Workloads(pods(Selector::everything(), Selector::everything()));
    let deny = Rule::deny(Peers::OneOf(vec![all]), Ports::Any);
    assert_eq!((policy.ingress, policy.egress), (Some(vec![deny]), None));
}

#[test]
fn actions() {
    let table = [
        (CLUSTER, "Accept", RuleAction::Allow),
        (CLUSTER, "Deny", RuleAction::Deny),
        (CLUSTER, "Pass", RuleAction::Pass),
        (ADMIN, "Allow", RuleAction::Allow),
        (ADMIN, "Deny", RuleAction::Deny),
        (ADMIN, "Pass", RuleAction::Pass),
        (BASELINE, "Allow", RuleAction::Allow),
        (BASELINE, "Deny", RuleAction::Deny),
    ];
    for (kind, action, expected) in table {
        let rule = egress_rule(kind, &format!("action: {action}, to: [{{namespaces: {{}}}}]"));
        assert_eq!(rule.action, expected, "{kind}{action}");
    }
}

#[test]
fn rules_keep_their_order_and_lose_their_names() {
    let name = "n".repeat(100);
    let policy = policy(
        CLUSTER,
        &format!(
            "tier: Admin, priority: 1, subject: {{namespaces: {{}}}}, egress: [\
             {{name: {name}, action: Pass, to: [{{namespaces: {{}}}}]}}, \
             {{name: {}, action: Deny, to: [{{namespaces: {{}}}}]}}]",
            "ü".repeat(100)
        ),
    );
    let actions: Vec<_> = policy.egress.unwrap().iter().map(|rule| rule.action).collect();
    assert_eq!(actions, [RuleAction::Pass, RuleAction::Deny]);
}

#[test]
fn peers() {
    let prod = || Selector::match_label("env", "prod");
    let web = || Selector::match_label("app", "web");
    let all = Selector::everything;
    let cidr = |cidr: &str| Peer::Cidr { cidr: cidr.parse().unwrap(), except: vec![] };
    let table = [
        ("namespaces: {}", vec![Peer::Workloads(pods(all(), all()))]),
        ("namespaces: {matchLabels: {env: prod}}", vec![Peer::Workloads(pods(prod(), all()))]),
        (
            "pods: {namespaceSelector: {matchLabels: {env: prod}}, \
             podSelector: {matchLabels: {app: web}}}",
            vec![Peer::Workloads(pods(prod(), web()))],
        ),
        ("nodes: {}", vec![Peer::Nodes(all())]),
        ("nodes: {matchLabels: {env: prod}}", vec![Peer::Nodes(prod())]),
        (
            "networks: [198.18.0.0/16, '2001:db8::/32']",
            vec![cidr("198.18.0.0/16"), cidr("2001:db8::/32")],
        ),
        ("networks: [0.0.0.0/0]", vec![cidr("0.0.0.0/0")]),
    ];
    for (peer, expected) in table {
        for (kind, action) in [(CLUSTER, "Accept"), (ADMIN, "Pass"), (BASELINE, "Deny")] {
            let rule = egress_rule(kind, &format!("action: {action}, to: [{{{peer}}}]"));
            assert_eq!(rule.peers, Peers::OneOf(expected.clone()), "{kind}{peer}");
            assert_eq!(rule.ports, Ports::Any, "{kind}{peer}");
        }
    }
    let two = egress_rule(CLUSTER, "action: Deny, to: [{nodes: {}}, {networks: [0.0.0.0/0]}]");
    assert_eq!(two.peers, Peers::OneOf(vec![Peer::Nodes(all()), cidr("0.0.0.0/0")]));
}

#[test]
fn host_bits_of_networks_are_cut_off_and_warned_of() {
    let text = format!(
        "{CLUSTER}spec: {{{}}}\n",
        egress("action: Deny, to: [{networks: [198.18.1.1/16]}]")
    );
    let warnings = manifests(&text).warnings;
    assert_eq!(
        warnings[0].to_string(),
        "p.yaml: document 1 (ClusterNetworkPolicy/default): spec.egress[0].to[0].networks[0]: \
         198.18.1.1/16 has host bits: it is read as 198.18.0.0/16"
    );
}

#[test]
fn domain_names_are_read_and_warned_of() {
    let rule = "to: [{domainNames: ['*.example.com', example.org.]}]";
    for (kind, place, action) in [(CLUSTER, "tier: Admin, ", "Accept"), (ADMIN, "", "Allow")] {
        let spec = format!(
            "{place}priority: 1, subject: {{namespaces: {{}}}}, egress: [{{action: {action}, {rule}}}]"
        );
        let manifests = manifests(&format!("{kind}spec: {{{spec}}}\n"));
        let expected =
            ["*.example.com", "example.org."].map(|name| Peer::Domain(name.into())).into();
        let rules = manifests.policies[0].egress.as_ref().unwrap();
        assert_eq!(rules[0].peers, Peers::OneOf(expected));
        let warning = manifests.warnings[0].to_string();
        let said = "spec.egress[0].to[0].domainNames: domain names match nothing as long as nothing \
                    resolves them";
        assert!(warning.ends_with(said), "{warning}");
    }
}

#[test]
fn ports_of_the_newer_version() {
    use PortMatch::Range;
    use Protocol::{Sctp, Tcp, Udp};
    let table = [
        ("tcp: {destinationPort: {number: 80}}", Tcp, Range(80, 80)),
        ("udp: {destinationPort: {number: 65535}}", Udp, Range(65535, 65535)),
        ("sctp: {destinationPort: {number: 1}}", Sctp, Range(1, 1)),
        ("tcp: {destinationPort: {range: {start: 1, end: 65535}}}", Tcp, Range(1, 65535)),
        ("udp: {destinationPort: {range: {start: 80, end: 81}}}", Udp, Range(80, 81)),
    ];
    for (port, protocol, matched) in table {
        let rule = format!("action: Deny, to: [{{namespaces: {{}}}}], protocols: [{{{port}}}]");
        let expected = Ports::of([Port { protocol, port: matched }]);
        assert_eq!(egress_rule(CLUSTER, &rule).ports, expected, "{port}");
    }
}

#[test]
fn ports_of_the_older_version() {
    use PortMatch::Range;
    use Protocol::{Sctp, Tcp, Udp};
    let table = [
        ("portNumber: {port: 80}", Tcp, Range(80, 80)),
        ("portNumber: {port: 53, protocol: UDP}", Udp, Range(53, 53)),
        ("portRange: {start: 80, end: 90}", Tcp, Range(80, 90)),
        ("portRange: {protocol: SCTP, start: 80, end: 90}", Sctp, Range(80, 90)),
    ];
    for (port, protocol, matched) in table {
        for kind in [ADMIN, BASELINE] {
            let rule = format!("action: Deny, to: [{{namespaces: {{}}}}], ports: [{{{port}}}]");
            let expected = Ports::of([Port { protocol, port: matched.clone() }]);
            assert_eq!(egress_rule(kind, &rule).ports, expected, "{kind}{port}");
        }
    }
}

/// Unlike in a NetworkPolicy, a name says nothing of the protocol.
#[test]
fn a_named_port_is_of_any_protocol() {
    let named = |protocol| Port { protocol, port: PortMatch::Named("http".into()) };
    let expected = Ports::of([Protocol::Tcp, Protocol::Udp, Protocol::Sctp].map(named));
    for (kind, field) in [
        (CLUSTER, "protocols: [{destinationNamedPort: http}]"),
        (ADMIN, "ports: [{namedPort: http}]"),
        (BASELINE, "ports: [{namedPort: http}]"),
    ] {
        let rule = format!("action: Deny, to: [{{namespaces: {{}}}}], {field}");
        assert_eq!(egress_rule(kind, &rule).ports, expected, "{kind}");
    }
}

#[test]
fn limits_are_inclusive() {
    let repeat = |item: &str, count| vec![item; count].join(", ");
    for (kind, place, ports, limit) in [
        (CLUSTER, "tier: Admin, priority: 1, ", "protocols: [{destinationNamedPort: a}", 25),
        (ADMIN, "priority: 1, ", "ports: [{namedPort: a}", 100),
        (BASELINE, "", "ports: [{namedPort: a}", 100),
    ] {
        let (rule, port) = ports.split_once(": [").unwrap();
        let rule = format!(
            "{{action: Deny, from: [{}], {rule}: [{}]}}",
            repeat("{namespaces: {}}", limit),
            repeat(port, limit)
        );
        let ingress = repeat(&rule, limit);
        let spec = format!("{place}subject: {{namespaces: {{}}}}, ingress: [{ingress}]");
        assert_eq!(policy(kind, &spec).ingress.unwrap().len(), limit, "{kind}");
    }
    let networks: Vec<_> = (0..25).map(|n| format!("198.18.{n}.0/24")).collect();
    let rule = format!("action: Deny, to: [{{networks: [{}]}}]", networks.join(", "));
    let Peers::OneOf(peers) = egress_rule(CLUSTER, &rule).peers else { panic!("peers") };
    assert_eq!(peers.len(), 25);
}

/// A policy of the admin tier by name, priority, subject and ingress action.
fn ordered(name: &str, priority: u16, subject: &str, action: &str) -> String {
    format!(
        "---\napiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\n\
         metadata: {{name: {name}}}\nspec: {{tier: Admin, priority: {priority}, \
         subject: {{namespaces: {subject}}}, \
         ingress: [{{action: {action}, from: [{{namespaces: {{}}}}]}}]}}\n"
    )
}

#[test]
fn equal_priorities_that_may_contradict_are_warned_of() {
    let text = ordered("b", 5, "{}", "Accept") + &ordered("a", 5, "{}", "Deny");
    let warnings = manifests(&text).warnings;
    let [Warning::EqualPriority { directions, other, first, .. }] = &warnings[..] else {
        panic!("{warnings:?}");
    };
    assert_eq!(*directions, Directions::INGRESS);
    assert_eq!((other.name.as_ref(), first.name.as_ref()), ("b", "a"));
    assert_eq!(
        warnings[0].to_string(),
        "p.yaml: document 2 (ClusterNetworkPolicy/a): has the tier and priority of \
         ClusterNetworkPolicy/b, and their rules of ingress may contradict each other: which one \
         counts is undefined (here ClusterNetworkPolicy/a)"
    );
}

/// Over several texts, too, and between the two admin kinds.
#[test]
fn equal_priorities_of_other_kinds_are_warned_of() {
    let mut manifests = manifests(&ordered("b", 5, "{}", "Accept"));
    let spec = "{priority: 5, subject: {namespaces: {}}, \
                ingress: [{action: Deny, from: [{namespaces: {}}]}]}";
    manifests.read("q.yaml", &format!("{ADMIN}spec: {spec}\n")).unwrap();
    assert!(matches!(&manifests.warnings[..], [Warning::EqualPriority { .. }]));
    let warning = manifests.warnings[0].to_string();
    assert!(warning.starts_with("q.yaml: document 1 (AdminNetworkPolicy/default): "), "{warning}");
    assert!(warning.ends_with("(here ClusterNetworkPolicy/b)"), "{warning}");
}

#[test]
fn what_can_not_contradict_is_not_warned_of() {
    let table = [
        (ordered("a", 5, "{}", "Deny"), ordered("b", 6, "{}", "Accept")),
        (ordered("a", 5, "{}", "Deny"), ordered("b", 5, "{}", "Deny")),
        (
            ordered("a", 5, "{matchLabels: {tenant: x}}", "Deny"),
            ordered("b", 5, "{matchLabels: {tenant: y}}", "Accept"),
        ),
    ];
    for (one, other) in table {
        assert_eq!(manifests(&format!("{one}{other}")).warnings, [], "{one}{other}");
    }
}
