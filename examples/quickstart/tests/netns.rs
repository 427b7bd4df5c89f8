//! The whole run, with a kernel that decides and sockets that see it.

#[allow(dead_code, reason = "each test target uses a part of it")]
mod run;

use std::fs;

use run::{Run, run};

const UNUSABLE: i32 = 3;

/// Runs it; nothing, with a word about why, where it can't run.
fn attempt(test: &str, arguments: &[&str]) -> Option<Run> {
    let run = run(arguments);
    if run.status == UNUSABLE {
        println!("SKIPPED {test}: {}", run.stderr.lines().next().unwrap_or_default());
        return None;
    }
    Some(run)
}

#[test]
fn the_built_in_example_behaves_as_predicted() {
    let test = "the_built_in_example_behaves_as_predicted";
    let Some(run) = attempt(test, &["-o", "json"]) else { return };
    assert_eq!(run.status, 0, "{}{}", run.stdout, run.stderr);
    let (lines, summary) = run.json();
    assert_eq!(summary["mismatches"], 0);
    assert_eq!(lines.len(), 80);
    for line in lines {
        assert_eq!(line["observed"], line["allowed"], "{line}");
    }
    assert_eq!(summary["attach"]["endpoints"], 5);
    assert!(summary["apply"]["microseconds"].as_u64().unwrap() > 0);
    assert_eq!(summary["change"]["revoked"]["alive"], false);
    assert_eq!(summary["change"]["kept"]["alive"], true);
}

#[test]
fn the_flow_log_names_policies_and_reasons() {
    let test = "the_flow_log_names_policies_and_reasons";
    let Some(run) = attempt(test, &["-o", "json"]) else { return };
    let (_, summary) = run.json();
    let log = summary["flow_log"].as_array().unwrap();
    let has = |event: &str, policy: &str| {
        log.iter().any(|entry| {
            let policies = entry["policies"].as_array().unwrap();
            entry["event"] == event && policies.iter().any(|named| named == policy)
        })
    };
    assert!(has("new", "NetworkPolicy/shop/cart"), "{log:#?}");
    assert!(has("denied", "NetworkPolicy/shop/closed"), "{log:#?}");
    assert!(has("revoked", "NetworkPolicy/shop/cart"), "{log:#?}");
    let denied = log.iter().find(|entry| entry["event"] == "denied").unwrap();
    assert!(denied["reason"].is_string(), "{denied}");
}

#[test]
fn the_users_own_manifests_are_enforced() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("all.yaml"), include_str!("families.yaml")).unwrap();
    let path = directory.path().to_str().unwrap();
    let test = "the_users_own_manifests_are_enforced";
    let Some(run) = attempt(test, &["--manifests", path, "-o", "json"]) else { return };
    assert_eq!(run.status, 0, "{}{}", run.stdout, run.stderr);
    let (lines, _) = run.json();
    let line = |from: &str, to: &str, proto: &str| {
        let mut lines = lines.iter();
        lines.find(|l| l["from"] == from && l["to"] == to && l["proto"] == proto).unwrap()
    };
    let differ = line("x/dual", "x/guarded", "TCP");
    assert_eq!(differ["observed"], false);
    assert_eq!(differ["families"]["4"]["observed"], true);
    assert_eq!(differ["families"]["6"]["observed"], false);
    assert_eq!(line("x/legacy", "x/guarded", "TCP")["observed"], true);
    assert!(line("x/dual", "x/legacy", "SCTP")["observed"].is_null());
}

#[test]
fn without_policies_everything_is_reached() {
    let directory = tempfile::tempdir().unwrap();
    let pods = "\
kind: Pod
apiVersion: v1
metadata: { name: a }
spec: { containers: [{ name: a, ports: [{ containerPort: 80 }] }] }
---
kind: Pod
apiVersion: v1
metadata: { name: b }
";
    fs::write(directory.path().join("pods.yaml"), pods).unwrap();
    let path = directory.path().to_str().unwrap();
    let test = "without_policies_everything_is_reached";
    let Some(run) = attempt(test, &["--manifests", path]) else { return };
    assert_eq!(run.status, 0, "{}{}", run.stdout, run.stderr);
    assert!(run.stdout.contains("all as predicted"), "{}", run.stdout);
    assert!(run.stdout.contains("would revoke one TCP connection"), "{}", run.stdout);
}
