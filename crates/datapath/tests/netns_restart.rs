//! The embedding process is killed again and again, at any moment, while packets pass: none of an
//! allowed flow is lost, none of a denied one gets through.
//!
//! Privileged: without the capabilities, each test says so in one line and is skipped.
//! `FLOWGATE_RESTARTS` is the number of restarts of each test (default 10).

mod embedder;
#[allow(dead_code)] // shared with netns.rs
mod pods;

use std::collections::BTreeMap;

use embedder::{Embedder, Moment, Setting};
use flowgate_abi::DropReason;
use flowgate_datapath::{Datapath, HookKind, State};
use flowgate_lab::{ByteStream, Datagrams, Node, Pace, Pod};

fn restarts() -> usize {
    std::env::var("FLOWGATE_RESTARTS").ok().and_then(|text| text.parse().ok()).unwrap_or(10)
}

/// What passes meanwhile: flows that live on, flows that begin, and what is denied.
struct Load {
    lasting: Vec<Datagrams>,
    beginning: Vec<Datagrams>,
    denied: Vec<Datagrams>,
    streams: Vec<ByteStream>,
}

impl Load {
    fn start(pods: &[Pod]) -> Self {
        let datagrams = |from: usize, port, per_millisecond, per_flow, answered| {
            let pace = Pace { per_millisecond, per_flow, answered };
            let start = |family| Datagrams::start(&pods[from], &pods[1], family, port, pace);
            [4, 6].map(|family| start(family).expect("sockets")).into()
        };
        let stream = |family| ByteStream::start(&pods[0], &pods[1], family, 4003);
        Self {
            lasting: datagrams(0, 4000, 2, u64::MAX, true),
            beginning: datagrams(0, 4001, 1, 2, true),
            denied: datagrams(2, 4002, 1, 100, false),
            streams: [4, 6].map(|family| stream(family).expect("connects")).into(),
        }
    }

    /// Ends it; returns how many datagrams were denied.
    fn stop(self) -> u64 {
        let mut passed = 0;
        for datagrams in self.lasting.into_iter().chain(self.beginning) {
            let delivered = datagrams.stop().expect("sockets");
            assert!(delivered.complete(), "{delivered:?}");
            passed += delivered.sent;
        }
        let bytes: u64 = self.streams.into_iter().map(|s| s.stop().expect("not cut")).sum();
        let denied: Vec<_> = self.denied.into_iter().map(|d| d.stop().expect("sockets")).collect();
        for delivered in &denied {
            assert!(delivered.sent > 0);
            assert_eq!(delivered.arrived, 0, "of {}", delivered.sent);
        }
        let denied = denied.iter().map(|delivered| delivered.sent).sum();
        println!("{passed} datagrams and {bytes} bytes passed, {denied} datagrams were denied");
        denied
    }
}

/// Drops by reason.
fn drops(datapath: &Datapath) -> BTreeMap<DropReason, u64> {
    let counters = datapath.counters().expect("readable");
    DropReason::ALL.iter().map(|reason| (*reason, counters.dropped(*reason))).collect()
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
    let before = drops(&first);
    first.persist().expect("pinned");

    let load = Load::start(&pods);
    let mut killed = BTreeMap::new();
    for round in 0..restarts() {
        let reached = Embedder::start(&setting, round).kill_at(Moment::of(round));
        *killed.entry(reached).or_insert(0) += 1;
    }
    println!("{hook}: killed when {killed:?}");
    let last = setting.open(restarts());
    let denied = load.stop();

    let State::Adopted { generation, endpoints } = last.report().state else {
        panic!("what was left isn't adopted: {}", last.report());
    };
    assert_eq!(endpoints, pods.len());
    assert!(generation > 1, "no process came as far as to publish one");
    for (reason, count) in drops(&last) {
        let dropped = count - before[&reason];
        match reason {
            DropReason::PolicyDefaultDeny => assert_eq!(dropped, denied, "{reason}"),
            // What the pods' stacks send by themselves.
            DropReason::ExtensionHeader => {}
            _ => assert_eq!(dropped, 0, "{reason}"),
        }
    }
}

#[test]
fn a_killed_process_loses_and_lets_through_nothing_on_tcx() {
    restart(HookKind::Tcx);
}

#[test]
fn a_killed_process_loses_and_lets_through_nothing_on_clsact() {
    restart(HookKind::Clsact);
}

/// Not a test of its own: the process that the tests above start and kill.
#[test]
#[ignore = "the embedding process, which the other tests start"]
fn embedding_process() {
    embedder::run();
}
