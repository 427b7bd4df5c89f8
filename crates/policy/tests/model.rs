//! Policies cross serde: whatever can be said comes back, and what isn't known is refused.

use flowgate_conformance::generate::Generator;
use flowgate_policy::model::{
    Direction, Directions, Mode, Policy, PolicyKind, PolicyRef, Response, Rule, RuleAction,
    Subject, Tier,
};

fn named(kind: PolicyKind) -> PolicyRef {
    PolicyRef { kind, namespace: "".into(), name: "p".into() }
}

#[test]
fn what_is_left_out_is_as_a_new_policy_has_it() {
    let read: Policy = serde_json::from_str(
        r#"{"id": {"kind": "FlowgateNodePolicy", "namespace": "", "name": "p"}, "subject": {"nodes": []}}"#,
    )
    .expect("a policy");
    let new =
        Policy::new(named(PolicyKind::FlowgateNodePolicy), Subject::Nodes(Default::default()));
    assert_eq!(read, new);
}

#[test]
fn a_policy_reads_as_it_is_written() {
    let text = r#"{
        "id": {"kind": "FlowgatePolicy", "namespace": "shop", "name": "db"},
        "tier": {"admin": {"priority": 7}},
        "mode": "audit",
        "defaultDeny": "INGRESS",
        "subject": {"workloads": {
            "namespaces": {"named": "shop"},
            "labels": [{"key": "app", "operator": {"in": ["db"]}}]
        }},
        "ingress": [{
            "action": "deny",
            "peers": {"oneOf": [
                {"cidr": {"cidr": "198.51.100.0/24", "except": ["198.51.100.8/29"]}},
                {"entity": "remote-node"},
                {"workloads": {"namespaces": {"matching": []}, "labels": [{"key": "x", "operator": "exists"}]}}
            ]},
            "ports": {"oneOf": [
                {"port": {"protocol": "TCP", "port": {"range": [80, 90]}}},
                {"port": {"protocol": "UDP", "port": {"named": "dns"}}},
                {"icmp": 8}, {"icmp6": null}, {"protocol": 47}
            ]}
        }],
        "log": "db",
        "response": "reset"
    }"#;
    let policy: Policy = serde_json::from_str(text).expect("a policy");
    assert_eq!((policy.tier, policy.mode), (Tier::Admin { priority: 7 }, Mode::Audit));
    assert_eq!(
        (policy.default_deny, policy.response),
        (Directions::INGRESS, Some(Response::Reset))
    );
    assert!(policy.egress.is_none());
    let rules = policy.rules(Direction::Ingress).expect("it says something");
    assert!(matches!(rules.as_slice(), [Rule { action: RuleAction::Deny, .. }]));
    let written = serde_json::to_value(&policy).expect("writes");
    assert_eq!(written, serde_json::from_str::<serde_json::Value>(text).expect("JSON"));
}

#[test]
fn every_generated_policy_comes_back() {
    let mut generator = Generator::new(17);
    let mut policies = 0;
    for _ in 0..300 {
        for policy in generator.case().policies {
            let text = serde_json::to_string(&policy).expect("writes");
            assert_eq!(serde_json::from_str::<Policy>(&text).expect("reads"), policy, "{text}");
            policies += 1;
        }
    }
    assert!(policies > 300);
}

#[test]
fn what_is_not_known_is_refused_by_name() {
    let refused = |text: &str| {
        let error = serde_json::from_str::<Policy>(text).expect_err("refused");
        error.to_string()
    };
    let with = |more: &str| {
        format!(
            r#"{{"id": {{"kind": "NetworkPolicy", "namespace": "a", "name": "p"}}, "subject": {{"nodes": []}}, {more}}}"#
        )
    };
    for (more, named) in [
        (r#""ingres": []"#, "unknown field `ingres`"),
        (r#""mode": "watch""#, "unknown variant `watch`"),
        (r#""response": "loud""#, "unknown variant `loud`"),
        (r#""tier": {"admin": {"order": 1}}"#, "unknown field `order`"),
        (r#""ingress": [{"action": "allow", "peers": "any"}]"#, "missing field `ports`"),
        (
            r#""egress": [{"action": "allow", "peers": {"oneOf": [{"cidr": {"cidr": "198.51.100.0/33", "except": []}}]}, "ports": "any"}]"#,
            "invalid",
        ),
    ] {
        let said = refused(&with(more));
        assert!(said.contains(named), "{more}: {said}");
    }
}
