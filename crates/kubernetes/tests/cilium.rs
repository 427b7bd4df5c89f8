//! What policies of Cilium's mean, and what of them is refused.

mod world;

use flowgate_identity::{Operator, Requirement, Selector};
use flowgate_kubernetes::Manifests;
use flowgate_policy::model::{
    Directions, Entity, NamespaceSelector, Peer, Peers, Policy, Port, PortMatch, Ports, Protocol,
    Rule, Service, Subject, WorkloadSelector,
};
use world::World;

const NAME_LABEL: &str = "kubernetes.io/metadata.name";

fn namespaced(spec: &str) -> String {
    format!(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\n\
         metadata: {{name: p, namespace: shop}}\nspec: {spec}\n"
    )
}

fn clusterwide(spec: &str) -> String {
    format!(
        "apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\n\
         metadata: {{name: p}}\nspec: {spec}\n"
    )
}

fn read(document: &str) -> Manifests {
    let mut manifests = Manifests::default();
    manifests.read("p.yaml", document).unwrap_or_else(|error| panic!("{document}: {error}"));
    manifests
}

fn policy(document: &str) -> Policy {
    read(document).policies.remove(0)
}

/// What a rule of a policy in `shop` for all of its pods comes to.
fn ingress(rule: &str) -> Vec<Rule> {
    let spec = format!("{{endpointSelector: {{}}, ingress: [{rule}]}}");
    policy(&namespaced(&spec)).ingress.expect("there is a rule")
}

fn warnings(document: &str) -> Vec<String> {
    let prefix = ": spec.";
    let text = |warning: &flowgate_kubernetes::Warning| {
        let text = warning.to_string();
        text.split_once(prefix).map_or(text.clone(), |(_, said)| said.to_owned())
    };
    read(document).warnings.iter().map(text).collect()
}

fn named(namespace: &str, labels: Selector) -> WorkloadSelector {
    WorkloadSelector { namespaces: NamespaceSelector::Named(namespace.into()), labels }
}

fn matching(namespaces: Selector, labels: Selector) -> WorkloadSelector {
    WorkloadSelector { namespaces: NamespaceSelector::Matching(namespaces), labels }
}

fn of_namespace(name: &str) -> Selector {
    Selector::match_label(NAME_LABEL, name)
}

#[test]
fn an_object_of_the_cluster_has_no_namespace() {
    let manifests = read(&clusterwide("{endpointSelector: {}, ingress: [{}]}"));
    assert_eq!(manifests.policies[0].id.to_string(), "CiliumClusterwideNetworkPolicy/p");
    assert!(manifests.inventory.namespaces.is_empty());
    let manifests = read(&namespaced("{endpointSelector: {}, ingress: [{}]}"));
    assert_eq!(manifests.policies[0].id.to_string(), "CiliumNetworkPolicy/shop/p");
    assert!(manifests.inventory.namespaces.contains_key("shop"));
}

#[test]
fn each_of_several_specs_is_a_policy_with_a_number() {
    let spec = "{endpointSelector: {}, ingress: [{}]}";
    let names = |fields: &str| -> Vec<String> {
        let text = format!(
            "{{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {{name: p}}, {fields}}}"
        );
        read(&text).policies.iter().map(|policy| policy.id.to_string()).collect()
    };
    let (plain, first) = ("CiliumNetworkPolicy/default/p", "CiliumNetworkPolicy/default/p#1");
    assert_eq!(names(&format!("spec: {spec}")), [plain]);
    assert_eq!(names(&format!("specs: [{spec}]")), [first]);
    assert_eq!(names(&format!("spec: {spec}, specs: [{spec}]")), [plain, first]);
    let two = names(&format!("specs: [{spec}, {spec}]"));
    assert_eq!(two, [first, "CiliumNetworkPolicy/default/p#2"]);
}

