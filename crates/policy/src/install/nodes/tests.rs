//! Random changes, looked at after every single write, by packets of any speed. The reference is a scan
//! over all networks.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use flowgate_abi::{Addr6, Be32};
use flowgate_pipeline::{V4, V6, ipcache as walk};
use proptest::prelude::*;

use super::*;
use crate::{
    host::HostTables,
    ipcache::{self, MOST_NODES},
};

/// Host tables, looked at after every write.
struct Watched {
    tables: HostTables,
    watches: Vec<Watch>,
    writes: usize,
    /// Grace periods until one fails.
    graces: usize,
}

/// An address, and packets to it that are under way.
struct Watch {
    address: IpAddr,
    before: Leaf,
    after: Leaf,
    changed: bool,
    packets: Vec<Packet>,
}

/// A packet that has come to a word, and whose it may be, by what was so since it began.
struct Packet {
    at: Word,
    whose: Vec<Leaf>,
}

#[derive(Debug)]
struct Refused;

impl Memory for Watched {
    type Error = Refused;

    fn nodes(&self) -> u32 {
        Memory::nodes(&self.tables)
    }

    fn word(&self, cell: IpcacheCell) -> Word {
        Memory::word(&self.tables, cell)
    }

    fn set_word(&mut self, cell: IpcacheCell, word: Word) {
        Memory::set_word(&mut self.tables, cell, word);
        self.writes += 1;
        for (number, watch) in self.watches.iter_mut().enumerate() {
            watch.look(&self.tables, self.writes + 3 * number);
        }
    }

    fn grace_period(&mut self) -> Result<(), Refused> {
        self.graces = self.graces.checked_sub(1).ok_or(Refused)?;
        self.watches.iter_mut().for_each(|watch| watch.finish(&self.tables));
        Ok(())
    }
}

impl Watch {
    fn new(address: IpAddr, before: Leaf, after: Leaf) -> Self {
        Self { address, before, after, changed: false, packets: Vec::new() }
    }

    /// A packet that comes now has the old leaf until one has had the new one, and the new one from then
    /// on. Others have gone a step further, now and then.
    fn look(&mut self, tables: &HostTables, moment: usize) {
        let now = find(tables, self.address);
        self.changed |= now == self.after;
        let wanted = if self.changed { self.after } else { self.before };
        assert_eq!(now, wanted, "{}: {:?} becomes {:?}", self.address, self.before, self.after);
        if moment.is_multiple_of(5) && self.packets.len() < 4 {
            self.packets.push(Packet { at: root(self.address), whose: Vec::new() });
        }
        for (number, packet) in self.packets.iter_mut().enumerate() {
            packet.whose.push(now);
            if (moment + number).is_multiple_of(7) {
                packet.step(tables, self.address);
            }
        }
        self.packets.retain(|packet| packet.at.is_node());
    }

    fn finish(&mut self, tables: &HostTables) {
        for mut packet in self.packets.drain(..) {
            while packet.at.is_node() {
                packet.step(tables, self.address);
            }
        }
    }
}

impl Packet {
    fn step(&mut self, tables: &HostTables, address: IpAddr) {
        self.at = step(tables, self.at, address);
        let leaf = self.at.as_leaf();
        assert!(self.at.is_node() || self.whose.contains(&leaf), "{address}: a stale {leaf:?}");
    }
}

fn v4(address: Ipv4Addr) -> Be32 {
    Be32::new(address.into())
}

fn v6(address: Ipv6Addr) -> Addr6 {
    Addr6::from_octets(address.octets())
}

fn find(tables: &HostTables, address: IpAddr) -> Leaf {
    match address {
        IpAddr::V4(address) => walk::lookup::<V4, _>(tables, &v4(address)),
        IpAddr::V6(address) => walk::lookup::<V6, _>(tables, &v6(address)),
    }
}

fn root(address: IpAddr) -> Word {
    match address {
        IpAddr::V4(address) => walk::root::<V4>(&v4(address)),
        IpAddr::V6(address) => walk::root::<V6>(&v6(address)),
    }
}

