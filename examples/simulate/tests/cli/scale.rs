//! 50 pods and 10,000 probes, start to end.

use std::{
    fmt::Write,
    time::{Duration, Instant},
};

use crate::run::{directory, run_in};

const PODS: usize = 50;
const PROBES: usize = 10_000;

fn manifests() -> String {
    let mut text = String::new();
    for pod in 0..PODS {
        write!(
            text,
            "---\napiVersion: v1\nkind: Pod\n\
             metadata: {{ name: p{pod}, namespace: n{}, labels: {{ app: a{} }} }}\n\
             spec: {{ containers: [{{ name: c, ports: [{{ containerPort: 80 }}] }}] }}\n\
             ---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
             metadata: {{ name: p{pod}, namespace: n{} }}\n\
             spec: {{ podSelector: {{ matchLabels: {{ app: a{} }} }}, policyTypes: [Ingress, Egress],\n  \
             ingress: [{{ from: [{{ namespaceSelector: {{}}, podSelector: {{ matchExpressions: \
             [{{ key: app, operator: NotIn, values: [a{}] }}] }} }}, \
             {{ ipBlock: {{ cidr: 198.18.128.0/26 }} }}], ports: [{{ port: 80, endPort: 81 }}] }}], egress: [{{}}] }}\n",
            pod % 5,
            pod % 10,
            pod % 5,
            pod % 10,
            (pod + 5) % 10,
        )
        .unwrap();
    }
    text
}

fn probes() -> String {
    let mut text = String::new();
    for probe in 0..PROBES {
        let (from, to, port) = (probe % PODS, probe / PODS % PODS, 80 + probe % 3);
        let pod = |pod: usize| format!("n{}/p{pod}", pod % 5);
        let (from, to) = (pod(from), pod(to));
        writeln!(text, r#"{{"from":"{from}","to":"{to}","port":{port}}}"#).unwrap();
    }
    text
}

/// The promise holds for a release build; the bound here is for any build on a busy machine.
#[test]
fn ten_thousand_probes() {
    let directory = directory(&manifests(), &probes());
    let asked = ["--manifests", "manifests.yaml", "--probes", "probes.jsonl", "-o", "json"];
    let start = Instant::now();
    let run = run_in(directory.path(), &asked);
    let took = start.elapsed();
    let answers = run.answers();
    assert_eq!(answers.len(), PROBES);
    let allowed = answers.iter().filter(|answer| answer["allowed"] == true).count();
    assert!((PROBES / 10..PROBES * 9 / 10).contains(&allowed), "{allowed} are allowed");
    println!("{PODS} pods, {PROBES} probes, {allowed} allowed: {took:?}");
    let bound = if cfg!(debug_assertions) { 20 } else { 1 };
    assert!(took < Duration::from_secs(bound), "{took:?}");
}
