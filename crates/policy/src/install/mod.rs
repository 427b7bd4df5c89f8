//! Installing a plan: from a plan's numbers to those of the running tables, without a packet ever
//! seeing half of it.
//!
//! Not here: where the tables lie (a [`Store`]: host vectors or kernel maps), and what they mean to
//! a packet (`flowgate-pipeline`).
//!
//! The order of writes is the whole point (expand, flip, contract):
//! 1. the new generation is written into the slot that no packet reads;
//! 2. **expand**: peers that the plan splits get, in the running generation, the class of the peer
//!    that they come from; then addresses move to them, and no verdict changes;
//! 3. after a grace period **flip**: one store publishes the generation;
//! 4. after a grace period **contract**: addresses move on to peers that only the new generation
//!    knows apart, prefixes that nobody needs go, and peers without addresses are given back.
//!
//! Invariant: a number (peer, trie node, slot's contents) isn't used again before a grace period
//! has passed since the last packet that could have read it.

mod add;
mod adopt;
mod apply;
mod concern;
mod endpoints;
mod extend;
mod nodes;
mod numbers;
mod pressure;
mod store;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use flowgate_abi::{Settings, endpoint::Leaf};
use flowgate_identity::Ipcache;
use ipnet::IpNet;
use thiserror::Error;

pub use adopt::{RestoreError, restore};
pub use apply::Applied;
pub use endpoints::{Binding, EndpointAddress};
pub use pressure::Pressure;
pub use store::{EndpointRow, GenerationHead, IpcacheCell, Store};

use crate::{
    cost::{Capacity, Overflow},
    inventory::WorkloadRef,
    plan::Plan,
};
use nodes::Nodes;
use numbers::Numbers;

/// Why something couldn't be installed. But for [`InstallError::Store`], nothing was written.
#[non_exhaustive]
#[derive(Debug, Error)]
pub enum InstallError<E: std::error::Error + 'static> {
    /// The plan doesn't fit.
    #[error(transparent)]
    Overflow(#[from] Overflow),
    /// The plan fits by itself, but not beside the running one, which shares the peers until the
    /// new one is published.
    #[error("peers: {needed} more are needed beside those in use, {have} are free")]
    PeersInTransition {
        /// Peers that the transition needs.
        needed: usize,
        /// Peers that are free.
        have: usize,
    },
    /// The plan's networks fit by themselves, but not beside the running ones.
    #[error("nodes of the ipcache: {needed} are needed for old and new networks, there are {have}")]
    TrieInTransition {
        /// Nodes that both need together.
        needed: usize,
        /// Nodes that there are.
        have: usize,
    },
    /// The plan has policies for a node that isn't attached, so nobody would enforce them.
    #[error(
        "the plan has policies for node {node}, and no uplink of it is attached: attach one, or compile with \
         EndpointScope::LocalNode"
    )]
    NodeNotAttached {
        /// The node.
        node: Arc<str>,
    },
    /// A workload's place is in another plan than the one that runs.
    #[error("the placement is of another plan than the running one: place it in that one")]
    OtherPlan,
    /// An extension was made of another plan than the one that runs.
    #[error(
        "the extension is of another plan than the running one: make one of that, or apply its plan"
    )]
    NotRunning,
    /// No slot is free for another endpoint.
    #[error("endpoints: all {capacity} slots are taken")]
    NoSlot {
        /// How many there are.
        capacity: u32,
    },
    /// An endpoint is bound to that interface already.
    #[error("interface {ifindex} has an endpoint already: {workload}")]
    InterfaceTaken {
        /// The interface index.
        ifindex: u32,
        /// Whose it is.
        workload: WorkloadRef,
    },
    /// An endpoint has that address already.
    #[error("address {address} has an endpoint already: {workload}")]
    AddressTaken {
        /// The address.
        address: std::net::IpAddr,
        /// Whose it is.
        workload: WorkloadRef,
    },
    /// The tables couldn't be read or written. What was half done denies rather than allows, and the
    /// call may be repeated; which generation runs, [`Installer::generation`] says.
    #[error("the tables couldn't be accessed: {0}")]
    Store(#[source] E),
}

impl<E: std::error::Error + 'static> InstallError<E> {
    /// The same error, over another store's.
    pub fn map_store<O: std::error::Error + 'static>(
        self,
        map: impl FnOnce(E) -> O,
    ) -> InstallError<O> {
        match self {
            Self::Overflow(overflow) => InstallError::Overflow(overflow),
            Self::PeersInTransition { needed, have } => {
                InstallError::PeersInTransition { needed, have }
            }
            Self::TrieInTransition { needed, have } => {
                InstallError::TrieInTransition { needed, have }
            }
            Self::NodeNotAttached { node } => InstallError::NodeNotAttached { node },
            Self::OtherPlan => InstallError::OtherPlan,
            Self::NotRunning => InstallError::NotRunning,
            Self::NoSlot { capacity } => InstallError::NoSlot { capacity },
            Self::InterfaceTaken { ifindex, workload } => {
                InstallError::InterfaceTaken { ifindex, workload }
            }
            Self::AddressTaken { address, workload } => {
                InstallError::AddressTaken { address, workload }
            }
            Self::Store(error) => InstallError::Store(map(error)),
        }
    }
}