fn step(tables: &HostTables, word: Word, address: IpAddr) -> Word {
    match address {
        IpAddr::V4(address) => walk::step::<V4, _>(tables, word, &v4(address)),
        IpAddr::V6(address) => walk::step::<V6, _>(tables, word, &v6(address)),
    }
}

/// Networks as the test knows them.
type Networks = BTreeMap<IpNet, u32>;

fn scan(networks: &Networks, address: IpAddr) -> Leaf {
    let around = networks.iter().filter(|(network, _)| network.contains(&address));
    let longest = around.max_by_key(|(network, _)| network.prefix_len());
    longest.map_or(Leaf::NONE, |(_, value)| Leaf::peer(*value))
}

fn needed(networks: &Networks) -> usize {
    ipcache::nodes(&networks.iter().map(|(network, value)| (*network, *value)).collect())
}

/// A change: networks that come or get other leaves, or networks that go.
#[derive(Clone, Debug)]
enum Change {
    Set(Vec<(IpNet, u32)>),
    Remove(Vec<IpNet>),
    /// All that are inside of one.
    Empty(IpNet),
}

impl Change {
    fn networks(&self, before: &Networks) -> Vec<IpNet> {
        match self {
            Self::Set(networks) => networks.iter().map(|(network, _)| *network).collect(),
            Self::Remove(networks) => networks.clone(),
            Self::Empty(network) => {
                before.keys().filter(|inner| network.contains(*inner)).copied().collect()
            }
        }
    }

    fn apply(&self, networks: &mut Networks) {
        match self {
            Self::Set(set) => networks.extend(set.iter().copied()),
            Self::Remove(_) | Self::Empty(_) => {
                for network in self.networks(networks) {
                    networks.remove(&network);
                }
            }
        }
    }
}

/// The first and last addresses of networks, and those beside them.
fn edges(networks: &[IpNet]) -> Vec<IpAddr> {
    let edges =
        networks.iter().flat_map(|network| match (network.network(), network.broadcast()) {
            (IpAddr::V4(first), IpAddr::V4(last)) => {
                let (first, last) = (u32::from(first), u32::from(last));
                [first, last, first.wrapping_sub(1), last.wrapping_add(1)]
                    .map(|address| IpAddr::V4(address.into()))
            }
            (IpAddr::V6(first), IpAddr::V6(last)) => {
                let (first, last) = (u128::from(first), u128::from(last));
                [first, last, first.wrapping_sub(1), last.wrapping_add(1)]
                    .map(|address| IpAddr::V6(address.into()))
            }
            ends => unreachable!("{ends:?}"),
        });
    edges.collect()
}

/// Networks that nest, share buckets, and are dense in places.
fn network() -> impl Strategy<Value = IpNet> {
    let bits = prop_oneof![
        any::<u128>(),
        any::<u128>().prop_map(|bits| bits & 0x00ff_0000_0000_0000_0000_0000_0000_000f),
        any::<u128>().prop_map(|bits| bits & 0x0000_0303 << 96 | bits & 0xff),
        (0..64u128).prop_map(|low| 0x2001_0db8 << 96 | low),
        (0..64u128).prop_map(|low| (0xc612_0000 | low) << 96),
    ];
    // Few short ones, which are many writes.
    let length = prop_oneof![40 => 8..=32u8, 1 => 0..8u8];
    (bits, length, 0..4u8, any::<bool>()).prop_map(|(bits, length, rest, v6)| {
        let length = if v6 { length.saturating_mul(4) - rest.min(length) } else { length };
        let address = match v6 {
            true => IpAddr::V6(bits.into()),
            false => IpAddr::V4(((bits >> 96) as u32).into()),
        };
        IpNet::new(address, length).unwrap().trunc()
    })
}

