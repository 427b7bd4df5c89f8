//! State of an older layout becomes state of the present one: connections, endpoints and the running
//! generation go on, also when the process that migrates is killed. What isn't known is left alone.
//!
//! Privileged; each test mounts a BPF file system of its own in a mount namespace of its own.

mod older;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use aya::maps::MapData;
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
use ipnet::IpNet;
use older::{FIRST, Layout, Older, SECOND, names, root};

/// A directory of a BPF file system that goes with this thread's mount namespace.
fn bpffs() -> Option<PathBuf> {
    if let Err(missing) = flowgate_lab::available() {
        println!("SKIPPED: {missing}");
        return None;
    }
    let node = flowgate_lab::Node::enter().expect("namespaces of its own");
    Some(node.bpffs().join("state"))
}

fn open(pins: &Path) -> Result<Datapath, OpenError> {
    let options = Options { flows4: 512, flows6: 512, endpoints: 8, ..Options::default() };
    Datapath::builder().backend(Backend::Kernel).options(options).pin(pins).open()
}

fn workload(index: usize) -> Workload {
    Workload {
        id: WorkloadRef { namespace: "default".into(), name: format!("pod-{index}").into() },
        labels: Labels::new(),
        addresses: vec![format!("198.18.0.{index}").parse().expect("an address")],
        ports: vec![],
        node: None,
        host_network: false,
    }
}

fn plan() -> Arc<Plan> {
    let inventory = Inventory { workloads: [1, 2].map(workload).into(), ..Inventory::default() };
    let mut compiler = Compiler::new(LocalAllocator::new());
    Arc::new(compiler.compile(&inventory, &[], &options::Options::default()).expect("compiles"))
}

