//! The addresses that cases may use, and the edges of networks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use flowgate_policy::{
    inventory::Inventory,
    model::{Peer, Peers, Policy},
};
use ipnet::IpNet;

/// Addresses that no workload and no node has.
pub(super) fn world() -> Vec<IpAddr> {
    let v4 = [[203, 0, 113, 1], [203, 0, 113, 130], [198, 51, 100, 200], [198, 19, 255, 254]];
    let v6 = [[0xf, 0, 1], [0xf, 1, 0x8000], [0xe, 0, 7]];
    let v4 = v4.into_iter().map(|bytes| IpAddr::from(Ipv4Addr::from(bytes)));
    v4.chain(v6.into_iter().map(|[a, b, c]| ipv6(a, b, c))).collect()
}

/// `2001:db8:a:b::c`.
pub(super) fn ipv6(a: u16, b: u16, c: u16) -> IpAddr {
    IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, a, b, 0, 0, 0, c))
}

/// It is from a range that is set aside for documentation or benchmarks.
pub(super) fn is_documented(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            (a, b & 0xfe) == (198, 18) || (a, b, c) == (198, 51, 100) || (a, b, c) == (203, 0, 113)
        }
        IpAddr::V6(address) => address.segments()[..2] == [0x2001, 0xdb8],
    }
}

/// The addresses of the workloads.
pub(super) fn of_workloads(inventory: &Inventory) -> Vec<IpAddr> {
    let workloads = inventory.workloads.iter().filter(|workload| !workload.host_network);
    workloads.flat_map(|workload| workload.addresses.iter().copied()).collect()
}

/// The addresses of the nodes, and of the workloads on their networks.
pub(super) fn of_nodes(inventory: &Inventory) -> Vec<IpAddr> {
    let hosts = inventory.workloads.iter().filter(|workload| workload.host_network);
    let nodes = inventory.nodes.iter().flat_map(|node| &node.addresses);
    nodes.chain(hosts.flat_map(|host| &host.addresses)).copied().collect()
}

/// The addresses just inside and just outside the networks that policies name.
pub(super) fn edges(policies: &[Policy]) -> Vec<IpAddr> {
    let rules = policies.iter().flat_map(|policy| [&policy.ingress, &policy.egress]);
    let peers = rules.flatten().flatten().filter_map(|rule| match &rule.peers {
        Peers::OneOf(peers) => Some(peers),
        Peers::Any => None,
    });
    let networks = peers.flatten().flat_map(|peer| match peer {
        Peer::Cidr { cidr, except } => [cidr].into_iter().chain(except).copied().collect(),
        _ => Vec::new(),
    });
    networks.flat_map(edges_of).filter(|edge| is_documented(*edge)).collect()
}

/// The first and the last address of a network, and those beside.
pub(super) fn edges_of(network: IpNet) -> [IpAddr; 4] {
    let (first, last) = (network.network(), network.broadcast());
    [first, last, step(first, -1), step(last, 1)]
}

fn step(address: IpAddr, by: i8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            IpAddr::from(Ipv4Addr::from(u32::from(address).wrapping_add_signed(by.into())))
        }
        IpAddr::V6(address) => {
            IpAddr::from(Ipv6Addr::from(u128::from(address).wrapping_add_signed(by.into())))
        }
    }
}
