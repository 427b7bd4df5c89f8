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
    /// Some of them: one, or two if there are as many owners; on two nodes, if there are.
    examples: Vec<Example>,
}

/// An address, and the node that it is on, as far as the plans know.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Example {
    address: IpAddr,
    node: Option<Arc<str>>,
}

impl PeerPair {
    /// An address of theirs.
    #[must_use]
    pub fn example(&self) -> IpAddr {
        self.examples[0].address
    }

    pub(super) fn is_ipv4(&self) -> bool {
        self.example().is_ipv4()
    }

    /// An address of theirs that isn't on the node `home` and isn't `own`, if there is another.
    pub(super) fn address_beside(&self, own: IpAddr, home: Option<&Arc<str>>) -> Option<IpAddr> {
        let mut away = self.examples.iter().filter(|example| example.is_away_from(home));
        let first = away.clone().next()?;
        Some(away.find(|example| example.address != own).unwrap_or(first).address)
    }
}

impl Example {
    fn is_away_from(&self, home: Option<&Arc<str>>) -> bool {
        home.is_none() || self.node.as_ref() != home
    }
}

/// The ends that both plans know, and those that one of them knows.
pub(super) struct Pairs {
    pub(super) added: Vec<Presence>,
    pub(super) removed: Vec<Presence>,
    /// With their endpoint policies by direction and plan.
    pub(super) subjects: Vec<(Subject, Policies)>,
    /// Peers of both plans with an address behind them.
    pub(super) known: Vec<([u32; 2], Example)>,
}

/// Endpoint policies by direction and plan; none where nobody judges.
type Policies = [[Option<u32>; 2]; 2];

impl Pairs {
    pub(super) fn new(before: &Plan, after: &Plan) -> Self {
        let plans = [before, after].map(|plan| (plan, owners(plan)));
        let (mut added, mut removed, mut known) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
        for (peers, address) in regions(before, after) {
            let owner = |at: usize| owner(plans[at].0, &plans[at].1, peers[at], address);
            let (old, new) = (owner(0), owner(1));
            if old == new {
                let node = node_at(after, &plans[1].1, peers[1], address);
                known.push((peers, Example { address, node }));
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

fn owners(plan: &Plan) -> HashMap<IpAddr, &PlannedEndpoint> {
    let endpoints = plan.endpoints.iter();
    endpoints.flat_map(|end| end.addresses.iter().map(move |&a| (a, end))).collect()
}

fn owner(
    plan: &Plan,
    endpoints: &HashMap<IpAddr, &PlannedEndpoint>,
    peer: u32,
    address: IpAddr,
) -> Option<Owner> {
    match &plan.peers[peer as usize].key {
        PeerKey::Network(_) => None,
        PeerKey::Node { name, .. } => Some(Owner::Node(Arc::clone(name))),
        PeerKey::Workload { .. } => {
            endpoints.get(&address).map(|end| Owner::Workload(end.workload.clone()))
        }
    }
}

/// The node that an address is on.
fn node_at(
    plan: &Plan,
    endpoints: &HashMap<IpAddr, &PlannedEndpoint>,
    peer: u32,
    address: IpAddr,
) -> Option<Arc<str>> {
    match &plan.peers[peer as usize].key {
        PeerKey::Network(_) => None,
        PeerKey::Node { name, .. } => Some(Arc::clone(name)),
        PeerKey::Workload { .. } => {
            endpoints.get(&address)?.node.clone().or_else(|| plan.local_node.clone())
        }
    }
}

fn subjects(before: &Plan, after: &Plan) -> Vec<(Subject, Policies)> {
    let later: HashMap<&WorkloadRef, &PlannedEndpoint> =
        after.endpoints.iter().map(|endpoint| (&endpoint.workload, endpoint)).collect();
    let both = |old: &PlannedEndpoint| {
        let new = later.get(&old.workload)?;
        let shared = Subject::with(old, |address| new.addresses.contains(address));
        let policies = |old, new| [Some(old), Some(new)];
        Some((shared, [policies(old.egress, new.egress), policies(old.ingress, new.ingress)]))
    };
    let mut subjects: Vec<_> = before.endpoints.iter().filter_map(both).collect();
    let lone = |old: &PlannedEndpoint, subject| {
        (subject, [[Some(old.egress), None], [Some(old.ingress), None]])
    };
    subjects.extend(lone_nodes(before, after).map(|(old, subject)| lone(old, subject)));
    let lone = |new: &PlannedEndpoint, subject| {
        (subject, [[None, Some(new.egress)], [None, Some(new.ingress)]])
    };
    subjects.extend(lone_nodes(after, before).map(|(new, subject)| lone(new, subject)));
    subjects
}

/// Nodes that one plan has policies for, and the other one knows without any.
fn lone_nodes<'p>(
    plan: &'p Plan,
    other: &'p Plan,
) -> impl Iterator<Item = (&'p PlannedEndpoint, Subject)> {
    let nodes = plan.endpoints.iter().filter(|end| end.workload.as_node().is_some());
    let lone = nodes.filter(|end| other.endpoints.iter().all(|one| one.workload != end.workload));
    lone.filter_map(|end| {
        let subject = Subject::with(end, |&address| {
            let peer = other.peer_of(address).map(|peer| &other.peers[peer as usize].key);
            matches!(peer, Some(PeerKey::Node { name, .. }) if Some(name) == end.workload.as_node())
        });
        (subject.ipv4.is_some() || subject.ipv6.is_some()).then_some((end, subject))
    })
}

impl Subject {
    /// An endpoint, with its first addresses that the other plan knows as its own.
    fn with(endpoint: &PlannedEndpoint, shared: impl Fn(&IpAddr) -> bool) -> Self {
        let first = |of: fn(&IpAddr) -> bool| {
            endpoint.addresses.iter().copied().find(|address| of(address) && shared(address))
        };
        let (ipv4, ipv6) = (first(IpAddr::is_ipv4), first(IpAddr::is_ipv6));
        Self { workload: endpoint.workload.clone(), ipv4, ipv6 }
    }
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

impl Class {
    /// Nobody of it is away from that node.
    pub(super) fn is_all_on(&self, home: Option<&Arc<str>>) -> bool {
        let mut examples = self.pairs.iter().flat_map(|pair| &pair.examples);
        !examples.any(|example| example.is_away_from(home))
    }
}

/// Keeps two examples, on two nodes if there are.
fn note(found: &mut Vec<Example>, example: &Example) {
    if let [first, second] = found.as_mut_slice() {
        if first.node == second.node && second.node != example.node {
            second.clone_from(example);
        }
    } else {
        found.push(example.clone());
    }
}

impl Classes {
    pub(super) fn new(before: &Plan, after: &Plan, known: &[([u32; 2], Example)]) -> Self {
        let mut examples: BTreeMap<(bool, [u32; 2]), Vec<Example>> = BTreeMap::new();
        for (peers, example) in known {
            let found = examples.entry((example.address.is_ipv4(), *peers)).or_default();
            note(found, example);
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
