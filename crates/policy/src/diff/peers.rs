//! Whom two plans know, and into which pairs of peers they fall.
//!
//! The networks of both ipcaches together cut all addresses into regions, each behind one peer in
//! either plan. Whose a region is must be the same in both plans, else it isn't compared.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use ipnet::IpNet;

use crate::{
    diff::Subject,
    inventory::WorkloadRef,
    peer_key::PeerKey,
    plan::{Plan, PlannedEndpoint},
};

/// Whose an address is. Displays as `shop/web` or `node n1`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// A workload with an address of its own.
    Workload(WorkloadRef),
    /// A node, or a host-network workload on it.
    Node(Arc<str>),
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Workload(workload) => workload.fmt(f),
            Self::Node(name) => write!(f, "node {name}"),
        }
    }
}

/// An address that has this owner in one plan alone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Presence {
    /// The owner.
    pub owner: Owner,
    /// The address.
    pub address: IpAddr,
}

/// Other ends that neither plan tells apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerPair {
    /// What makes them one peer of the earlier plan.
    pub before: PeerKey,
    /// What makes them one peer of the later plan.
    pub after: PeerKey,
    /// Some of them: one, or two if there are as many owners.
    examples: Vec<IpAddr>,
}

impl PeerPair {
    /// An address of theirs.
    #[must_use]
    pub fn example(&self) -> IpAddr {
        self.examples[0]
    }

    pub(super) fn is_ipv4(&self) -> bool {
        self.example().is_ipv4()
    }

    /// An address of theirs that isn't `own`, if there is another.
    pub(super) fn address_beside(&self, own: IpAddr) -> IpAddr {
        let other = self.examples.iter().find(|&&address| address != own);
        other.copied().unwrap_or(own)
    }
}

/// The ends that both plans know, and those that one of them knows.
pub(super) struct Pairs {
    pub(super) added: Vec<Presence>,
    pub(super) removed: Vec<Presence>,
    /// With their endpoint policies by direction and plan.
    pub(super) subjects: Vec<(Subject, [[u32; 2]; 2])>,
    /// Peers of both plans with an address behind them.
    pub(super) known: Vec<([u32; 2], IpAddr)>,
}

impl Pairs {
    pub(super) fn new(before: &Plan, after: &Plan) -> Self {
        let plans = [before, after].map(|plan| (plan, owners(plan)));
        let (mut added, mut removed, mut known) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
        for (peers, address) in regions(before, after) {
            let owner = |at: usize| owner(plans[at].0, &plans[at].1, peers[at], address);
            let (old, new) = (owner(0), owner(1));
            if old == new {
                known.push((peers, address));
                continue;
            }
            removed.extend(old.map(|owner| Presence { owner, address }));
            added.extend(new.map(|owner| Presence { owner, address }));
        }
        Self {
            added: added.into_iter().collect(),
            removed: removed.into_iter().collect(),
            subjects: subjects(before, after),
            known,
        }
    }
}

fn owners(plan: &Plan) -> HashMap<IpAddr, &WorkloadRef> {
    let endpoints = plan.endpoints.iter();
    endpoints.flat_map(|end| end.addresses.iter().map(move |&a| (a, &end.workload))).collect()
}

fn owner(
    plan: &Plan,
    workloads: &HashMap<IpAddr, &WorkloadRef>,
    peer: u32,
    address: IpAddr,
) -> Option<Owner> {
    match &plan.peers[peer as usize].key {
        PeerKey::Network(_) => None,
        PeerKey::Node { name, .. } => Some(Owner::Node(Arc::clone(name))),
        PeerKey::Workload { .. } => workloads.get(&address).map(|&w| Owner::Workload(w.clone())),
    }
}

fn subjects(before: &Plan, after: &Plan) -> Vec<(Subject, [[u32; 2]; 2])> {
    let later: HashMap<&WorkloadRef, &PlannedEndpoint> =
        after.endpoints.iter().map(|endpoint| (&endpoint.workload, endpoint)).collect();
    let both = |old: &PlannedEndpoint| {
        let new = later.get(&old.workload)?;
        let first = |ipv4: bool| {
            let mut shared = old.addresses.iter().filter(|a| new.addresses.contains(a));
            shared.find(|address| address.is_ipv4() == ipv4).copied()
        };
        let workload = old.workload.clone();
        let subject = Subject { workload, ipv4: first(true), ipv6: first(false) };
        Some((subject, [[old.egress, new.egress], [old.ingress, new.ingress]]))
    };
    before.endpoints.iter().filter_map(both).collect()
}