/// Installs plans and endpoints into a [`Store`].
#[derive(Debug)]
pub struct Installer<S> {
    store: S,
    capacity: Capacity,
    ipcache: Ipcache<Leaf>,
    nodes: Nodes,
    numbers: Numbers,
    bindings: BTreeMap<u32, Binding>,
    plan: Option<Arc<Plan>>,
    /// Cells of a group of rows in the running generation, spare ones included.
    line: usize,
    /// Slots of endpoints that have policies in the running generation, as far as is known.
    open: BTreeSet<u32>,
    /// Networks that may not lead where the running plan says; `None`: nobody knows.
    strays: Option<BTreeSet<IpNet>>,
    /// Peers that lost an address since the last grace period.
    robbed: BTreeSet<u32>,
}

impl<S: Store> Installer<S> {
    /// The store.
    pub const fn store(&self) -> &S {
        &self.store
    }

    /// The store, to read what only a unique reference may read. Writing tables past the installer
    /// breaks its invariants.
    pub const fn store_mut(&mut self) -> &mut S {
        &mut self.store
    }

    /// The store alone; what it holds runs on.
    pub fn into_store(self) -> S {
        self.store
    }

    /// How much room the tables have.
    #[must_use]
    pub const fn capacity(&self) -> &Capacity {
        &self.capacity
    }

    /// The plan that was applied last by this installer.
    #[must_use]
    pub fn plan(&self) -> Option<&Arc<Plan>> {
        self.plan.as_ref()
    }

    /// The number of the running generation; 0: none.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.store.active()
    }

    /// The endpoints, by slot.
    pub fn bindings(&self) -> impl Iterator<Item = (u32, &Binding)> {
        self.bindings.iter().map(|(slot, binding)| (*slot, binding))
    }

    /// Gives networks their leaves.
    fn set_prefixes(&mut self, prefixes: &[(IpNet, Leaf)]) -> Result<(), S::Error> {
        self.ipcache.extend(prefixes.iter().copied());
        let changed: Vec<IpNet> = prefixes.iter().map(|(net, _)| *net).collect();
        self.nodes.write(&mut self.store, &mut self.ipcache, &changed)
    }

    fn remove_prefixes(&mut self, prefixes: &[IpNet]) -> Result<(), S::Error> {
        for net in prefixes {
            self.ipcache.remove(*net);
        }
        self.nodes.write(&mut self.store, &mut self.ipcache, prefixes)
    }

    /// The peer that a network's addresses have now, those in longer prefixes left out.
    fn peer_at(&self, net: &IpNet) -> Option<u32> {
        let (_, leaf) = self.ipcache.around(*net)?;
        self.peer_of(*leaf, matches!(net, IpNet::V6(_)))
    }

    fn peer_of(&self, leaf: Leaf, v6: bool) -> Option<u32> {
        match leaf.as_endpoint() {
            Some(slot) => {
                let row = self.store.endpoint(slot);
                Some(if v6 { row.peer6 } else { row.peer4 })
            }
            None => leaf.as_peer(),
        }
    }

    /// Takes an address's flows away from a peer. A peer's epoch that would wrap is met by a new
    /// number for the same generation, so that no flow takes an old epoch for the present one.
    fn bump_epoch(&mut self, peer: u32) {
        let epoch = self.store.bump_epoch(peer);
        if epoch.trailing_zeros() >= flowgate_abi::endpoint::EPOCH_BITS {
            self.renumber_generation();
        }
    }

    /// The same generation under its next number in the same slot. Between the two stores new flows
    /// are dropped (`IncompleteGeneration`), which is some nanoseconds once in 4096 epochs.
    fn renumber_generation(&mut self) {
        let active = self.store.active();
        if active != 0 {
            let next = next_in_slot(active);
            self.store.renumber(active & 1, next);
            self.store.set_active(next);
        }
    }
}

/// The next number that lies in the same slot; never 0.
const fn next_in_slot(generation: u32) -> u32 {
    match generation.wrapping_add(2) {
        0 => 2,
        next => next,
    }
}

/// How much room a store's tables have.
fn capacity_of<S: Store>(store: &S) -> Capacity {
    let Settings { endpoint_mask, peers, row_cells, decision_cells, decisions, .. } =
        *store.settings();
    Capacity {
        endpoints: endpoint_mask as usize + 1,
        // Peer 0 is nobody's.
        peers: peers as usize - 1,
        row_cells: row_cells as usize,
        decision_cells: decision_cells as usize,
        decisions: decisions as usize,
        ipcache_nodes: nodes::capacity(store),
    }
}
