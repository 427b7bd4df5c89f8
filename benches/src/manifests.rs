//! Manifests to measure with: generated, the same each time.

use std::{fmt::Write, sync::Arc};

use flowgate_identity::LocalAllocator;
use flowgate_kubernetes::Manifests;
use flowgate_policy::{compile::Compiler, options::Options, plan::Plan};

/// A node with three pods: `client` may send to the other two and to ports 80 and 443 of anything
/// (UDP and SCTP: 80), `client` alone may reach `server`, and nobody may reach `closed`.
pub const NODE: &str = include_str!("node.yaml");

/// Pods, and as many policies: each lets four applications in on two ports, and every fifth one
/// restricts egress to a block with a hole as well.
#[must_use]
pub fn cluster(pods: usize) -> String {
    let mut text = String::new();
    for number in 0..pods {
        pod(&mut text, number);
        policy(&mut text, number);
    }
    text
}

fn pod(text: &mut String, number: usize) {
    let (namespace, low) = (number % 5, number % 250 + 1);
    let high = number / 250;
    // Writing to a String never fails.
    let _ = write!(
        text,
        "---
apiVersion: v1
kind: Pod
metadata:
  name: pod-{number}
  namespace: space-{namespace}
  labels: {{app: app-{app}, tier: tier-{tier}}}
spec:
  containers:
  - name: main
    ports: [{{name: web, containerPort: {port}}}]
status:
  phase: Running
  podIPs: [{{ip: 198.18.{high}.{low}}}, {{ip: \"2001:db8::{high:x}:{low:x}\"}}]
",
        app = number % 10,
        tier = number % 3,
        port = 8000 + number % 4,
    );
}

fn policy(text: &mut String, number: usize) {
    let namespace = number % 5;
    let _ = write!(
        text,
        "---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: policy-{number}, namespace: space-{namespace}}}
spec:
  podSelector: {{matchLabels: {{app: app-{app}}}}}
  policyTypes: [{types}]
  ingress:
  - from:
    - podSelector: {{matchExpressions: [{{key: app, operator: In, values: [app-{a}, app-{b}]}}]}}
    - namespaceSelector: {{}}
      podSelector: {{matchLabels: {{tier: tier-{tier}}}}}
    ports: [{{port: web}}, {{port: {port}, protocol: UDP, endPort: {end}}}]
",
        app = number % 10,
        types = if number.is_multiple_of(5) { "Ingress, Egress" } else { "Ingress" },
        a = (number + 1) % 10,
        b = (number + 5) % 10,
        tier = number % 3,
        port = 1000 + number * 10,
        end = 1004 + number * 10,
    );
    if number.is_multiple_of(5) {
        let _ = writeln!(
            text,
            "  egress: [{{to: [{{ipBlock: {{cidr: 198.18.0.0/15, except: [198.18.{number}.0/25]}}}}]}}]"
        );
    }
}

/// Reads a text.
///
/// # Panics
/// If it is no manifest.
#[must_use]
pub fn read(text: &str) -> Manifests {
    let mut manifests = Manifests::default();
    manifests.read("generated.yaml", text).expect("generated manifests are right");
    manifests
}

/// Compiles what was read, from nothing.
///
/// # Panics
/// If it doesn't compile.
#[must_use]
pub fn compile(manifests: &Manifests) -> Arc<Plan> {
    let plan = Compiler::new(LocalAllocator::new()).compile(
        &manifests.inventory,
        &manifests.policies,
        &Options::default(),
    );
    Arc::new(plan.expect("generated manifests compile"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_measured_is_what_was_meant() {
        let manifests = read(&cluster(50));
        assert_eq!((manifests.inventory.workloads.len(), manifests.policies.len()), (50, 50));
        assert!(manifests.warnings.is_empty(), "{:?}", manifests.warnings);
        let plan = compile(&manifests);
        assert_eq!(plan.endpoints.len(), 50);
        assert_eq!(compile(&read(NODE)).endpoints.len(), 3);
    }
}
