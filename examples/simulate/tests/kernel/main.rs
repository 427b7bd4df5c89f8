//! The kernel backend: the programs say what the host says.
//!
//! Needs the privileges that `flowgate_lab::available` names; what it makes lies in namespaces of its
//! own.

#[path = "../run/mod.rs"]
mod run;

use std::{fmt::Write, fs, path::Path};

use flowgate_conformance::scenarios;

use crate::run::{BINARY, SHOP, directory, run_in};

/// Whether the test was skipped, which it says.
fn skipped() -> bool {
    if !Path::new(BINARY).exists() {
        println!("SKIPPED: {BINARY} isn't on this machine");
        return true;
    }
    let available = flowgate_lab::available();
    if let Err(missing) = &available {
        println!("SKIPPED: {missing}");
    }
    available.is_err()
}

/// Both backends answer the same, and none disagrees.
fn check(manifests: &str, probes: Option<&str>) -> usize {
    let directory = directory(manifests, probes.unwrap_or_default());
    let mut asked = vec!["--manifests", "manifests.yaml", "-o", "json"];
    if probes.is_some() {
        asked.extend(["--probes", "probes.jsonl"]);
    }
    let host = run_in(directory.path(), &asked);
    asked.extend(["--backend", "kernel"]);
    let kernel = run_in(directory.path(), &asked);
    assert_eq!(kernel.status, 0, "{}", kernel.stderr);
    assert_eq!(kernel.stdout, host.stdout);
    host.answers().len()
}

#[test]
fn every_pair_of_the_shop() {
    if !skipped() {
        assert_eq!(check(SHOP, None), (6 * 5 - 2) * 4);
    }
}

/// Between all kinds of ends, over all protocols, also where the packet opens no flow.
#[test]
fn every_kind_of_end_and_protocol() {
    if skipped() {
        return;
    }
    let ends = [
        "shop/web",
        "shop/front",
        "other/guarded",
        "other/proxy",
        "node:n1",
        "node:n2",
        "ip:203.0.113.1",
        "ip:198.18.0.1",
    ];
    let kinds = [
        r#""port":8080"#,
        r#""port":443"#,
        r#""port":8080,"proto":"UDP""#,
        r#""port":8080,"proto":"SCTP""#,
        r#""proto":"ICMP""#,
        r#""proto":"ICMP","type":13"#,
        r#""proto":"ICMP","type":3"#,
        r#""proto":"ICMP","type":0"#,
    ];
    let mut probes = String::new();
    for (from, to) in ends.iter().flat_map(|from| ends.iter().map(move |to| (from, to))) {
        for kind in kinds {
            writeln!(probes, r#"{{"from":"{from}","to":"{to}",{kind}}}"#).unwrap();
        }
    }
    assert_eq!(check(SHOP, Some(&probes)), ends.len() * ends.len() * kinds.len());
}

#[test]
fn icmp6_echo() {
    if !skipped() {
        let probe = |to: &str| format!(r#"{{"from":"shop/front","to":"{to}","proto":"ICMPv6"}}"#);
        let probes = [probe("shop/web"), probe("other/guarded"), probe("other/modern")];
        assert_eq!(check(SHOP, Some(&probes.join("\n"))), 3);
    }
}

/// Some of them; whoever tests the programs asks them all.
#[test]
fn scenarios_end_to_end() {
    if skipped() {
        return;
    }
    for scenario in scenarios::all().iter().step_by(11) {
        let step = scenario.steps.last().unwrap();
        assert_eq!(check(&step.manifests, None), 9 * 8 * 6, "{}", scenario.name);
    }
}

/// Nobody's interfaces change: what the run made is gone with it.
#[test]
fn nothing_is_left_behind() {
    if !skipped() {
        let interfaces = || fs::read_to_string("/proc/net/dev").unwrap().lines().count();
        let before = interfaces();
        check(SHOP, None);
        assert_eq!(interfaces(), before);
    }
}
