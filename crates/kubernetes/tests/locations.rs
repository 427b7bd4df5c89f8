//! Where policies and their rules are.

use flowgate_kubernetes::Manifests;
use flowgate_policy::model::{Direction, PolicyKind, PolicyRef};

const TWO: &str = "\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: closed, namespace: shop }
spec: { podSelector: {} }
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: web, namespace: shop }
spec:
  podSelector: {}
  policyTypes: [Ingress, Egress]
  ingress:
    - from: [{ podSelector: {} }]
    - ports:
        - port: 80
  egress:
    - {}
";

fn policy(name: &str) -> PolicyRef {
    PolicyRef { kind: PolicyKind::NetworkPolicy, namespace: "shop".into(), name: name.into() }
}

fn rule(manifests: &Manifests, name: &str, direction: Direction, index: usize) -> String {
    let at = manifests.rule_location(&policy(name), direction, index).unwrap();
    format!("{at} (line {:?})", at.line)
}

fn read(name: &str, text: &str) -> Manifests {
    let mut manifests = Manifests::default();
    manifests.read(name, text).unwrap();
    manifests
}

#[test]
fn a_policy_and_its_rules_have_lines() {
    let manifests = read("f.yaml", TWO);
    assert_eq!(manifests.location_of(&policy("closed")).unwrap().line, Some(1));
    assert_eq!(manifests.location_of(&policy("web")).unwrap().line, Some(6));
    let second = rule(&manifests, "web", Direction::Ingress, 1);
    let expected = "f.yaml: document 2 (NetworkPolicy/shop/web): spec.ingress[1] (line Some(14))";
    assert_eq!(second, expected);
    let egress = rule(&manifests, "web", Direction::Egress, 0);
    assert!(egress.ends_with("spec.egress[0] (line Some(17))"), "{egress}");
}

#[test]
fn what_is_not_known_is_the_policys() {
    let manifests = read("f.yaml", TWO);
    let own = "f.yaml: document 2 (NetworkPolicy/shop/web) (line Some(6))";
    assert_eq!(rule(&manifests, "web", Direction::Ingress, 2), own);
    assert_eq!(manifests.location_of(&policy("other")), None);
    assert_eq!(manifests.rule_location(&policy("other"), Direction::Ingress, 0), None);
}

#[test]
fn rules_that_were_not_read_have_no_place() {
    let text = TWO.replace("[Ingress, Egress]", "[Ingress]");
    let egress = rule(&read("f.yaml", &text), "web", Direction::Egress, 0);
    assert_eq!(egress, "f.yaml: document 2 (NetworkPolicy/shop/web) (line Some(6))");
}

#[test]
fn in_lists_paths_begin_with_the_item() {
    let text = r#"{"apiVersion":"v1","kind":"List","items":[{
        "apiVersion":"networking.k8s.io/v1","kind":"NetworkPolicy",
        "metadata":{"name":"web","namespace":"shop"},
        "spec":{"podSelector":{},"ingress":[{}]}}]}"#;
    let manifests = read("f.json", text);
    let at = manifests.rule_location(&policy("web"), Direction::Ingress, 0).unwrap();
    assert_eq!(at.path, "items[0].spec.ingress[0]");
    assert_eq!(at.line, None);
}

/// One object, two policies: each is where the object is.
#[test]
fn policies_of_one_object_are_where_it_is() {
    let text = "\
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: { name: web, namespace: shop }
specs:
  - { endpointSelector: {}, ingress: [{ fromEndpoints: [{}] }] }
  - { endpointSelector: {}, ingress: [{ fromEndpoints: [{}] }] }
";
    let manifests = read("f.yaml", text);
    assert_eq!(manifests.policies.len(), 2);
    for policy in &manifests.policies {
        let at = manifests.rule_location(&policy.id, Direction::Ingress, 0).unwrap();
        assert_eq!((at.line, at.path.as_str()), (Some(1), ""));
    }
}
