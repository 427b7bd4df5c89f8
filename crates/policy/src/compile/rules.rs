//! What rules name, each thing once: lists of peers, sets of ports, port names.
//!
//! Not here: who the named peers are between given networks (that takes a [`Population`]).

use std::sync::Arc;

use flowgate_abi::policy::Direction;
use flowgate_identity::Labels;
use ipnet::IpNet;

use crate::{
    compile::{
        census::Census,
        interned::Interned,
        kinds::KindId,
        population::{PeerId, Population, Who},
        ports::{PortName, PortSet},
    },
    model::{Entity, Peer, Peers, Rule, RuleAction},
};

/// A number of a list of peers.
pub(super) type PeersId = u32;
/// A number of a set of ports.
pub(super) type PortSetId = u32;
/// A number of a port name.
pub(super) type NameId = u32;

/// The list that names every peer.
pub(super) const EVERYBODY: PeersId = 0;
/// Both directions, in the order of their numbers.
pub(super) const DIRECTIONS: [Direction; 2] = [Direction::Egress, Direction::Ingress];

/// A rule, in numbers.
#[derive(Clone, Debug)]
pub(super) struct PlainRule {
    /// Its place in its policy.
    pub(super) place: u32,
    pub(super) action: RuleAction,
    pub(super) peers: PeersId,
    /// `None`: every port and protocol.
    pub(super) ports: Option<RulePorts>,
}

/// The ports that a rule names.
#[derive(Clone, Debug)]
pub(super) struct RulePorts {
    /// By number; `None`: none.
    pub(super) numbers: Option<PortSetId>,
    pub(super) names: Vec<NameId>,
}

/// What rules name.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    peers: Interned<Peers>,
    found: Vec<Found>,
    pub(super) port_sets: Interned<PortSet>,
    pub(super) names: Interned<PortName>,
}

/// The kinds that a list of peers selects, as far as it was looked at.
#[derive(Clone, Debug, Default)]
struct Found {
    /// Ascending, without repetition.
    kinds: Vec<KindId>,
    /// The first kind that wasn't looked at.
    since: KindId,
}

impl Default for Terms {
    fn default() -> Self {
        let mut peers = Interned::default();
        peers.intern(&Peers::Any);
        let found = vec![Found::default()];
        Self { peers, found, port_sets: Interned::default(), names: Interned::default() }
    }
}

impl Terms {
    /// A rule in numbers; `None`: it names no port, so it matches nothing.
    pub(super) fn rule(&mut self, place: u32, rule: &Rule) -> Option<PlainRule> {
        let ports = match PortSet::of(&rule.ports) {
            None => None,
            Some((numbers, names)) if numbers.is_empty() && names.is_empty() => return None,
            Some((numbers, names)) => Some(RulePorts {
                numbers: (!numbers.is_empty()).then(|| self.port_sets.intern(&numbers)),
                names: names.iter().map(|name| self.names.intern(name)).collect(),
            }),
        };
        let peers = self.peers.intern(&rule.peers);
        self.found.resize_with(self.peers.all().len(), Found::default);
        Some(PlainRule { place, action: rule.action, peers, ports })
    }

    /// How many lists of peers there are.
    pub(super) fn lists(&self) -> usize {
        self.found.len()
    }

    /// The peers that a list names, ascending; not asked of [`EVERYBODY`].
    pub(super) fn peers(
        &mut self,
        list: PeersId,
        census: &mut Census,
        population: &Population,
    ) -> Vec<PeerId> {
        self.look_at_kinds(list, census);
        let kinds = &self.found[list as usize].kinds;
        let mut peers: Vec<PeerId> =
            kinds.iter().flat_map(|&kind| population.of_kind(kind)).copied().collect();
        let Peers::OneOf(items) = self.peers.get(list) else { return peers };
        for item in items {
            others(item, census, population, &mut peers);
        }
        peers.sort_unstable();
        peers.dedup();
        peers
    }

    /// Evaluates the selectors of a list for the kinds that have come since it was last.
    fn look_at_kinds(&mut self, list: PeersId, census: &mut Census) {
        let found = &mut self.found[list as usize];
        let (since, now) = (found.since, census.kinds.len());
        if since == now {
            return;
        }
        found.since = now;
        let Peers::OneOf(items) = self.peers.get(list) else { return };
        let seen = found.kinds.len();
        for item in items {
            if let Peer::Workloads(selector) = item {
                census.kinds.select(selector, since, &mut found.kinds);
            }
        }
        found.kinds[seen..].sort_unstable();
        found.kinds.dedup();
    }
}

/// Adds the peers that an item of a list names other than by kind.
fn others(item: &Peer, census: &Census, population: &Population, peers: &mut Vec<PeerId>) {
    match item {
        Peer::Workloads(_) | Peer::Domain(_) | Peer::Entity(Entity::None) => {}
        Peer::Cidr { cidr, except } => peers.extend(population.inside(cidr.trunc(), except)),
        item => {
            let named =
                population.peers.iter().zip(0..).filter(|(who, _)| names(item, who, census));
            peers.extend(named.map(|(_, peer): (_, PeerId)| peer));
        }
    }
}

/// An item names a peer by what it is rather than by kind or network.
fn names(item: &Peer, who: &Who, census: &Census) -> bool {
    let node = who.node().map(|node| census.node_states.get(node));
    match item {
        Peer::Nodes(selector) => node.is_some_and(|(_, labels)| selector.matches(labels)),
        Peer::Entity(entity) => is_one_of(*entity, who, node, census),
        _ => false,
    }
}

fn is_one_of(
    entity: Entity,
    who: &Who,
    node: Option<&(Arc<str>, Labels)>,
    census: &Census,
) -> bool {
    let local = census.options().local_node.as_ref();
    match entity {
        Entity::All => true,
        Entity::World => who.holder.is_none(),
        Entity::WorldIpv4 => who.holder.is_none() && matches!(who.network, IpNet::V4(_)),
        Entity::WorldIpv6 => who.holder.is_none() && matches!(who.network, IpNet::V6(_)),
        Entity::Cluster => who.holder.is_some(),
        Entity::Host => node.is_some_and(|(name, _)| Some(name) == local),
        Entity::RemoteNode => node.is_some_and(|(name, _)| Some(name) != local),
        Entity::None => false,
    }
}