/// Networks because of which all sixteen words of a block's directory lead to directories.
fn dense(block: &str) -> Vec<IpNet> {
    let block = Block::from(block.parse::<IpNet>().unwrap());
    let below = |number: usize| block.part(4, number / 5).part(4, number % 5 * 3).part(1, 1);
    (0..16 * 5).map(|number| below(number).net()).collect()
}

fn dense_somewhere() -> impl Strategy<Value = Vec<IpNet>> {
    prop::sample::select(vec![
        "2001:db8::/32",
        "2001:db8::/36",
        "2001:db8:1000::/36",
        "198.16.0.0/16",
    ])
    .prop_map(dense)
}

fn change() -> impl Strategy<Value = Change> {
    let set = prop::collection::vec((network(), 1..50u32), 1..12);
    prop_oneof![
        4 => set.prop_map(Change::Set),
        1 => (dense_somewhere(), 1..50u32).prop_map(|(networks, value)| {
            Change::Set(networks.into_iter().map(|network| (network, value)).collect())
        }),
        1 => (dense_somewhere(), 0..80usize).prop_map(|(networks, from)| Change::Remove(networks[from..].to_vec())),
        2 => prop::collection::vec(network(), 1..4).prop_map(Change::Remove),
        1 => network().prop_map(Change::Empty),
    ]
}

/// The store and what is known beside it.
struct Scene {
    store: Watched,
    nodes: Nodes,
    ipcache: Ipcache<Leaf>,
    networks: Networks,
}

impl Scene {
    /// With as many nodes as may be needed, and not one more.
    fn new(changes: &[Change]) -> Self {
        let mut networks = Networks::new();
        let needed = changes.iter().map(|change| {
            change.apply(&mut networks);
            needed(&networks)
        });
        let nodes = needed.max().unwrap_or_default();
        let tables = HostTables::tiny(nodes as u32);
        let mut store = Watched { tables, watches: Vec::new(), writes: 0, graces: usize::MAX };
        let (nodes, ipcache) = Nodes::adopt(&mut store).unwrap();
        Self { store, nodes, ipcache, networks: Networks::new() }
    }

    fn change(&mut self, change: &Change) -> Result<(), Refused> {
        let changed = change.networks(&self.networks);
        let mut after = self.networks.clone();
        change.apply(&mut after);
        let edges = edges(&changed);
        self.store.watches = edges
            .iter()
            .step_by(edges.len() / 32 + 1)
            .copied()
            .map(|address| {
                Watch::new(address, scan(&self.networks, address), scan(&after, address))
            })
            .collect();
        self.networks = after;
        for network in &changed {
            match self.networks.get(network) {
                Some(value) => self.ipcache.insert(*network, Leaf::peer(*value)),
                None => self.ipcache.remove(*network),
            };
        }
        self.nodes.write(&mut self.store, &mut self.ipcache, &changed)?;
        for watch in &mut self.store.watches {
            watch.finish(&self.store.tables);
        }
        Ok(())
    }

    /// Carries on after a change that failed: the store knows what has become of it.
    fn repeat(&mut self) -> Result<(), Refused> {
        self.store.watches.clear();
        let found: Vec<IpNet> = self.ipcache.iter().map(|(network, _)| network).collect();
        self.ipcache
            .extend(self.networks.iter().map(|(network, value)| (*network, Leaf::peer(*value))));
        let all: Vec<IpNet> = self.networks.keys().copied().collect();
        self.nodes.write(&mut self.store, &mut self.ipcache, &all)?;
        let gone: Vec<IpNet> =
            found.into_iter().filter(|network| !self.networks.contains_key(network)).collect();
        for network in &gone {
            self.ipcache.remove(*network);
        }
        self.nodes.write(&mut self.store, &mut self.ipcache, &gone)
    }

    /// Everything is as the networks say, and no node is used in vain.
    fn check(&self) -> Result<(), TestCaseError> {
        let all: Vec<IpNet> = self.networks.keys().copied().collect();
        for address in edges(&all) {
            prop_assert_eq!(find(&self.store.tables, address), scan(&self.networks, address));
        }
        prop_assert_eq!(self.nodes.used(), needed(&self.networks));
        self.wide();
        Ok(())
    }

