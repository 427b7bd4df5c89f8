//! The scenarios: the data is complete, and the evaluators say what is expected.

use std::{collections::BTreeSet, fs, path::Path};

use flowgate_conformance::scenarios::{self, Scenario, Step};
use flowgate_identity::LocalAllocator;
use flowgate_kubernetes::Manifests;
use flowgate_policy::{
    compile::Compiler,
    options::Options,
    oracle,
    outcome::{Flow, Outcome},
    plan::Plan,
    simulate::Simulator,
};

fn steps(all: &[Scenario]) -> impl Iterator<Item = (String, &Step)> {
    let named = |scenario: &Scenario, step: &Step| match step.name {
        "" => scenario.name.to_owned(),
        name => format!("{}/{name}", scenario.name),
    };
    all.iter().flat_map(move |scenario| {
        scenario.steps.iter().map(move |step| (named(scenario, step), step))
    })
}

fn read(name: &str, step: &Step) -> Manifests {
    let mut manifests = Manifests::default();
    manifests.read(name, &step.manifests).unwrap();
    assert!(manifests.warnings.is_empty(), "{name}: {:?}", manifests.warnings);
    manifests
}

fn compile(manifests: &Manifests) -> Plan {
    let mut compiler = Compiler::new(LocalAllocator::new());
    compiler.compile(&manifests.inventory, &manifests.policies, &Options::default()).unwrap()
}

/// Every expectation of every step, against what `evaluate` says.
fn check<E: Fn(&Flow) -> Outcome>(evaluator: impl Fn(Manifests) -> E) {
    let mut wrong = Vec::new();
    for (name, step) in steps(&scenarios::all()) {
        let manifests = read(&name, step);
        let inventory = manifests.inventory.clone();
        let evaluate = evaluator(manifests);
        for probe in &step.probes {
            let outcome = evaluate(&probe.flow(&inventory).unwrap());
            if outcome.allowed() != probe.allowed {
                wrong.push(format!("{name}: {probe}: expected {}: {outcome:?}", probe.allowed));
            }
        }
    }
    let first: Vec<_> = wrong.iter().take(10).map(String::as_str).collect();
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), first.join("\n"));
}

#[test]
fn the_oracle_agrees() {
    let options = Options::default();
    check(|manifests| {
        let options = &options;
        move |flow| oracle::decide(&manifests.inventory, &manifests.policies, options, flow)
    });
}

#[test]
fn the_plan_agrees() {
    check(|manifests| {
        let plan = compile(&manifests);
        move |flow| plan.decide(flow)
    });
}

/// The pipeline over host tables.
#[test]
fn the_simulation_agrees() {
    check(|manifests| {
        let simulator = Simulator::new(&compile(&manifests)).unwrap();
        move |flow| simulator.simulate(flow).unwrap()
    });
}

#[test]
fn they_are_in_order() {
    let all = scenarios::all();
    assert_eq!(all.len(), 85);
    for (index, scenario) in all.iter().enumerate() {
        let number = format!("{:02}-", index + 1);
        assert!(scenario.name.starts_with(&number), "{} isn't {number}", scenario.name);
    }
}

/// Nine pods, eight others, two ports, three protocols, two families.
#[test]
fn everything_is_expected_once() {
    for (name, step) in steps(&scenarios::all()) {
        let asked: BTreeSet<String> = step.probes.iter().map(ToString::to_string).collect();
        assert_eq!((asked.len(), step.probes.len()), (864, 864), "{name}");
    }
}

/// A step that expects what the one before did shows nothing.
#[test]
fn every_step_changes_something() {
    for scenario in scenarios::all() {
        for pair in scenario.steps.windows(2) {
            assert_ne!(pair[0].probes, pair[1].probes, "{}", scenario.name);
            assert_ne!(pair[0].manifests, pair[1].manifests, "{}", scenario.name);
        }
    }
}

/// No two steps ask the same of the evaluators.
#[test]
fn no_situation_occurs_twice() {
    let all = scenarios::all();
    let mut seen = BTreeSet::new();
    for scenario in &all {
        let situation: Vec<_> = scenario.steps.iter().map(|step| &step.manifests).collect();
        assert!(seen.insert(situation), "{}", scenario.name);
    }
}

#[test]
fn what_is_written_is_listed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let mut written = BTreeSet::new();
    for entry in fs::read_dir(&root).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("world") {
            written.extend(steps_in(&path, &root));
        }
    }
    let all = scenarios::all();
    let listed: BTreeSet<String> = steps(&all).map(|(name, _)| name).collect();
    assert_eq!(written, listed);
}

/// The directory itself, or the steps in it.
fn steps_in(directory: &Path, root: &Path) -> Vec<String> {
    let name = |path: &Path| path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
    if directory.join("expect.jsonl").exists() {
        return vec![name(directory)];
    }
    fs::read_dir(directory).unwrap().map(|entry| name(&entry.unwrap().path())).collect()
}
