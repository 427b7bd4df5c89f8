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
use flowgate_lab::{ByteStream, Datagrams, Delivered, Node, Pace, Pod};

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

    fn stop(self) -> Passed {
        let stop = |all: Vec<Datagrams>| -> Vec<Delivered> {
            all.into_iter().map(|datagrams| datagrams.stop().expect("sockets")).collect()
        };
        let bytes = self.streams.into_iter().map(|stream| stream.stop().expect("not cut")).sum();
        let allowed = stop(self.lasting).into_iter().chain(stop(self.beginning)).collect();
        Passed { allowed, denied: stop(self.denied), bytes }
    }
}

/// What became of a load.
struct Passed {
    allowed: Vec<Delivered>,
    denied: Vec<Delivered>,
    bytes: u64,
}

impl Passed {
    /// Everything that is allowed passed, and nothing else.
    fn check(&self, drops: &BTreeMap<DropReason, u64>) {
        let sent = |all: &[Delivered]| all.iter().map(|delivered| delivered.sent).sum();
        let (allowed, denied): (u64, u64) = (sent(&self.allowed), sent(&self.denied));
        println!("{allowed} datagrams and {} bytes passed, {denied} were denied", self.bytes);
        for delivered in &self.allowed {
            assert!(delivered.complete(), "{delivered:?}, dropped: {drops:?}");
        }
        for Delivered { sent, arrived, .. } in &self.denied {
            assert!(*sent > 0);
            assert_eq!(*arrived, 0, "of {sent}");
        }
        for (reason, count) in drops {
            match reason {
                DropReason::PolicyDefaultDeny => assert_eq!(*count, denied, "{reason}"),
                // What the pods' stacks send by themselves.
                DropReason::ExtensionHeader => {}
                _ => panic!("{count} dropped: {reason}"),
            }
        }
    }
}

/// Drops since some time, by reason.
fn drops(datapath: &Datapath, before: &BTreeMap<DropReason, u64>) -> BTreeMap<DropReason, u64> {
    let counters = datapath.counters().expect("readable");
    let since =
        |reason| counters.dropped(reason) - before.get(&reason).copied().unwrap_or_default();
    let drops = DropReason::ALL.iter().map(|reason| (*reason, since(*reason)));
    drops.filter(|(_, count)| *count > 0).collect()
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

/// Not a test of its own: the process that the tests above start and kill.
#[test]
#[ignore = "the embedding process, which the other tests start"]
fn embedding_process() {
    embedder::run();
}
