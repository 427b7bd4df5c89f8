//! State of the older layouts is migrated again and again under load, and the migrating process killed
//! at any moment: no packet of an allowed flow is lost, none of a denied one gets through.
//!
//! Privileged: without the capabilities, the test says so in one line and is skipped.
//! `FLOWGATE_RESTARTS` is the number of migrations that are killed (default 10).

mod embedder;
mod load;
#[allow(dead_code)] // shared with kernel_migration.rs
mod older;
#[allow(dead_code)] // shared with netns.rs
mod pods;

use std::collections::BTreeMap;

use embedder::{Embedder, Moment, Setting};
use flowgate_datapath::{HookKind, State};
use flowgate_lab::Node;
use load::{Load, drops};
use older::{FIRST, Layout, Older, SECOND, root};

fn migrations() -> usize {
    std::env::var("FLOWGATE_RESTARTS").ok().and_then(|text| text.parse().ok()).unwrap_or(10)
}

/// They take turns.
const fn layout(round: usize) -> &'static Layout {
    if round.is_multiple_of(2) { &FIRST } else { &SECOND }
}

#[test]
fn a_migration_loses_and_lets_through_nothing() {
    if let Err(missing) = flowgate_lab::available() {
        println!("SKIPPED: {missing}");
        return;
    }
    let mut node = Node::enter().expect("namespaces of its own");
    let pods = pods::make(&mut node);
    let setting = Setting::new(&node, &pods, HookKind::Tcx);
    let first = setting.open(0);
    let before = drops(&first, &BTreeMap::new());
    first.persist().expect("pinned");
    // The second variant knows those of the first, too.
    let plan = pods::variant(1);
    let networks: Vec<_> = plan.ipcache.iter().map(|(network, _)| *network).collect();
    let older = |round: usize, keep_present: bool| {
        drop(Older::make(setting.pins(), layout(round), &networks, keep_present));
    };
    older(0, false);

    let load = Load::start(&pods);
    for round in 0..migrations() {
        let _ = Embedder::start(&setting, round).kill_at(Moment::of(4 * round));
        // What has been migrated becomes an older layout's again, under the same load: every second
        // time as if the process had been killed at the point of no return, with both layouts there.
        if root(setting.pins(), flowgate_abi::LAYOUT).exists() {
            setting.open(round).persist().expect("pinned");
            older(round, round % 4 > 1);
        }
    }
    let last = setting.open(0);
    load.stop().check(&drops(&last, &before));
    let State::Migrated { from, endpoints, .. } = last.report().state else {
        panic!("what was left isn't migrated: {}", last.report());
    };
    assert!([FIRST.hash, SECOND.hash].contains(&from), "{from:x}");
    assert_eq!(endpoints, pods.len());
}

/// Not a test of its own: the process that the test above starts and kills.
#[test]
#[ignore = "the embedding process, which the other test starts"]
fn embedding_process() {
    embedder::run();
}
