//! Who there is between the networks that policies name: the ipcache, the peers behind it, and the
//! endpoints among them.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;

use crate::{
    compile::{
        census::{Census, Holder, NO_PORTS, NodeId, PortsId, Resident, Station},
        interned::index,
        kinds::KindId,
        policies::SubjectId,
    },
    inventory::WorkloadRef,
    peer_key::PeerKey,
    plan::PlannedEndpoint,
};

/// An index into the sorted peers.
pub(super) type PeerId = u32;

/// A peer, in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Who {
    /// `None`: nobody that the census knows.
    pub(super) holder: Option<Holder>,
    /// The longest named network around it.
    pub(super) network: IpNet,
}

/// What peers sort by: the order of their keys.
type Rank = (u8, u32, u32, IpNet);

/// Who there is.
#[derive(Clone, Debug)]
pub(super) struct Population {
    /// Sorted by key.
    pub(super) peers: Vec<Who>,
    /// Sorted.
    pub(super) ipcache: Vec<(IpNet, PeerId)>,
    /// Named networks and the default routes, sorted.
    pub(super) networks: BTreeSet<IpNet>,
    /// By kind: its peers, ascending.
    of_kind: Vec<Vec<PeerId>>,
    /// The peers by network, sorted.
    by_network: Vec<(IpNet, PeerId)>,
}

/// A workload or node that has policies here, with its peers.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    pub(super) workload: WorkloadRef,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) node: Option<Arc<str>>,
    pub(super) subject: SubjectId,
    pub(super) ports: PortsId,
    pub(super) peer4: Option<PeerId>,
    pub(super) peer6: Option<PeerId>,
}

impl Population {
    pub(super) fn new(
        census: &Census,
        holders: &[(IpAddr, Holder)],
        networks: BTreeSet<IpNet>,
    ) -> Self {
        let entries = entries(holders, &networks);
        let ranks = Ranks::new(census);
        let mut order: Vec<(Rank, u32)> =
            entries.iter().zip(0..).map(|((_, who), at)| (ranks.of(who), at)).collect();
        order.sort_unstable();
        let mut peers: Vec<Who> = Vec::new();
        let mut ipcache: Vec<(IpNet, PeerId)> = entries.iter().map(|(net, _)| (*net, 0)).collect();
        for (_, at) in order {
            let who = entries[at as usize].1;
            if peers.last() != Some(&who) {
                peers.push(who);
            }
            ipcache[at as usize].1 = index(peers.len() - 1);
        }
        let of_kind = by_kind(census, &peers);
        let mut by_network: Vec<_> =
            peers.iter().zip(0..).map(|(who, peer)| (who.network, peer)).collect();
        by_network.sort_unstable();
        Self { peers, ipcache, networks, of_kind, by_network }
    }

    /// The peers of a kind, ascending. Kinds that came later have none.
    pub(super) fn of_kind(&self, kind: KindId) -> &[PeerId] {
        self.of_kind.get(kind as usize).map_or(&[], Vec::as_slice)
    }

    /// The peers inside a network and outside of others.
    pub(super) fn inside<'a>(
        &'a self,
        cidr: IpNet,
        except: &'a [IpNet],
    ) -> impl Iterator<Item = PeerId> + 'a {
        let last = IpNet::from(cidr.broadcast());
        let first = self.by_network.partition_point(|(network, _)| *network < cidr);
        let inside = self.by_network[first..].iter().take_while(move |(n, _)| *n <= last);
        inside
            .filter(|(network, _)| !except.iter().any(|except| except.contains(network)))
            .map(|(_, peer)| *peer)
    }

    /// The peer of an address or network.
    pub(super) fn peer_at(&self, net: IpNet) -> Option<PeerId> {
        let exact = |net: IpNet| {
            let found = self.ipcache.binary_search_by(|(known, _)| known.cmp(&net)).ok()?;
            Some(self.ipcache[found].1)
        };
        let wider = |net: &IpNet| net.supernet();
        std::iter::successors(Some(net), wider).find_map(exact)
    }

    /// The endpoints, sorted by name: nodes that policies select, and workloads.
    pub(super) fn endpoints(
        &self,
        census: &Census,
        stations: &[Station],
        selected: &[bool],
    ) -> Vec<Endpoint> {
        let nodes = (0..).zip(stations).zip(selected).filter(|(_, selected)| **selected);
        let nodes = nodes.map(|((number, station), _)| Endpoint {
            node: Some(station.name.clone()),
            ..self.endpoint(
                WorkloadRef::node(station.name.clone()),
                &station.addresses,
                SubjectId::Node(number),
            )
        });
        let workload = |resident: &Resident| {
            let Resident { workload, ports, subject, .. } = resident;
            Some(Endpoint {
                node: workload.node.clone(),
                ports: *ports,
                ..self.endpoint(
                    workload.id.clone(),
                    &workload.addresses,
                    SubjectId::Kind((*subject)?),
                )
            })
        };
        nodes.chain(census.residents().filter_map(workload)).collect()
    }

    /// An endpoint without node and ports.
    fn endpoint(
        &self,
        workload: WorkloadRef,
        addresses: &[IpAddr],
        subject: SubjectId,
    ) -> Endpoint {
        let peer = |address: IpAddr| self.peer_at(IpNet::from(address));
        let first = |of: fn(&IpAddr) -> bool| addresses.iter().copied().find(of).and_then(peer);
        Endpoint {
            workload,
            addresses: addresses.to_vec(),
            node: None,
            subject,
            ports: NO_PORTS,
            peer4: first(IpAddr::is_ipv4),
            peer6: first(IpAddr::is_ipv6),
        }
    }
}