fn attach(datapath: &mut Datapath) -> [Attached; 2] {
    [1, 2].map(workload).map(|workload| {
        let spec = EndpointSpec::unlinked(workload.id).address(workload.addresses[0]);
        datapath.attach(&spec).expect("room")
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

/// The networks of the plan, and those of its endpoints.
fn networks() -> Vec<IpNet> {
    plan().ipcache.iter().map(|(network, _)| *network).collect()
}

/// State of an older layout, with a connection that its programs have established; the endpoints,
/// and the generation that runs.
fn older_layout(pins: &Path, layout: &Layout) -> ([Attached; 2], u32) {
    let mut datapath = open(pins).expect("opens");
    let endpoints = attach(&mut datapath);
    let generation = datapath.apply(&plan()).expect("fits").generation;
    datapath.persist().expect("pinned");
    let mut older = Older::make(pins, layout, &networks(), false);
    assert_eq!(names(pins), [format!("v{:016x}", layout.hash)]);
    let packets = [(0, frame()), (1, frame().answer()), (0, frame().flags(tcp::ACK))];
    for (who, frame) in packets {
        assert!(older.passes(endpoints[who].id.slot(), Stage::FromEndpoint, &frame.bytes()));
    }
    (endpoints, generation)
}

/// Everything of the older layout's state is there, and nothing of the layout.
fn check(pins: &Path, layout: &Layout, (endpoints, generation): ([Attached; 2], u32)) {
    let mut datapath = open(pins).expect("migrates");
    let migrated = State::Migrated { from: layout.hash, generation, endpoints: 2 };
    assert_eq!(datapath.report().state, migrated);
    assert_eq!(names(pins), [format!("v{:016x}", flowgate_abi::LAYOUT)]);
    let flows = datapath.flows().expect("readable");
    assert_eq!((flows.len(), flows[0].packets, flows[0].established), (1, [2, 1], true));
    let again = attach(&mut datapath);
    assert_eq!(again.map(|endpoint| endpoint.id), endpoints.map(|endpoint| endpoint.id));
    assert!(again.iter().all(|endpoint| endpoint.adopted));
    // Before any plan is applied again, the connection goes on.
    let mut passes = |who: usize, frame: Frame| {
        let replayed = datapath.replay(endpoints[who].id, Stage::FromEndpoint, &frame.bytes());
        assert_eq!(replayed.expect("runs").action, Action::Redirect, "{frame:?}");
    };
    passes(0, frame().flags(tcp::ACK));
    passes(1, frame().answer().flags(tcp::ACK));
    // And another one begins: who has which address is known.
    passes(0, Frame { source_port: 40_001, ..frame() });
    let flows = datapath.flows().expect("readable");
    let mut packets: Vec<_> = flows.iter().map(|flow| flow.packets).collect();
    packets.sort_unstable();
    assert_eq!(packets, [[1, 0], [3, 2]]);
    let applied = datapath.apply(&plan()).expect("fits");
    assert!(applied.generation > generation);
    datapath.persist().expect("pinned");
    let State::Adopted { endpoints: 2, .. } = open(pins).expect("adopts").report().state else {
        panic!("what was carried over isn't adopted");
    };
}

#[test]
fn an_older_layout_is_carried_over_and_flows_go_on() {
    for layout in [FIRST, SECOND] {
        let Some(pins) = bpffs() else { return };
        let state = older_layout(&pins, &layout);
        check(&pins, &layout, state);
    }
}

#[test]
fn a_migration_that_was_killed_while_it_copied_begins_again() {
    let Some(pins) = bpffs() else { return };
    let state = older_layout(&pins, &SECOND);
    let partial = pins.join(format!("v{:016x}-partial", flowgate_abi::LAYOUT));
    fs::create_dir_all(partial.join("maps")).expect("a directory");
    let map = MapData::from_pin(root(&pins, SECOND.hash).join("maps/FLOWS4")).expect("pinned");
    map.pin(partial.join("maps/FLOWS4")).expect("not pinned yet");
    check(&pins, &SECOND, state);
}

#[test]
fn a_migration_that_was_killed_behind_its_point_of_no_return_is_finished() {
    let Some(pins) = bpffs() else { return };
    let state = older_layout(&pins, &SECOND);
    // Both layouts have everything, and nothing of the older one has been removed.
    let datapath = open(&pins).expect("migrates");
    datapath.persist().expect("pinned");
    drop(Older::make(&pins, &SECOND, &networks(), true));
    assert_eq!(names(&pins).len(), 2);
    check(&pins, &SECOND, state);
}

#[test]
fn a_migration_that_was_killed_while_it_removed_is_finished() {
    let Some(pins) = bpffs() else { return };
    let (endpoints, generation) = older_layout(&pins, &SECOND);
    open(&pins).expect("migrates").persist().expect("pinned");
    drop(Older::make(&pins, &SECOND, &networks(), true));
    let removed = pins.join(format!("v{:016x}-partial", SECOND.hash));
    fs::rename(root(&pins, SECOND.hash), &removed).expect("movable");
    fs::remove_file(removed.join("maps/FLOWS4")).expect("pinned");
    let datapath = open(&pins).expect("adopts");
    assert_eq!(datapath.report().state, State::Adopted { generation, endpoints: endpoints.len() });
    assert_eq!(datapath.flows().expect("readable").len(), 1);
    assert_eq!(names(&pins), [format!("v{:016x}", flowgate_abi::LAYOUT)]);
}

#[test]
fn an_object_that_does_not_load_leaves_the_older_state_alone() {
    let Some(pins) = bpffs() else { return };
    let state = older_layout(&pins, &SECOND);
    let before = names(&root(&pins, SECOND.hash).join("maps"));
    let builder = Datapath::builder().backend(Backend::Kernel).pin(&pins).object(&b"no object"[..]);
    let error = builder.open().expect_err("it isn't one");
    assert!(matches!(error, OpenError::Object { .. }), "{error}");
    assert_eq!(names(&pins), [format!("v{:016x}", SECOND.hash)]);
    assert_eq!(names(&root(&pins, SECOND.hash).join("maps")), before);
    check(&pins, &SECOND, state);
}

#[test]
fn state_that_is_not_what_its_layout_says_is_refused_and_left_alone() {
    let Some(pins) = bpffs() else { return };
    let _ = older_layout(&pins, &SECOND);
    let maps = root(&pins, SECOND.hash).join("maps");
    // Another map in the place of the flows.
    fs::remove_file(maps.join("FLOWS4")).expect("pinned");
    let other = MapData::from_pin(maps.join("PEERS")).expect("pinned");
    other.pin(maps.join("FLOWS4")).expect("free");
    let error = open(&pins).expect_err("it can't be carried over");
    assert!(matches!(error, OpenError::Unreadable { .. }), "{error}");
    assert!(error.to_string().contains("FLOWS4"), "{error}");
    assert_eq!(names(&pins), [format!("v{:016x}", SECOND.hash)]);
    assert!(names(&maps).contains(&"FLOWS6".to_owned()));
}

#[test]
fn networks_that_do_not_fit_leave_the_older_state_alone() {
    let Some(pins) = bpffs() else { return };
    let state = older_layout(&pins, &SECOND);
    open(&pins).expect("migrates").persist().expect("pinned");
    let more =
        ["2001:db8::1/128", "2001:db8:1::1/128"].map(|text| text.parse().expect("a network"));
    drop(Older::make(&pins, &SECOND, &[&networks()[..], &more].concat(), false));
    let options = Options { ipcache_nodes: 2, ..Options::default() };
    let builder = Datapath::builder().backend(Backend::Kernel).options(options).pin(&pins);
    let error = builder.open().expect_err("too few nodes");
    assert!(matches!(error, OpenError::Ipcache { needed: 4, have: 2 }), "{error}");
    assert_eq!(names(&pins), [format!("v{:016x}", SECOND.hash)]);
    check(&pins, &SECOND, state);
}

#[test]
fn a_foreign_layout_is_refused_and_left_alone() {
    let Some(pins) = bpffs() else { return };
    let foreign = pins.join("v0123456789abcdef");
    fs::create_dir_all(foreign.join("maps")).expect("a BPF file system takes directories");
    let error = open(&pins).expect_err("another layout is there");
    let OpenError::ForeignLayout { path, found, known } = &error else { panic!("{error}") };
    assert_eq!((path, found.as_str()), (&pins, "v0123456789abcdef"));
    assert_eq!(
        known,
        &[flowgate_abi::LAYOUT, FIRST.hash, SECOND.hash].map(|layout| format!("v{layout:016x}"))
    );
    assert!(error.to_string().contains(&known[1]), "{error}");
    assert_eq!(names(&pins), ["v0123456789abcdef"]);
    assert_eq!(names(&foreign), ["maps"]);
}