#[test]
fn subjects() {
    let all = Selector::everything;
    let web = || Selector::match_label("app", "web");
    let namespace_label = |value| Selector::match_label("env", value);
    let table = [
        ("{}", named("shop", all()), matching(all(), all())),
        ("{matchLabels: {app: web}}", named("shop", web()), matching(all(), web())),
        ("{matchLabels: {'k8s:app': web}}", named("shop", web()), matching(all(), web())),
        ("{matchLabels: {'any:app': web}}", named("shop", web()), matching(all(), web())),
        (
            "{matchLabels: {'k8s:io.kubernetes.pod.namespace': shop, app: web}}",
            named("shop", web()),
            matching(of_namespace("shop"), web()),
        ),
        (
            "{matchLabels: {'k8s:io.cilium.k8s.namespace.labels.env': dev}}",
            matching(namespace_label("dev").and(Requirement::equals(NAME_LABEL, "shop")), all()),
            matching(namespace_label("dev"), all()),
        ),
    ];
    for (selector, in_shop, anywhere) in table {
        let spec = format!("{{endpointSelector: {selector}, ingress: [{{}}]}}");
        assert_eq!(policy(&namespaced(&spec)).subject, in_shop.into(), "{selector}");
        assert_eq!(policy(&clusterwide(&spec)).subject, anywhere.into(), "{selector}");
    }
}

#[test]
fn nodes_as_subjects_of_clusterwide_policies() {
    for key in ["rack", "node:rack", "any:rack"] {
        let spec = format!("{{nodeSelector: {{matchLabels: {{'{key}': b}}}}, ingress: [{{}}]}}");
        let nodes = Subject::Nodes(Selector::match_label("rack", "b"));
        assert_eq!(policy(&clusterwide(&spec)).subject, nodes, "{key}");
    }
    let both = "{endpointSelector: {}, nodeSelector: {}, ingress: [{}]}";
    let error = Manifests::default().read("p.yaml", &clusterwide(both)).unwrap_err().to_string();
    assert!(error.contains("endpointSelector and nodeSelector exclude each other"), "{error}");
    let none = clusterwide("{ingress: [{}]}");
    let error = Manifests::default().read("p.yaml", &none).unwrap_err().to_string();
    assert!(error.contains("spec.endpointSelector: missing"), "{error}");
}

#[test]
fn peers_by_labels() {
    let all = Selector::everything;
    let web = || Selector::match_label("app", "web");
    let expression =
        |key: &str, operator| Selector::new(vec![Requirement { key: key.into(), operator }]);
    let not_ops = || expression(NAME_LABEL, Operator::NotIn(["ops".into()].into()));
    let table = [
        ("{}", named("shop", all()), matching(all(), all())),
        ("{matchLabels: {app: web}}", named("shop", web()), matching(all(), web())),
        (
            "{matchLabels: {'k8s:io.kubernetes.pod.namespace': ops, app: web}}",
            matching(of_namespace("ops"), web()),
            matching(of_namespace("ops"), web()),
        ),
        (
            "{matchLabels: {io.kubernetes.pod.namespace: ops}}",
            matching(of_namespace("ops"), all()),
            matching(of_namespace("ops"), all()),
        ),
        (
            "{matchExpressions: [{key: 'k8s:io.kubernetes.pod.namespace', operator: Exists}]}",
            matching(expression(NAME_LABEL, Operator::Exists), all()),
            matching(expression(NAME_LABEL, Operator::Exists), all()),
        ),
        (
            "{matchExpressions: [{key: io.kubernetes.pod.namespace, operator: NotIn, values: [ops]}]}",
            matching(not_ops(), all()),
            matching(not_ops(), all()),
        ),
        (
            "{matchLabels: {'k8s:io.cilium.k8s.namespace.labels.example.com/team': a}}",
            matching(Selector::match_label("example.com/team", "a"), all()),
            matching(Selector::match_label("example.com/team", "a"), all()),
        ),
        (
            "{matchExpressions: [{key: 'any:app', operator: DoesNotExist}]}",
            named("shop", expression("app", Operator::DoesNotExist)),
            matching(all(), expression("app", Operator::DoesNotExist)),
        ),
    ];
    for (selector, in_shop, anywhere) in table {
        let spec =
            format!("{{endpointSelector: {{}}, ingress: [{{fromEndpoints: [{selector}]}}]}}");
        for (document, expected) in [(namespaced(&spec), in_shop), (clusterwide(&spec), anywhere)] {
            let rules = policy(&document).ingress.unwrap();
            let peers = Peers::OneOf(vec![Peer::Workloads(expected)]);
            assert_eq!(rules, [Rule::allow(peers, Ports::Any)], "{document}");
        }
    }
}