impl Endpoint {
    /// As a plan has it, with its policies by direction.
    pub(super) fn planned(self, [egress, ingress]: [u32; 2]) -> PlannedEndpoint {
        let Self { workload, addresses, node, peer4, peer6, .. } = self;
        PlannedEndpoint { workload, addresses, node, peer4, peer6, egress, ingress }
    }
}

impl Who {
    /// What makes it one and the same peer from plan to plan.
    pub(super) fn key(&self, census: &Census) -> PeerKey {
        let network = self.network;
        match self.holder {
            None => PeerKey::Network(network),
            Some(Holder::Node(node)) => {
                PeerKey::Node { name: census.node_states.get(node).0.clone(), network }
            }
            Some(Holder::Workload(kind, ports)) => {
                let (namespace, namespace_labels, labels) = census.kinds.describe(kind);
                PeerKey::Workload {
                    namespace: namespace.clone(),
                    namespace_labels: namespace_labels.clone(),
                    labels: labels.clone(),
                    ports: census.ports.get(ports).clone(),
                    network,
                }
            }
        }
    }

    /// The named ports that it declares.
    pub(super) const fn ports(&self) -> Option<PortsId> {
        match self.holder {
            Some(Holder::Workload(_, ports)) => Some(ports),
            _ => None,
        }
    }

    /// The node that it is an address of.
    pub(super) const fn node(&self) -> Option<NodeId> {
        match self.holder {
            Some(Holder::Node(node)) => Some(node),
            _ => None,
        }
    }
}

/// Named networks and held addresses in their order, each with whom it leads to.
fn entries(holders: &[(IpAddr, Holder)], networks: &BTreeSet<IpNet>) -> Vec<(IpNet, Who)> {
    let mut entries = Vec::with_capacity(holders.len() + networks.len());
    let mut networks = networks.iter().copied().peekable();
    let mut around: Vec<IpNet> = Vec::new();
    for &(address, holder) in holders {
        let own = IpNet::from(address);
        // Networks sort before those inside them.
        while let Some(network) = networks.next_if(|network| *network <= own) {
            around.retain(|outer| outer.contains(&network));
            around.push(network);
            if network != own {
                entries.push((network, Who { holder: None, network }));
            }
        }
        let longest = around.iter().rev().find(|network| network.contains(&own));
        let network = longest.copied().unwrap_or(own);
        entries.push((own, Who { holder: Some(holder), network }));
    }
    entries.extend(networks.map(|network| (network, Who { holder: None, network })));
    entries
}

fn by_kind(census: &Census, peers: &[Who]) -> Vec<Vec<PeerId>> {
    let mut of_kind = vec![Vec::new(); census.kinds.len() as usize];
    for (who, peer) in peers.iter().zip(0..) {
        if let Some(Holder::Workload(kind, _)) = who.holder {
            of_kind[kind as usize].push(peer);
        }
    }
    of_kind
}

/// The places of kinds, ports and nodes in the order of peers' keys.
struct Ranks {
    kinds: Vec<u32>,
    ports: Vec<u32>,
    nodes: Vec<u32>,
}

impl Ranks {
    fn new(census: &Census) -> Self {
        Self {
            kinds: census.kinds.ranks(),
            ports: sorted_places(census.ports.all()),
            nodes: sorted_places(census.node_states.all()),
        }
    }

    fn of(&self, who: &Who) -> Rank {
        match who.holder {
            Some(Holder::Workload(kind, ports)) => {
                (0, self.kinds[kind as usize], self.ports[ports as usize], who.network)
            }
            Some(Holder::Node(node)) => (1, self.nodes[node as usize], 0, who.network),
            None => (2, 0, 0, who.network),
        }
    }
}

fn sorted_places<T: Ord>(values: &[T]) -> Vec<u32> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].cmp(&values[b]));
    let mut places = vec![0; values.len()];
    for (place, value) in (0..).zip(order) {
        places[value] = place;
    }
    places
}

/// By peer of one population: a peer of an earlier one whom no rule told apart from it that names no
/// network that either of them lacks; `None`: whoever holds its addresses is new.
pub(super) fn representatives(earlier: &Population, later: &Population) -> Vec<Option<PeerId>> {
    let known: HashMap<&Who, PeerId> = earlier.peers.iter().zip(0..).collect();
    let mut found: Vec<Option<PeerId>> =
        later.peers.iter().map(|who| known.get(who).copied()).collect();
    for &(net, peer) in &later.ipcache {
        if found[peer as usize].is_none() {
            let before = earlier.peer_at(net).filter(|&before| {
                earlier.peers[before as usize].holder == later.peers[peer as usize].holder
            });
            found[peer as usize] = before;
        }
    }
    found
}
