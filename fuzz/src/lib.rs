//! What the fuzz targets work on: host tables with two endpoints under a fixed plan.
//!
//! Not here: what a target asserts (it is in the target). Invariant: the same input always meets
//! the same state, so that a finding can be replayed alone; [`World::forget`] sees to that.
#![forbid(unsafe_code)]

use std::sync::Arc;

use flowgate_abi::{Settings, Timeouts, endpoint::Endpoint, event::Hook};
use flowgate_identity::LocalAllocator;
use flowgate_kubernetes::Manifests;
use flowgate_policy::{
    compile::Compiler,
    host::{HostRoom, HostTables, Passed},
    install::{EndpointAddress, Installer},
    inventory::Workload,
    options::Options,
    plan::Plan,
};

/// The manifests that the plan is made from.
pub const MANIFESTS: &str = include_str!("world.yaml");
/// The longest time-out, in units of 256 jiffies.
const LONGEST: u32 = 8000;

/// One of the two endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// Its interface index.
    pub ifindex: u32,
    /// The only IPv4 address that it may send from.
    pub v4: [u8; 4],
    /// The only IPv6 address that it may send from.
    pub v6: [u8; 16],
}

/// Both endpoints: the client and the server.
pub const ENDS: [End; 2] = [end(1), end(2)];

const fn end(number: u8) -> End {
    let v6 = [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, number];
    End { ifindex: number as u32, v4: [198, 18, 0, number], v6 }
}

/// Tables, installed.
#[derive(Debug)]
pub struct World {
    installer: Installer<HostTables>,
}

/// Everything that the tables count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Packets dropped, for any reason.
    pub dropped: u64,
    /// Packets passed by the endpoint whose packet it was.
    pub passed: u64,
    /// Neighbour discovery and ARP.
    pub neighbour: u64,
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

impl World {
    /// A world in which nothing has happened yet.
    ///
    /// # Panics
    /// If the fixed manifests don't compile any more.
    #[must_use]
    pub fn new() -> Self {
        let mut manifests = Manifests::default();
        manifests.read("world.yaml", MANIFESTS).expect("the fixed manifests are right");
        let plan = Compiler::new(LocalAllocator::new())
            .compile(&manifests.inventory, &manifests.policies, &Options::default())
            .expect("the fixed manifests compile");
        let Ok(mut installer) = Installer::adopt(tables(&plan));
        for (workload, end) in manifests.inventory.workloads.iter().zip(ENDS) {
            attach(&mut installer, workload, end);
        }
        let _ = installer.apply(&Arc::new(plan)).expect("the plan fits");
        Self { installer }
    }

    /// Runs a frame at an endpoint, which has an Ethernet header at least.
    #[must_use]
    pub fn run(&self, frame: &[u8], end: End, hook: Hook) -> Passed {
        self.installer.store().run(frame, end.ifindex, hook)
    }

    /// What was counted so far.
    #[must_use]
    pub fn counted(&self, end: End, hook: Hook) -> Counted {
        let tables = self.installer.store();
        let slot = end.ifindex as usize;
        let direction = usize::from(hook == Hook::ToEndpoint);
        Counted {
            dropped: tables.drops().iter().map(|tally| tally.packets).sum(),
            passed: tables.traffic()[slot][direction].packets,
            neighbour: tables.counters()[flowgate_abi::event::Counter::NeighbourPassed as usize],
        }
    }

    /// Lets every flow expire, and its entry go; then it is as early as it was.
    ///
    /// # Panics
    /// If an entry stays: the sweep's defect.
    pub fn forget(&self) {
        let tables = self.installer.store();
        let beyond = u64::from(LONGEST + 2) * 256;
        tables.advance(beyond);
        // The first sweep tells of them, the second frees them.
        tables.sweep();
        tables.sweep();
        let taken = |tag: &flowgate_abi::Shared32| tag.load() != 0;
        assert!(!tables.flows4().iter().any(|bucket| bucket.tags.iter().any(taken)));
        assert!(!tables.flows6().iter().any(|bucket| bucket.tags.iter().any(taken)));
        tables.take_events();
        // Back to where every input begins.
        tables.advance(beyond.wrapping_neg());
    }
}

fn attach(installer: &mut Installer<HostTables>, workload: &Workload, end: End) {
    let address = EndpointAddress {
        ifindex: end.ifindex,
        v4: Some(end.v4.into()),
        v6: Some(end.v6.into()),
        mac: [2, 0, 0, 0, 1, end.v4[3]],
        router_mac: [2, 0, 0, 0, 0, end.v4[3]],
        flags: Endpoint::REDIRECT,
    };
    let slot = installer.attach(workload.id.clone(), address).expect("there is room");
    assert_eq!(slot, end.ifindex, "an interface index chooses the slot by its low bits");
}

/// Small tables: emptying them is part of every run.
fn tables(plan: &Plan) -> HostTables {
    let cost = plan.cost();
    let settings = Settings {
        hash_seed: 0x5eed,
        flow4_mask: 1,
        flow6_mask: 1,
        endpoint_mask: 7,
        peers: cost.peers as u32 + 1,
        row_cells: cost.row_cells as u32,
        decision_cells: cost.decision_cells as u32,
        decisions: cost.decisions as u32,
        hz: 250,
        timeouts: Timeouts([60, LONGEST, 10, 60]),
        events_per_second: u32::MAX,
        fragment_timeout: 1250,
        mark: 1,
        flags: 0,
        fragment_mask: 15,
        reserved: 0,
    };
    let (trie4_nodes, prefixes) = (cost.trie4_nodes as u32, cost.prefixes6);
    let room = HostRoom { trie4_nodes, hosts6: prefixes, networks6: prefixes, events: 16 };
    HostTables::new(settings, room)
}
