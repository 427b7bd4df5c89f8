//! Addresses for pods and nodes whose manifests have none.
//!
//! A manifest that was written by hand seldom has addresses, and evaluating needs them. What is
//! given depends on the order of reading alone, so the same manifests get the same addresses.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use flowgate_policy::{
    inventory::{Inventory, Workload},
    model::{Peer, Peers, Policy, Rule},
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use thiserror::Error;

use crate::{Manifests, ObjectName, Warning, node};

/// Where addresses come from that no manifest gives.
///
/// The default is `198.18.128.0/17`, in the range for benchmarks (RFC 2544), and `2001:db8:f::/64`, in
/// the range for documentation (RFC 3849). The first and the last address aren't given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressRanges {
    /// The IPv4 addresses.
    pub ipv4: Ipv4Net,
    /// The IPv6 addresses.
    pub ipv6: Ipv6Net,
}

impl Default for AddressRanges {
    fn default() -> Self {
        Self {
            ipv4: Ipv4Net::new_assert(Ipv4Addr::new(198, 18, 128, 0), 17),
            ipv6: Ipv6Net::new_assert(Ipv6Addr::new(0x2001, 0xdb8, 0xf, 0, 0, 0, 0, 0), 64),
        }
    }
}

/// Why addresses can't be assigned.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AssignError {
    /// A range has no address left.
    #[error("no address is left in {range} for {owner}")]
    Exhausted {
        /// The range.
        range: IpNet,
        /// Who needs one.
        owner: ObjectName,
    },
}

impl Manifests {
    /// Gives addresses to the pods and nodes that have none, in the order in which they were read,
    /// pods first. They get one of each family, or of one family if every pod that has addresses
    /// has that family alone. Addresses that are taken are passed over.
    ///
    /// A host-network pod gets its node's addresses, and a node without addresses takes those that
    /// its host-network pods report.
    ///
    /// If a policy has an ipBlock, [`Warning::AssignedAddresses`] says who got addresses.
    ///
    /// # Errors
    ///
    /// [`AssignError`] if a range is exhausted; nothing has changed then.
    pub fn assign_addresses(&mut self, ranges: &AddressRanges) -> Result<(), AssignError> {
        let mut inventory = self.inventory.clone();
        learn_node_addresses(&mut inventory);
        let mut supply = Supply::new(&inventory, ranges);
        supply.give_to_workloads(&mut inventory)?;
        supply.give_to_nodes(&mut inventory)?;
        copy_node_addresses(&mut inventory);
        for (owner, address) in supply.given {
            self.index.assign(address, owner);
        }
        self.warn_of_assigned(&inventory, ranges);
        self.inventory = inventory;
        Ok(())
    }

    fn warn_of_assigned(&mut self, after: &Inventory, ranges: &AddressRanges) {
        let pods = self.inventory.workloads.iter().zip(&after.workloads);
        let pods = pods.filter(|(before, after)| {
            let is_its_node = after.host_network && after.node.is_some();
            before.addresses.is_empty() && !is_its_node
        });
        let inside = |address: &IpAddr| {
            IpNet::from(ranges.ipv4).contains(address) || IpNet::from(ranges.ipv6).contains(address)
        };
        let nodes = self.inventory.nodes.iter().zip(&after.nodes).filter(|(before, after)| {
            before.addresses.is_empty() && after.addresses.iter().any(inside)
        });
        let workloads: Vec<_> = pods.map(|(_, pod)| pod.id.clone()).collect();
        let nodes: Vec<_> = nodes.map(|(_, node)| Arc::clone(&node.name)).collect();
        let any = !workloads.is_empty() || !nodes.is_empty();
        if any && self.policies.iter().any(names_addresses) {
            let AddressRanges { ipv4, ipv6 } = *ranges;
            self.warnings.push(Warning::AssignedAddresses { workloads, nodes, ipv4, ipv6 });
        }
    }
}

fn names_addresses(policy: &Policy) -> bool {
    let rules = |rules: &Option<Vec<Rule>>| {
        rules.iter().flatten().any(|rule| match &rule.peers {
            Peers::Any => false,
            Peers::OneOf(peers) => peers.iter().any(|peer| matches!(peer, Peer::Cidr { .. })),
        })
    };
    rules(&policy.ingress) || rules(&policy.egress)
}

