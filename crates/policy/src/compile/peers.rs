//! Who there is: the ipcache, the peers behind it, and the endpoints among them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use flowgate_identity::{Ipcache, Labels};
use ipnet::IpNet;

use crate::{
    compile::{
        input::Input,
        kinds::{KindId, Kinds, index},
    },
    inventory::Workload,
    model::{Entity, Peer},
    options::Options,
    peer_key::{NamedPorts, PeerKey},
};

/// An index into the sorted peers.
pub(super) type PeerId = u32;

/// Who there is.
pub(super) struct Population<'a> {
    kinds: &'a Kinds,
    /// Sorted.
    pub(super) peers: Vec<PeerKey>,
    pub(super) ipcache: Vec<(IpNet, PeerId)>,
    pub(super) endpoints: Vec<Endpoint<'a>>,
    /// The peers of each kind.
    pub(super) of_kind: Vec<BTreeSet<PeerId>>,
    of_network: BTreeMap<IpNet, Vec<PeerId>>,
    node_labels: HashMap<&'a Arc<str>, &'a Labels>,
    local_node: Option<&'a Arc<str>>,
}

/// A workload that has policies here, with its peers.
pub(super) struct Endpoint<'a> {
    pub(super) workload: &'a Workload,
    pub(super) kind: KindId,
    pub(super) peer4: Option<PeerId>,
    pub(super) peer6: Option<PeerId>,
    pub(super) ports: NamedPorts,
    pub(super) node: Option<&'a Arc<str>>,
}

impl<'a> Population<'a> {
    pub(super) fn new(
        input: &Input<'a>,
        kinds: &'a Kinds,
        networks: &Ipcache<()>,
        options: &'a Options,
    ) -> Self {
        let owned = owned_addresses(input, kinds, networks);
        let mut entries: BTreeMap<IpNet, PeerKey> =
            networks.iter().map(|(network, ())| (network, PeerKey::Network(network))).collect();
        entries.extend(owned.iter().map(|(&address, key)| (IpNet::from(address), key.clone())));
        let numbers = number(&entries);
        let endpoints = endpoints(input, options, kinds, |address| numbers[&owned[&address]]);
        let ipcache = entries.iter().map(|(&network, key)| (network, numbers[key])).collect();
        let of_kind = by_kind(input, kinds, |address| numbers[&owned[&address]]);
        let peers: Vec<PeerKey> = numbers.into_keys().collect();
        let of_network = by_network(&peers);
        let labelled = input.inventory.nodes.iter();
        let node_labels = labelled.map(|node| (&node.name, &node.labels)).collect();
        let local_node = options.local_node.as_ref();
        Self { kinds, peers, ipcache, endpoints, of_kind, of_network, node_labels, local_node }
    }

    /// The peers that one item of a rule matches.
    pub(super) fn matched(&self, peer: &Peer) -> Vec<PeerId> {
        match peer {
            Peer::Workloads(selector) => {
                let kinds = self.kinds.select(selector);
                kinds.iter().flat_map(|&kind| &self.of_kind[kind as usize]).copied().collect()
            }
            Peer::Cidr { cidr, except } => self.inside(cidr.trunc(), except),
            Peer::Nodes(selector) => self.nodes(|name| match self.node_labels.get(name) {
                Some(labels) => selector.matches(labels),
                None => selector.matches(&Labels::new()),
            }),
            Peer::Entity(entity) => self.entity(*entity),
            Peer::Domain(_) => Vec::new(),
        }
    }

    fn entity(&self, entity: Entity) -> Vec<PeerId> {
        let network = |key: &PeerKey| matches!(key, PeerKey::Network(_));
        let is_local = |name: &Arc<str>| Some(name) == self.local_node;
        match entity {
            Entity::All => (0..index(self.peers.len())).collect(),
            Entity::World => self.those(network),
            Entity::WorldIpv4 => self.those(|key| network(key) && key.network().addr().is_ipv4()),
            Entity::WorldIpv6 => self.those(|key| network(key) && key.network().addr().is_ipv6()),
            Entity::Cluster => self.those(|key| !network(key)),
            Entity::Host => self.nodes(is_local),
            Entity::RemoteNode => self.nodes(|name| !is_local(name)),
            Entity::None => Vec::new(),
        }
    }

