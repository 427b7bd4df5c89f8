//! The IPv4 side of the ipcache: a 16-8-8 multibit trie, updated in place.
//!
//! Each cell knows how long the prefix is that owns it, so that a prefix overwrites only what is
//! owned by shorter ones, and a removed one gives back only what it owns. An address changes its
//! leaf by one store; a node is filled before anything points to it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use flowgate_abi::endpoint::Leaf;
use ipnet::Ipv4Net;

use super::store::{Store, Trie4Cell};

/// No prefix owns the cell.
const NOBODY: u8 = 255;

/// What the cells of the trie don't say.
#[derive(Debug)]
pub(super) struct Trie4 {
    prefixes: BTreeMap<Ipv4Net, Leaf>,
    root: Vec<u8>,
    nodes: HashMap<u32, Node>,
    free: Vec<u32>,
    retired: Vec<u32>,
}

#[derive(Debug)]
struct Node {
    /// The length of the prefix that owns each cell.
    owners: [u8; 256],
    /// Prefixes that end in this node, and nodes below it.
    residents: u32,
}

/// The block of a level around a longer prefix.
fn block(net: Ipv4Net, level: u8) -> Option<Ipv4Net> {
    let block = Ipv4Net::new(net.network(), level).ok()?;
    (net.prefix_len() > level).then(|| block.trunc())
}

impl Trie4 {
    /// A trie without prefixes.
    pub(super) fn new(nodes: u32) -> Self {
        Self {
            prefixes: BTreeMap::new(),
            root: vec![NOBODY; 1 << 16],
            nodes: HashMap::new(),
            free: (0..nodes).rev().collect(),
            retired: Vec::new(),
        }
    }

    /// Nodes that were given back may be used again: a grace period has passed.
    pub(super) fn reclaim(&mut self) {
        self.free.append(&mut self.retired);
    }

    /// Nodes that are free.
    pub(super) fn free_nodes(&self) -> usize {
        self.free.len()
    }

    /// The root's cells whose second level the prefixes need, and the second level's cells whose
    /// third level they need, that aren't there yet.
    pub(super) fn nodes_needed(&self, nets: &[Ipv4Net]) -> usize {
        let mut blocks = BTreeSet::new();
        for net in nets {
            for level in [16u8, 24] {
                if let Some(block) = block(*net, level).filter(|block| !self.is_split(*block)) {
                    blocks.insert(block);
                }
            }
        }
        blocks.len()
    }

    /// A block that has a node of its own: some prefix is longer than it and lies inside.
    fn is_split(&self, block: Ipv4Net) -> bool {
        let end = |address, length| Ipv4Net::new(address, length).ok();
        let first = end(block.network(), block.prefix_len() + 1);
        let last = end(block.broadcast(), 32);
        let (Some(first), Some(last)) = (first, last) else { return false };
        self.prefixes.range(first..=last).next().is_some()
    }

    /// Writes a prefix, new or known.
    pub(super) fn insert<S: Store>(&mut self, store: &mut S, net: Ipv4Net, leaf: Leaf) {
        let known = self.prefixes.insert(net, leaf).is_some();
        let home = self.home(store, net, !known);
        let length = net.prefix_len();
        self.paint(store, home, span(net), leaf, length, &|owner| {
            owner == NOBODY || owner <= length
        });
    }

    /// Removes a prefix: its addresses get the leaf of the next shorter one.
    pub(super) fn remove<S: Store>(&mut self, store: &mut S, net: Ipv4Net) {
        if self.prefixes.remove(&net).is_none() {
            return;
        }
        let (leaf, owner) = self.covering(net);
        let home = self.home(store, net, false);
        let length = net.prefix_len();
        self.paint(store, home, span(net), leaf, owner, &|owner| owner == length);
        self.leave(store, net);
    }

    fn covering(&self, net: Ipv4Net) -> (Leaf, u8) {
        let mut net = net;
        while let Some(wider) = net.supernet() {
            if let Some(leaf) = self.prefixes.get(&wider) {
                return (*leaf, wider.prefix_len());
            }
            net = wider;
        }
        (Leaf::NONE, NOBODY)
    }

    /// The node in which a prefix ends, made if it isn't there; `None`: the root.
    fn home<S: Store>(&mut self, store: &mut S, net: Ipv4Net, moves_in: bool) -> Option<u32> {
        let mut home = None;
        for cell_bits in [16, 24] {
            if net.prefix_len() <= cell_bits {
                break;
            }
            let cell = cell(home, net, cell_bits);
            home = Some(match store.trie4_cell(cell).as_node() {
                Some(node) => node,
                None => self.split(store, home, cell),
            });
        }
        if moves_in && let Some(node) = home.and_then(|node| self.nodes.get_mut(&node)) {
            node.residents += 1;
        }
        home
    }

