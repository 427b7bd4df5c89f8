//! The input, sorted and checked, so that its order makes no difference.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use crate::{
    compile::error::{CompileError, Owner},
    inventory::{Inventory, Workload},
    model::Policy,
};

/// The input, sorted and checked: no name twice, no address with two owners.
pub(super) struct Input<'a> {
    pub(super) inventory: &'a Inventory,
    /// Sorted by name.
    pub(super) policies: Vec<&'a Policy>,
    /// Those that have an address of their own, sorted by name.
    pub(super) workloads: Vec<&'a Workload>,
    /// Nodes by name, with the addresses of the host-network workloads on them.
    pub(super) nodes: BTreeMap<Arc<str>, BTreeSet<IpAddr>>,
}

impl<'a> Input<'a> {
    pub(super) fn new(
        inventory: &'a Inventory,
        policies: &'a [Policy],
    ) -> Result<Self, CompileError> {
        let input = Self {
            inventory,
            policies: sorted_policies(policies)?,
            workloads: sorted_workloads(inventory)?,
            nodes: nodes(inventory)?,
        };
        input.check_addresses()?;
        Ok(input)
    }

    fn check_addresses(&self) -> Result<(), CompileError> {
        let mut owners = HashMap::new();
        let nodes = self.nodes.iter().map(|(name, addresses)| {
            (Owner::Node(name.clone()), addresses.iter().copied().collect::<Vec<_>>())
        });
        let workloads = self
            .workloads
            .iter()
            .map(|workload| (Owner::Workload(workload.id.clone()), workload.addresses.clone()));
        for (owner, addresses) in nodes.chain(workloads) {
            for address in addresses {
                let first = owners.entry(address).or_insert_with(|| owner.clone());
                if *first != owner {
                    let (first, second) = (first.clone(), owner);
                    return Err(CompileError::SharedAddress { address, first, second });
                }
            }
        }
        Ok(())
    }
}

fn sorted_policies(policies: &[Policy]) -> Result<Vec<&Policy>, CompileError> {
    let mut sorted: Vec<&Policy> = policies.iter().collect();
    sorted.sort_by(|a, b| a.id.cmp(&b.id));
    match sorted.windows(2).find(|pair| pair[0].id == pair[1].id) {
        Some(pair) => Err(CompileError::DuplicatePolicy { policy: pair[0].id.clone() }),
        None => Ok(sorted),
    }
}

fn sorted_workloads(inventory: &Inventory) -> Result<Vec<&Workload>, CompileError> {
    let mut sorted: Vec<&Workload> = inventory.workloads.iter().collect();
    sorted.sort_by(|a, b| a.id.cmp(&b.id));
    if let Some(pair) = sorted.windows(2).find(|pair| pair[0].id == pair[1].id) {
        return Err(CompileError::DuplicateWorkload { workload: pair[0].id.clone() });
    }
    sorted.retain(|workload| !workload.host_network && !workload.addresses.is_empty());
    Ok(sorted)
}

fn nodes(inventory: &Inventory) -> Result<BTreeMap<Arc<str>, BTreeSet<IpAddr>>, CompileError> {
    let mut nodes: BTreeMap<Arc<str>, BTreeSet<IpAddr>> = BTreeMap::new();
    for node in &inventory.nodes {
        let addresses = node.addresses.iter().copied().collect();
        if nodes.insert(node.name.clone(), addresses).is_some() {
            return Err(CompileError::DuplicateNode { node: node.name.clone() });
        }
    }
    for workload in inventory.workloads.iter().filter(|workload| workload.host_network) {
        if let Some(node) = &workload.node {
            nodes.entry(node.clone()).or_default().extend(&workload.addresses);
        }
    }
    Ok(nodes)
}
