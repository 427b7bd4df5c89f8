//! Oracle, plan and host pipeline say the same about a million generated cases: every kind of policy at once,
//! aimed at the boundaries of rules.
//!
//! A case is a flow under one policy set; each set is asked a hundred. `FLOWGATE_CASES` is their number.

use std::collections::BTreeMap;

use flowgate_conformance::{generate::Generator, parallel};
use flowgate_identity::LocalAllocator;
use flowgate_policy::{
    compile::Compiler,
    oracle,
    outcome::{Outcome, SideVerdict},
    simulate::Simulator,
};

const FLOWS: usize = 100;

fn sets() -> usize {
    let cases = std::env::var("FLOWGATE_CASES").ok().and_then(|text| text.parse().ok());
    cases.unwrap_or(1_000_000_usize).div_ceil(FLOWS)
}

/// How often each verdict came up.
type Shares = BTreeMap<SideVerdict, usize>;

fn add(mut all: Shares, more: Shares) -> Shares {
    for (verdict, count) in more {
        *all.entry(verdict).or_default() += count;
    }
    all
}

/// The verdict that counts: that of the end that denies, the source's first, or else the destination's.
fn deciding(outcome: &Outcome) -> Option<SideVerdict> {
    let ends = [outcome.egress.verdict(), outcome.ingress.verdict()];
    let denied = ends.into_iter().flatten().find(|verdict| !verdict.allowed());
    denied.or(ends[1]).or(ends[0])
}

/// One policy set and its flows; two of three at its rules.
fn set(number: usize) -> Shares {
    let mut generator = Generator::new((number as u64).wrapping_mul(0x9e37_79b9) ^ 0xd1ff);
    let case = generator.case();
    let options = generator.options(&case);
    let mut compiler = Compiler::new(LocalAllocator::new());
    let plan = compiler.compile(&case.inventory, &case.policies, &options).expect("a sound case");
    let simulator = Simulator::new(&plan).expect("room");
    let mut shares = Shares::new();
    for flow in 0..FLOWS {
        let flow = match flow % 3 {
            0 => generator.flow(&case),
            _ => generator.flow_at_a_rule(&case),
        };
        let expected = oracle::decide(&case.inventory, &case.policies, &options, &flow);
        assert_eq!(plan.decide(&flow), expected, "plan, set {number}: {flow}\n{case:#?}");
        let simulated = simulator.simulate(&flow).expect("one family");
        assert_eq!(simulated, expected, "pipeline, set {number}: {flow}\n{case:#?}");
        if let Some(verdict) = deciding(&expected) {
            *shares.entry(verdict).or_default() += 1;
        }
    }
    shares
}

#[test]
fn oracle_plan_and_pipeline_agree_on_a_million_cases() {
    let sets = sets();
    let shares = parallel::fold(sets, set, add);
    let judged: usize = shares.values().sum();
    let of = |verdicts: &[SideVerdict]| -> usize {
        verdicts.iter().filter_map(|verdict| shares.get(verdict)).sum()
    };
    use SideVerdict::{Allow, DefaultAllow, DefaultDeny, Deny};
    println!("{} cases under {sets} policy sets, {judged} judged: {shares:?}", sets * FLOWS);
    for (name, verdicts) in
        [("allowed", &[Allow][..]), ("denied", &[Deny]), ("default", &[DefaultAllow, DefaultDeny])]
    {
        let count = of(verdicts);
        println!("{name}: {count} ({} ‰)", 1000 * count / judged.max(1));
        assert!(count * 10 >= judged, "too few {name}");
    }
}
