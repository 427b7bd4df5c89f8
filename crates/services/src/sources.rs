//! A service's source ranges as the tree that packets walk ([`flowgate_abi::lb::Sources`]).
//!
//! Not here: where trees lie, and when they may be written over ([`crate::balancer`]).
//!
//! Invariant: the tree of equal sets is the same, however they are written.

use std::{collections::BTreeMap, net::IpAddr};

use flowgate_abi::lb::{BOUNDS, SOURCE_LEVELS, SUBTREES, Sources};
use ipnet::IpNet;

use crate::{
    balancer::Balancer,
    header::Inner,
    model::{Service, SourceRanges},
    ranges::Range,
    room::{ApplyError, Table},
    running::families,
    store::Store,
};

/// A node's words.
type Node = [u64; 2 * BOUNDS];

/// Bounds of a tree's leaves, at the most.
const MOST_BOUNDS: usize = BOUNDS * (SUBTREES as usize).pow(SOURCE_LEVELS - 1);
/// Networks of a service: each makes two bounds.
pub(crate) const MOST_NETWORKS: usize = MOST_BOUNDS / 2 - 1;

/// A tree that isn't anywhere yet.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Tree {
    nodes: Vec<Node>,
    levels: u32,
    refuses_members: bool,
}

impl Tree {
    /// Of the clients of a family; `None`: all are taken.
    fn of(ranges: &SourceRanges, family: Inner) -> Option<Self> {
        let (networks, refuses_members) = match ranges {
            SourceRanges::Any => return None,
            SourceRanges::Allow(networks) => (networks, false),
            SourceRanges::Deny(networks) => (networks, true),
        };
        let bounds = bounds(networks, family);
        let (nodes, levels) = nodes(&bounds);
        Some(Self { nodes, levels, refuses_members })
    }

    /// The word that leads there, if it is written to a stretch.
    fn at(&self, range: Range) -> Sources {
        let sources = Sources::new(range.start, range.length, self.levels);
        Sources(sources.0 | if self.refuses_members { Sources::REFUSED } else { 0 })
    }

    /// It is what a word leads to.
    fn is_at<S: Store>(&self, store: &S, word: Sources) -> bool {
        let nodes = range(word).elements().map(|index| store.source(index));
        word == self.at(range(word)) && nodes.eq(self.nodes.iter().copied())
    }

    fn write<S: Store>(&self, store: &mut S, range: Range) {
        range.elements().zip(&self.nodes).for_each(|(index, node)| store.set_source(index, *node));
    }

    /// How many nodes it has.
    fn len(&self) -> u32 {
        self.nodes.len() as u32
    }
}

/// Nodes that a service's trees take.
pub(crate) fn need(service: &Service) -> u32 {
    let trees = families(service).into_iter().filter_map(|inner| Tree::of(&service.sources, inner));
    trees.map(|tree| tree.len()).sum()
}

/// Where a tree lies.
pub(crate) fn range(sources: Sources) -> Range {
    Range { start: sources.root(), length: sources.nodes() }
}

/// Nodes that a service would take beside the trees that it has.
pub(crate) fn lacking<S: Store>(store: &S, service: &Service, has: &Placed) -> Vec<u32> {
    let lacks = |inner: Inner| {
        let tree = Tree::of(&service.sources, inner)?;
        let is_there = has.get(&inner).is_some_and(|word| tree.is_at(store, *word));
        (!is_there).then(|| tree.len())
    };
    families(service).into_iter().filter_map(lacks).collect()
}

/// Trees by the family of clients.
pub(crate) type Placed = BTreeMap<Inner, Sources>;

impl<S: Store> Balancer<S> {
    /// Writes the trees of a service, but for those that it has.
    pub(crate) fn place_sources(
        &mut self,
        service: &Service,
        has: &Placed,
    ) -> Result<Placed, ApplyError<S::Error>> {
        let mut placed = Placed::new();
        for inner in families(service) {
            let Some(tree) = Tree::of(&service.sources, inner) else { continue };
            let known = has.get(&inner).copied().filter(|word| tree.is_at(&self.store, *word));
            let word = match known {
                Some(word) => word,
                None => {
                    let range = self.sources.take(tree.len());
                    let range = range.ok_or_else(|| self.no_room(Table::Sources, service))?;
                    tree.write(&mut self.store, range);
                    tree.at(range)
                }
            };
            placed.insert(inner, word);
        }
        Ok(placed)
    }

