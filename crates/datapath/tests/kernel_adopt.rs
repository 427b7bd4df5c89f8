//! State that outlives its process: pinned, adopted, refused, removed.
//!
//! Privileged; each test mounts a BPF file system of its own in a mount namespace of its own.

use std::{path::PathBuf, sync::Arc};

use flowgate_conformance::frames::{Frame, tcp};
use flowgate_datapath::{
    Action, Attached, Backend, Datapath, EndpointSpec, OpenError, Options, Stage, State,
};
use flowgate_identity::{Labels, LocalAllocator};
use flowgate_policy::{
    compile::Compiler,
    inventory::{Inventory, Workload, WorkloadRef},
    options,
    outcome::{Flow, FlowProtocol},
    plan::Plan,
};

/// A directory of a BPF file system that goes with this thread's mount namespace.
fn bpffs() -> Option<PathBuf> {
    if let Err(missing) = flowgate_lab::available() {
        println!("SKIPPED: {missing}");
        return None;
    }
    let node = flowgate_lab::Node::enter().expect("namespaces of its own");
    Some(node.bpffs().join("state"))
}

fn open(pins: &PathBuf) -> Result<Datapath, OpenError> {
    let options = Options { flows4: 512, flows6: 512, endpoints: 8, ..Options::default() };
    Datapath::builder().backend(Backend::Kernel).options(options).pin(pins).open()
}

fn names() -> [WorkloadRef; 2] {
    ["one", "two"].map(|name| WorkloadRef { namespace: "default".into(), name: name.into() })
}

fn plan() -> Arc<Plan> {
    let workloads = names().into_iter().enumerate().map(|(index, id)| Workload {
        id,
        labels: Labels::new(),
        addresses: vec![format!("198.18.0.{}", index + 1).parse().expect("an address")],
        ports: vec![],
        node: None,
        host_network: false,
    });
    let inventory = Inventory { workloads: workloads.collect(), ..Inventory::default() };
    let mut compiler = Compiler::new(LocalAllocator::new());
    Arc::new(compiler.compile(&inventory, &[], &options::Options::default()).expect("compiles"))
}

fn attach(datapath: &mut Datapath) -> [Attached; 2] {
    let mut index = 0;
    names().map(|name| {
        index += 1;
        let address = format!("198.18.0.{index}").parse().expect("an address");
        datapath.attach(&EndpointSpec::unlinked(name).address(address)).expect("room")
    })
}

fn frame() -> Frame {
    let flow = Flow {
        source: "198.18.0.1".parse().expect("an address"),
        destination: "198.18.0.2".parse().expect("an address"),
        protocol: FlowProtocol::Tcp(80),
    };
    Frame::opening(flow, 40_000)
}

#[test]
fn state_is_adopted_and_flows_go_on() {
    let Some(pins) = bpffs() else { return };
    let mut first = open(&pins).expect("opens");
    assert_eq!(first.report().state, State::Fresh);
    let [one, two] = attach(&mut first);
    let applied = first.apply(&plan()).expect("fits");
    let replay = |datapath: &mut Datapath, id, frame: Frame| {
        datapath.replay(id, Stage::FromEndpoint, &frame.bytes()).expect("runs").action
    };
    assert_eq!(replay(&mut first, one.id, frame()), Action::Redirect);
    assert_eq!(replay(&mut first, two.id, frame().answer()), Action::Redirect);
    first.persist().expect("pinned");

    let mut second = open(&pins).expect("adopts");
    let adopted = State::Adopted { generation: applied.generation, endpoints: 2 };
    assert_eq!(second.report().state, adopted);
    let flows = second.flows().expect("readable");
    assert_eq!((flows.len(), flows[0].packets), (1, [1, 1]));
    let [one_again, two_again] = attach(&mut second);
    assert_eq!((one_again.id, two_again.id), (one.id, two.id));
    assert!(one_again.adopted && two_again.adopted);
    // Before any plan is applied again, the connection goes on.
    assert_eq!(replay(&mut second, one.id, frame().flags(tcp::ACK)), Action::Redirect);
    let applied_again = second.apply(&plan()).expect("fits");
    assert!(applied_again.generation > applied.generation);
    assert_eq!(replay(&mut second, one.id, frame().flags(tcp::ACK)), Action::Redirect);
    let flows = second.flows().expect("readable");
    assert_eq!((flows.len(), flows[0].packets), (1, [3, 1]));

    // Persisted on purpose, and adopted once more; dropped without: gone.
    second.persist().expect("pinned");
    let third = open(&pins).expect("adopts");
    assert_ne!(third.report().state, State::Fresh);
    drop(third);
    assert_eq!(open(&pins).expect("opens").report().state, State::Fresh);
}

