//! The tables of the boundary over vectors: the host's side of `flowgate-pipeline`'s seam.
//!
//! The same layouts as in the kernel, written by the same installer ([`crate::install`]), read by
//! the same pipeline; what differs is where the memory lies. Time stands still until
//! [`HostTables::advance`] moves it, so that nothing here depends on a clock.

mod frame;
mod store;
mod tables;

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, VecDeque},
};

use flowgate_abi::{
    Settings, Timeouts,
    endpoint::{Endpoint, Peer},
    event::{Event, EventBudget, Hook, Tally},
    flow::{Bucket4, Bucket6},
    fragment::FragmentBucket,
    ipcache::{Node, ROOTS, SPARE},
    policy::{Decision, EndpointPolicy, Generation, PortTable},
};
use flowgate_pipeline::{
    V4, V6, Verdict,
    hook::{self, Ran, route},
    sweep,
};

use self::frame::HostFrame;

/// How much room host tables have beyond what [`Settings`] say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostRoom {
    /// Nodes of the ipcache that networks may need.
    pub ipcache_nodes: u32,
    /// Events that may wait to be read.
    pub events: usize,
}

/// The tables, over vectors.
#[derive(Debug)]
pub struct HostTables {
    settings: Settings,
    room: HostRoom,
    jiffies: Cell<u64>,
    flows4: Vec<Bucket4>,
    flows6: Vec<Bucket6>,
    fragments: Vec<FragmentBucket>,
    endpoints: Vec<Endpoint>,
    links: HashMap<u32, u32>,
    ipcache: Vec<Node>,
    peers: Vec<Peer>,
    active: Cell<u32>,
    generations: [Generation; 2],
    endpoint_policy: Vec<EndpointPolicy>,
    peer_class: Vec<u16>,
    port_class: Vec<u16>,
    rows: Vec<u16>,
    decision_cells: Vec<u16>,
    decisions: Vec<Decision>,
    drops: RefCell<Vec<Tally>>,
    traffic: RefCell<Vec<[Tally; 2]>>,
    counters: RefCell<Vec<u64>>,
    event_budget: RefCell<EventBudget>,
    answer_budget: RefCell<EventBudget>,
    /// To the packet at hand.
    response: Cell<u8>,
    events: RefCell<VecDeque<Event>>,
}

/// What became of a frame on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passed {
    /// What the pipeline said.
    pub verdict: Verdict,
    /// The frame as it goes on.
    pub frame: Vec<u8>,
    /// The answer to it, which goes back to its sender.
    pub answer: Option<Vec<u8>>,
}

fn zeroed<T: Default>(count: usize) -> Vec<T> {
    std::iter::repeat_with(T::default).take(count).collect()
}

impl HostTables {
    /// Empty tables.
    #[must_use]
    pub fn new(settings: Settings, room: HostRoom) -> Self {
        let endpoints = settings.endpoint_mask as usize + 1;
        let peers = settings.peers as usize;
        Self {
            settings,
            room,
            // Not 0: the kernel's counter never is either, and a budget's 0 means "never filled".
            jiffies: Cell::new(1 << 20),
            flows4: zeroed(settings.flow4_mask as usize + 1),
            flows6: zeroed(settings.flow6_mask as usize + 1),
            fragments: zeroed(settings.fragment_mask as usize + 1),
            endpoints: zeroed(endpoints),
            links: HashMap::new(),
            ipcache: zeroed((ROOTS + room.ipcache_nodes + SPARE) as usize),
            peers: zeroed(peers),
            active: Cell::new(0),
            generations: Default::default(),
            endpoint_policy: zeroed(2 * endpoints),
            peer_class: vec![0; 2 * peers],
            port_class: vec![0; 2 * PortTable::COUNT * PortTable::PORTS],
            rows: vec![0; 2 * settings.row_cells as usize],
            decision_cells: vec![0; 2 * settings.decision_cells as usize],
            decisions: vec![Decision::UNREACHABLE; 2 * settings.decisions as usize],
            drops: RefCell::new(vec![Tally::default(); 512]),
            traffic: RefCell::new(vec![[Tally::default(); 2]; endpoints]),
            counters: RefCell::new(vec![0; 32]),
            event_budget: RefCell::new(EventBudget::default()),
            answer_budget: RefCell::new(EventBudget::default()),
            response: Cell::new(0),
            events: RefCell::new(VecDeque::new()),
        }
    }

