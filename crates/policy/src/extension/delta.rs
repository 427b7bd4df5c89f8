//! What of two plans differs, worked out before anybody waits for it.
//!
//! Invariant: what isn't here has the same peer, the same addresses and the same identity in both.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::matched::Matched;
use crate::{inventory::WorkloadRef, peer_key::PeerKey, plan::Plan};

/// What of the next plan the running one hasn't, and the other way round.
#[derive(Clone, Debug)]
pub(crate) struct Delta {
    /// Networks that are in one of them alone, or lead to another peer.
    pub(crate) networks: BTreeSet<IpNet>,
    /// Endpoints that are in one of them alone, or have other addresses.
    pub(crate) workloads: BTreeSet<WorkloadRef>,
    /// Peers of the next plan alone: indexes into its peers.
    pub(crate) new: Vec<usize>,
    /// Peers of both that have another identity: indexes into the next plan's peers.
    pub(crate) renamed: Vec<usize>,
    /// Peers of the running plan alone.
    pub(crate) gone: Vec<PeerKey>,
    /// Networks are among these peers: they may share numbers, and so identities, with others.
    pub(crate) shares: bool,
}

impl Delta {
    pub(super) fn of(running: &Plan, next: &Plan, peers: &Matched, ends: &Matched) -> Self {
        let all = peers.of_next.iter().enumerate();
        let new: Vec<usize> = all.filter(|(_, at)| at.is_none()).map(|(new, _)| new).collect();
        let other = |(at, before): &(usize, usize)| {
            next.peers[*at].identity != running.peers[*before].identity
        };
        let renamed: Vec<usize> = peers.both().filter(other).map(|(at, _)| at).collect();
        let gone: Vec<PeerKey> =
            peers.gone.iter().map(|at| running.peers[*at].key.clone()).collect();
        let differing = new.iter().chain(&renamed).map(|at| &next.peers[*at].key);
        let shares = differing.chain(&gone).any(|key| matches!(key, PeerKey::Network(_)));
        let networks = networks(running, next, peers);
        Self { networks, workloads: workloads(running, next, ends), new, renamed, gone, shares }
    }
}

fn networks(running: &Plan, next: &Plan, peers: &Matched) -> BTreeSet<IpNet> {
    let matched = Matched::networks(running, next);
    let is_same = |before: usize, peer: u32| {
        peers.of_next[peer as usize] == Some(running.ipcache[before].1 as usize)
    };
    let after = next.ipcache.iter().zip(&matched.of_next);
    let changed = after.filter(|((_, peer), at)| !at.is_some_and(|at| is_same(at, *peer)));
    let changed = changed.map(|((network, _), _)| *network);
    changed.chain(matched.gone.iter().map(|at| running.ipcache[*at].0)).collect()
}

fn workloads(running: &Plan, next: &Plan, ends: &Matched) -> BTreeSet<WorkloadRef> {
    let is_same = |before: usize, at: usize| {
        running.endpoints[before].addresses == next.endpoints[at].addresses
    };
    let after = ends.of_next.iter().enumerate();
    let changed = after.filter(|(at, before)| !before.is_some_and(|before| is_same(before, *at)));
    let changed = changed.map(|(at, _)| next.endpoints[at].workload.clone());
    let gone = ends.gone.iter().map(|at| running.endpoints[*at].workload.clone());
    changed.chain(gone).collect()
}
