//! Events name the policies that decided, whatever number their generation has come to.

use std::sync::Arc;

use flowgate_conformance::frames::Frame;
use flowgate_datapath::{Backend, Datapath, EndpointSpec, FlowEvent, Options, Stage};
use flowgate_identity::{Labels, LocalAllocator};
use flowgate_policy::{
    compile::Compiler,
    inventory::{Inventory, Workload, WorkloadRef},
    model::{NamespaceSelector, Policy, PolicyKind, PolicyRef, WorkloadSelector},
    options,
    outcome::{Flow, FlowProtocol},
    plan::Plan,
};

const ADDRESS: &str = "198.18.0.1";

fn pod() -> Workload {
    Workload {
        id: WorkloadRef { namespace: "default".into(), name: "pod".into() },
        labels: Labels::new(),
        addresses: vec![ADDRESS.parse().expect("an address")],
        ports: vec![],
        node: None,
        host_network: false,
    }
}

/// Nothing reaches the pod, because of a policy of this name.
fn plan(name: &str) -> Arc<Plan> {
    let subject = WorkloadSelector {
        namespaces: NamespaceSelector::Named("default".into()),
        labels: flowgate_identity::Selector::default(),
    };
    let id = PolicyRef {
        kind: PolicyKind::NetworkPolicy,
        namespace: "default".into(),
        name: name.into(),
    };
    let policy = Policy { ingress: Some(vec![]), ..Policy::new(id, subject) };
    let inventory = Inventory { workloads: vec![pod()], ..Inventory::default() };
    let mut compiler = Compiler::new(LocalAllocator::new());
    Arc::new(
        compiler.compile(&inventory, &[policy], &options::Options::default()).expect("compiles"),
    )
}

/// Addresses come and go until an epoch wraps, which gives the generation another number.
fn wrap_an_epoch(datapath: &mut Datapath) {
    let before = datapath.generation();
    let passing = WorkloadRef { namespace: "default".into(), name: "passing".into() };
    let spec = EndpointSpec::unlinked(passing).address("198.18.0.9".parse().expect("an address"));
    for _ in 0..1 << flowgate_abi::endpoint::EPOCH_BITS {
        let id = datapath.attach(&spec).expect("room").id;
        assert_eq!(datapath.detach(&[id]).expect("host tables"), 1);
        if datapath.generation() != before {
            return;
        }
    }
    panic!("no epoch has wrapped");
}

#[test]
fn the_names_go_on_when_an_epoch_wraps() {
    let options = Options { endpoints: 4, ..Options::default() };
    let builder = Datapath::builder().backend(Backend::Host).options(options);
    let mut datapath = builder.open().expect("no privileges");
    let spec = EndpointSpec::unlinked(pod().id).address(pod().addresses[0]);
    let pod = datapath.attach(&spec).expect("room").id;
    let mut events = datapath.events().expect("not taken before");
    let mut port = 1000;
    let mut denied = |datapath: &mut Datapath| -> FlowEvent {
        port += 1;
        let flow = Flow {
            source: "203.0.113.1".parse().expect("an address"),
            destination: ADDRESS.parse().expect("an address"),
            protocol: FlowProtocol::Udp(53),
        };
        let frame = Frame::opening(flow, port).bytes();
        datapath.replay(pod, Stage::ToEndpoint, &frame).expect("runs");
        events.try_next().expect("the denial is told")
    };
    for name in ["first", "second"] {
        let generation = datapath.apply(&plan(name)).expect("fits").generation;
        assert_eq!(denied(&mut datapath).generation, generation);
        wrap_an_epoch(&mut datapath);
        let event = denied(&mut datapath);
        assert_eq!(event.generation, generation + 2);
        let text = event.to_string();
        assert!(text.contains(&format!("NetworkPolicy/default/{name}")), "{text}");
    }
}
