//! Policies on trial, by name: audited ones never drop, staged ones change nothing.

use flowgate_identity::{Labels, LocalAllocator, Selector};
use flowgate_policy::{
    compile::Compiler,
    inventory::{Inventory, Workload, WorkloadRef},
    model::{
        Mode, NamespaceSelector, Peers, Policy, PolicyKind, PolicyRef, Ports, Rule, Tier,
        WorkloadSelector,
    },
    options::Options,
    oracle,
    outcome::{Flow, FlowProtocol, Side, SideVerdict},
};

const POD: &str = "198.18.0.1";
const WORLD: &str = "203.0.113.1";

fn inventory() -> Inventory {
    let pod = Workload {
        id: WorkloadRef { namespace: "a".into(), name: "web".into() },
        labels: Labels::from_iter([("app", "web")]),
        addresses: vec![POD.parse().unwrap()],
        ports: vec![],
        node: None,
        host_network: false,
    };
    Inventory { workloads: vec![pod], ..Inventory::default() }
}

fn policy(name: &str, mode: Mode, ingress: Vec<Rule>) -> Policy {
    let id =
        PolicyRef { kind: PolicyKind::FlowgatePolicy, namespace: "a".into(), name: name.into() };
    let subject = WorkloadSelector {
        namespaces: NamespaceSelector::Named("a".into()),
        labels: Selector::everything(),
    };
    Policy { mode, ingress: Some(ingress), ..Policy::new(id, subject) }
}

/// What plan and oracle say of a flow from the world: verdict, policies by name, staged verdict.
fn ingress(policies: &[Policy]) -> (SideVerdict, Vec<String>, Option<SideVerdict>) {
    let flow = Flow {
        source: WORLD.parse().unwrap(),
        destination: POD.parse().unwrap(),
        protocol: FlowProtocol::Tcp(80),
    };
    let options = Options::default();
    let mut compiler = Compiler::new(LocalAllocator::new());
    let plan = compiler.compile(&inventory(), policies, &options).unwrap();
    let outcome = plan.decide(&flow);
    assert_eq!(outcome, oracle::decide(&inventory(), policies, &options, &flow));
    let Side::Verdict { verdict, policies, staged } = outcome.ingress else {
        panic!("the pod is an endpoint")
    };
    (verdict, policies.iter().map(|policy| policy.name.to_string()).collect(), staged)
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
