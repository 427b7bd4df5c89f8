//! The links of everybody in an inventory at whom policies may be enforced.

use std::net::IpAddr;

use flowgate_abi::endpoint::Endpoint;
use flowgate_policy::{
    install::EndpointAddress,
    inventory::{Inventory, WorkloadRef},
    plan::Plan,
};

/// The links of all workloads with addresses of their own and of all nodes, whether or not a policy
/// selects them; interface indexes from 101 on. A link for each pair of addresses.
#[must_use]
pub fn links(inventory: &Inventory) -> Vec<(WorkloadRef, EndpointAddress)> {
    let nodes = inventory.nodes.iter().map(|node| {
        let hosts = inventory
            .workloads
            .iter()
            .filter(|workload| workload.host_network && workload.node.as_ref() == Some(&node.name));
        let mut addresses = node.addresses.clone();
        addresses.extend(hosts.flat_map(|workload| &workload.addresses));
        addresses.sort_unstable();
        addresses.dedup();
        (WorkloadRef::node(node.name.clone()), addresses)
    });
    let own = inventory.workloads.iter().filter(|workload| !workload.host_network);
    let own = own.map(|workload| (workload.id.clone(), workload.addresses.clone()));
    numbered(nodes.chain(own))
}

/// The links of a plan's endpoints, likewise.
#[must_use]
pub fn links_of_plan(plan: &Plan) -> Vec<(WorkloadRef, EndpointAddress)> {
    numbered(plan.endpoints.iter().map(|end| (end.workload.clone(), end.addresses.clone())))
}

fn numbered(
    ends: impl Iterator<Item = (WorkloadRef, Vec<IpAddr>)>,
) -> Vec<(WorkloadRef, EndpointAddress)> {
    let link = |(id, addresses): (WorkloadRef, Vec<IpAddr>)| {
        let flags = if id.as_node().is_some() { Endpoint::NODE } else { 0 };
        let pairs = EndpointAddress::pairs(&addresses).into_iter();
        pairs.map(move |(v4, v6)| {
            (id.clone(), EndpointAddress { v4, v6, flags, ..EndpointAddress::default() })
        })
    };
    let links = (101..).zip(ends.flat_map(link));
    links.map(|(ifindex, (id, link))| (id, EndpointAddress { ifindex, ..link })).collect()
}