#[test]
fn other_peers() {
    let net = |text: &str| text.parse().unwrap();
    let cidr = |text: &str, except: &[&str]| Peer::Cidr {
        cidr: net(text),
        except: except.iter().map(|text| net(text)).collect(),
    };
    let control_plane = Selector::match_label("node-role.kubernetes.io/control-plane", "");
    let mut table = vec![
        ("CIDR: [198.51.100.0/24]", vec![cidr("198.51.100.0/24", &[])]),
        ("CIDR: [198.51.100.7]", vec![cidr("198.51.100.7/32", &[])]),
        ("CIDR: ['2001:db8::1']", vec![cidr("2001:db8::1/128", &[])]),
        ("CIDR: [0.0.0.0/0]", vec![Peer::Entity(WorldIpv4)]),
        ("CIDRSet: [{cidr: '::/0'}]", vec![Peer::Entity(WorldIpv6)]),
        (
            "CIDRSet: [{cidr: 198.18.0.0/15, except: [198.18.1.0/24]}]",
            vec![cidr("198.18.0.0/15", &["198.18.1.0/24"])],
        ),
        (
            "CIDRSet: [{cidr: 0.0.0.0/0, except: [198.18.0.0/15]}]",
            vec![cidr("0.0.0.0/0", &["198.18.0.0/15"])],
        ),
        (
            "Entities: [host, remote-node]",
            vec![Peer::Entity(Entity::Host), Peer::Entity(Entity::RemoteNode)],
        ),
        (
            "Nodes: [{matchLabels: {'node:node-role.kubernetes.io/control-plane': ''}}]",
            vec![Peer::Nodes(control_plane.clone())],
        ),
        (
            "Nodes: [{matchLabels: {node-role.kubernetes.io/control-plane: ''}}]",
            vec![Peer::Nodes(control_plane)],
        ),
        ("Endpoints: []", vec![]),
        ("CIDR: []", vec![]),
        ("Entities: []", vec![]),
    ];
    use Entity::{All, Cluster, None, World, WorldIpv4, WorldIpv6};
    let entities = [
        ("Entities: [all]", All),
        ("Entities: [world]", World),
        ("Entities: [world-ipv4]", WorldIpv4),
        ("Entities: [world-ipv6]", WorldIpv6),
        ("Entities: [cluster]", Cluster),
        ("Entities: [none]", None),
    ];
    table.extend(entities.map(|(field, entity)| (field, vec![Peer::Entity(entity)])));
    for (field, expected) in table {
        let expected = [Rule::allow(Peers::OneOf(expected), Ports::Any)];
        assert_eq!(ingress(&format!("{{from{field}}}")), expected, "{field}");
        let spec = format!("{{endpointSelector: {{}}, egress: [{{to{field}}}]}}");
        assert_eq!(policy(&namespaced(&spec)).egress.unwrap(), expected, "{field}");
    }
}

#[test]
fn ports_and_icmp_types() {
    use PortMatch::{All, Named, Range};
    use Protocol::{Sctp, Tcp, Udp};
    let port = |protocol, port| Service::Port(Port { protocol, port });
    let each = |matched: PortMatch| {
        [Tcp, Udp, Sctp].map(|protocol| port(protocol, matched.clone())).to_vec()
    };
    let table = [
        ("toPorts: [{ports: [{port: '80', protocol: TCP}]}]", vec![port(Tcp, Range(80, 80))]),
        ("toPorts: [{ports: [{port: '53', protocol: UDP}]}]", vec![port(Udp, Range(53, 53))]),
        ("toPorts: [{ports: [{port: '0', protocol: SCTP}]}]", vec![port(Sctp, All)]),
        ("toPorts: [{ports: [{port: '80', protocol: ANY}]}]", each(Range(80, 80))),
        ("toPorts: [{ports: [{port: '80', protocol: ''}]}]", each(Range(80, 80))),
        ("toPorts: [{ports: [{port: '80'}]}]", each(Range(80, 80))),
        (
            "toPorts: [{ports: [{port: '80', endPort: 90, protocol: TCP}]}]",
            vec![port(Tcp, Range(80, 90))],
        ),
        (
            "toPorts: [{ports: [{port: http, protocol: TCP}]}]",
            vec![port(Tcp, Named("http".into()))],
        ),
        (
            "toPorts: [{ports: [{port: '1', protocol: TCP}]}, {ports: [{port: '2', protocol: TCP}]}]",
            vec![port(Tcp, Range(1, 1)), port(Tcp, Range(2, 2))],
        ),
        ("icmps: [{fields: [{type: 8}]}]", vec![Service::Icmp(Some(8))]),
        (
            "icmps: [{fields: [{type: 0, family: IPv4}, {type: 128, family: IPv6}]}]",
            vec![Service::Icmp(Some(0)), Service::Icmp6(Some(128))],
        ),
    ];
    for (field, expected) in table {
        let expected = Ports::OneOf(expected);
        let any = Rule::allow(Peers::Any, expected.clone());
        assert_eq!(ingress(&format!("{{{field}}}")), [any], "{field}");
        let nobody = Rule::allow(Peers::OneOf(vec![]), expected.clone());
        assert_eq!(ingress(&format!("{{fromEndpoints: [], {field}}}")), [nobody], "{field}");
        let host = Rule::allow(Peers::OneOf(vec![Peer::Entity(Entity::Host)]), expected);
        assert_eq!(ingress(&format!("{{fromEntities: [host], {field}}}")), [host], "{field}");
    }
    let any_port = Rule::allow(Peers::OneOf(vec![Peer::Entity(Entity::Host)]), Ports::Any);
    assert_eq!(ingress("{fromEntities: [host], toPorts: [], icmps: []}"), [any_port]);
}