    /// Puts a node below a cell; every address keeps its leaf.
    fn split<S: Store>(&mut self, store: &mut S, parent: Option<u32>, cell: Trie4Cell) -> u32 {
        let number = self.free.pop().expect("the caller has counted the free nodes");
        let (leaf, owner) = (store.trie4_cell(cell), self.owner(cell));
        for index in 0..=255 {
            store.set_trie4_cell(Trie4Cell::Node(number, index), leaf);
        }
        self.nodes.insert(number, Node { owners: [owner; 256], residents: 0 });
        if let Some(parent) = parent.and_then(|parent| self.nodes.get_mut(&parent)) {
            parent.residents += 1;
        }
        store.set_trie4_cell(cell, Leaf::node(number));
        number
    }

    /// Writes a leaf into the cells of a range whose owner qualifies, and into the nodes below.
    fn paint<S: Store>(
        &mut self,
        store: &mut S,
        node: Option<u32>,
        range: (u32, u32),
        leaf: Leaf,
        owner: u8,
        qualifies: &dyn Fn(u8) -> bool,
    ) {
        for index in range.0..=range.1 {
            let cell = match node {
                None => Trie4Cell::Root(index as u16),
                Some(node) => Trie4Cell::Node(node, index as u8),
            };
            if let Some(below) = store.trie4_cell(cell).as_node() {
                self.paint(store, Some(below), (0, 255), leaf, owner, qualifies);
            } else if qualifies(self.owner(cell)) {
                store.set_trie4_cell(cell, leaf);
                *self.owner_mut(cell) = owner;
            }
        }
    }

    /// A prefix has left its node: nodes without residents go.
    fn leave<S: Store>(&mut self, store: &mut S, net: Ipv4Net) {
        let path = self.path(store, net);
        let mut leaving = path.len();
        while leaving > 0 {
            let (cell, number) = path[leaving - 1];
            let Some(node) = self.nodes.get_mut(&number) else { return };
            node.residents -= 1;
            if node.residents > 0 {
                return;
            }
            // Nothing ends here, so all cells have one owner.
            let owner = node.owners[0];
            store.set_trie4_cell(cell, store.trie4_cell(Trie4Cell::Node(number, 0)));
            *self.owner_mut(cell) = owner;
            self.nodes.remove(&number);
            self.retired.push(number);
            leaving -= 1;
        }
    }

    /// The cells that lead to a prefix's home, each with the node below it.
    fn path<S: Store>(&self, store: &S, net: Ipv4Net) -> Vec<(Trie4Cell, u32)> {
        let mut path: Vec<(Trie4Cell, u32)> = Vec::new();
        for cell_bits in [16, 24] {
            if net.prefix_len() <= cell_bits {
                break;
            }
            let cell = cell(path.last().map(|(_, node)| *node), net, cell_bits);
            let Some(node) = store.trie4_cell(cell).as_node() else { break };
            path.push((cell, node));
        }
        path
    }

    fn owner(&self, cell: Trie4Cell) -> u8 {
        match cell {
            Trie4Cell::Root(index) => self.root[usize::from(index)],
            Trie4Cell::Node(node, index) => {
                self.nodes.get(&node).map_or(NOBODY, |node| node.owners[usize::from(index)])
            }
        }
    }

    fn owner_mut(&mut self, cell: Trie4Cell) -> &mut u8 {
        match cell {
            Trie4Cell::Root(index) => &mut self.root[usize::from(index)],
            Trie4Cell::Node(node, index) => {
                let node = self.nodes.get_mut(&node).expect("every node of the trie is known");
                &mut node.owners[usize::from(index)]
            }
        }
    }

    /// Takes over the trie that a store already holds. The prefixes are the largest blocks of equal
    /// leaves, which answer for every address as the original ones did.
    pub(super) fn adopt<S: Store>(store: &S) -> Self {
        let mut trie = Self::new(store.trie4_nodes());
        trie.adopt_cells(store, None, 0, 16, 0, 1 << 16);
        let used: Vec<u32> = trie.nodes.keys().copied().collect();
        trie.free.retain(|node| !used.contains(node));
        trie
    }

