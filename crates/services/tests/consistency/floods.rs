//! Packets that nobody answers: of clients that never were, to slots in every stage.

use std::{ops::Range, time::Duration};

use flowgate_services::{
    Balancer, ClientFlow, Explained, Uplink,
    host::HostTables,
    life::Stage,
    model::{BackendId, BackendState, Protocol},
};

use crate::{
    flow::{self, GO_ON, OPEN},
    opening::{backend, services},
    walk::tables,
};

/// Entries that there is room for.
const CELLS: u32 = 64;
/// Flows that live, and those of strangers.
const LIVE: Range<u32> = 0..20;
const STRANGERS: Range<u32> = 1000..6000;

/// A balancer at a second of its time.
struct Flooded {
    balancer: Balancer<HostTables>,
    second: u64,
}

impl Flooded {
    fn new() -> Self {
        let Ok(balancer) = Balancer::adopt(tables(CELLS, 256), Uplink::default(), 1);
        let mut flooded = Self { balancer, second: 0 };
        flooded.apply(BackendState::Active);
        flooded
    }

    fn apply(&mut self, first: BackendState) {
        let time = Duration::from_secs(self.second);
        let _ = self.balancer.apply(&services(first), time).expect("it fits");
    }

    /// Some seconds pass, in each of which these flows send a packet to their backends.
    fn pass(&mut self, seconds: u64, live: &[(ClientFlow, BackendId)]) {
        for _ in 0..seconds {
            self.second += 1;
            let Ok(_) = self.balancer.tick(Duration::from_secs(self.second));
            for (flow, backend) in live {
                assert_eq!(self.send(flow, GO_ON), *backend, "at {} s", self.second);
            }
        }
    }

    fn send(&self, flow: &ClientFlow, flags: u8) -> BackendId {
        flow::send(self.balancer.store(), flow, flags).expect("somebody has it")
    }

    fn flood(&self, flags: u8) {
        for number in STRANGERS {
            let _ = self.send(&flow::client(number, Protocol::Tcp), flags);
        }
    }

    /// Entries that were made, and that found no room, so far.
    fn entries(&self) -> (u64, u64) {
        let Ok(stats) = self.balancer.stats();
        (stats[0].total().tracked, stats[0].refused)
    }

    /// Flows that live, with their backends: some of each.
    fn open(&self) -> Vec<(ClientFlow, BackendId)> {
        let flows = LIVE.map(|number| flow::client(number, Protocol::Tcp));
        flows.map(|flow| (flow, self.send(&flow, OPEN))).collect()
    }

    /// Strangers whose slots are in a stage.
    fn strangers(&self, stage: Stage) -> usize {
        self.explained().filter(|explained| explained.stage == stage).count()
    }

    /// Strangers whose slots are to change, and haven't begun.
    fn waiting(&self) -> usize {
        let stable = self.explained().filter(|explained| explained.stage == Stage::Stable);
        stable.filter(|explained| explained.target != explained.default).count()
    }

    fn explained(&self) -> impl Iterator<Item = Explained> {
        let flows = STRANGERS.map(|number| flow::client(number, Protocol::Tcp));
        flows.map(|flow| self.balancer.explain(&flow).expect("a flow of the service"))
    }
}

#[test]
fn a_flood_stores_nothing_in_stable_slots() {
    let flooded = Flooded::new();
    flooded.flood(OPEN);
    flooded.flood(GO_ON);
    assert_eq!(flooded.strangers(Stage::Stable), STRANGERS.len());
    assert_eq!(flooded.entries(), (0, 0));
}

#[test]
fn forged_packets_store_something_in_moving_slots_alone() {
    let mut flooded = Flooded::new();
    flooded.apply(BackendState::Draining);
    let affected = flooded.strangers(Stage::Announce);
    assert!(affected > 1000, "half of the table: {affected}");
    flooded.flood(GO_ON);
    assert_eq!(flooded.entries(), (0, 0), "announced");
    flooded.pass(5, &[]);
    assert_eq!(flooded.strangers(Stage::Move), affected);
    // T after its start, nothing having asked for an entry.
    flooded.pass(21, &[]);
    flooded.flood(GO_ON);
    assert_eq!((flooded.strangers(Stage::Move), flooded.entries()), (0, (0, 0)), "settling");
    flooded.apply(BackendState::Active);
    flooded.pass(5, &[]);
    assert!(flooded.strangers(Stage::Move) > 0);
    flooded.flood(GO_ON);
    let (made, refused) = flooded.entries();
    assert!((1..=CELLS.into()).contains(&made) && refused > 1000, "{made} made, {refused} refused");
}

#[test]
fn a_flood_in_moving_slots_breaks_nothing_and_ends() {
    for flags in [OPEN, GO_ON] {
        let mut flooded = Flooded::new();
        let live = flooded.open();
        let firsts = live.iter().filter(|(_, has)| *has == backend(1).id()).count();
        assert!((1..live.len()).contains(&firsts), "each has some: {firsts}");
        flooded.apply(BackendState::Draining);
        flooded.pass(5, &live);
        for _ in 0..30 {
            flooded.flood(flags);
            flooded.pass(1, &live);
        }
        let (_, refused) = flooded.entries();
        assert!(refused > 1000, "the table is full: {refused}");
        assert!(flooded.waiting() > 1000, "and most of the change waits: {}", flooded.waiting());
        let patience = flooded.second + 600;
        while flooded.waiting() > 0 && flooded.second < patience {
            flooded.pass(1, &live);
        }
        flooded.pass(30, &live);
        assert_eq!(flooded.waiting(), 0, "until strangers are forgotten");
        for number in STRANGERS.take(500) {
            let sent = flooded.send(&flow::client(number, Protocol::Tcp), OPEN);
            assert_eq!(sent, backend(2).id(), "who drains gets nothing new");
        }
        flooded.pass(1, &live);
    }
}