#[test]
fn sections_and_default_denial() {
    let (none, both) = (Directions::empty(), Directions::all());
    let (ingress, egress) = (Directions::INGRESS, Directions::EGRESS);
    let rule = "[{fromEntities: [all]}]";
    let deny = "[{toEntities: [all]}]";
    let table = [
        (format!("ingress: {rule}"), ingress),
        ("ingress: [{}]".into(), ingress),
        (format!("egressDeny: {deny}"), egress),
        (format!("ingress: {rule}, egress: []"), ingress),
        (format!("ingress: {rule}, egressDeny: {deny}"), both),
        (format!("ingress: {rule}, enableDefaultDeny: {{}}"), ingress),
        (format!("ingress: {rule}, enableDefaultDeny: {{ingress: false}}"), none),
        (format!("ingress: {rule}, enableDefaultDeny: {{ingress: true}}"), ingress),
        (format!("ingress: {rule}, enableDefaultDeny: {{egress: true}}"), ingress),
        (format!("egressDeny: {deny}, enableDefaultDeny: {{egress: false}}"), none),
    ];
    for (sections, expected) in table {
        let policy = policy(&namespaced(&format!("{{endpointSelector: {{}}, {sections}}}")));
        let isolated = [Directions::INGRESS, Directions::EGRESS];
        let isolated =
            isolated.into_iter().filter(|direction| policy.default_deny.contains(*direction));
        assert_eq!(isolated.fold(none, |all, one| all | one), expected, "{sections}");
    }
}

#[test]
fn allowances_and_denials_stand_in_one_policy() {
    let policy = policy(&namespaced(
        "{endpointSelector: {}, ingress: [{fromEntities: [all]}], ingressDeny: [{fromEntities: [world]}]}",
    ));
    let peers = |entity| Peers::OneOf(vec![Peer::Entity(entity)]);
    let rules =
        [Rule::allow(peers(Entity::All), Ports::Any), Rule::deny(peers(Entity::World), Ports::Any)];
    assert_eq!((policy.ingress.as_deref(), policy.egress), (Some(&rules[..]), None));
}

#[test]
fn the_log_is_read_and_descriptions_are_not() {
    let policy = policy(&namespaced(
        "{endpointSelector: {}, description: d, labels: [{key: a, source: k8s, value: b}], \
         log: {value: team-a}, ingress: [{}]}",
    ));
    assert_eq!(policy.log.as_deref(), Some("team-a"));
}