    fn nodes(&self, are: impl Fn(&Arc<str>) -> bool) -> Vec<PeerId> {
        self.those(|key| matches!(key, PeerKey::Node { name, .. } if are(name)))
    }

    fn those(&self, are: impl Fn(&PeerKey) -> bool) -> Vec<PeerId> {
        let those = self.peers.iter().enumerate().filter(|(_, key)| are(key));
        those.map(|(peer, _)| index(peer)).collect()
    }

    fn inside(&self, cidr: IpNet, except: &[IpNet]) -> Vec<PeerId> {
        let last = IpNet::from(cidr.broadcast());
        let inside = self
            .of_network
            .range(cidr..=last)
            .filter(|(network, _)| !except.iter().any(|except| except.contains(*network)));
        inside.flat_map(|(_, peers)| peers).copied().collect()
    }
}

fn longest(networks: &Ipcache<()>, address: IpAddr) -> IpNet {
    let world = match address {
        IpAddr::V4(_) => IpNet::from(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        IpAddr::V6(_) => IpNet::from(IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
    };
    networks.lookup(address).map_or(world, |(network, ())| network)
}

/// The peers of the addresses that a workload or a node has.
fn owned_addresses(
    input: &Input<'_>,
    kinds: &Kinds,
    networks: &Ipcache<()>,
) -> HashMap<IpAddr, PeerKey> {
    let mut owned = HashMap::new();
    for (name, addresses) in &input.nodes {
        for &address in addresses {
            let network = longest(networks, address);
            owned.insert(address, PeerKey::Node { name: name.clone(), network });
        }
    }
    for (workload, &kind) in input.workloads.iter().zip(&kinds.of_workload) {
        let ports = NamedPorts::of(workload);
        for &address in &workload.addresses {
            let network = longest(networks, address);
            owned.insert(address, workload_key(kinds, kind, &ports, network));
        }
    }
    owned
}

fn workload_key(kinds: &Kinds, kind: KindId, ports: &NamedPorts, network: IpNet) -> PeerKey {
    PeerKey::Workload {
        namespace: kinds.namespace_name(kind).clone(),
        namespace_labels: kinds.namespace_labels(kind).clone(),
        labels: kinds.labels(kind).clone(),
        ports: ports.clone(),
        network,
    }
}

fn number(entries: &BTreeMap<IpNet, PeerKey>) -> BTreeMap<PeerKey, PeerId> {
    let keys: BTreeSet<&PeerKey> = entries.values().collect();
    keys.into_iter().enumerate().map(|(number, key)| (key.clone(), index(number))).collect()
}

fn endpoints<'a>(
    input: &Input<'a>,
    options: &'a Options,
    kinds: &Kinds,
    peer: impl Fn(IpAddr) -> PeerId,
) -> Vec<Endpoint<'a>> {
    let local = options.local_node.as_ref();
    let workloads = input.workloads.iter().zip(&kinds.of_workload);
    let endpoints =
        workloads.filter(|(workload, _)| options.endpoints.contains(workload.node.as_ref(), local));
    let endpoint = |(&workload, &kind): (&&'a Workload, &KindId)| {
        let first = |of: fn(&IpAddr) -> bool| workload.addresses.iter().copied().find(of);
        Endpoint {
            workload,
            kind,
            peer4: first(IpAddr::is_ipv4).map(&peer),
            peer6: first(IpAddr::is_ipv6).map(&peer),
            ports: NamedPorts::of(workload),
            node: workload.node.as_ref().or(local),
        }
    };
    endpoints.map(endpoint).collect()
}

fn by_kind(
    input: &Input<'_>,
    kinds: &Kinds,
    peer: impl Fn(IpAddr) -> PeerId,
) -> Vec<BTreeSet<PeerId>> {
    let mut of_kind = vec![BTreeSet::new(); kinds.len()];
    for (workload, &kind) in input.workloads.iter().zip(&kinds.of_workload) {
        of_kind[kind as usize].extend(workload.addresses.iter().copied().map(&peer));
    }
    of_kind
}

fn by_network(peers: &[PeerKey]) -> BTreeMap<IpNet, Vec<PeerId>> {
    let mut of_network: BTreeMap<IpNet, Vec<PeerId>> = BTreeMap::new();
    for (peer, key) in peers.iter().enumerate() {
        of_network.entry(key.network()).or_default().push(index(peer));
    }
    of_network
}
