//! Networks as policies name them, addresses inside of them, and a pod that may reach them.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use flowgate_benches::packets::{End, Version};
use flowgate_datapath::Options;
use flowgate_identity::{Labels, LocalAllocator, Selector};
use flowgate_policy::{
    compile::Compiler,
    inventory::{Inventory, Workload, WorkloadRef},
    model::{
        NamespaceSelector, Peer, Peers, Policy, PolicyKind, PolicyRef, Port, PortMatch, Ports,
        Protocol, Rule, WorkloadSelector,
    },
    plan::Plan,
};
use ipnet::IpNet;

use crate::Result;

/// Rules that the networks are dealt out to.
const RULES: usize = 16;
/// How long networks are, and how many of 10,000.
const LENGTHS_V4: [(u8, u32); 10] = [
    (8, 1),
    (12, 9),
    (16, 200),
    (20, 500),
    (22, 1200),
    (23, 800),
    (24, 5500),
    (26, 300),
    (28, 490),
    (32, 1000),
];
const LENGTHS_V6: [(u8, u32); 9] = [
    (36, 1),
    (40, 4),
    (44, 20),
    (48, 400),
    (52, 600),
    (56, 4500),
    (60, 1000),
    (64, 2475),
    (128, 1000),
];

/// Numbers without a pattern, the same each time (`SplitMix64`, Steele et al. 2014).
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// Below a limit.
    fn below(&mut self, limit: usize) -> usize {
        (self.roll() % limit as u64) as usize
    }

    fn length(&mut self, lengths: &[(u8, u32)]) -> u8 {
        let mut rest = (self.roll() % 10_000) as u32;
        let found = lengths.iter().find(|(_, share)| {
            let here = rest < *share;
            rest = rest.saturating_sub(*share);
            here
        });
        found.expect("the shares are 10,000").0
    }

    /// IPv4: from all that isn't special. IPv6: from `2001:db8::/32`.
    fn address(&mut self, version: Version) -> IpAddr {
        match version {
            Version::V4 => {
                let [_, b, c, d] = (self.roll() as u32).to_be_bytes();
                let first = 1 + self.below(222) as u8;
                Ipv4Addr::new(first + u8::from(first >= 127), b, c, d).into()
            }
            Version::V6 => {
                let low = u128::from(self.roll()) << 64 | u128::from(self.roll());
                Ipv6Addr::from(0x2001_0db8 << 96 | low >> 32).into()
            }
        }
    }
}

/// So many networks, each once.
pub(crate) fn networks(version: Version, count: usize, dice: &mut Dice) -> Vec<IpNet> {
    let lengths: &[(u8, u32)] = if version == Version::V4 { &LENGTHS_V4 } else { &LENGTHS_V6 };
    let (mut seen, mut networks) = (BTreeSet::new(), Vec::new());
    while networks.len() < count {
        let length = dice.length(lengths);
        let network = IpNet::new(dice.address(version), length).expect("short enough").trunc();
        if seen.insert(network) {
            networks.push(network);
        }
    }
    networks
}

/// Addresses, each in one of the networks.
pub(crate) fn targets(networks: &[IpNet], count: usize, dice: &mut Dice) -> Vec<IpAddr> {
    let target = |_| match networks[dice.below(networks.len())] {
        IpNet::V4(network) => {
            let low = dice.roll() as u32 & u32::from(network.hostmask());
            IpAddr::V4((u32::from(network.network()) | low).into())
        }
        IpNet::V6(network) => {
            let low = u128::from(dice.roll()) << 64 | u128::from(dice.roll());
            let low = low & u128::from(network.hostmask());
            IpAddr::V6((u128::from(network.network()) | low).into())
        }
    };
    (0..count).map(target).collect()
}

/// A pod that may open connections to port 80 of the networks.
pub(crate) fn plan(networks: &[IpNet]) -> Result<Arc<Plan>> {
    let addresses = [Version::V4, Version::V6].map(|version| End::Client.address(version).parse());
    let client = Workload {
        id: WorkloadRef { namespace: "a".into(), name: End::Client.name().into() },
        labels: Labels::from_iter([("app", "client")]),
        addresses: addresses.into_iter().collect::<std::result::Result<_, _>>()?,
        ports: vec![],
        node: None,
        host_network: false,
    };
    let id = PolicyRef {
        kind: PolicyKind::NetworkPolicy,
        namespace: "a".into(),
        name: "networks".into(),
    };
    let subject = WorkloadSelector {
        namespaces: NamespaceSelector::Named("a".into()),
        labels: Selector::everything(),
    };
    let policy = Policy {
        egress: Some((0..RULES).map(|number| rule(networks, number)).collect()),
        ..Policy::new(id, subject)
    };
    let inventory = Inventory { workloads: vec![client], ..Default::default() };
    let mut compiler = Compiler::new(LocalAllocator::new());
    Ok(Arc::new(compiler.compile(&inventory, &[policy], &Default::default())?))
}

/// Every 16th network, on port 80 and one of the rule's own.
fn rule(networks: &[IpNet], number: usize) -> Rule {
    let peer = |cidr: &IpNet| Peer::Cidr { cidr: *cidr, except: vec![] };
    let peers = networks.iter().skip(number).step_by(RULES).map(peer).collect();
    let port = |port| Port { protocol: Protocol::Tcp, port: PortMatch::Range(port, port) };
    Rule::allow(Peers::OneOf(peers), Ports::of([port(80), port(8000 + number as u16)]))
}

/// Options in which a plan fits, and so many flows of either family.
pub(crate) fn sized(plan: &Plan, flows: usize) -> Options {
    let cost = plan.cost();
    Options {
        peers: cost.peers,
        row_cells: cost.row_cells,
        decision_cells: cost.decision_cells,
        decisions: cost.decisions,
        // Room for directories side by side, too.
        ipcache_nodes: cost.ipcache_nodes + cost.ipcache_nodes / 8,
        events_per_second: 0,
        flows4: flows,
        flows6: flows,
        ..Options::default()
    }
}