#[test]
fn what_may_not_be_meant_is_warned_of() {
    let table = [
        ("ingress: [{fromCIDR: [0.0.0.0/0]}]", vec![]),
        (
            "ingress: [{fromCIDR: [0.0.0.0/0, 198.51.100.7, 192.0.2.0/24]}]",
            vec![
                "ingress[0].fromCIDR: matches the addresses of pods and nodes too, unlike in Cilium",
            ],
        ),
        (
            "egressDeny: [{toCIDRSet: [{cidr: 198.51.100.0/24}]}]",
            vec![
                "egressDeny[0].toCIDRSet: matches the addresses of pods and nodes too, unlike in \
                 Cilium",
            ],
        ),
        (
            "ingress: [{}]",
            vec!["ingress[0]: names neither peers nor ports, and so it allows nothing"],
        ),
        (
            "ingress: [{fromEntities: [all]}], egress: []",
            vec!["egress: empty, and so it isolates nothing"],
        ),
        (
            "ingress: [{fromEntities: [all]}], enableDefaultDeny: {egress: true}",
            vec!["enableDefaultDeny.egress: has no effect without a rule for this direction"],
        ),
    ];
    for (sections, expected) in table {
        let document = namespaced(&format!("{{endpointSelector: {{}}, {sections}}}"));
        assert_eq!(warnings(&document), expected, "{sections}");
    }
}

