//! Address families: asked one by one, and told apart where they differ.

use serde_json::json;

use crate::run::answer;

#[test]
fn where_they_agree_there_is_one_answer() {
    let answer = answer(r#"{"from":"shop/front","to":"shop/web","port":8080}"#);
    assert!(answer.get("families").is_none());
}

#[test]
fn all_must_allow() {
    let answer = answer(r#"{"from":"shop/front","to":"other/guarded","port":1}"#);
    let out = json!({"verdict": "default-allow", "policies": []});
    let by_address = "NetworkPolicy/other/by-address";
    let allow = json!({"verdict": "allow", "policies": [by_address]});
    let both = [by_address, "NetworkPolicy/other/by-address-6"];
    let deny = json!({"verdict": "default-deny", "policies": both});
    let expected = json!({
        "from": "shop/front", "to": "other/guarded", "port": 1, "proto": "TCP",
        "allowed": false, "egress": out, "ingress": deny,
        "families": {
            "4": {"allowed": true, "egress": out, "ingress": allow},
            "6": {"allowed": false, "egress": out, "ingress": deny},
        },
    });
    assert_eq!(answer, expected);
}

#[test]
fn one_that_is_asked_for_is_the_only_one() {
    for (family, allowed) in [(4, true), (6, false)] {
        let probe =
            format!(r#"{{"from":"shop/front","to":"other/guarded","port":1,"family":{family}}}"#);
        let answer = answer(&probe);
        assert_eq!(answer["allowed"], allowed);
        assert!(answer.get("families").is_none());
        assert!(answer.get("family").is_none());
    }
}

#[test]
fn other_policies_are_a_difference_too() {
    let answer = answer(r#"{"from":"shop/front","to":"other/guarded","port":443}"#);
    assert_eq!(answer["allowed"], true);
    let policies = |family: &str| answer["families"][family]["ingress"]["policies"].clone();
    assert_eq!(policies("4"), json!(["NetworkPolicy/other/by-address"]));
    assert_eq!(policies("6"), json!(["NetworkPolicy/other/by-address-6"]));
}

#[test]
fn only_what_both_ends_have_is_asked() {
    let allowed = answer(r#"{"from":"other/legacy","to":"other/guarded","port":1}"#);
    assert_eq!(allowed["allowed"], true);
    let denied = answer(r#"{"from":"other/modern","to":"other/guarded","port":1}"#);
    assert_eq!(denied["allowed"], false);
    assert!(denied.get("families").is_none());
}
