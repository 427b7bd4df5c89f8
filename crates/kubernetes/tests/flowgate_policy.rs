//! What a FlowgatePolicy means, and what of it is refused.

mod world;

use std::{fs, path::Path};

use flowgate_identity::Selector;
use flowgate_kubernetes::{
    Manifests, Warning,
    flowgate_policy::{custom_resource_definition, node_custom_resource_definition},
};
use flowgate_policy::model::{
    Directions, Entity, Mode, NamespaceSelector, Peer, Peers, Policy, Port, PortMatch, Ports,
    Protocol, Response, Rule, RuleAction, Service, Subject, WorkloadSelector,
};
use world::World;

fn document(spec: &str) -> String {
    format!(
        "apiVersion: policy.flowgate.dev/v1alpha1\nkind: FlowgatePolicy\n\
         metadata: {{name: p, namespace: shop}}\nspec: {spec}\n"
    )
}

fn policy(spec: &str) -> Policy {
    let mut manifests = Manifests::default();
    manifests.read("p.yaml", &document(spec)).unwrap_or_else(|error| panic!("{spec}: {error}"));
    assert_eq!(manifests.warnings, [], "{spec}");
    manifests.policies.remove(0)
}

fn rule(rule: &str) -> Rule {
    policy(&format!("{{ingress: [{rule}]}}")).ingress.expect("there is a rule").remove(0)
}

/// `FLOWGATE_WRITE_CRD=1 cargo test -p flowgate-kubernetes` writes the file.
#[test]
fn the_definitions_in_the_repository_are_those_in_the_code() {
    is_in_the_repository("crd/flowgatepolicies.yaml", custom_resource_definition());
    is_in_the_repository("crd/flowgatenodepolicies.yaml", node_custom_resource_definition());
}

fn is_in_the_repository(path: &str, definition: String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("FLOWGATE_WRITE_CRD").is_some() {
        fs::write(&path, &definition).unwrap();
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), definition);
    let mut manifests = Manifests::default();
    manifests.read("crd.yaml", &definition).unwrap();
    assert!(matches!(&manifests.warnings[..], [Warning::IgnoredKind { .. }]));
}

#[test]
fn a_policy_is_named_after_its_object_and_implies_its_namespace() {
    let mut manifests = Manifests::default();
    manifests.read("p.yaml", &document("{}")).unwrap();
    assert_eq!(manifests.policies[0].id.to_string(), "FlowgatePolicy/shop/p");
    assert!(manifests.inventory.namespaces.contains_key("shop"));
}

#[test]
fn directions_and_default_denial() {
    let (none, both) = (Directions::empty(), Directions::all());
    let (ingress, egress) = (Directions::INGRESS, Directions::EGRESS);
    let open = || Some(vec![Rule::allow(Peers::Any, Ports::Any)]);
    let closed = || Some(vec![]);
    let table = [
        ("{}", None, None, none),
        ("{ingress: }", None, None, none),
        ("{ingress: []}", closed(), None, ingress),
        ("{ingress: [{}]}", open(), None, ingress),
        ("{egress: []}", None, closed(), egress),
        ("{ingress: [{}], egress: [{}]}", open(), open(), both),
        ("{ingress: [{}], defaultDeny: {}}", open(), None, ingress),
        ("{ingress: [{}], defaultDeny: {ingress: false}}", open(), None, none),
        ("{ingress: [{}], defaultDeny: {egress: true}}", open(), closed(), both),
        ("{defaultDeny: {ingress: true}}", closed(), None, ingress),
        ("{defaultDeny: {ingress: false, egress: false}}", None, None, none),
    ];
    for (spec, ingress, egress, default_deny) in table {
        let policy = policy(spec);
        assert_eq!((policy.ingress, policy.egress), (ingress, egress), "{spec}");
        assert_eq!(policy.default_deny, default_deny, "{spec}");
    }
}

