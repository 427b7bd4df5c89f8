//! What a NetworkPolicy means, as a table: a piece of manifest, and the model that comes of it.

use std::collections::BTreeSet;

use flowgate_identity::{Operator, Requirement, Selector};
use flowgate_kubernetes::{Manifests, Warning};
use flowgate_policy::model::{
    NamespaceSelector, Peer, Peers, Policy, Port, PortMatch, Ports, Protocol, Rule,
    WorkloadSelector,
};

fn manifests(spec: &str) -> Manifests {
    let mut manifests = Manifests::default();
    let text = format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
         metadata: {{name: p, namespace: prod}}\nspec: {spec}\n"
    );
    manifests.read("p.yaml", &text).unwrap_or_else(|error| panic!("{spec}: {error}"));
    manifests
}

fn policy(spec: &str) -> Policy {
    manifests(spec).policies.remove(0)
}

fn ingress_rule(rule: &str) -> Rule {
    let policy = policy(&format!("{{podSelector: {{}}, ingress: [{rule}]}}"));
    policy.ingress.expect("isolates ingress").remove(0)
}

fn any() -> Rule {
    Rule::allow(Peers::Any, Ports::Any)
}

fn own(labels: Selector) -> Peer {
    let namespaces = NamespaceSelector::Named("prod".into());
    Peer::Workloads(WorkloadSelector { namespaces, labels })
}

fn elsewhere(namespaces: Selector, labels: Selector) -> Peer {
    let namespaces = NamespaceSelector::Matching(namespaces);
    Peer::Workloads(WorkloadSelector { namespaces, labels })
}

#[test]
fn policy_types_and_what_is_isolated() {
    let none = || None;
    let closed = || Some(vec![]);
    let open = || Some(vec![any()]);
    let table = [
        ("{podSelector: {}}", closed(), none()),
        ("{}", closed(), none()),
        ("{podSelector: }", closed(), none()),
        ("{policyTypes: []}", closed(), none()),
        ("{policyTypes: }", closed(), none()),
        ("{ingress: []}", closed(), none()),
        ("{ingress: }", closed(), none()),
        ("{ingress: [{}]}", open(), none()),
        ("{egress: [{}]}", closed(), open()),
        ("{egress: []}", closed(), none()),
        ("{egress: }", closed(), none()),
        ("{ingress: [{}], egress: [{}]}", open(), open()),
        ("{policyTypes: [Ingress]}", closed(), none()),
        ("{policyTypes: [Egress]}", none(), closed()),
        ("{policyTypes: [Egress], egress: []}", none(), closed()),
        ("{policyTypes: [Egress], egress: [{}]}", none(), open()),
        ("{policyTypes: [Egress, Ingress]}", closed(), closed()),
        ("{policyTypes: [Ingress], egress: [{}]}", closed(), none()),
        ("{policyTypes: [Egress], ingress: [{}]}", none(), closed()),
    ];
    for (spec, ingress, egress) in table {
        let policy = policy(spec);
        assert_eq!((policy.ingress, policy.egress), (ingress, egress), "{spec}");
    }
}

#[test]
fn rules_that_say_nothing_are_warned_of() {
    let warnings = manifests("{policyTypes: [Ingress], egress: [{}]}").warnings;
    assert!(
        matches!(&warnings[..], [Warning::RulesWithoutType { policy_type: "Egress", .. }]),
        "{warnings:?}"
    );
    assert_eq!(
        warnings[0].to_string(),
        "p.yaml: document 1 (NetworkPolicy/prod/p): spec.egress: these rules have no effect, \
         because policyTypes lacks Egress"
    );
    let warnings = manifests("{egress: []}").warnings;
    assert!(matches!(&warnings[..], [Warning::EmptyEgressWithoutType { .. }]), "{warnings:?}");
    assert_eq!(manifests("{policyTypes: [Ingress], egress: []}").warnings, []);
    assert_eq!(manifests("{policyTypes: [Egress], egress: []}").warnings, []);
}

#[test]
fn the_subject_is_in_the_policys_own_namespace() {
    let web = "{podSelector: {matchLabels: {app: web}}}";
    for (spec, labels) in
        [(web, Selector::match_label("app", "web")), ("{podSelector: {}}", Selector::everything())]
    {
        let namespaces = NamespaceSelector::Named("prod".into());
        assert_eq!(policy(spec).subject, WorkloadSelector { namespaces, labels }.into());
    }
}

#[test]
fn empty_and_missing_lists_of_a_rule_mean_anything() {
    for rule in ["{}", "{from: [], ports: []}", "{from: , ports: }", "{ports: []}"] {
        assert_eq!(ingress_rule(rule), any(), "{rule}");
    }
}

