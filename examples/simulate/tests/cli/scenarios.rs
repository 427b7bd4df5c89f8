//! The scenarios of the conformance crate, asked of the binary.

use flowgate_conformance::scenarios::{self, Expectation, Family, Step};

use crate::run::ask;

#[test]
fn the_scenarios_come_out_as_expected() {
    for scenario in scenarios::all() {
        for step in &scenario.steps {
            check(&format!("{} {}", scenario.name, step.name), step);
        }
    }
}

fn check(name: &str, step: &Step) {
    let probes: String = step.probes.iter().map(line).collect();
    let answers = ask(&step.manifests, &probes).answers();
    assert_eq!(answers.len(), step.probes.len(), "{name}");
    for (answer, probe) in answers.iter().zip(&step.probes) {
        assert_eq!(answer["allowed"], probe.allowed, "{name}: {probe}: {answer}");
    }
}

fn line(probe: &Expectation) -> String {
    let Expectation { from, to, protocol, port, .. } = probe;
    let family = match probe.family {
        Family::V4 => 4,
        Family::V6 => 6,
    };
    let ends = format!(r#""from":"{from}","to":"{to}""#);
    let rest = format!(r#""port":{port},"proto":"{protocol}","family":{family}"#);
    format!("{{{ends},{rest}}}\n")
}
