//! Which nodes the ipcache has for a set of networks.
//!
//! A function of the networks alone, in whatever order they came. Not here: writing nodes
//! (`crate::install`). Invariant: more networks never need fewer nodes, so what fits in the end fits all
//! the way. Tested with the writer, which makes its nodes of these shapes.

use flowgate_abi::ipcache::{Node, ROOT_BITS};
use flowgate_identity::Ipcache;

use super::Block;

/// Bits that a directory picks a word by.
pub(crate) const STRIDE: u8 = 4;
/// Where a bucket's keys end: at a half of the address, wherever they begin, so that more networks around
/// don't change what goes on below.
const HALF: u8 = 64;

/// The node of a block that has networks inside.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// What a bucket holds, longest first.
    Bucket(Vec<Entry>),
    /// A word for every 16th of the block.
    Directory,
}

/// An entry of a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// A network.
    Network(Block),
    /// A block that has a node of its own.
    Below(Block),
}

impl Entry {
    pub(crate) const fn block(self) -> Block {
        match self {
            Self::Network(block) | Self::Below(block) => block,
        }
    }
}

/// Neighbouring words of a directory.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Every word is a leaf.
    Leaves(Block),
    /// Every word leads to this block's node.
    Node(Block, Shape),
}

/// The parts of a block's directory, in their order: where networks are sparse, neighbours share a
/// bucket.
pub(crate) fn parts<T>(networks: &Ipcache<T>, directory: Block) -> Vec<Part> {
    let mut parts = Vec::new();
    divide(networks, directory, directory.length + STRIDE, &mut parts);
    parts
}

fn divide<T>(networks: &Ipcache<T>, block: Block, word: u8, parts: &mut Vec<Part>) {
    if inside(networks, block).all(|network| network.length <= word) {
        parts.push(Part::Leaves(block));
    } else if block.length == word || is_shared(networks, block, word) {
        parts.push(Part::Node(block, shape(networks, block)));
    } else {
        block.halves().into_iter().for_each(|half| divide(networks, half, word, parts));
    }
}

/// All networks of a block fit into one bucket, and buckets of their own would be more nodes: where keys
/// end, a bucket may do nothing but lead on.
fn is_shared<T>(networks: &Ipcache<T>, block: Block, word: u8) -> bool {
    let Some(few) = few(networks, block) else { return false };
    let entries = entries(block, &few);
    if entries.iter().all(|entry| matches!(entry, Entry::Network(_))) {
        return true;
    }
    let mut apart = Vec::new();
    block.halves().into_iter().for_each(|half| divide(networks, half, word, &mut apart));
    nodes_of(networks, block, &Shape::Bucket(entries)) <= nodes_of_parts(networks, &apart)
}

/// The node of a block that has networks inside.
pub(crate) fn shape<T>(networks: &Ipcache<T>, block: Block) -> Shape {
    if let Some(few) = few(networks, block) {
        return Shape::Bucket(entries(block, &few));
    }
    match lone(networks, block) {
        Some(inner) => Shape::Bucket(vec![Entry::Below(inner)]),
        None => Shape::Directory,
    }
}

/// How many nodes the networks need, the roots left out.
pub(crate) fn nodes<T>(networks: &Ipcache<T>) -> usize {
    let root = |v6| nodes_of_root(networks, Block::all(v6));
    root(false) + root(true)
}

fn nodes_of_root<T>(networks: &Ipcache<T>, block: Block) -> usize {
    if inside(networks, block).next().is_none() {
        0
    } else if block.length < ROOT_BITS {
        block.halves().into_iter().map(|half| nodes_of_root(networks, half)).sum()
    } else {
        nodes_of_directory(networks, block)
    }
}

fn nodes_of_directory<T>(networks: &Ipcache<T>, block: Block) -> usize {
    nodes_of_parts(networks, &parts(networks, block))
}

fn nodes_of_parts<T>(networks: &Ipcache<T>, parts: &[Part]) -> usize {
    let nodes = parts.iter().map(|part| match part {
        Part::Leaves(_) => 0,
        Part::Node(block, shape) => nodes_of(networks, *block, shape),
    });
    nodes.sum()
}

fn nodes_of<T>(networks: &Ipcache<T>, block: Block, shape: &Shape) -> usize {
    1 + match shape {
        Shape::Directory => nodes_of_directory(networks, block),
        Shape::Bucket(entries) => {
            let below = entries.iter().filter_map(|entry| match entry {
                Entry::Below(inner) => {
                    Some(nodes_of(networks, *inner, &self::shape(networks, *inner)))
                }
                Entry::Network(_) => None,
            });
            below.sum()
        }
    }
}

fn inside<T>(networks: &Ipcache<T>, block: Block) -> impl DoubleEndedIterator<Item = Block> {
    networks.inside(block.net()).map(|(network, _)| Block::from(network))
}

/// The networks inside of a block, if they fit into one bucket.
fn few<T>(networks: &Ipcache<T>, block: Block) -> Option<Vec<Block>> {
    let few: Vec<Block> = inside(networks, block).take(Node::ENTRIES + 1).collect();
    (few.len() <= Node::ENTRIES).then_some(few)
}

/// The entries for a few networks; those that are too long for a key go on in nodes of their own.
fn entries(block: Block, few: &[Block]) -> Vec<Entry> {
    let reach = reach(block);
    let mut entries: Vec<Entry> = Vec::new();
    for network in few {
        let entry = match network.length {
            length if length <= reach => Entry::Network(*network),
            _ => Entry::Below(network.around(reach)),
        };
        // A network that another one continues is around it there.
        match entries.last_mut().filter(|last| last.block() == entry.block()) {
            Some(last) => *last = entry,
            None => entries.push(entry),
        }
    }
    entries.sort_by_key(|entry| std::cmp::Reverse(entry.block().length));
    entries
}

/// The longest network that a key tells.
const fn reach(block: Block) -> u8 {
    if block.length < HALF { HALF } else { 2 * HALF }
}

/// A block that contains all networks of a larger one, and is a directory or leads closer to one; `None`:
/// a directory of the larger block tells them apart.
fn lone<T>(networks: &Ipcache<T>, block: Block) -> Option<Block> {
    let mut inside = inside(networks, block);
    let (first, last) = (inside.next()?, inside.next_back()?);
    // Directories begin at multiples of their stride, wherever other networks are.
    let common = first.common(last) / STRIDE * STRIDE;
    let common = common.min(reach(block));
    (common >= block.length + STRIDE).then(|| first.around(common))
}