    /// How many words lead past a directory, each rightly.
    fn wide(&self) -> usize {
        let roots: BTreeSet<u32> = self
            .networks
            .keys()
            .map(|network| Directory::root(Block::from(*network)).node)
            .collect();
        let mut words: Vec<Word> =
            roots.into_iter().map(|root| Word::directory(ROOT_BITS, root)).collect();
        let mut wide = BTreeSet::new();
        while let Some(word) = words.pop() {
            let numbers =
                if word.is_bucket() { Node::VALUES..Node::AROUND } else { 0..Node::WORDS };
            let below =
                numbers.map(|index| self.store.word(IpcacheCell { node: word.node(), index }));
            let below: Vec<Word> = below.filter(|word| word.is_node()).collect();
            if word.is_wide() {
                let behind = word.node() + 1..=word.node() + 16;
                let behind: Vec<Word> =
                    behind.map(|node| Word::directory(word.at() as u8 + STRIDE, node)).collect();
                assert_eq!(below.iter().copied().map(Word::narrow).collect::<Vec<_>>(), behind);
                wide.insert(word.node());
            }
            words.extend(below);
        }
        wide.len()
    }

    /// With room for so many nodes, and networks that share a leaf.
    fn with(nodes: u32, networks: &[IpNet]) -> Self {
        let tables = HostTables::tiny(nodes);
        let mut store = Watched { tables, watches: Vec::new(), writes: 0, graces: usize::MAX };
        let (nodes, ipcache) = Nodes::adopt(&mut store).unwrap();
        let mut scene = Self { store, nodes, ipcache, networks: Networks::new() };
        scene.set(networks);
        scene
    }

    fn set(&mut self, networks: &[IpNet]) {
        let set = networks.iter().map(|network| (*network, 7)).collect();
        self.change(&Change::Set(set)).unwrap();
        self.check().unwrap();
    }

    fn remove(&mut self, networks: &[IpNet]) {
        self.change(&Change::Remove(networks.to_vec())).unwrap();
        self.check().unwrap();
    }

    /// Nodes on an address's way.
    fn steps(&self, address: IpAddr) -> usize {
        let mut word = root(address);
        let mut steps = 0;
        while word.is_node() {
            word = step(&self.store.tables, word, address);
            steps += 1;
        }
        steps
    }
}

/// The sixteenths of a block, all dense.
fn denser(block: &str) -> Vec<IpNet> {
    let block = Block::from(block.parse::<IpNet>().unwrap());
    (0..16).flat_map(|number| dense(&block.part(4, number).net().to_string())).collect()
}

#[test]
fn eight_bits_are_one_step_where_networks_are_dense() {
    let networks = dense("2001:db8::/32");
    let mut scene = Scene::with(200, &networks);
    assert_eq!(scene.wide(), 1);
    // The root's, one that leads to the /32, sixteen of them at once, a bucket.
    let address = networks[7].network();
    assert_eq!(scene.steps(address), 4);
    // A directory less: no more.
    let (first, others) = networks.split_at(5);
    scene.remove(&first[1..]);
    assert_eq!((scene.wide(), scene.steps(address)), (0, 5));
    scene.set(first);
    assert_eq!((scene.wide(), scene.steps(address)), (1, 4));
    // All of them at once.
    scene.remove(others);
    assert_eq!(scene.wide(), 0);
}

#[test]
fn directories_behind_one_another_take_turns() {
    let networks = denser("2001:db8::/32");
    let mut scene = Scene::with(2000, &[]);
    // From below: first those of each sixteenth, then the whole block's, past which the others aren't needed.
    for (number, part) in networks.chunks(80).enumerate() {
        scene.set(part);
        assert_eq!(scene.wide(), if number < 15 { number + 1 } else { 1 });
    }
    // And back.
    for (number, part) in networks.chunks(80).enumerate() {
        scene.remove(part);
        assert!(scene.wide() <= 15 - number);
    }
}