#[test]
fn endpoints_that_nobody_claims_go() {
    let Some(pins) = bpffs() else { return };
    let mut first = open(&pins).expect("opens");
    let [one, two] = attach(&mut first);
    let _ = first.apply(&plan()).expect("fits");
    first.persist().expect("pinned");

    let mut second = open(&pins).expect("adopts");
    let address = "198.18.0.1".parse().expect("an address");
    let [name, _] = names();
    let claimed = second.attach(&EndpointSpec::unlinked(name).address(address)).expect("room");
    assert_eq!(claimed.id, one.id);
    assert_eq!(second.detach_unclaimed().expect("writable"), 1);
    assert_eq!(second.detach_unclaimed().expect("writable"), 0);
    let replay = |datapath: &mut Datapath| {
        datapath.replay(one.id, Stage::FromEndpoint, &frame().bytes()).expect("runs").action
    };
    // The address is in the network around it again, and nobody is there to hand the packet to.
    assert_eq!(replay(&mut second), Action::Pass);
    let _ = second.apply(&plan()).expect("fits");
    assert_eq!(replay(&mut second), Action::Pass);
    assert!(second.replay(two.id, Stage::FromEndpoint, &frame().answer().bytes()).is_err());
}

#[test]
fn one_datapath_at_a_time_has_the_pins() {
    let Some(pins) = bpffs() else { return };
    let mut first = open(&pins).expect("opens");
    let _ = attach(&mut first);
    let error = open(&pins).expect_err("the first one has them");
    assert!(matches!(&error, OpenError::InUse { path } if *path == pins), "{error}");
    // The first one is none the worse for it.
    assert_eq!(first.apply(&plan()).expect("fits").ready.len(), 2);
    drop(first);
    assert_eq!(open(&pins).expect("opens").report().state, State::Fresh);
}

#[test]
fn what_a_killed_process_had_only_begun_is_begun_anew() {
    let Some(pins) = bpffs() else { return };
    let present = pins.join(format!("v{:016x}", flowgate_abi::LAYOUT));
    let partial = pins.join(format!("v{:016x}-partial", flowgate_abi::LAYOUT));
    // Maps of other sizes than the next process wants, and some of them only.
    let other = Options { flows4: 4096, endpoints: 64, ..Options::default() };
    let left_over = || {
        let builder = Datapath::builder().backend(Backend::Kernel).options(other.clone());
        builder.pin(&pins).open().expect("opens").persist().expect("pinned");
    };
    left_over();
    std::fs::rename(&present, &partial).expect("movable");
    std::fs::remove_file(partial.join("maps/PEERS")).expect("pinned");
    works_fresh(&pins);
    assert!(!partial.exists());

    // Without settings there is no state, whatever the directory is called.
    left_over();
    std::fs::remove_file(present.join("maps/STATE")).expect("pinned");
    works_fresh(&pins);
}

fn works_fresh(pins: &PathBuf) {
    let mut datapath = open(pins).expect("opens");
    assert_eq!(datapath.report().state, State::Fresh);
    let [one, _] = attach(&mut datapath);
    let _ = datapath.apply(&plan()).expect("fits");
    let replayed = datapath.replay(one.id, Stage::FromEndpoint, &frame().bytes()).expect("runs");
    assert_eq!(replayed.action, Action::Redirect);
    assert_eq!(datapath.flows().expect("readable").len(), 1);
}

#[test]
fn pins_outside_of_a_bpf_file_system_are_an_error_that_says_so() {
    if bpffs().is_none() {
        return;
    }
    let plain = std::env::temp_dir().join(format!("flowgate-plain-{}", std::process::id()));
    let error = open(&plain).expect_err("maps can't be pinned there");
    let _ = std::fs::remove_dir_all(&plain);
    let text = error.to_string();
    assert!(text.contains("mount -t bpf"), "{text}");
}

#[test]
fn a_datapath_without_pins_cannot_be_persisted() {
    let datapath = Datapath::builder().backend(Backend::Host).open().expect("no privileges");
    assert!(datapath.persist().is_err());
}