    /// Tables with room for a plan, and a few flows.
    #[must_use]
    pub fn for_plan(plan: &crate::plan::Plan) -> Self {
        let cost = plan.cost();
        let addresses: usize = plan.endpoints.iter().map(|endpoint| endpoint.addresses.len()).sum();
        let endpoints = (addresses + 1).next_power_of_two();
        let settings = Settings {
            hash_seed: 0x5eed,
            flow4_mask: 63,
            flow6_mask: 63,
            endpoint_mask: endpoints as u32 - 1,
            peers: cost.peers as u32 + 1,
            row_cells: cost.row_cells as u32,
            decision_cells: cost.decision_cells as u32,
            decisions: cost.decisions as u32,
            hz: 250,
            timeouts: Timeouts([60, 8000, 10, 60]),
            events_per_second: u32::MAX,
            fragment_timeout: 250 * 5,
            mark: 1,
            flags: 0,
            fragment_mask: 15,
            answers_per_second: u32::MAX,
            answer_mark: 2,
            reserved: 0,
        };
        let room = HostRoom { ipcache_nodes: cost.ipcache_nodes as u32, events: 1 << 12 };
        Self::new(settings, room)
    }

    /// Runs a frame through a hook, with everything that this changes.
    pub fn run(&self, frame: &[u8], ifindex: u32, hook: Hook) -> Passed {
        let mut reshaped = HostFrame(frame.to_vec());
        let Ran { verdict, answered } = hook::run_and_answer(&mut reshaped, ifindex, hook, self);
        let mut frame = frame.to_vec();
        if let Verdict::Redirect(slot) | Verdict::RedirectPeer(slot) = verdict {
            let endpoint = &self.endpoints[slot as usize];
            let bytes = &mut frame.as_mut_slice();
            // What is redirected has no tags, so the EtherType is that of the network header.
            let routed = match bytes[12] {
                0x86 => route::<V6, _>(bytes, endpoint),
                _ => route::<V4, _>(bytes, endpoint),
            };
            debug_assert!(routed.is_some(), "a parsed frame has room for its addresses");
        }
        Passed { verdict, frame, answer: answered.then_some(reshaped.0) }
    }

    /// Sweeps both flow tables once; returns how many entries had something to tell.
    pub fn sweep(&self) -> u32 {
        let first: u32 =
            (0..self.flows4.len() as u32).map(|index| sweep::bucket::<V4, _>(self, index)).sum();
        let second: u32 =
            (0..self.flows6.len() as u32).map(|index| sweep::bucket::<V6, _>(self, index)).sum();
        first + second
    }

    /// Lets time pass, in jiffies.
    pub fn advance(&self, jiffies: u64) {
        self.jiffies.set(self.jiffies.get().wrapping_add(jiffies));
    }

    /// Takes the events that wait, oldest first.
    pub fn take_events(&self) -> Vec<Event> {
        self.events.borrow_mut().drain(..).collect()
    }

    /// Drops by `hook * 256 + reason`.
    #[must_use]
    pub fn drops(&self) -> Vec<Tally> {
        self.drops.borrow().clone()
    }

    /// Traffic by slot.
    #[must_use]
    pub fn traffic(&self) -> Vec<[Tally; 2]> {
        self.traffic.borrow().clone()
    }

    /// Counters by [`flowgate_abi::event::Counter`].
    #[must_use]
    pub fn counters(&self) -> Vec<u64> {
        self.counters.borrow().clone()
    }

    /// The IPv4 flow table, for comparing.
    #[must_use]
    pub fn flows4(&self) -> &[Bucket4] {
        &self.flows4
    }

    /// The IPv6 flow table, for comparing.
    #[must_use]
    pub fn flows6(&self) -> &[Bucket6] {
        &self.flows6
    }

    #[cfg(test)]
    pub(crate) fn tiny(ipcache_nodes: u32) -> Self {
        let settings = Settings {
            hash_seed: 1,
            flow4_mask: 1,
            flow6_mask: 1,
            endpoint_mask: 7,
            peers: 64,
            row_cells: 256,
            decision_cells: 256,
            decisions: 64,
            hz: 250,
            timeouts: Timeouts([60, 8000, 10, 60]),
            events_per_second: u32::MAX,
            fragment_timeout: 250 * 5,
            mark: 1,
            flags: 0,
            fragment_mask: 15,
            answers_per_second: u32::MAX,
            answer_mark: 2,
            reserved: 0,
        };
        let room = HostRoom { ipcache_nodes, events: 16 };
        Self::new(settings, room)
    }
}
