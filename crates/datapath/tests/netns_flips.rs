//! Generations are flipped as fast as grace periods allow while packets pass: what both allow loses no
//! packet, and what neither allows never gets through. The plans tell peers apart in different ways, so
//! every flip moves addresses from peer to peer.
//!
//! Privileged: without the capabilities, each test says so in one line and is skipped.
//! `FLOWGATE_FLIPS` is the number of generations (default 100).

mod load;
#[allow(dead_code)] // shared with netns.rs
mod pods;

use std::collections::BTreeMap;

use flowgate_datapath::{Backend, Datapath, HookKind, Options};
use flowgate_lab::Node;
use load::{Load, drops};

fn flips() -> usize {
    std::env::var("FLOWGATE_FLIPS").ok().and_then(|text| text.parse().ok()).unwrap_or(100)
}

#[test]
fn no_packet_gets_a_verdict_that_neither_generation_gives() {
    if let Err(missing) = flowgate_lab::available() {
        println!("SKIPPED: {missing}");
        return;
    }
    let mut node = Node::enter().expect("namespaces of its own");
    let pods = pods::make(&mut node);
    // Room for many short flows, so that none is refused for want of it.
    let options = Options { flows4: 1 << 16, flows6: 1 << 16, ..Options::default() };
    let builder = Datapath::builder().backend(Backend::Kernel).options(options);
    let mut datapath = builder.open().expect("opens");
    for (index, pod) in pods.iter().enumerate() {
        let spec = pods::endpoint(index, pod.host_interface(), pod.mac().0, HookKind::Tcx);
        let _ = datapath.attach(&spec).expect("attaches");
    }
    let plans = [0, 1].map(pods::variant);
    let _ = datapath.apply(&plans[0]).expect("fits");
    let before = drops(&datapath, &BTreeMap::new());

    let load = Load::start(&pods);
    let mut moved = 0;
    for flip in 1..=flips() {
        let applied = datapath.apply(&plans[flip % 2]).expect("fits");
        assert_eq!(applied.generation as usize, flip + 1);
        moved += applied.moved;
    }
    load.stop().check(&drops(&datapath, &before));
    println!("{} generations, {moved} prefixes moved", flips());
    assert!(moved >= flips(), "only {moved} prefixes moved");
}
