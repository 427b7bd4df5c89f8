//! Which peers of a plan share a number in the tables: networks of one family that it doesn't tell apart.
//!
//! Among many networks that is what a new flow's verdict costs: the look-up of an address is a few lines of
//! the cache, and what it leads to stays in the cache if it is shared. A plan that tells such networks apart
//! again moves them apart before it is published, as it does with any peer that it splits.

use std::collections::{HashMap, HashSet};

use ipnet::IpNet;

use crate::{peer_key::PeerKey, plan::Plan};

/// Whose number a peer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Share {
    /// Its own: workloads and nodes are told apart from plan to plan, by their identities.
    Own(u32),
    /// That of all networks of a family with this class.
    Networks { v6: bool, class: u16 },
}

impl Plan {
    /// The share of each peer.
    pub(crate) fn shares(&self) -> impl Iterator<Item = Share> + '_ {
        self.peers.iter().zip(0..).map(|(peer, number)| match &peer.key {
            PeerKey::Network(network) => {
                Share::Networks { v6: matches!(network, IpNet::V6(_)), class: peer.class }
            }
            PeerKey::Workload { .. } | PeerKey::Node { .. } => Share::Own(number),
        })
    }

    /// How many numbers the plan's peers have.
    pub(crate) fn distinct_shares(&self) -> usize {
        self.shares().collect::<HashSet<_>>().len()
    }

    /// The shares of what lies in each network.
    pub(crate) fn shares_by_network(&self) -> HashMap<IpNet, Vec<Share>> {
        let mut shares: HashMap<IpNet, Vec<Share>> = HashMap::new();
        for (peer, share) in self.peers.iter().zip(self.shares()) {
            shares.entry(peer.key.network()).or_default().push(share);
        }
        shares
    }
}