#[test]
fn subject_mode_and_log() {
    let plain = policy("{}");
    assert_eq!((plain.mode, plain.log), (Mode::Enforce, None));
    assert_eq!(plain.subject, in_shop(Selector::everything()));
    let web = policy("{podSelector: {matchLabels: {app: web}}, mode: Audit, log: team-a}");
    assert_eq!((web.mode, web.log.as_deref()), (Mode::Audit, Some("team-a")));
    assert_eq!(web.subject, in_shop(Selector::match_label("app", "web")));
    assert_eq!(policy("{mode: Staged}").mode, Mode::Staged);
    assert_eq!(policy("{mode: Enforce}").mode, Mode::Enforce);
}

fn in_shop(labels: Selector) -> Subject {
    WorkloadSelector { namespaces: NamespaceSelector::Named("shop".into()), labels }.into()
}

fn of_nodes(spec: &str) -> String {
    format!(
        "apiVersion: policy.flowgate.dev/v1alpha1\nkind: FlowgateNodePolicy\n\
         metadata: {{name: p}}\nspec: {spec}\n"
    )
}

#[test]
fn a_policy_of_nodes_is_the_clusters() {
    let mut manifests = Manifests::default();
    let spec = "{nodeSelector: {matchLabels: {rack: b}}, ingress: [{from: [{podSelector: {}}]}]}";
    manifests.read("p.yaml", &of_nodes(spec)).unwrap();
    let policy = manifests.policies.remove(0);
    assert_eq!(policy.id.to_string(), "FlowgateNodePolicy/p");
    assert_eq!(policy.subject, Subject::Nodes(Selector::match_label("rack", "b")));
    let anybody = WorkloadSelector {
        namespaces: NamespaceSelector::Matching(Selector::everything()),
        labels: Selector::everything(),
    };
    let peers = Peers::OneOf(vec![Peer::Workloads(anybody)]);
    assert_eq!(policy.ingress, Some(vec![Rule::allow(peers, Ports::Any)]));
    for (text, expected) in [
        (of_nodes("{ingress: []}"), "spec.nodeSelector: missing"),
        (of_nodes("{nodeSelector: {}, podSelector: {}}"), "spec.podSelector: unknown field"),
        (of_nodes("{nodeSelector: {}}").replace("name: p", "name: p, namespace: a"), "namespace"),
    ] {
        let error = Manifests::default().read("p.yaml", &text).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn nodes_are_subjects_where_a_policy_selects_them() {
    let world = World::with(&[of_nodes(
        "{nodeSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: \
         {kubernetes.io/metadata.name: shop}}}], ports: [{port: 22}]}]}",
    )]);
    world.check("shop/cart -> node-b", &[("tcp 22", "allow"), ("tcp 80", "default-deny")]);
}

#[test]
fn responses() {
    let table = [
        ("{}", None),
        ("{response: Silence}", Some(Response::Silence)),
        ("{response: ICMP}", Some(Response::Icmp)),
        ("{response: Reset}", Some(Response::Reset)),
    ];
    for (spec, response) in table {
        assert_eq!(policy(spec).response, response, "{spec}");
    }
}

#[test]
fn actions() {
    assert_eq!(rule("{}").action, RuleAction::Allow);
    assert_eq!(rule("{action: Allow, name: everybody}").action, RuleAction::Allow);
    assert_eq!(rule("{action: Deny}"), Rule::deny(Peers::Any, Ports::Any));
}

#[test]
fn peers() {
    let web = || Selector::match_label("app", "web");
    let workloads = |namespaces, labels| Peer::Workloads(WorkloadSelector { namespaces, labels });
    let own = || NamespaceSelector::Named("shop".into());
    let dev = || NamespaceSelector::Matching(Selector::match_label("env", "dev"));
    let mut table = vec![
        ("{podSelector: {matchLabels: {app: web}}}".to_owned(), workloads(own(), web())),
        ("{podSelector: {}}".into(), workloads(own(), Selector::everything())),
        (
            "{namespaceSelector: {matchLabels: {env: dev}}}".into(),
            workloads(dev(), Selector::everything()),
        ),
        (
            "{podSelector: {matchLabels: {app: web}}, namespaceSelector: {matchLabels: {env: dev}}}"
                .into(),
            workloads(dev(), web()),
        ),
        (
            "{ipBlock: {cidr: 198.18.0.0/16, except: [198.18.1.0/24]}}".into(),
            Peer::Cidr {
                cidr: "198.18.0.0/16".parse().unwrap(),
                except: vec!["198.18.1.0/24".parse().unwrap()],
            },
        ),
        ("{nodeSelector: {matchLabels: {app: web}}}".into(), Peer::Nodes(web())),
        ("{nodeSelector: {}}".into(), Peer::Nodes(Selector::everything())),
    ];
    use Entity::{All, Cluster, Host, None, RemoteNode, World, WorldIpv4, WorldIpv6};
    for entity in [All, World, WorldIpv4, WorldIpv6, Cluster, Host, RemoteNode, None] {
        table.push((format!("{{entity: {entity}}}"), Peer::Entity(entity)));
    }
    for (peer, expected) in table {
        let peers = rule(&format!("{{from: [{peer}]}}")).peers;
        assert_eq!(peers, Peers::OneOf(vec![expected.clone()]), "{peer}");
        let policy = policy(&format!("{{egress: [{{to: [{peer}]}}]}}"));
        assert_eq!(policy.egress.unwrap()[0].peers, Peers::OneOf(vec![expected]), "{peer}");
    }
}

#[test]
fn services() {
    let port = |protocol, port| Service::Port(Port { protocol, port });
    let table = [
        ("{}", port(Protocol::Tcp, PortMatch::All)),
        ("{protocol: SCTP}", port(Protocol::Sctp, PortMatch::All)),
        ("{port: 80}", port(Protocol::Tcp, PortMatch::Range(80, 80))),
        ("{port: 80, endPort: 90}", port(Protocol::Tcp, PortMatch::Range(80, 90))),
        ("{port: dns, protocol: UDP}", port(Protocol::Udp, PortMatch::Named("dns".into()))),
        ("{icmp: {}}", Service::Icmp(None)),
        ("{icmp: {type: 8}}", Service::Icmp(Some(8))),
        ("{icmpv6: {}}", Service::Icmp6(None)),
        ("{icmpv6: {type: 255}}", Service::Icmp6(Some(255))),
        ("{protocolNumber: 47}", Service::Protocol(47)),
        ("{protocolNumber: 0}", Service::Protocol(0)),
    ];
    for (service, expected) in table {
        let ports = rule(&format!("{{ports: [{service}]}}")).ports;
        assert_eq!(ports, Ports::OneOf(vec![expected]), "{service}");
    }
}

#[test]
fn refusals() {
    let table = [
        ("{policyTypes: [Ingress]}", "policyTypes: unknown field"),
        ("{nodeSelector: {}}", "nodeSelector: unknown field"),
        ("{mode: enforce}", "mode: \"enforce\" is not one of Enforce, Audit and Staged"),
        ("{response: Icmp}", "response: \"Icmp\" is not one of Silence, ICMP and Reset"),
        ("{log: ''}", "log: must have between 1 and 64 characters, and has 0"),
        ("{defaultDeny: true}", "defaultDeny: expected a mapping, found the boolean true"),
        ("{defaultDeny: {Ingress: true}}", "defaultDeny.Ingress: unknown field"),
        ("{ingress: [{to: []}]}", "ingress[0].to: unknown field"),
        ("{egress: [{from: []}]}", "egress[0].from: unknown field"),
        ("{ingress: [{from: []}]}", "ingress[0].from: needs at least one item"),
        ("{ingress: [{ports: []}]}", "ingress[0].ports: needs at least one item"),
        ("{ingress: [{action: Pass}]}", "ingress[0].action: \"Pass\" is not one of Allow and Deny"),
        (
            "{ingress: [{from: [{}]}]}",
            "ingress[0].from[0]: one of podSelector, namespaceSelector, ipBlock, nodeSelector and \
             entity is needed",
        ),
        (
            "{ingress: [{from: [{podSelector: {}, entity: all}]}]}",
            "ingress[0].from[0]: podSelector and entity exclude each other: write them apart",
        ),
        (
            "{egress: [{to: [{nodeSelector: {}, namespaceSelector: {}}]}]}",
            "egress[0].to[0]: namespaceSelector and nodeSelector exclude each other: write them apart",
        ),
        (
            "{egress: [{to: [{entity: kube-apiserver}]}]}",
            "egress[0].to[0].entity: \"kube-apiserver\" is not one of all, world, world-ipv4, \
             world-ipv6, cluster, host, remote-node and none",
        ),
        (
            "{ingress: [{ports: [{port: 80, icmp: {}}]}]}",
            "ingress[0].ports[0]: port and icmp exclude each other: write them apart",
        ),
        (
            "{ingress: [{ports: [{protocol: ICMP}]}]}",
            "ingress[0].ports[0].protocol: \"ICMP\" is not one of TCP, UDP and SCTP",
        ),
        (
            "{ingress: [{ports: [{icmp: {type: 256}}]}]}",
            "ingress[0].ports[0].icmp.type: 256 is not a number between 0 and 255",
        ),
        (
            "{ingress: [{ports: [{protocolNumber: -1}]}]}",
            "ingress[0].ports[0].protocolNumber: -1 is not a number between 0 and 255",
        ),
        (
            "{ingress: [{ports: [{icmp: {code: 1}}]}]}",
            "ingress[0].ports[0].icmp.code: unknown field",
        ),
    ];
    for (spec, expected) in table {
        let error = Manifests::default().read("f.yaml", &document(spec)).unwrap_err();
        let expected =
            format!("f.yaml: document 1 (FlowgatePolicy/shop/p): spec.{expected} (line 4)");
        assert_eq!(error.to_string(), expected, "{spec}");
    }
    let long = format!("{{ingress: [{{name: {}}}]}}", "a".repeat(101));
    let error = Manifests::default().read("f.yaml", &document(&long)).unwrap_err().to_string();
    assert!(error.contains("ingress[0].name: must have between 1 and 100 characters"), "{error}");
}

#[test]
fn a_denial_beats_an_allowance() {
    let world = World::with(&[document(
        "{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {}}]}, \
         {action: Deny, from: [{podSelector: {matchLabels: {app: cart}}}], ports: [{port: 22}]}]}",
    )]);
    world.check("shop/cart -> shop/db", &[("tcp 22", "deny"), ("tcp 80", "allow")]);
    world.check("shop/web -> shop/db", &[("tcp 22", "allow"), ("icmp 8", "allow")]);
    world.check("ops/web -> shop/db", &[("tcp 80", "default-deny")]);
}

#[test]
fn entities_nodes_and_services() {
    let world = World::with(&[document(
        "{podSelector: {matchLabels: {app: db}}, egress: [\
         {to: [{entity: world-ipv4}], ports: [{port: 443}, {icmp: {type: 8}}]}, \
         {to: [{entity: host}], ports: [{protocolNumber: 47}]}, \
         {to: [{nodeSelector: {matchLabels: {rack: b}}}], ports: [{icmp: {}}]}]}",
    )]);
    let open = [("tcp 443", "allow"), ("icmp 8", "allow"), ("icmp 0", "default-deny")];
    world.check("shop/db -> 203.0.113.1", &open);
    world.check("shop/db -> shop/web", &[("tcp 443", "default-deny")]);
    world.check("shop/db -> node-a", &[("proto 47", "allow"), ("tcp 443", "default-deny")]);
    world.check("shop/db -> node-b", &[("proto 47", "default-deny"), ("icmp 0", "allow")]);
}

#[test]
fn without_default_denial_only_what_is_denied_is_denied() {
    let world = World::with(&[document(
        "{podSelector: {matchLabels: {app: db}}, defaultDeny: {ingress: false}, ingress: [\
         {action: Deny, from: [{entity: world}]}]}",
    )]);
    world.check("203.0.113.1 -> shop/db", &[("tcp 80", "deny")]);
    world.check("shop/web -> shop/db", &[("tcp 80", "default-allow")]);
}

#[test]
fn audit_and_staged() {
    let audited = document("{ingress: [], mode: Audit}");
    let world = World::with(&[audited]);
    world.check("ops/web -> shop/db", &[("tcp 80", "audit")]);
    let staged = document("{ingress: [], mode: Staged}");
    let world = World::with(&[staged]);
    world.check("ops/web -> shop/db", &[("tcp 80", "default-allow, staged default-deny")]);
}
