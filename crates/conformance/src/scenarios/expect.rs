//! What is expected, as it is written: patterns, of which the last that matches counts.

use std::sync::Arc;

use flowgate_policy::{inventory::WorkloadRef, model::Protocol};
use serde::Deserialize;

use super::{Expectation, Family};

const NAMESPACES: [&str; 3] = ["x", "y", "z"];
const PODS: [&str; 3] = ["a", "b", "c"];
const PORTS: [u16; 2] = [80, 81];
const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];

/// One line of `expect.jsonl`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    from: String,
    to: String,
    /// Both, where it is missing.
    port: Option<u16>,
    /// All, where it is missing.
    proto: Option<Protocol>,
    allowed: bool,
}

impl Line {
    fn matches(&self, one: &Expectation) -> bool {
        selects(&self.from, &one.from)
            && selects(&self.to, &one.to)
            && self.port.is_none_or(|port| port == one.port)
            && self.proto.is_none_or(|proto| proto == one.protocol)
    }
}

/// `*`, `namespace/*` or `namespace/name`.
fn selects(pattern: &str, pod: &WorkloadRef) -> bool {
    match pattern.split_once('/') {
        None => pattern == "*",
        Some((namespace, name)) => *pod.namespace == *namespace && ["*", &pod.name].contains(&name),
    }
}

/// What `text` expects of everything that can be asked.
pub(super) fn read(text: &str) -> Vec<Expectation> {
    let lines: Vec<Line> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}")))
        .collect();
    let mut all = everything();
    for line in &lines {
        assert!(all.iter().any(|one| line.matches(one)), "{line:?} matches nothing");
    }
    for one in &mut all {
        let last = lines.iter().rev().find(|line| line.matches(one));
        one.allowed = last.unwrap_or_else(|| panic!("nothing is expected of {one}")).allowed;
    }
    all
}

fn pods() -> Vec<WorkloadRef> {
    let pod = |namespace: &str, name: &str| WorkloadRef {
        namespace: Arc::from(namespace),
        name: Arc::from(name),
    };
    NAMESPACES.iter().flat_map(|namespace| PODS.map(|name| pod(namespace, name))).collect()
}

fn everything() -> Vec<Expectation> {
    let pods = pods();
    let mut all = Vec::new();
    for from in &pods {
        for to in pods.iter().filter(|to| *to != from) {
            all.extend(between(from, to));
        }
    }
    all
}

fn between(from: &WorkloadRef, to: &WorkloadRef) -> Vec<Expectation> {
    let mut all = Vec::new();
    for protocol in PROTOCOLS {
        for port in PORTS {
            for family in [Family::V4, Family::V6] {
                let (from, to) = (from.clone(), to.clone());
                all.push(Expectation { from, to, protocol, port, family, allowed: false });
            }
        }
    }
    all
}
