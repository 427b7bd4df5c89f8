//! An account ends with what oracle and plan say, and its parts fit its end.

use flowgate_conformance::generate::{Case, Generator};
use flowgate_identity::LocalAllocator;
use flowgate_policy::{
    account::{self, Conclusion, EndAccount},
    compile::Compiler,
    model::Mode,
    oracle,
    outcome::SideVerdict,
};

const SETS: usize = 400;
const FLOWS_PER_SET: usize = 60;

#[test]
fn an_account_ends_with_the_verdict_of_oracle_and_plan() {
    let mut generator = Generator::new(411);
    let (mut trials, mut passed) = (0, 0);
    for set in 0..SETS {
        let case = generator.case();
        let options = generator.options(&case);
        let mut compiler = Compiler::new(LocalAllocator::new());
        let plan = compiler.compile(&case.inventory, &case.policies, &options).unwrap();
        for _ in 0..FLOWS_PER_SET {
            let flow = generator.flow(&case);
            let account = account::explain(&case.inventory, &case.policies, &options, &flow);
            let expected = oracle::decide(&case.inventory, &case.policies, &options, &flow);
            assert_eq!(account.outcome(), expected, "set {set}, {flow}\n{case:#?}");
            assert_eq!(account.outcome(), plan.decide(&flow), "set {set}, {flow}");
            for end in account.egress.iter().chain(&account.ingress) {
                fits_its_end(&case, end);
                trials += end.trials.len();
                passed += passes(end);
            }
        }
    }
    assert!(trials > SETS && passed > SETS, "too few trials ({trials}) or passes ({passed})");
}

fn passes(end: &EndAccount) -> usize {
    end.tiers.iter().filter(|tier| tier.conclusion == Conclusion::Passes).count()
}

/// The rules that decide are of the policies that decide, and match what their tier concludes.
fn fits_its_end(case: &Case, end: &EndAccount) {
    assert_eq!(end.tiers.len(), 3);
    let mut decided = None;
    for tier in &end.tiers {
        for candidate in &tier.candidates {
            let rule = &candidate.rule;
            let policy = case.policies.iter().find(|policy| policy.id == rule.policy).unwrap();
            let known = &policy.rules(rule.direction).unwrap()[rule.index];
            assert_eq!((known.action, policy.mode), (candidate.action, candidate.mode));
            assert!(!candidate.decides || candidate.mode != Mode::Staged);
        }
        match tier.conclusion {
            Conclusion::Decides(verdict) => {
                assert!(decided.replace(verdict).is_none(), "two tiers decide: {end:?}");
                let rules = tier.candidates.iter().filter(|candidate| candidate.decides);
                let isolating = tier.isolating.iter().filter(|isolation| isolation.decides);
                let rules = rules.map(|candidate| candidate.rule.policy.clone());
                let policies = rules.chain(isolating.map(|isolation| isolation.policy.clone()));
                assert_eq!(policies.collect::<std::collections::BTreeSet<_>>(), end.policies);
            }
            Conclusion::NotAsked => assert!(decided.is_some() || end.from_own_node),
            Conclusion::Silent | Conclusion::Passes => assert!(decided.is_none()),
        }
    }
    let expected = match end.verdict {
        SideVerdict::Audit => decided,
        SideVerdict::DefaultAllow => None,
        SideVerdict::Allow if end.from_own_node => None,
        verdict => Some(verdict),
    };
    assert_eq!(decided, expected, "{end:?}");
}