fn learn_node_addresses(inventory: &mut Inventory) {
    for node in inventory.nodes.iter_mut().filter(|node| node.addresses.is_empty()) {
        let on_it = |pod: &&Workload| pod.host_network && pod.node.as_ref() == Some(&node.name);
        let pods = inventory.workloads.iter().filter(on_it);
        let known = pods.flat_map(|pod| pod.addresses.iter().copied());
        node.addresses = known.collect::<BTreeSet<_>>().into_iter().collect();
    }
}

fn copy_node_addresses(inventory: &mut Inventory) {
    for pod in inventory.workloads.iter_mut().filter(|pod| pod.host_network) {
        let own = inventory.nodes.iter().find(|node| Some(&node.name) == pod.node.as_ref());
        if let Some(node) = own {
            pod.addresses.clone_from(&node.addresses);
        }
    }
}

/// The addresses that are still to be had.
struct Supply {
    ipv4: Option<Range>,
    ipv6: Option<Range>,
    taken: BTreeSet<IpAddr>,
    given: Vec<(ObjectName, IpAddr)>,
}

/// A range, and how many of its addresses were looked at.
struct Range {
    network: IpNet,
    next: u128,
}

impl Range {
    /// The next address that isn't taken.
    fn take(&mut self, taken: &BTreeSet<IpAddr>) -> Option<IpAddr> {
        let last = bits(self.network.broadcast());
        loop {
            let candidate = bits(self.network.network()).checked_add(self.next)?;
            if candidate >= last {
                return None;
            }
            self.next += 1;
            let address = match self.network {
                IpNet::V4(_) => IpAddr::V4(u32::try_from(candidate).ok()?.into()),
                IpNet::V6(_) => IpAddr::V6(candidate.into()),
            };
            if !taken.contains(&address) {
                return Some(address);
            }
        }
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

impl Supply {
    fn new(inventory: &Inventory, ranges: &AddressRanges) -> Self {
        let of_pods = || inventory.workloads.iter().flat_map(|pod| &pod.addresses);
        let any_ipv4 = of_pods().any(IpAddr::is_ipv4);
        let any_ipv6 = of_pods().any(IpAddr::is_ipv6);
        let range = |network| Range { network, next: 1 };
        let of_nodes = inventory.nodes.iter().flat_map(|node| &node.addresses);
        Self {
            ipv4: (any_ipv4 || !any_ipv6).then(|| range(ranges.ipv4.into())),
            ipv6: (any_ipv6 || !any_ipv4).then(|| range(ranges.ipv6.into())),
            taken: of_pods().chain(of_nodes).copied().collect(),
            given: Vec::new(),
        }
    }

    fn give_to_workloads(&mut self, inventory: &mut Inventory) -> Result<(), AssignError> {
        for pod in &mut inventory.workloads {
            let is_its_node = pod.host_network && pod.node.is_some();
            if pod.addresses.is_empty() && !is_its_node {
                let owner = ObjectName {
                    kind: "Pod".into(),
                    namespace: Some(Arc::clone(&pod.id.namespace)),
                    name: Some(Arc::clone(&pod.id.name)),
                };
                pod.addresses = self.give(&owner)?;
            }
        }
        Ok(())
    }

    fn give_to_nodes(&mut self, inventory: &mut Inventory) -> Result<(), AssignError> {
        for node in inventory.nodes.iter_mut().filter(|node| node.addresses.is_empty()) {
            node.addresses = self.give(&node::owner(&node.name))?;
        }
        Ok(())
    }

    fn give(&mut self, owner: &ObjectName) -> Result<Vec<IpAddr>, AssignError> {
        let mut addresses = Vec::new();
        for range in [&mut self.ipv4, &mut self.ipv6].into_iter().flatten() {
            let address = range.take(&self.taken).ok_or_else(|| AssignError::Exhausted {
                range: range.network,
                owner: owner.clone(),
            })?;
            addresses.push(address);
            self.given.push((owner.clone(), address));
        }
        Ok(addresses)
    }
}
