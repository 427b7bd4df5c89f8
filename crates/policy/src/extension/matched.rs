//! Which parts of two plans are the same: those with equal keys.

use ipnet::IpNet;

use crate::{
    inventory::WorkloadRef,
    peer_key::PeerKey,
    plan::{Plan, PlannedEndpoint, PlannedPeer},
};

/// Of a kind of parts: where each of the next plan is in the running one, and which are there alone.
#[derive(Debug)]
pub(super) struct Matched {
    /// By index in the next plan.
    pub(super) of_next: Vec<Option<usize>>,
    /// Indexes in the running plan.
    pub(super) gone: Vec<usize>,
}

impl Matched {
    pub(super) fn peers(running: &Plan, next: &Plan) -> Self {
        fn key(peer: &PlannedPeer) -> &PeerKey {
            &peer.key
        }
        Self::new(&running.peers, &next.peers, key)
    }

    pub(super) fn endpoints(running: &Plan, next: &Plan) -> Self {
        fn key(end: &PlannedEndpoint) -> &WorkloadRef {
            &end.workload
        }
        Self::new(&running.endpoints, &next.endpoints, key)
    }

    pub(super) fn networks(running: &Plan, next: &Plan) -> Self {
        fn key((network, _): &(IpNet, u32)) -> &IpNet {
            network
        }
        Self::new(&running.ipcache, &next.ipcache, key)
    }

    /// Both are sorted by key, without duplicates.
    fn new<T, K: Ord>(running: &[T], next: &[T], key: fn(&T) -> &K) -> Self {
        let mut gone = Vec::new();
        let mut rest = running.iter().enumerate().peekable();
        let of_next = next.iter().map(|one| {
            while let Some((at, _)) = rest.next_if(|(_, known)| key(known) < key(one)) {
                gone.push(at);
            }
            rest.next_if(|(_, known)| key(known) == key(one)).map(|(at, _)| at)
        });
        let of_next = of_next.collect();
        gone.extend(rest.map(|(at, _)| at));
        Self { of_next, gone }
    }

    /// Those of both plans: index in the next one and in the running one.
    pub(super) fn both(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let all = self.of_next.iter().enumerate();
        all.filter_map(|(next, running)| Some((next, (*running)?)))
    }
}
