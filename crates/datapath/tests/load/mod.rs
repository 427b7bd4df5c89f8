//! A load from which a single lost packet shows, and a single one that should have been dropped.

use std::collections::BTreeMap;

use flowgate_abi::DropReason;
use flowgate_datapath::Datapath;
use flowgate_lab::{ByteStream, Datagrams, Delivered, Pace, Pod};

/// What passes meanwhile: flows that live on, flows that begin, and what is denied.
pub(crate) struct Load {
    lasting: Vec<Datagrams>,
    beginning: Vec<Datagrams>,
    denied: Vec<Datagrams>,
    streams: Vec<ByteStream>,
}

impl Load {
    pub(crate) fn start(pods: &[Pod]) -> Self {
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

    pub(crate) fn stop(self) -> Passed {
        let stop = |all: Vec<Datagrams>| -> Vec<Delivered> {
            all.into_iter().map(|datagrams| datagrams.stop().expect("sockets")).collect()
        };
        let bytes = self.streams.into_iter().map(|stream| stream.stop().expect("not cut")).sum();
        let allowed = stop(self.lasting).into_iter().chain(stop(self.beginning)).collect();
        Passed { allowed, denied: stop(self.denied), bytes }
    }
}

/// What became of a load.
pub(crate) struct Passed {
    allowed: Vec<Delivered>,
    denied: Vec<Delivered>,
    bytes: u64,
}

impl Passed {
    /// Everything that is allowed passed, and nothing else.
    pub(crate) fn check(&self, drops: &BTreeMap<DropReason, u64>) {
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
pub(crate) fn drops(
    datapath: &Datapath,
    before: &BTreeMap<DropReason, u64>,
) -> BTreeMap<DropReason, u64> {
    let counters = datapath.counters().expect("readable");
    let since =
        |reason| counters.dropped(reason) - before.get(&reason).copied().unwrap_or_default();
    let drops = DropReason::ALL.iter().map(|reason| (*reason, since(*reason)));
    drops.filter(|(_, count)| *count > 0).collect()
}
