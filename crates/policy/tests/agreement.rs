//! A plan and the oracle say the same about every flow, over generated inventories and policies.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

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
        let narrow = compile(&case, &Options { dense_cells: 0, ..Options::default() });
        prop_assert!(!narrow.columns.is_empty() && narrow.scattered.is_empty());
        check_tables(&narrow);
        let scattered = compile(&case, &scattered());
        prop_assert!(!scattered.scattered.is_empty());
        check_scattered(&scattered);
    }

    #[test]
    fn scattered_narrow_and_dense_plans_decide_alike(case in strategy::cases()) {
        let [narrow, dense] = [0, usize::MAX].map(|dense_cells| {
            compile(&case, &Options { dense_cells, ..Options::default() })
        });
        prop_assert!(narrow.diff(&dense).is_empty());
        prop_assert!(compile(&case, &scattered()).diff(&dense).is_empty());
    }
}

/// Rows lie in one another's gaps, however few there are.
fn scattered() -> Options {
    Options { dense_cells: 0, narrow_cells: 0, ..Options::default() }
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
    assert!(is_set(&groups));
    check_rows(plan, &groups);
    assert!(plan.decision.iter().all(|&decision| usize::from(decision) < plan.decisions.len()));
    check_numbers(plan);
}

/// Whatever is read of a row with a column of its group is the group's, and a decision.
fn check_scattered(plan: &Plan) {
    let groups: Vec<&[u16]> = plan.row.chunks(plan.peer_classes as usize).collect();
    assert_eq!((plan.scattered.len(), plan.decision[0]), (groups.len(), 0));
    assert!(groups[0].iter().all(|&row| row == 0), "nobody's");
    let is_decision =
        |cell: u32| (1..plan.decisions.len()).contains(&usize::from(plan.decision[cell as usize]));
    let mut begin = 1;
    for (at, group) in groups.iter().enumerate().skip(1) {
        let (told, columns) = (plan.scattered[at], &plan.columns[at]);
        assert_eq!((columns.len(), columns[0]), (plan.port_classes as usize, 0));
        let rows: BTreeSet<u16> = group[1..].iter().copied().collect();
        let count = u16::try_from(rows.len()).unwrap();
        assert_eq!(rows, (1..=count).collect());
        assert_eq!((told.record(1), told.record(u32::from(count) + 1)), (begin, told.area));
        let next = plan.scattered.get(at + 1);
        let end = next.map_or(index(plan.decision.len()), |next| next.record(1));
        for (row, &column) in rows.iter().flat_map(|row| columns.iter().map(move |c| (row, c))) {
            let (record, column) = (told.record(u32::from(*row)), u32::from(column));
            let place = record + 1 + told.block(column);
            assert!(is_decision(record) && place < told.record(u32::from(*row) + 1));
            let place = plan.decision[place as usize];
            let pair = told.pair(u32::from(place), column);
            assert!((told.area..end).contains(&pair) && (told.area..end).contains(&(pair + 1)));
            let own = place != 0 && plan.decision[pair as usize] == place;
            assert!(!own || is_decision(pair + 1));
        }
        begin = end;
    }
    check_numbers(plan);
}

fn index(of: usize) -> u32 {
    u32::try_from(of).expect("few")
}

fn check_numbers(plan: &Plan) {
    assert!(is_set(&plan.decisions) && is_set(&plan.cookies));
    assert!(plan.decisions.iter().all(|d| (d.cookie as usize) < plan.cookies.len()));
    assert!(plan.peers.iter().all(|peer| u32::from(peer.class) < plan.peer_classes));
    assert!(plan.port_class.iter().flatten().all(|&class| u32::from(class) < plan.port_classes));
    assert!(plan.ipcache.is_sorted() && plan.peers.is_sorted_by(|a, b| a.key < b.key));
}

/// A complete plan has no cell left that a packet could read as unreachable, and none that means two
/// things.
fn check_rows(plan: &Plan, groups: &[&[u16]]) {
    let class_is_column: Vec<u16> = (0..=u16::MAX).take(plan.port_classes as usize).collect();
    assert!(plan.columns.is_empty() || plan.columns.len() == groups.len());
    let mut rows: BTreeMap<u16, (&[u16], &[u16])> = BTreeMap::new();
    for (at, group) in groups.iter().enumerate().skip(1) {
        let columns = plan.columns.get(at).map_or(class_is_column.as_slice(), |columns| columns);
        assert_eq!((columns.len(), columns[0]), (plan.port_classes as usize, 0));
        let width = usize::from(*columns.iter().max().expect("class 0")) + 1;
        for &row in &group[1..] {
            let cells = &plan.decision[usize::from(row) * plan.step as usize..][..width];
            assert!(cells.iter().all(|&decision| decision != 0));
            assert_eq!(*rows.entry(row).or_insert((columns, cells)), (columns, cells));
        }
    }
    assert!(is_set(&rows.values().collect::<Vec<_>>()));
    let widest = rows.values().map(|(_, cells)| cells.len()).max().unwrap_or_default();
    let mut end = widest;
    for (row, (_, cells)) in &rows {
        let begin = usize::from(*row) * plan.step as usize;
        assert!(begin >= end, "row {row} is in another");
        end = begin + cells.len();
    }
    assert!(plan.decision[..widest].iter().all(|&decision| decision == 0), "row 0 denies");
}

fn is_set<T: PartialEq>(items: &[T]) -> bool {
    items.iter().enumerate().all(|(at, item)| !items[..at].contains(item))
}