    /// Gives a service that runs the trees of another one; those that it leaves. `None`: it keeps all.
    pub(crate) fn move_sources(
        &mut self,
        service: &Service,
    ) -> Result<Option<Vec<Range>>, ApplyError<S::Error>> {
        let Some(running) = self.running.get(&service.name) else { return Ok(None) };
        let before = running.sources.clone();
        let placed = self.place_sources(service, &before)?;
        if placed == before {
            return Ok(None);
        }
        let left = before.iter().filter(|(inner, word)| placed.get(inner) != Some(word));
        let left = left.map(|(_, word)| range(*word)).collect();
        if let Some(running) = self.running.get_mut(&service.name) {
            running.sources = placed;
        }
        Ok(Some(left))
    }
}

/// Where ranges of a family begin and end by turns, in ascending order; a last range that ends with the last address
/// has no end.
fn bounds(networks: &[IpNet], family: Inner) -> Vec<u128> {
    let networks = networks.iter().filter(|one| Inner::of(one.addr()) == family);
    let mut ranges: Vec<(u128, Option<u128>)> = networks.map(ends).collect();
    ranges.sort_unstable();
    let mut bounds: Vec<u128> = Vec::new();
    for (start, end) in ranges {
        // What follows the last address is in it already.
        if bounds.len() % 2 == 1 {
            break;
        }
        let before = bounds.last().copied().filter(|before| *before >= start);
        match before {
            Some(_) => drop(bounds.pop()),
            None => bounds.push(start),
        }
        bounds.extend(end.map(|end| end.max(before.unwrap_or(0))));
    }
    bounds
}

/// A network's first address, and the one behind its last, if there is one.
fn ends(network: &IpNet) -> (u128, Option<u128>) {
    let start = number(network.network());
    let bits = match network {
        IpNet::V4(v4) => v4.prefix_len(),
        IpNet::V6(v6) => v6.prefix_len(),
    };
    let size = 1u128.checked_shl(128 - u32::from(bits));
    (start, size.and_then(|size| start.checked_add(size)))
}

/// An address as bounds have it.
fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)) << 96,
        IpAddr::V6(v6) => v6.into(),
    }
}

/// A tree over bounds, and its levels.
fn nodes(bounds: &[u128]) -> (Vec<Node>, u32) {
    let leaves = bounds.len().div_ceil(BOUNDS).max(1);
    let (mut levels, mut width) = (1, 1);
    while width < leaves {
        (levels, width) = (levels + 1, width * SUBTREES as usize);
    }
    let inner = (width - 1) / BOUNDS;
    let mut nodes = vec![[u64::MAX; 2 * BOUNDS]; inner + leaves];
    // Leaves below each child of the level that is written.
    let (mut first, mut on_level, mut below) = (0, 1, width / SUBTREES as usize);
    while first < inner {
        for place in 0..on_level {
            let subtree = |child: usize| (place * SUBTREES as usize + child) * below;
            let bound = |at: usize| bounds.get(subtree(at + 1) * BOUNDS).copied();
            nodes[first + place] = node(bound);
        }
        first += on_level;
        (on_level, below) = (on_level * SUBTREES as usize, below / SUBTREES as usize);
    }
    for leaf in 0..leaves {
        nodes[inner + leaf] = node(|at| bounds.get(leaf * BOUNDS + at).copied());
    }
    (nodes, levels)
}

