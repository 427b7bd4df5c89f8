//! One pod, policies about what is opened to it, and what plan and oracle say of a flow from the world.

use flowgate_identity::{Labels, LocalAllocator, Selector};
use flowgate_policy::{
    compile::Compiler,
    inventory::{Inventory, Workload, WorkloadRef},
    model::{NamespaceSelector, Policy, PolicyKind, PolicyRef, Rule, WorkloadSelector},
    options::Options,
    oracle,
    outcome::{Flow, FlowProtocol, Side},
};

const POD: &str = "198.18.0.1";
const WORLD: &str = "203.0.113.1";

fn inventory() -> Inventory {
    let pod = Workload {
        id: WorkloadRef { namespace: "a".into(), name: "web".into() },
        labels: Labels::from_iter([("app", "web")]),
        addresses: vec![POD.parse().unwrap()],
        ports: vec![],
        node: None,
        host_network: false,
    };
    Inventory { workloads: vec![pod], ..Inventory::default() }
}

/// A policy of flowgate's own kind with these rules for ingress.
pub(crate) fn policy(name: &str, ingress: Vec<Rule>) -> Policy {
    let id =
        PolicyRef { kind: PolicyKind::FlowgatePolicy, namespace: "a".into(), name: name.into() };
    let subject = WorkloadSelector {
        namespaces: NamespaceSelector::Named("a".into()),
        labels: Selector::everything(),
    };
    Policy { ingress: Some(ingress), ..Policy::new(id, subject) }
}

/// What the pod says, by the plan, and by the oracle.
pub(crate) fn decided(policies: &[Policy]) -> Side {
    let flow = Flow {
        source: WORLD.parse().unwrap(),
        destination: POD.parse().unwrap(),
        protocol: FlowProtocol::Tcp(80),
    };
    let options = Options::default();
    let mut compiler = Compiler::new(LocalAllocator::new());
    let plan = compiler.compile(&inventory(), policies, &options).unwrap();
    let outcome = plan.decide(&flow);
    assert_eq!(outcome, oracle::decide(&inventory(), policies, &options, &flow));
    outcome.ingress
}
