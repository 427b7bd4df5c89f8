//! A plan and the oracle say the same about every flow, over generated inventories and policies.

use std::{collections::BTreeMap, fmt};

use flowgate_conformance::{
    generate::{Case, Generator},
    strategy,
};
use flowgate_identity::LocalAllocator;
use flowgate_policy::{
    compile::Compiler,
    model::{Directions, Mode, Policy, Response, Tier},
    options::Options,
    oracle,
    outcome::{Side, SideVerdict},
    plan::Plan,
};
use proptest::{prelude::*, test_runner::FileFailurePersistence};

const SETS: usize = 1000;
const FLOWS_PER_SET: usize = 60;

fn compile(case: &Case, options: &Options) -> Plan {
    let mut compiler = Compiler::new(LocalAllocator::new());
    compiler.compile(&case.inventory, &case.policies, options).expect("a case is sound")
}

/// How often each verdict came up.
#[derive(Default)]
struct Shares(BTreeMap<SideVerdict, usize>);

impl Shares {
    fn count(&mut self, side: &Side) {
        if let Some(verdict) = side.verdict() {
            *self.0.entry(verdict).or_default() += 1;
        }
    }

    fn permille(&self, verdict: SideVerdict) -> usize {
        let all: usize = self.0.values().sum();
        1000 * self.0.get(&verdict).unwrap_or(&0) / all.max(1)
    }
}

impl fmt::Display for Shares {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (verdict, count) in &self.0 {
            write!(f, "{verdict} {count} ({} ‰) ", self.permille(*verdict))?;
        }
        Ok(())
    }
}

#[test]
fn plan_and_oracle_agree() {
    let mut generator = Generator::new(2026);
    let (mut shares, mut staged) = (Shares::default(), 0);
    let mut responses =
        BTreeMap::from([Response::Silence, Response::Icmp, Response::Reset].map(|r| (r, 0)));
    for set in 0..SETS {
        let case = generator.case();
        let options = generator.options(&case);
        let plan = compile(&case, &options);
        for _ in 0..FLOWS_PER_SET {
            let flow = generator.flow(&case);
            let expected = oracle::decide(&case.inventory, &case.policies, &options, &flow);
            assert_eq!(plan.decide(&flow), expected, "set {set}, {flow}\n{options:?}\n{case:#?}");
            shares.count(&expected.egress);
            shares.count(&expected.ingress);
            if !expected.allowed() {
                *responses.entry(expected.response()).or_default() += 1;
            }
            staged += usize::from(expected.egress.staged().or(expected.ingress.staged()).is_some());
        }
    }
    println!("{} flows under {SETS} policy sets: {shares}", SETS * FLOWS_PER_SET);
    let denied: usize = responses.values().sum();
    println!("{denied} denied: {responses:?}");
    assert!(responses.values().all(|count| count * 10 >= denied), "{responses:?}");
    use SideVerdict::{Allow, Audit, DefaultAllow, DefaultDeny, Deny};
    let least = [(Allow, 100), (DefaultAllow, 100), (DefaultDeny, 100), (Deny, 30), (Audit, 5)];
    for (verdict, least) in least {
        assert!(shares.permille(verdict) >= least, "too few of {verdict}: {shares}");
    }
    assert!(staged > SETS * FLOWS_PER_SET / 100, "too few staged verdicts: {staged}");
}

fn config() -> ProptestConfig {
    let failures = FileFailurePersistence::WithSource("regressions");
    ProptestConfig {
        cases: 200,
        failure_persistence: Some(Box::new(failures)),
        ..Default::default()
    }
}

proptest! {
    #![proptest_config(config())]

    /// The same, with choices that shrink.
    #[test]
    fn plan_and_oracle_agree_on_drawn_choices((case, flows) in strategy::cases_with_flows(40)) {
        let options = Options::default();
        let plan = compile(&case, &options);
        for flow in flows {
            let expected = oracle::decide(&case.inventory, &case.policies, &options, &flow);
            prop_assert_eq!(plan.decide(&flow), expected, "{}", flow);
        }
    }

    #[test]
    fn the_order_of_the_input_makes_no_difference(case in strategy::cases()) {
        let plan = compile(&case, &Options::default());
        let mut turned = case;
        turned.inventory.workloads.reverse();
        turned.inventory.nodes.reverse();
        turned.policies.reverse();
        turned.policies.iter_mut().for_each(turn_rules);
        prop_assert_eq!(compile(&turned, &Options::default()), plan);
    }

    /// One more policy that allows nothing can turn a default allow into a deny, and nothing else.
    #[test]
    fn a_policy_without_rules_never_allows((case, flows) in strategy::cases_with_flows(20)) {
        let before = compile(&case, &Options::default());
        let mut more = case;
        let mut closed: Policy = more.policies[0].clone();
        closed.id.name = "closed".into();
        closed.default_deny = Directions::all();
        closed.mode = Mode::Enforce;
        closed.tier = Tier::Namespace;
        closed.ingress = Some(Vec::new());
        closed.egress = Some(Vec::new());
        more.policies.push(closed);
        let after = compile(&more, &Options::default());
        for flow in flows {
            let allowed = |plan: &Plan| plan.decide(&flow).allowed();
            prop_assert!(allowed(&before) || !allowed(&after), "{}", flow);
        }
    }

    #[test]
    fn the_tables_are_in_bounds_and_say_nothing_twice(case in strategy::cases()) {
        check_tables(&compile(&case, &Options::default()));
    }
}

/// Rules have an order where tiers have one.
fn turn_rules(policy: &mut Policy) {
    if policy.tier != Tier::Namespace {
        return;
    }
    for rules in [&mut policy.ingress, &mut policy.egress].into_iter().flatten() {
        rules.reverse();
    }
}

fn check_tables(plan: &Plan) {
    let groups: Vec<&[u16]> = plan.row.chunks(plan.peer_classes as usize).collect();
    let rows: Vec<&[u16]> = plan.decision.chunks(plan.port_classes as usize).collect();
    assert!(is_set(&groups) && is_set(&rows) && is_set(&plan.decisions) && is_set(&plan.cookies));
    assert!(plan.row.iter().all(|&row| usize::from(row) < rows.len()));
    assert!(plan.decision.iter().all(|&decision| usize::from(decision) < plan.decisions.len()));
    assert!(plan.decisions.iter().all(|d| (d.cookie as usize) < plan.cookies.len()));
    assert!(plan.peers.iter().all(|peer| u32::from(peer.class) < plan.peer_classes));
    assert!(plan.port_class.iter().flatten().all(|&class| u32::from(class) < plan.port_classes));
    assert!(plan.ipcache.is_sorted() && plan.peers.is_sorted_by(|a, b| a.key < b.key));
    // A complete plan has no cell left that a packet could read as unreachable.
    for group in &groups[1..] {
        assert!(group[1..].iter().all(|&row| row != 0));
    }
    assert!(rows[1..].iter().all(|row| row.iter().all(|&decision| decision != 0)));
}

fn is_set<T: PartialEq>(items: &[T]) -> bool {
    items.iter().enumerate().all(|(at, item)| !items[..at].contains(item))
}