#[test]
fn peers() {
    let web = || Selector::match_label("app", "web");
    let dev = || Selector::match_label("env", "dev");
    let all = Selector::everything;
    let pods = "podSelector: {matchLabels: {app: web}}";
    let namespaces = "namespaceSelector: {matchLabels: {env: dev}}";
    let table = [
        (format!("{{{pods}}}"), own(web())),
        ("{podSelector: {}}".into(), own(all())),
        (format!("{{{namespaces}}}"), elsewhere(dev(), all())),
        ("{namespaceSelector: {}}".into(), elsewhere(all(), all())),
        (format!("{{{pods}, {namespaces}}}"), elsewhere(dev(), web())),
        (format!("{{{pods}, namespaceSelector: }}"), own(web())),
        (
            "{ipBlock: {cidr: 198.18.0.0/16}}".into(),
            Peer::Cidr { cidr: "198.18.0.0/16".parse().unwrap(), except: vec![] },
        ),
        (
            "{ipBlock: {cidr: '2001:db8::/32', except: ['2001:db8:1::/48']}}".into(),
            Peer::Cidr {
                cidr: "2001:db8::/32".parse().unwrap(),
                except: vec!["2001:db8:1::/48".parse().unwrap()],
            },
        ),
    ];
    for (peer, expected) in table {
        let rule = ingress_rule(&format!("{{from: [{peer}]}}"));
        assert_eq!(rule.peers, Peers::OneOf(vec![expected.clone()]), "{peer}");
        let policy = policy(&format!("{{egress: [{{to: [{peer}]}}]}}"));
        assert_eq!(policy.egress.unwrap()[0].peers, Peers::OneOf(vec![expected]), "{peer}");
    }
    let two = ingress_rule(&format!("{{from: [{{{pods}}}, {{{namespaces}}}]}}"));
    assert_eq!(two.peers, Peers::OneOf(vec![own(web()), elsewhere(dev(), all())]));
}

#[test]
fn host_bits_are_cut_off_and_warned_of() {
    let spec = "{ingress: [{from: [{ipBlock: {cidr: 198.18.1.1/16, except: [198.18.2.2/24]}}]}]}";
    let manifests = manifests(spec);
    let Peers::OneOf(peers) = &manifests.policies[0].ingress.as_ref().unwrap()[0].peers else {
        panic!("peers");
    };
    let (cidr, except) = ("198.18.0.0/16".parse().unwrap(), "198.18.2.0/24".parse().unwrap());
    assert_eq!(peers, &[Peer::Cidr { cidr, except: vec![except] }]);
    assert_eq!(
        manifests.warnings[0].to_string(),
        "p.yaml: document 1 (NetworkPolicy/prod/p): spec.ingress[0].from[0].ipBlock.cidr: \
         198.18.1.1/16 has host bits: it is read as 198.18.0.0/16"
    );
    assert_eq!(manifests.warnings.len(), 2);
}

#[test]
fn ports() {
    use PortMatch::{All, Named, Range};
    use Protocol::{Sctp, Tcp, Udp};
    let table = [
        ("{}", Tcp, All),
        ("{protocol: UDP}", Udp, All),
        ("{port: 80}", Tcp, Range(80, 80)),
        ("{port: 65535, protocol: SCTP}", Sctp, Range(65535, 65535)),
        ("{port: 80, endPort: 90}", Tcp, Range(80, 90)),
        ("{port: 80, endPort: 80}", Tcp, Range(80, 80)),
        ("{port: http, protocol: TCP}", Tcp, Named("http".into())),
        ("{port: , protocol: }", Tcp, All),
    ];
    for (port, protocol, matched) in table {
        let rule = ingress_rule(&format!("{{ports: [{port}]}}"));
        assert_eq!(rule.ports, Ports::of([Port { protocol, port: matched }]), "{port}");
    }
}

#[test]
fn selectors() {
    let values = || BTreeSet::from(["a".into(), "b".into()]);
    let table = [
        ("{key: k, operator: In, values: [b, a]}", Operator::In(values())),
        ("{key: k, operator: NotIn, values: [a, b]}", Operator::NotIn(values())),
        ("{key: k, operator: Exists}", Operator::Exists),
        ("{key: k, operator: Exists, values: []}", Operator::Exists),
        ("{key: k, operator: DoesNotExist, values: }", Operator::DoesNotExist),
    ];
    for (expression, operator) in table {
        let policy = policy(&format!(
            "{{podSelector: {{matchLabels: {{app: web}}, matchExpressions: [{expression}]}}}}"
        ));
        let requirement = Requirement { key: "k".into(), operator };
        let expected = Selector::match_label("app", "web").and(requirement);
        let namespaces = NamespaceSelector::Named("prod".into());
        let subject = WorkloadSelector { namespaces, labels: expected };
        assert_eq!(policy.subject, subject.into(), "{expression}");
    }
}