/// What the networks of both ipcaches leave to each of them: the peers of both plans, and an
/// address. What longer networks fill is left out.
fn regions(before: &Plan, after: &Plan) -> Vec<([u32; 2], IpAddr)> {
    let mut networks: BTreeMap<IpNet, [Option<u32>; 2]> = BTreeMap::new();
    for (plan, of_plan) in [before, after].into_iter().enumerate() {
        for &(network, peer) in &of_plan.ipcache {
            networks.entry(network).or_default()[plan] = Some(peer);
        }
    }
    let sorted: Vec<IpNet> = networks.keys().copied().collect();
    let mut outer: Vec<(IpNet, [u32; 2])> = Vec::new();
    let mut regions = Vec::new();
    for (at, (&network, peers)) in networks.iter().enumerate() {
        // Networks sort before those inside them.
        while outer.last().is_some_and(|(around, _)| !around.contains(&network)) {
            outer.pop();
        }
        let inherited = outer.last().map_or([u32::MAX; 2], |(_, peers)| *peers);
        let peers = [0, 1].map(|plan| peers[plan].unwrap_or(inherited[plan]));
        outer.push((network, peers));
        regions.extend(free_address(network, &sorted[at + 1..]).map(|address| (peers, address)));
    }
    regions
}

/// An address in `network` and in none of those that follow it in order.
fn free_address(network: IpNet, following: &[IpNet]) -> Option<IpAddr> {
    let inner = following.partition_point(|inner| network.contains(inner));
    let inner = &following[..inner];
    let second = address(network, number(network.network()).saturating_add(1));
    let mut well_known = [documented(network.addr()), second].into_iter();
    let free = |a: &IpAddr| network.contains(a) && !inner.iter().any(|inner| inner.contains(a));
    well_known.find(free).or_else(|| gap(network, inner))
}

/// The first address of `network` that none of the sorted `inner` networks has.
fn gap(network: IpNet, inner: &[IpNet]) -> Option<IpAddr> {
    let mut free = number(network.network());
    for inner in inner {
        if number(inner.network()) > free {
            break;
        }
        free = free.max(number(inner.broadcast()).checked_add(1)?);
    }
    (free <= number(network.broadcast())).then(|| address(network, free))
}

/// What stands for any address in an example (RFC 5737, RFC 3849).
fn documented(of_family: IpAddr) -> IpAddr {
    match of_family {
        IpAddr::V4(_) => Ipv4Addr::new(203, 0, 113, 1).into(),
        IpAddr::V6(_) => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

/// The address of `number`, which is one of `network`'s or follows its last.
fn address(network: IpNet, number: u128) -> IpAddr {
    match network {
        IpNet::V4(_) => Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX)).into(),
        IpNet::V6(_) => Ipv6Addr::from(number).into(),
    }
}

/// The pairs of peers that neither plan tells apart by any rule.
pub(super) struct Classes {
    pub(super) all: Vec<Class>,
}

/// A pair of peer classes, of one family.
pub(super) struct Class {
    pub(super) ipv4: bool,
    pub(super) classes: [u16; 2],
    pairs: Vec<Arc<PeerPair>>,
}

impl Classes {
    pub(super) fn new(before: &Plan, after: &Plan, known: &[([u32; 2], IpAddr)]) -> Self {
        let mut examples: BTreeMap<(bool, [u32; 2]), Vec<IpAddr>> = BTreeMap::new();
        for &(peers, address) in known {
            let found = examples.entry((address.is_ipv4(), peers)).or_default();
            if found.len() < 2 {
                found.push(address);
            }
        }
        let mut classes: BTreeMap<(bool, [u16; 2]), Vec<Arc<PeerPair>>> = BTreeMap::new();
        for ((ipv4, peers), examples) in examples {
            let [old, new] = [&before.peers[peers[0] as usize], &after.peers[peers[1] as usize]];
            let (before, after) = (old.key.clone(), new.key.clone());
            let pair = Arc::new(PeerPair { before, after, examples });
            classes.entry((ipv4, [old.class, new.class])).or_default().push(pair);
        }
        let class = |((ipv4, classes), pairs)| Class { ipv4, classes, pairs };
        Self { all: classes.into_iter().map(class).collect() }
    }

    /// How many are of these families, IPv6 first.
    pub(super) fn of_families(&self, families: [bool; 2]) -> usize {
        self.all.iter().filter(|class| families[usize::from(class.ipv4)]).count()
    }

    /// The pairs of some classes.
    pub(super) fn pairs(&self, classes: &[usize]) -> Vec<Arc<PeerPair>> {
        classes.iter().flat_map(|&class| &self.all[class].pairs).cloned().collect()
    }
}
