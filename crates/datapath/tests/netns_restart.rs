//! The embedding process is killed again and again, at any moment, while packets pass: none of an
//! allowed flow is lost, none of a denied one gets through.
//!
//! Privileged: without the capabilities, each test says so in one line and is skipped.
//! `FLOWGATE_RESTARTS` is the number of restarts of each test (default 10).

mod embedder;
mod load;
#[allow(dead_code)] // shared with netns.rs
mod pods;

use std::collections::BTreeMap;

use embedder::{Embedder, Moment, Setting};
use flowgate_datapath::{Backend, Datapath, HookKind, OpenError, State};
use flowgate_lab::Node;
use load::{Load, drops};

fn restarts() -> usize {
    std::env::var("FLOWGATE_RESTARTS").ok().and_then(|text| text.parse().ok()).unwrap_or(10)
}

fn restart(hook: HookKind) {
    if let Err(missing) = flowgate_lab::available() {
        println!("SKIPPED: {missing}");
        return;
    }
    let mut node = Node::enter().expect("namespaces of its own");
    let pods = pods::make(&mut node);
    let setting = Setting::new(&node, &pods, hook);
    let first = setting.open(0);
    let before = drops(&first, &BTreeMap::new());
    first.persist().expect("pinned");

    let load = Load::start(&pods);
    let mut killed = BTreeMap::new();
    for round in 0..restarts() {
        let reached = Embedder::start(&setting, round).kill_at(Moment::of(round));
        *killed.entry(reached).or_insert(0) += 1;
    }
    println!("{hook}: killed when {killed:?}");
    let last = setting.open(restarts());
    load.stop().check(&drops(&last, &before));

    let State::Adopted { generation, endpoints } = last.report().state else {
        panic!("what was left isn't adopted: {}", last.report());
    };
    assert_eq!(endpoints, pods.len());
    assert!(generation > 1, "no process came as far as to publish one");
}

#[test]
fn a_killed_process_loses_and_lets_through_nothing_on_tcx() {
    restart(HookKind::Tcx);
}

#[test]
fn a_killed_process_loses_and_lets_through_nothing_on_clsact() {
    restart(HookKind::Clsact);
}

#[test]
fn as_long_as_a_process_has_the_pins_no_other_one_opens_them() {
    if let Err(missing) = flowgate_lab::available() {
        println!("SKIPPED: {missing}");
        return;
    }
    let mut node = Node::enter().expect("namespaces of its own");
    let pods = pods::make(&mut node);
    let setting = Setting::new(&node, &pods, HookKind::Tcx);
    let process = Embedder::start(&setting, 0);
    process.wait_for("applied");
    let builder = Datapath::builder().backend(Backend::Kernel).pin(setting.pins());
    let error = builder.clone().open().expect_err("another process has them");
    assert!(matches!(&error, OpenError::InUse { path } if path == setting.pins()), "{error}");
    // It loses them however it ends.
    drop(process);
    let adopted = builder.open().expect("adopts");
    assert!(matches!(adopted.report().state, State::Adopted { endpoints: 3, .. }));
}

/// Not a test of its own: the process that the tests above start and kill.
#[test]
#[ignore = "the embedding process, which the other tests start"]
fn embedding_process() {
    embedder::run();
}
