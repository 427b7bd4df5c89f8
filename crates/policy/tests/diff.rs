//! What plans decide differently: nothing that differs is left out, and what is told differs.

use flowgate_abi::policy::Direction;
use flowgate_conformance::generate::{Case, Generator};
use flowgate_identity::{Labels, LocalAllocator};
use flowgate_policy::{
    compile::Compiler,
    diff::{Difference, Owner, PlanDiff, Said},
    model::Response,
    options::Options,
    outcome::{Flow, Side, SideVerdict},
    plan::Plan,
};

const SETS: usize = 300;
const FLOWS_PER_SET: usize = 60;

fn compile(case: &Case, options: &Options) -> Plan {
    let mut compiler = Compiler::new(LocalAllocator::new());
    compiler.compile(&case.inventory, &case.policies, options).expect("a case is sound")
}

/// Where nobody judges, everything passes.
fn said(side: &Side) -> Said {
    let (response, staged) = (side.response(), side.staged());
    Said { verdict: side.verdict().unwrap_or(SideVerdict::DefaultAllow), response, staged }
}

fn half(plan: &Plan, flow: &Flow, direction: Direction) -> Said {
    let outcome = plan.decide(flow);
    match direction {
        Direction::Egress => said(&outcome.egress),
        Direction::Ingress => said(&outcome.ingress),
    }
}

/// The case with other policies, or with other workloads, or both, or with another answer.
fn changed(generator: &mut Generator, case: &Case) -> Case {
    let mut changed = case.clone();
    let kind = generator.below(5);
    if kind == 4 {
        let at = generator.below(changed.policies.len() as u64) as usize;
        changed.policies[at].response = Some(Response::Reset);
    } else if kind != 0 {
        let at = generator.below(changed.policies.len() as u64) as usize;
        changed.policies.remove(at);
    }
    let workloads = &mut changed.inventory.workloads;
    let at = generator.below(workloads.len() as u64) as usize;
    match kind {
        0 | 2 => workloads[at].labels = Labels::from_iter([("app", "web"), ("tier", "db")]),
        3 => drop(workloads.remove(at)),
        _ => {}
    }
    changed
}

#[test]
fn differences_are_complete_and_true() {
    let mut generator = Generator::new(77);
    let (mut differing, mut told) = (0, 0);
    for set in 0..SETS {
        let case = generator.case();
        let options = generator.options(&case);
        let later = changed(&mut generator, &case);
        let (before, after) = (compile(&case, &options), compile(&later, &options));
        let diff = before.diff(&after);
        for difference in &diff.differences {
            told += is_true(difference, &before, &after, set);
        }
        for _ in 0..FLOWS_PER_SET {
            let flow = generator.flow(&case);
            for direction in [Direction::Egress, Direction::Ingress] {
                let says = [&before, &after].map(|plan| half(plan, &flow, direction));
                if says[0] != says[1] {
                    differing += 1;
                    let held = holds(&diff, &before, &after, &flow, direction);
                    assert!(held, "set {set}: {flow} {direction:?} {says:?} isn't told: {diff:#?}");
                }
            }
        }
    }
    assert!(differing > SETS && told > SETS, "too few: {differing} flows, {told} told");
}

#[test]
fn a_plan_does_not_differ_from_itself() {
    let mut generator = Generator::new(5);
    for _ in 0..50 {
        let case = generator.case();
        let plan = compile(&case, &Options::default());
        assert_eq!(plan.diff(&plan), PlanDiff::default());
        let mut turned = case.clone();
        turned.policies.reverse();
        assert!(plan.diff(&compile(&turned, &Options::default())).is_empty());
    }
}

#[test]
fn backwards_is_the_same_the_other_way_round() {
    let mut generator = Generator::new(9);
    for _ in 0..50 {
        let case = generator.case();
        let later = changed(&mut generator, &case);
        let [one, other] = [case, later].map(|case| compile(&case, &Options::default()));
        let (there, back) = (one.diff(&other), other.diff(&one));
        assert_eq!((&there.added, &there.removed), (&back.removed, &back.added));
        assert_eq!(there.differences.is_empty(), back.differences.is_empty());
    }
}

/// Each of its flows is judged as it says; the count of them.
fn is_true(difference: &Difference, before: &Plan, after: &Plan, set: usize) -> usize {
    assert_ne!(difference.before, difference.after);
    let mut flows = 0;
    for (_, _, flow) in difference.flows() {
        let direction = difference.direction;
        let says = [before, after].map(|plan| half(plan, &flow, direction));
        let expected = [difference.before, difference.after];
        assert_eq!(says, expected, "set {set}: {flow} {direction:?}");
        flows += 1;
    }
    assert_ne!(flows, 0, "a difference without a flow: {difference:#?}");
    flows
}

fn holds(diff: &PlanDiff, before: &Plan, after: &Plan, flow: &Flow, direction: Direction) -> bool {
    let (own, other) = match direction {
        Direction::Egress => (flow.source, flow.destination),
        Direction::Ingress => (flow.destination, flow.source),
    };
    let gone = diff.added.iter().chain(&diff.removed);
    if gone.clone().any(|presence| presence.address == own || presence.address == other) {
        return true;
    }
    let Some(subject) = before.endpoint(own).or(after.endpoint(own)) else { return false };
    assert!(!gone.clone().any(|p| p.owner == Owner::Workload(subject.workload.clone())));
    let key = |plan: &Plan| plan.peers[plan.peer_of(other).unwrap() as usize].key.clone();
    let (old, new) = (key(before), key(after));
    diff.differences.iter().any(|difference| {
        difference.direction == direction
            && difference.subjects.iter().any(|one| one.workload == subject.workload)
            && difference.peers.iter().any(|peer| peer.before == old && peer.after == new)
            && difference.services.iter().any(|services| services.contain(flow.protocol))
            && half(before, flow, direction) == difference.before
            && half(after, flow, direction) == difference.after
    })
}