/// A node of up to four bounds.
fn node(bound: impl Fn(usize) -> Option<u128>) -> Node {
    let mut words = [u64::MAX; 2 * BOUNDS];
    for at in 0..BOUNDS {
        let bound = bound(at).unwrap_or(u128::MAX);
        (words[2 * at], words[2 * at + 1]) = ((bound >> 64) as u64, bound as u64);
    }
    words
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use flowgate_abi::lb::Settings;
    use flowgate_conformance::generate::Generator;
    use flowgate_pipeline::lb::Balance;

    use super::*;
    use crate::{Services, Uplink, host::HostTables, model::Backend, room::Overflow, store::Room};

    fn tables(sources: u32) -> HostTables {
        let settings = Settings {
            fragment_seed: 1,
            displacement_mask: 7,
            frontend_shift: 32 - 4,
            tracked_mask: 1,
            fragment_timeout: 1000,
            hz: 1000,
            errors_per_second: 10,
            age_length: 10_000,
            ..Settings::default()
        };
        let room = Room {
            frontends: 16,
            slots: 1024,
            lines: 64,
            services: 2,
            sources,
            tracked: 16,
            ..Room::default()
        };
        HostTables::new(settings, room)
    }

    /// A network among few, so that they lie beside and inside of each other; now and then a large one.
    fn network(generator: &mut Generator) -> IpNet {
        let (low, far) = (generator.below(64), generator.below(2));
        let short = if generator.below(20) == 0 { 8 } else { 0 };
        let prefix = 26 + generator.below(7) as u8 - short;
        let v4 = if far == 0 { 0xcb00_7100 + low as u32 } else { 0xffff_ffc0 + low as u32 };
        let v6 = if far == 0 {
            0x2001_0db8 << 96 | u128::from(low)
        } else {
            u128::MAX - u128::from(low)
        };
        let network = match generator.below(2) {
            0 => IpNet::new(v4.to_be_bytes().into(), prefix),
            _ => IpNet::new(v6.to_be_bytes().into(), 96 + prefix),
        };
        network.expect("a prefix").trunc()
    }

    /// An address in the neighbourhood of the networks, or anywhere.
    fn client(generator: &mut Generator, family: Inner) -> IpAddr {
        let low = generator.below(80);
        match (family, generator.below(5)) {
            (Inner::V4, 0) => (generator.below(1 << 32) as u32).to_be_bytes().into(),
            (Inner::V4, 1) => (u32::MAX - low as u32).to_be_bytes().into(),
            (Inner::V4, _) => (0xcb00_70f8 + low as u32).to_be_bytes().into(),
            (Inner::V6, 0) => (u128::from(generator.below(1 << 32)) << 96).to_be_bytes().into(),
            (Inner::V6, 1) => (u128::MAX - u128::from(low)).to_be_bytes().into(),
            (Inner::V6, _) => ((0x2001_0db8 << 96 | u128::from(low)) - 8).to_be_bytes().into(),
        }
    }

    #[test]
    fn packets_find_what_the_networks_say() {
        let (mut tables, mut generator) = (tables(1024), Generator::new(11));
        let mut said = [0; 2];
        for round in 0..1000 {
            let count = 1 + generator.below([3, 10, 60][round % 3]);
            let networks: Vec<IpNet> = (0..count).map(|_| network(&mut generator)).collect();
            let ranges = match generator.below(2) {
                0 => SourceRanges::Allow(networks),
                _ => SourceRanges::Deny(networks),
            };
            for family in [Inner::V4, Inner::V6] {
                let tree = Tree::of(&ranges, family).expect("not any");
                let place = Range { start: generator.below(900) as u32, length: tree.len() };
                tree.write(&mut tables, place);
                for _ in 0..60 {
                    let client = client(&mut generator, family);
                    let number = number(client);
                    let words = [(number >> 64) as u64, number as u64];
                    let refused = tables.refuses(tree.at(place), words);
                    assert_eq!(refused, !ranges.takes(client), "{client} by {ranges:?}");
                    said[usize::from(refused)] += 1;
                }
            }
        }
        assert!(said.iter().all(|count| *count > 20_000), "{said:?}");
    }

    #[test]
    fn n_networks_take_no_more_than_five_quarters_of_n_nodes() {
        for count in 1..2000u32 {
            let networks = (0..count).map(|n| IpNet::from(IpAddr::from((n * 2).to_be_bytes())));
            let ranges = SourceRanges::Allow(networks.collect());
            let tree = Tree::of(&ranges, Inner::V4).expect("not any");
            assert!(4 * tree.len() <= 5 * count, "{count}: {}", tree.len());
            assert_eq!(Tree::of(&ranges, Inner::V6).expect("nobody").len(), 1);
        }
    }

    #[test]
    fn equal_sets_have_one_tree() {
        let tree = |texts: &[&str]| {
            let networks = texts.iter().map(|text| text.parse().expect("a network"));
            Tree::of(&SourceRanges::Deny(networks.collect()), Inner::V4)
        };
        let halves =
            tree(&["203.0.113.128/25", "198.18.0.0/15", "203.0.113.0/25", "203.0.113.7/32"]);
        assert_eq!(halves, tree(&["198.18.0.0/15", "203.0.113.0/24"]));
    }

    fn services(networks: u8) -> Services {
        let hosts = (0..networks).map(|n| IpNet::from(IpAddr::from([203, 0, 113, 2 * n])));
        let service = Service::tcp("web", 80).address([198, 51, 100, 1].into());
        let service = service.backend(Backend::new([198, 18, 0, 1].into()));
        let sources = match networks {
            0 => SourceRanges::Any,
            _ => SourceRanges::Allow(hosts.collect()),
        };
        Services::new([service.sources(sources)]).expect("good services")
    }

    fn apply(balancer: &mut Balancer<HostTables>, networks: u8) -> Option<Overflow> {
        match balancer.apply(&services(networks), Duration::ZERO) {
            Ok(_) => None,
            Err(ApplyError::Overflow { overflow }) => Some(overflow),
            Err(error) => panic!("{error}"),
        }
    }

    fn adopt(tables: HostTables) -> Balancer<HostTables> {
        let Ok(balancer) = Balancer::adopt(tables, Uplink::default(), 1);
        balancer
    }

    /// Where the trees of the service are, by what its frontend says.
    fn placed(balancer: &Balancer<HostTables>) -> Range {
        let indexes = 0..balancer.store.room().frontends;
        let frontends = indexes.map(|index| Store::frontend(&balancer.store, index));
        let mut of_service = frontends.filter(|frontend| frontend.size != 0);
        range(Sources(of_service.next().expect("one").sources.load()))
    }

    #[test]
    fn ranges_are_replaced_beside_the_old_ones_and_what_does_not_fit_changes_nothing() {
        let mut balancer = adopt(tables(6));
        assert_eq!(apply(&mut balancer, 6), None);
        assert_eq!(balancer.cost(&services(6)).sources, 4);
        let first = placed(&balancer);
        let overflow = apply(&mut balancer, 7).expect("4 nodes are taken, 2 are left");
        assert_eq!((overflow.table, overflow.needed, overflow.have), (Table::Sources, 5, 6));
        assert_eq!((placed(&balancer), balancer.services()), (first, &services(6)));
        assert_eq!(apply(&mut balancer, 2), None);
        assert!(placed(&balancer).start >= first.length);
        let Ok(_) = balancer.tick(Duration::from_secs(1));
        assert_eq!(balancer.sources.left(), 5);
        assert_eq!(apply(&mut balancer, 0), None);
        assert_eq!(placed(&balancer).length, 0);
        let Ok(_) = balancer.tick(Duration::from_secs(2));
        assert_eq!(balancer.sources.left(), 6);
    }

    #[test]
    fn a_restart_keeps_ranges_where_they_are() {
        let mut balancer = adopt(tables(6));
        assert_eq!(apply(&mut balancer, 6), None);
        let before = placed(&balancer);
        let mut adopted = adopt(balancer.store);
        assert_eq!((placed(&adopted), adopted.sources.left()), (before, 2));
        assert_eq!(apply(&mut adopted, 6), None);
        assert_eq!((placed(&adopted), adopted.sources.left()), (before, 2));
    }
}
