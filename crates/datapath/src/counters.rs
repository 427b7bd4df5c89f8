//! Counters: what passed, what was dropped and why.

use std::collections::BTreeMap;

use flowgate_abi::{
    DropReason,
    event::{Counter, Hook, Tally},
};

use crate::endpoint::EndpointId;

/// Everything that is counted, summed over all CPUs, since the tables were made.
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// What passed each endpoint, by egress and ingress of the packet, seen from the endpoint.
    pub traffic: BTreeMap<EndpointId, EndpointTraffic>,
    /// What was dropped, by hook and reason; reasons that never occurred are left out.
    pub drops: BTreeMap<DropKey, Tally>,
    /// Everything else, in the order of [`Counter::ALL`].
    pub others: BTreeMap<Counter, u64>,
}

impl Counters {
    /// Packets that were dropped for a reason, at both hooks.
    #[must_use]
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops.iter().filter(|(key, _)| key.reason == reason).map(|(_, t)| t.packets).sum()
    }

    /// One of the other counters.
    #[must_use]
    pub fn get(&self, counter: Counter) -> u64 {
        self.others.get(&counter).copied().unwrap_or_default()
    }
}

/// What passed an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EndpointTraffic {
    /// From the endpoint.
    pub egress: Tally,
    /// To the endpoint.
    pub ingress: Tally,
}

/// Where and why packets were dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DropKey {
    /// `true`: on its way to an endpoint from elsewhere; `false`: it came from an endpoint.
    pub to_endpoint: bool,
    /// Why.
    pub reason: DropReason,
}

impl DropKey {
    /// All keys, with the index of each in the map.
    pub(crate) fn all() -> impl Iterator<Item = (u32, Self)> {
        [Hook::FromEndpoint, Hook::ToEndpoint].into_iter().flat_map(|hook| {
            DropReason::ALL.iter().map(move |&reason| {
                let index = hook as u32 * flowgate_abi::event::DROP_REASONS + reason as u32;
                (index, Self { to_endpoint: hook == Hook::ToEndpoint, reason })
            })
        })
    }
}
