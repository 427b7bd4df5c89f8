//! What a denied sender is told, and what the log is told: by which policy of several.

mod ingress;

use flowgate_policy::{
    model::{Mode, Peers, Policy, PolicyKind, PolicyRef, Ports, Response, Rule, Tier},
    outcome::{Side, SideVerdict},
};
use ingress::{decided, policy};

fn closed(name: &str, response: Option<Response>) -> Policy {
    Policy { response, ..policy(name, vec![]) }
}

fn denying(name: &str, response: Option<Response>) -> Policy {
    Policy { response, ..policy(name, vec![Rule::deny(Peers::Any, Ports::Any)]) }
}

fn said(policies: &[Policy]) -> (SideVerdict, Response) {
    let side = decided(policies);
    (side.verdict().expect("the pod is an endpoint"), side.response())
}

const ICMP: Option<Response> = Some(Response::Icmp);
const RESET: Option<Response> = Some(Response::Reset);
const SILENCE: Option<Response> = Some(Response::Silence);

#[test]
fn silence_is_what_nobody_says_anything_else_about() {
    assert_eq!(said(&[closed("a", None)]), (SideVerdict::DefaultDeny, Response::Silence));
    assert_eq!(said(&[denying("a", None)]), (SideVerdict::Deny, Response::Silence));
}

#[test]
fn the_policy_that_denies_or_isolates_says() {
    assert_eq!(said(&[closed("a", RESET)]), (SideVerdict::DefaultDeny, Response::Reset));
    assert_eq!(said(&[denying("a", ICMP)]), (SideVerdict::Deny, Response::Icmp));
    // One that isolates has no say in what a rule denies.
    let both = [closed("a", SILENCE), denying("b", RESET)];
    assert_eq!(said(&both), (SideVerdict::Deny, Response::Reset));
}

#[test]
fn who_says_nothing_leaves_it_to_the_others() {
    let mut network = closed("a", None);
    network.id = PolicyRef { kind: PolicyKind::NetworkPolicy, ..network.id };
    let both = [network, closed("b", RESET)];
    assert_eq!(said(&both), (SideVerdict::DefaultDeny, Response::Reset));
}

#[test]
fn the_quietest_of_what_is_said_counts() {
    let of = |responses: &[Option<Response>]| {
        let named = responses.iter().zip(["a", "b", "c"]);
        let policies: Vec<Policy> =
            named.map(|(response, name)| denying(name, *response)).collect();
        said(&policies).1
    };
    assert_eq!(of(&[RESET, ICMP, None]), Response::Icmp);
    assert_eq!(of(&[ICMP, RESET, SILENCE]), Response::Silence);
    assert_eq!(of(&[SILENCE, ICMP, RESET]), Response::Silence);
}

#[test]
fn the_first_rule_of_a_tier_with_an_order_says_alone() {
    let tier = |name, priority, response| Policy {
        tier: Tier::Admin { priority },
        ..denying(name, response)
    };
    let both = [tier("a", 1, RESET), tier("b", 2, SILENCE)];
    assert_eq!(said(&both), (SideVerdict::Deny, Response::Reset));
}

#[test]
fn policies_on_trial_tell_nobody_anything() {
    let audit = |policy| Policy { mode: Mode::Audit, ..policy };
    let staged = |policy| Policy { mode: Mode::Staged, ..policy };
    let passes = [audit(denying("a", RESET))];
    assert_eq!(said(&passes), (SideVerdict::Audit, Response::Silence));
    // The audited rule is named, and the sender is told what it would be told without it.
    let both = [audit(denying("a", RESET)), closed("b", ICMP)];
    assert_eq!(said(&both), (SideVerdict::Deny, Response::Icmp));
    let both = [audit(denying("a", SILENCE)), denying("b", RESET)];
    assert_eq!(said(&both), (SideVerdict::Deny, Response::Reset));
    let both = [staged(denying("a", RESET)), closed("b", None)];
    assert_eq!(said(&both), (SideVerdict::DefaultDeny, Response::Silence));
}

#[test]
fn the_log_hears_of_every_policy_that_decides() {
    let log = |policies: &[Policy]| match decided(policies) {
        Side::Verdict { log, .. } => log.iter().map(ToString::to_string).collect::<Vec<_>>(),
        Side::NotAnEndpoint => panic!("the pod is an endpoint"),
    };
    let named = |policy: Policy, value: &str| Policy { log: Some(value.into()), ..policy };
    let allowing = |name| policy(name, vec![Rule::allow(Peers::Any, Ports::Any)]);
    assert_eq!(log(&[named(allowing("a"), "team-a")]), ["team-a"]);
    assert_eq!(log(&[named(closed("a", None), "audit")]), ["audit"]);
    let three = [
        named(denying("a", None), "team-b"),
        named(denying("b", None), "team-a"),
        named(denying("c", None), "team-a"),
        named(closed("d", None), "has no say"),
    ];
    assert_eq!(log(&three), ["team-a", "team-b"]);
    assert!(log(&[]).is_empty());
}