#[test]
fn directories_below_come_in_front_when_those_above_are_wide() {
    let mut scene = Scene::with(2000, &dense("2001:db8::/36"));
    scene.set(&dense("2001:db8::/40"));
    let address = "2001:db8::".parse().unwrap();
    // The /36 is wide, so the /40, behind it, isn't.
    assert_eq!((scene.wide(), scene.steps(address)), (1, 5));
    scene.set(&dense("2001:db8::/32")[5..]);
    assert_eq!((scene.wide(), scene.steps(address)), (2, 5));
    scene.remove(&dense("2001:db8::/32")[5..]);
    assert_eq!((scene.wide(), scene.steps(address)), (1, 5));
}

#[test]
fn without_room_side_by_side_every_way_is_as_it_was() {
    let mut scene = Scene::with(400, &[]);
    scene.nodes.reclaim();
    let whole = scene.nodes.free.len();
    scene.nodes.free.retain(|node| node % 17 != 0);
    scene.nodes.all -= (whole - scene.nodes.free.len()) as u32;
    scene.set(&dense("2001:db8::/32"));
    assert_eq!(scene.wide(), 0);
}

/// A few, or as many as `PROPTEST_CASES` says.
fn cases() -> ProptestConfig {
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => ProptestConfig::default(),
        None => ProptestConfig::with_cases(16),
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn every_packet_has_the_old_leaf_or_the_new_one(changes in prop::collection::vec(change(), 1..20)) {
        let mut scene = Scene::new(&changes);
        for change in &changes {
            scene.change(change).unwrap();
            scene.check()?;
        }
        let (_, used) = read::networks(&scene.store);
        prop_assert_eq!(scene.nodes.used(), used.len());
        let all = scene.networks.keys().copied().collect();
        scene.change(&Change::Remove(all)).unwrap();
        prop_assert_eq!(scene.nodes.used(), 0);
    }

    #[test]
    fn the_nodes_tell_their_networks(changes in prop::collection::vec(change(), 1..12)) {
        let mut scene = Scene::new(&changes);
        changes.iter().for_each(|change| scene.change(change).unwrap());
        let (mut nodes, ipcache) = Nodes::adopt(&mut scene.store).unwrap();
        prop_assert!(nodes.used() <= scene.nodes.used());
        for address in edges(&scene.networks.keys().copied().collect::<Vec<_>>()) {
            let found = ipcache.lookup(address).map_or(Leaf::NONE, |(_, leaf)| *leaf);
            prop_assert_eq!(found, scan(&scene.networks, address));
            prop_assert_eq!(find(&scene.store.tables, address), found);
        }
        let all: Vec<IpNet> = ipcache.iter().map(|(network, _)| network).collect();
        scene.store.watches.clear();
        nodes.write(&mut scene.store, &mut Ipcache::new(), &all).unwrap();
        prop_assert_eq!(nodes.used(), 0);
    }

    #[test]
    fn what_the_kernel_refused_can_be_repeated(
        changes in prop::collection::vec(change(), 2..12),
        graces in 0..3usize,
    ) {
        let mut scene = Scene::new(&changes);
        for change in &changes {
            scene.store.graces = graces;
            if scene.change(change).is_err() {
                scene.store.graces = usize::MAX;
                scene.repeat().unwrap();
            }
            scene.check()?;
        }
    }

    #[test]
    fn one_network_more_needs_a_few_nodes_more(
        networks in prop::collection::btree_set(network(), 1..60),
    ) {
        let mut before = Ipcache::new();
        for network in networks {
            let needed = ipcache::nodes(&before);
            before.insert(network, ());
            let more = ipcache::nodes(&before);
            prop_assert!((needed..=needed + MOST_NODES).contains(&more), "{} to {}", needed, more);
        }
    }
}