#[test]
fn refusals() {
    let unsupported = "flowgate can't do what this field says, and it can't be left out";
    let rule = |section: &str, field: &str, said: &str| {
        let path = field.split(':').next().unwrap();
        let spec = format!("{{endpointSelector: {{}}, {section}: [{{{field}}}]}}");
        (spec, format!("{section}[0].{path}: {said}"))
    };
    let port = |field: &str, said: &str| {
        let path = field.split(':').next().unwrap();
        let spec = format!("{{endpointSelector: {{}}, ingress: [{{toPorts: [{{{field}}}]}}]}}");
        (spec, format!("ingress[0].toPorts[0].{path}: {said}"))
    };
    let number = |fields: &str, said: &str| {
        let spec = format!(
            "{{endpointSelector: {{}}, egress: [{{toPorts: [{{ports: [{{{fields}}}]}}]}}]}}"
        );
        (spec, format!("egress[0].toPorts[0].ports[0].{said}"))
    };
    let label = |key: &str, said: &str| {
        let spec =
            format!("{{endpointSelector: {{matchLabels: {{'{key}': a}}}}, ingress: [{{}}]}}");
        (spec, format!("endpointSelector.matchLabels{said}"))
    };
    let whole = |spec: &str, said: &str| (spec.to_owned(), said.to_owned());
    let table = [
        rule("egress", "toFQDNs: [{matchName: example.com}]", unsupported),
        rule("egress", "toServices: []", unsupported),
        rule("egress", "toGroups: []", unsupported),
        rule("egress", "toRequires: []", unsupported),
        rule("egressDeny", "toServices: []", unsupported),
        rule("ingress", "fromRequires: [{}]", unsupported),
        rule("ingress", "fromGroups: []", unsupported),
        rule("ingress", "authentication: {mode: required}", unsupported),
        rule("egress", "authentication: {mode: required}", unsupported),
        rule("ingress", "fromFQDNs: []", "unknown field"),
        rule("ingress", "toEndpoints: [{}]", "unknown field"),
        port("rules: {http: [{}]}", unsupported),
        port("rules: {}", unsupported),
        port("listener: {name: a}", unsupported),
        port("serverNames: [a]", unsupported),
        port("terminatingTLS: {}", unsupported),
        port("originatingTLS: {}", unsupported),
        port("ports: []", "needs at least one item"),
        number("port: 80", "port: expected a string, found the integer 80: put it in quotes"),
        number("port: '70000'", "port: 70000 is not a port number between 1 and 65535"),
        number("protocol: TCP", "port: missing"),
        number("port: '0', endPort: 1", "endPort: endPort needs a port that is a number"),
        number("port: http, endPort: 1", "endPort: endPort needs a port that is a number"),
        number("port: '80', endPort: 79", "endPort: 79 is less than port 80"),
        number(
            "port: '80', protocol: ICMP",
            "protocol: \"ICMP\" is not one of TCP, UDP, SCTP and ANY",
        ),
        label("reserved:host", "[reserved:host]: flowgate knows no label \"reserved:host\""),
        label("container:a", "[container:a]: flowgate knows no label \"container:a\""),
        label(
            "k8s:io.cilium.k8s.policy.serviceaccount",
            "[k8s:io.cilium.k8s.policy.serviceaccount]: flowgate knows no label \
             \"io.cilium.k8s.policy.serviceaccount\"",
        ),
        whole(
            "{endpointSelector: {matchLabels: {'k8s:io.kubernetes.pod.namespace': ops}}, ingress: [{}]}",
            "endpointSelector: selects another namespace, but the policy is about its own, \"shop\"",
        ),
        whole("{ingress: [{}]}", "endpointSelector: missing"),
        whole("{nodeSelector: {}, ingress: [{}]}", &format!("nodeSelector: {unsupported}")),
        whole("{endpointSelector: {}, ingres: []}", "ingres: unknown field"),
        whole(
            "{endpointSelector: {}, ingressDeny: [{}]}",
            "ingressDeny[0]: a rule that denies must name peers, ports or ICMP types",
        ),
        whole(
            "{endpointSelector: {}, ingress: [{fromEntities: [kube-apiserver]}]}",
            "ingress[0].fromEntities[0]: \"kube-apiserver\" is not one of all, world, world-ipv4, \
             world-ipv6, cluster, host, remote-node and none",
        ),
        whole(
            "{endpointSelector: {}, ingress: [{fromEntities: [all], fromCIDR: []}]}",
            "ingress[0]: fromCIDR and fromEntities exclude each other: write them apart",
        ),
        whole(
            "{endpointSelector: {}, egress: [{toPorts: [{}], icmps: [{}]}]}",
            "egress[0]: toPorts and icmps exclude each other: write them apart",
        ),
        whole(
            "{endpointSelector: {}, egress: [{icmps: [{fields: [{type: EchoRequest}]}]}]}",
            "egress[0].icmps[0].fields[0].type: expected an integer, found the string \"EchoRequest\"",
        ),
        whole(
            "{endpointSelector: {}, egress: [{icmps: [{fields: []}]}]}",
            "egress[0].icmps[0].fields: needs at least one item",
        ),
        whole(
            "{endpointSelector: {}, ingress: [{fromCIDRSet: [{cidrGroupRef: a}]}]}",
            &format!("ingress[0].fromCIDRSet[0].cidrGroupRef: {unsupported}"),
        ),
        whole(
            "{endpointSelector: {}, ingress: [{fromCIDRSet: [{cidrGroupSelector: {}}]}]}",
            &format!("ingress[0].fromCIDRSet[0].cidrGroupSelector: {unsupported}"),
        ),
        whole(
            "{endpointSelector: {}, ingress: [{fromCIDR: [example.com]}]}",
            "ingress[0].fromCIDR[0]: \"example.com\" is not a network in CIDR notation",
        ),
        whole(
            "{endpointSelector: {}, ingress: [{fromNodes: [{matchLabels: {'k8s:a': b}}]}]}",
            "ingress[0].fromNodes[0].matchLabels[k8s:a]: flowgate knows no label \"k8s:a\"",
        ),
        whole("{endpointSelector: {}, ingress: [{}], log: {level: a}}", "log.level: unknown field"),
        whole(
            "{endpointSelector: {}, ingress: [{}], enableDefaultDeny: {ingres: true}}",
            "enableDefaultDeny.ingres: unknown field",
        ),
    ];
    for (spec, expected) in table {
        let error = Manifests::default().read("f.yaml", &namespaced(&spec)).unwrap_err();
        let expected =
            format!("f.yaml: document 1 (CiliumNetworkPolicy/shop/p): spec.{expected} (line 4)");
        assert_eq!(error.to_string(), expected, "{spec}");
    }
}

#[test]
fn refusals_of_the_whole_object() {
    let policy = "apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\n";
    let table = [
        (
            "metadata: {name: p, namespace: a}\nspec: {}",
            "metadata.namespace: unknown field (line 3)",
        ),
        ("metadata: {name: p}", "spec: missing (line 1)"),
        ("metadata: {name: p}\nspecs: []", "spec: missing (line 1)"),
        ("metadata: {name: p}\nother: {}", "other: unknown field (line 4)"),
        (
            "metadata: {name: p}\nspecs: [{endpointSelector: {}, ingress: []}]",
            "specs[0]: says nothing: no rule in ingress, ingressDeny, egress or egressDeny \
             (line 4)",
        ),
        (
            "metadata: {name: p}\nspec: {endpointSelector: {}}",
            "spec: says nothing: no rule in ingress, ingressDeny, egress or egressDeny \
             (line 4)",
        ),
    ];
    for (fields, expected) in table {
        let error = Manifests::default().read("f.yaml", &format!("{policy}{fields}")).unwrap_err();
        let text = error.to_string();
        assert!(text.ends_with(expected), "{fields}: {text}");
    }
}

