//! Replaying frames: what can't be replayed is an error that says so, never another endpoint's
//! verdict.
//!
//! Privileged: without the capabilities, each test says so in one line and is skipped.

use flowgate_conformance::frames::Frame;
use flowgate_datapath::{Backend, Datapath, EndpointId, EndpointSpec, Options, ReplayError, Stage};
use flowgate_policy::{
    inventory::WorkloadRef,
    outcome::{Flow, FlowProtocol},
};

fn open() -> Option<Datapath> {
    if let Err(missing) = flowgate_lab::available() {
        println!("SKIPPED: {missing}");
        return None;
    }
    flowgate_lab::Node::enter().expect("namespaces of its own");
    let options = Options { endpoints: 8, flows4: 64, flows6: 64, ..Options::default() };
    Some(Datapath::builder().backend(Backend::Kernel).options(options).open().expect("opens"))
}

fn attach(datapath: &mut Datapath, name: &str, interface: Option<&str>) -> EndpointId {
    let workload = WorkloadRef { namespace: "default".into(), name: name.into() };
    let spec = match interface {
        Some(interface) => EndpointSpec::new(workload, interface),
        None => EndpointSpec::unlinked(workload),
    };
    let number = if interface.is_some() { 1 } else { 2 };
    let address = format!("198.18.0.{number}").parse().expect("an address");
    datapath.attach(&spec.address(address)).expect("attaches").id
}

fn frame() -> Vec<u8> {
    let flow = Flow {
        source: "198.18.0.2".parse().expect("an address"),
        destination: "198.18.0.1".parse().expect("an address"),
        protocol: FlowProtocol::Udp(53),
    };
    Frame::opening(flow, 40_000).bytes()
}

#[test]
fn an_endpoint_bound_to_loopback_does_not_answer_for_another() {
    let Some(mut datapath) = open() else { return };
    let unlinked = attach(&mut datapath, "unlinked", None);
    let frame = frame();
    assert!(datapath.replay(unlinked, Stage::FromEndpoint, &frame).is_ok());
    let loopback = attach(&mut datapath, "loopback", Some("lo"));
    let error = datapath.replay(unlinked, Stage::FromEndpoint, &frame).expect_err("taken");
    let owner = loopback.slot();
    assert!(
        matches!(error, ReplayError::LoopbackTaken { owner: slot } if slot == owner),
        "{error}"
    );
    let program = flowgate_ebpf_progs::TC_FROM_ENDPOINT;
    let error = datapath.time(unlinked, program, &frame, 1).expect_err("taken");
    assert!(matches!(error, ReplayError::LoopbackTaken { .. }), "{error}");
    // Its own endpoint is met.
    assert!(datapath.replay(loopback, Stage::ToEndpoint, &frame).is_ok());
    assert_eq!(datapath.detach(&[loopback]).expect("detaches"), 1);
    assert!(datapath.replay(unlinked, Stage::FromEndpoint, &frame).is_ok());
}

#[test]
fn what_cannot_be_replayed_is_named() {
    let Some(mut datapath) = open() else { return };
    let id = attach(&mut datapath, "unlinked", None);
    let error = datapath.replay(id, Stage::FromEndpoint, &[0; 13]).expect_err("too short");
    assert!(matches!(error, ReplayError::TooShort { bytes: 13 }), "{error}");
    assert_eq!(datapath.detach(&[id]).expect("detaches"), 1);
    let error = datapath.replay(id, Stage::FromEndpoint, &frame()).expect_err("gone");
    assert!(matches!(error, ReplayError::NotAttached { slot } if slot == id.slot()), "{error}");
}
