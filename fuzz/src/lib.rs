//! What the fuzz targets work on: small host tables with two endpoints, and a run of a frame that
//! checks everything that must hold of any frame.
//!
//! What a target makes of its bytes is in [`targets`], or in [`step`]. Invariant: the
//! same input always meets the same state, so that a finding can be replayed alone;
//! [`World::begin`] sees to that.
#![forbid(unsafe_code)]

mod books;
mod frame;
mod ledger;
pub mod step;
mod table;
pub mod targets;

use flowgate_abi::{Settings, event::Hook, flow::NO_SLOT};
use flowgate_conformance::trio::{Party, Rules, Trio};
use flowgate_pipeline::Verdict;
use flowgate_policy::{
    host::{HostRoom, HostTables, Passed},
    install::{Installer, Store},
};

use books::Books;
use ledger::Ledger;

/// The manifests that seed the target `manifest`.
pub const MANIFESTS: &str = include_str!("world.yaml");
/// An Ethernet header: the kernel hands over nothing shorter.
pub const ETHERNET: usize = 14;
/// Where a frame can be met.
pub const PLACES: [(Hook, Party); 4] = [
    (Hook::FromEndpoint, Party::Client),
    (Hook::FromEndpoint, Party::Server),
    (Hook::ToEndpoint, Party::Client),
    (Hook::ToEndpoint, Party::Server),
];
/// Jiffies after which every clock of the tables shows the same: an age has 30 bits of units of 256.
const PERIOD: u64 = 1 << 38;
/// The rules under which every input begins.
const FIRST: Rules = Rules::OneWay;

/// The words of 32 bits in an input; what is left over is the last one's.
#[must_use]
pub fn words(bytes: &[u8]) -> Vec<u32> {
    let word = |chunk: &[u8]| chunk.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte));
    bytes.chunks(4).map(word).collect()
}

/// Tables with the three parties, and what has been allowed in them.
#[derive(Debug)]
pub struct World {
    trio: Trio,
    installer: Installer<HostTables>,
    rules: Rules,
    ledger: Ledger,
    /// Jiffies since the input began.
    elapsed: u64,
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

impl World {
    /// A world in which nothing has happened yet.
    #[must_use]
    pub fn new() -> Self {
        let trio = Trio::new();
        let installer = trio.install(small_tables(&trio), FIRST);
        let generation = installer.generation();
        let ledger = Ledger::new(generation);
        Self { trio, installer, rules: FIRST, ledger, elapsed: 0 }
    }

    /// Lets every flow expire, and its entry go; then it is as late as it was at first, by every clock
    /// that wraps, under the first rules. Fragments are long forgotten.
    ///
    /// # Panics
    /// If an entry stays: the sweep's defect.
    pub fn begin(&mut self) {
        let tables = self.installer.store();
        let longest = tables.settings().timeouts.0.into_iter().max().unwrap_or_default();
        let beyond = u64::from(longest + 2) * 256;
        tables.advance(beyond);
        // A sweep takes one entry of a bucket at a time, and tells of it before it frees it.
        while tables.sweep() > 0 {}
        table::assert_empty(tables);
        tables.take_events();
        tables.advance(PERIOD.wrapping_sub(self.elapsed.wrapping_add(beyond)));
        self.elapsed = 0;
        if self.rules != FIRST {
            self.change(FIRST);
        }
        self.ledger = Ledger::new(self.installer.generation());
    }

    /// Runs a frame, which has an Ethernet header at least.
    ///
    /// # Panics
    /// If anything is wrong with what becomes of it.
    pub fn run(&mut self, frame: &[u8], hook: Hook, party: Party) -> Passed {
        let ifindex = party.ifindex().expect("a local party");
        let tables = self.installer.store();
        let before = Books::of(tables);
        let passed = tables.run(frame, ifindex, hook);
        let after = Books::of(tables);
        after.balance(&before, frame.len(), (hook, ifindex), passed.verdict);
        assert_eq!(after.answers() - before.answers(), u64::from(passed.answer.is_some()));
        frame::assert_kept(frame, &passed);
        frame::assert_answered(frame, &passed);
        if hook == Hook::FromEndpoint && passes(&passed) {
            frame::assert_own(frame, party);
        }
        table::assert_sound(tables, self.installer.generation());
        let events = tables.take_events();
        self.ledger.note(&events, (hook, party), |flow| self.trio.allows(self.rules, flow));
        if passes(&passed) {
            let allows = |flow: &_| self.trio.allows(self.rules, flow);
            self.ledger.assert_allowed(frame, (hook, party), allows);
        }
        passed
    }

    /// Publishes a generation.
    ///
    /// # Panics
    /// If it doesn't fit.
    pub fn change(&mut self, rules: Rules) {
        let _ = self.installer.apply(self.trio.plan(rules)).expect("the plan fits");
        self.rules = rules;
        self.ledger.begin_generation(self.installer.generation());
    }

    /// Takes an endpoint off and attaches it anew, under a new generation.
    ///
    /// # Panics
    /// If it can't be attached.
    pub fn reattach(&mut self, party: Party) {
        let slot = party.ifindex().expect("a local party");
        assert_eq!(self.installer.detach(&[slot]).expect("host tables can be written"), 1);
        let _ = self.trio.attach(&mut self.installer, party);
        self.change(self.rules);
    }

    /// Lets time pass, in jiffies.
    pub fn wait(&mut self, jiffies: u64) {
        self.installer.store().advance(jiffies);
        self.elapsed = self.elapsed.wrapping_add(jiffies);
    }

    /// Sweeps the flow tables once.
    pub fn sweep(&mut self) {
        self.installer.store().sweep();
        table::assert_sound(self.installer.store(), self.installer.generation());
    }
}

/// It goes on.
#[must_use]
pub fn passes(passed: &Passed) -> bool {
    !matches!(passed.verdict, Verdict::Drop(_))
}

/// Small tables, so that buckets spill, evict and fill up; emptying them is part of every run.
fn small_tables(trio: &Trio) -> HostTables {
    let cost = trio.widest().cost();
    let settings = Settings {
        flow4_mask: 1,
        flow6_mask: 1,
        endpoint_mask: 7,
        ..*HostTables::for_plan(trio.widest()).settings()
    };
    assert!(settings.endpoint_mask < NO_SLOT);
    let room = HostRoom { ipcache_nodes: cost.ipcache_nodes as u32, events: 64 };
    HostTables::new(settings, room)
}
