//! What the balancer has counted.

use std::collections::BTreeMap;

use flowgate_abi::{DropReason, event::Tally, lb::Counter};
use flowgate_services::{ServiceStats, SourceStats};

/// Everything that was counted, summed over all CPUs.
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BalancerStats {
    /// What each service and its backends got, by name.
    pub services: Vec<ServiceStats>,
    /// How many ports of each of full NAT's sources are taken.
    pub sources: Vec<SourceStats>,
    /// What was dropped, by reason; reasons that never occurred aren't there.
    pub drops: BTreeMap<DropReason, Tally>,
    /// What else was counted.
    pub counters: BTreeMap<Counter, u64>,
}

impl BalancerStats {
    /// A counter.
    #[must_use]
    pub fn get(&self, counter: Counter) -> u64 {
        self.counters.get(&counter).copied().unwrap_or(0)
    }
}