    /// The prefixes.
    pub(super) fn prefixes(&self) -> impl Iterator<Item = (Ipv4Net, Leaf)> + '_ {
        self.prefixes.iter().map(|(net, leaf)| (*net, *leaf))
    }

    /// Takes over `count` cells of a node from `first` on; `bits` is the length of a whole cell's
    /// prefix and `base` the address of the node's first cell.
    fn adopt_cells<S: Store>(
        &mut self,
        store: &S,
        node: Option<u32>,
        base: u32,
        bits: u8,
        first: u32,
        count: u32,
    ) {
        let cell_at = |index: u32| match node {
            None => Trie4Cell::Root(index as u16),
            Some(node) => Trie4Cell::Node(node, index as u8),
        };
        let leaf = store.trie4_cell(cell_at(first));
        let uniform = leaf.as_node().is_none()
            && (first..first + count).all(|index| store.trie4_cell(cell_at(index)) == leaf);
        let address = base | first << (32 - bits);
        if uniform {
            if leaf == Leaf::NONE {
                return;
            }
            let length = bits - count.trailing_zeros() as u8;
            let net = Ipv4Net::new_assert(address.into(), length);
            self.prefixes.insert(net, leaf);
            for index in first..first + count {
                *self.owner_mut(cell_at(index)) = length;
            }
            if let Some(node) = node.and_then(|node| self.nodes.get_mut(&node)) {
                node.residents += 1;
            }
        } else if count > 1 {
            let half = count / 2;
            self.adopt_cells(store, node, base, bits, first, half);
            self.adopt_cells(store, node, base, bits, first + half, half);
        } else if let Some(below) = leaf.as_node() {
            self.nodes.insert(below, Node { owners: [NOBODY; 256], residents: 0 });
            if let Some(node) = node.and_then(|node| self.nodes.get_mut(&node)) {
                node.residents += 1;
            }
            self.adopt_cells(store, Some(below), address, bits + 8, 0, 256);
        }
    }
}

/// The cell of a node that a prefix goes through, where whole cells have prefixes of `bits`.
fn cell(node: Option<u32>, net: Ipv4Net, bits: u8) -> Trie4Cell {
    let index = u32::from(net.network()) >> (32 - bits);
    match node {
        None => Trie4Cell::Root(index as u16),
        Some(node) => Trie4Cell::Node(node, index as u8),
    }
}

/// The first and last cell of its home that a prefix covers.
fn span(net: Ipv4Net) -> (u32, u32) {
    let (bits, mask) = match net.prefix_len() {
        0..=16 => (16, 0xffff),
        17..=24 => (24, 0xff),
        _ => (32, 0xff),
    };
    let index = |address: u32| address >> (32 - bits) & mask;
    (index(net.network().into()), index(net.broadcast().into()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::host::HostTables;

    fn lookup(store: &HostTables, address: u32) -> Leaf {
        let root = store.trie4_cell(Trie4Cell::Root((address >> 16) as u16));
        let Some(node) = root.as_node() else { return root };
        let second = store.trie4_cell(Trie4Cell::Node(node, (address >> 8) as u8));
        let Some(node) = second.as_node() else { return second };
        store.trie4_cell(Trie4Cell::Node(node, address as u8))
    }

    fn naive(prefixes: &BTreeMap<Ipv4Net, Leaf>, address: u32) -> Leaf {
        let address = std::net::Ipv4Addr::from(address);
        let longest = prefixes
            .iter()
            .filter(|(net, _)| net.contains(&address))
            .max_by_key(|(net, _)| net.prefix_len());
        longest.map_or(Leaf::NONE, |(_, leaf)| *leaf)
    }

    fn net() -> impl Strategy<Value = Ipv4Net> {
        // Few first octets, so that prefixes nest.
        (0..4u32, any::<u16>(), 0..=32u8, any::<u8>()).prop_map(|(a, b, length, c)| {
            let address = 0xc612_0000 | a << 14 | u32::from(b & 0x303) << 4 | u32::from(c & 7);
            Ipv4Net::new(address.into(), length).unwrap().trunc()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn every_address_has_the_leaf_of_its_longest_prefix(
            steps in prop::collection::vec((net(), prop::option::of(1..50u32)), 1..60)
        ) {
            let mut store = HostTables::tiny();
            let mut trie = Trie4::new(store.trie4_nodes());
            let mut model = BTreeMap::new();
            for (net, leaf) in steps {
                match leaf {
                    Some(leaf) => {
                        trie.insert(&mut store, net, Leaf::peer(leaf));
                        model.insert(net, Leaf::peer(leaf));
                    }
                    None => {
                        trie.remove(&mut store, net);
                        model.remove(&net);
                    }
                }
                trie.reclaim();
                for probe in model.keys().chain([&net]) {
                    let (first, last) = (u32::from(probe.network()), u32::from(probe.broadcast()));
                    for address in [first, last, first.wrapping_sub(1), last.wrapping_add(1)] {
                        prop_assert_eq!(lookup(&store, address), naive(&model, address));
                    }
                }
            }
            let adopted = Trie4::adopt(&store);
            let blocks: BTreeMap<_, _> = adopted.prefixes().collect();
            for probe in model.keys() {
                let address = u32::from(probe.network());
                prop_assert_eq!(naive(&blocks, address), naive(&model, address));
            }
            for net in model.keys() {
                trie.remove(&mut store, *net);
            }
            prop_assert_eq!(trie.nodes.len(), 0);
        }
    }
}
