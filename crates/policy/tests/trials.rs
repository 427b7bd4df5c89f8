//! Policies on trial, by name: audited ones never drop, staged ones change nothing.

mod ingress;

use flowgate_policy::{
    model::{Mode, Peers, Policy, Ports, Rule, Tier},
    outcome::{Side, SideVerdict},
};

/// What plan and oracle say of a flow from the world: verdict, policies by name, staged verdict.
fn ingress(policies: &[Policy]) -> (SideVerdict, Vec<String>, Option<SideVerdict>) {
    let Side::Verdict { verdict, policies, staged, .. } = ingress::decided(policies) else {
        panic!("the pod is an endpoint")
    };
    (verdict, policies.iter().map(|policy| policy.name.to_string()).collect(), staged)
}

fn policy(name: &str, mode: Mode, ingress: Vec<Rule>) -> Policy {
    Policy { mode, ..ingress::policy(name, ingress) }
}

fn anybody() -> Rule {
    Rule::allow(Peers::Any, Ports::Any)
}

#[test]
fn what_an_audited_policy_alone_denies_passes_and_names_it() {
    let closed = policy("closed", Mode::Audit, vec![]);
    assert_eq!(ingress(&[closed]), (SideVerdict::Audit, vec!["closed".into()], None));
    let deny = policy("deny", Mode::Audit, vec![Rule::deny(Peers::Any, Ports::Any)]);
    let open = policy("open", Mode::Enforce, vec![anybody()]);
    assert_eq!(ingress(&[deny, open]), (SideVerdict::Audit, vec!["deny".into()], None));
}

#[test]
fn an_audited_policy_opens_and_closes_nothing_that_others_have_closed() {
    let audited = policy("audited", Mode::Audit, vec![Rule::deny(Peers::Any, Ports::Any)]);
    let closed = policy("closed", Mode::Enforce, vec![]);
    let (verdict, policies, _) = ingress(&[audited, closed.clone()]);
    assert_eq!((verdict, policies), (SideVerdict::Deny, vec!["audited".into()]));
    // Its own allowance takes part: it is what it would be if it were enforced.
    let open = policy("open", Mode::Audit, vec![anybody()]);
    assert_eq!(ingress(&[open, closed]), (SideVerdict::Allow, vec!["open".into()], None));
}

#[test]
fn a_staged_policy_changes_nothing_and_tells_what_it_would() {
    let closed = policy("closed", Mode::Staged, vec![]);
    let staged = Some(SideVerdict::DefaultDeny);
    assert_eq!(ingress(std::slice::from_ref(&closed)), (SideVerdict::DefaultAllow, vec![], staged));
    let open = policy("open", Mode::Enforce, vec![anybody()]);
    let same = (SideVerdict::Allow, vec!["open".into()], None);
    assert_eq!(ingress(&[closed, open.clone()]), same, "the same verdict with it");
    let deny = policy("deny", Mode::Staged, vec![Rule::deny(Peers::Any, Ports::Any)]);
    let (verdict, _, staged) = ingress(&[deny, open]);
    assert_eq!((verdict, staged), (SideVerdict::Allow, Some(SideVerdict::Deny)));
}

#[test]
fn a_staged_policy_of_a_tier_tells_for_its_tier() {
    let mut admin = policy("admin", Mode::Staged, vec![Rule::deny(Peers::Any, Ports::Any)]);
    admin.tier = Tier::Admin { priority: 0 };
    let open = policy("open", Mode::Enforce, vec![anybody()]);
    let expected = (SideVerdict::Allow, vec!["open".into()], Some(SideVerdict::Deny));
    assert_eq!(ingress(&[admin, open]), expected);
}