#[test]
fn denials_beat_allowances_of_whichever_kind() {
    let allow = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
                 metadata: {name: open, namespace: shop}\n\
                 spec: {podSelector: {}, ingress: [{}]}\n";
    let deny = clusterwide(
        "{endpointSelector: {matchLabels: {app: db}}, ingressDeny: [{fromEndpoints: \
         [{matchLabels: {'k8s:io.kubernetes.pod.namespace': ops}}], \
         toPorts: [{ports: [{port: http, protocol: TCP}]}]}]}",
    );
    let world = World::with(&[allow.into(), deny]);
    world.check("ops/web -> shop/db", &[("tcp 8080", "deny"), ("tcp 80", "allow")]);
    world.check("shop/web -> shop/db", &[("tcp 8080", "allow")]);
    world.check("shop/web -> ops/db", &[("tcp 80", "default-deny")]);
}

#[test]
fn peers_and_ports_of_one_rule_must_both_match() {
    let world = World::with(&[namespaced(
        "{endpointSelector: {matchLabels: {app: db}}, ingress: [{fromEndpoints: [{}], \
         toPorts: [{ports: [{port: '5432', protocol: TCP}]}]}, {fromEndpoints: [{}], \
         icmps: [{fields: [{type: 8}]}]}]}",
    )]);
    let own = [("tcp 5432", "allow"), ("udp 5432", "default-deny"), ("icmp 8", "allow")];
    world.check("shop/web -> shop/db", &own);
    world.check("ops/web -> shop/db", &[("tcp 5432", "default-deny"), ("icmp 8", "default-deny")]);
}

#[test]
fn entities_and_nodes() {
    let world = World::with(&[namespaced(
        "{endpointSelector: {}, egress: [{toEntities: [world], toPorts: [{ports: [{port: '443'}]}]}, \
         {toNodes: [{matchLabels: {rack: b}}]}, {toCIDR: [203.0.113.0/24], toPorts: [{ports: \
         [{port: '80', protocol: TCP}]}]}]}",
    )]);
    let world_ports = [("tcp 443", "allow"), ("udp 443", "allow"), ("tcp 80", "allow")];
    world.check("shop/db -> 203.0.113.1", &world_ports);
    world.check("shop/db -> shop/web", &[("tcp 443", "default-deny")]);
    world.check("shop/db -> node-b", &[("tcp 22", "allow")]);
    world.check("shop/db -> node-a", &[("tcp 22", "default-deny")]);
}

#[test]
fn an_empty_rule_and_an_empty_list_of_peers_isolate() {
    for rule in ["{}", "{fromEndpoints: []}"] {
        let spec = format!("{{endpointSelector: {{}}, ingress: [{rule}]}}");
        let world = World::with(&[namespaced(&spec)]);
        world.check("shop/web -> shop/db", &[("tcp 80", "default-deny")]);
        world.check("shop/web -> ops/db", &[("tcp 80", "default-allow")]);
    }
}

#[test]
fn without_default_denial_only_what_is_denied_is_denied() {
    let world = World::with(&[clusterwide(
        "{endpointSelector: {}, enableDefaultDeny: {egress: false}, egressDeny: \
         [{toEntities: [world], toPorts: [{ports: [{port: '25', protocol: TCP}]}]}]}",
    )]);
    world.check("shop/db -> 203.0.113.1", &[("tcp 25", "deny"), ("tcp 26", "default-allow")]);
}

#[test]
fn namespaces_by_label() {
    let world = World::with(&[namespaced(
        "{endpointSelector: {}, ingress: [{fromEndpoints: [{matchLabels: \
         {'k8s:io.cilium.k8s.namespace.labels.team': ops, app: web}}]}]}",
    )]);
    world.check("ops/web -> shop/db", &[("tcp 80", "allow")]);
    world.check("ops/cart -> shop/db", &[("tcp 80", "default-deny")]);
    world.check("shop/web -> shop/db", &[("tcp 80", "default-deny")]);
}
