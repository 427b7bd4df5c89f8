//! The nodes of the ipcache, written while packets walk them.
//!
//! Which nodes there are is a function of the networks ([`crate::ipcache`]); [`write`] brings those of
//! the store there, [`read`] finds the networks of nodes that are there already.
//!
//! Invariants: an address has the leaf of its longest network before or after a change, at every single
//! write, and changes once; a node that nothing leads to any more is used again after a grace period;
//! there is always a free node if no set of networks needs more than [`capacity`]. Tested below on random
//! changes, looking at every write.

mod read;
#[cfg(test)]
mod tests;
mod wide;
mod write;

use std::{collections::BTreeSet, ops::Range};

use flowgate_abi::{
    endpoint::Leaf,
    ipcache::{Node, ROOT, ROOT_BITS, ROOTS, SPARE, Word},
};
use flowgate_identity::Ipcache;
use ipnet::IpNet;

use super::{IpcacheCell, Store};
use crate::ipcache::{Block, Entry, STRIDE};
use write::Writer;

/// What nodes need of a store.
pub(super) trait Memory {
    type Error;
    fn nodes(&self) -> u32;
    fn word(&self, cell: IpcacheCell) -> Word;
    fn set_word(&mut self, cell: IpcacheCell, word: Word);
    fn grace_period(&mut self) -> Result<(), Self::Error>;
}

impl<S: Store> Memory for S {
    type Error = S::Error;

    fn nodes(&self) -> u32 {
        self.ipcache_nodes()
    }

    fn word(&self, cell: IpcacheCell) -> Word {
        Word(self.ipcache_word(cell))
    }

    fn set_word(&mut self, cell: IpcacheCell, word: Word) {
        self.set_ipcache_word(cell, word.0);
    }

    fn grace_period(&mut self) -> Result<(), S::Error> {
        Store::grace_period(self)
    }
}

/// Which nodes are free.
#[derive(Debug)]
pub(super) struct Nodes {
    free: BTreeSet<u32>,
    /// Nothing leads to them, but packets under way may be there.
    retired: Vec<u32>,
    /// Those of the roots left out.
    all: u32,
    /// A change was left half done.
    torn: bool,
}

/// How many nodes networks may need together.
pub(super) fn capacity<S: Memory>(store: &S) -> usize {
    store.nodes().saturating_sub(SPARE) as usize
}

impl Nodes {
    /// Takes over the nodes of a store, and finds the networks that they are about. What an earlier
    /// process has left half done is completed.
    ///
    /// # Errors
    /// The kernel refused to say when packets under way are done.
    pub(super) fn adopt<S: Memory>(store: &mut S) -> Result<(Self, Ipcache<Leaf>), S::Error> {
        let all = store.nodes();
        let mut nodes = Self { free: BTreeSet::new(), retired: Vec::new(), all, torn: true };
        let mut networks = nodes.read(store);
        nodes.write(store, &mut networks, &[])?;
        Ok((nodes, networks))
    }

    /// Nodes that were given back may be used again: a grace period has passed.
    pub(super) fn reclaim(&mut self) {
        self.free.extend(self.retired.drain(..));
    }

    /// Nodes in use, the roots left out.
    pub(super) fn used(&self) -> usize {
        self.all as usize - self.free.len() - self.retired.len()
    }

    /// Brings the nodes to what the networks say, of which these have changed. Either networks came, or
    /// some went, not both: then no step needs more nodes than the larger set.
    ///
    /// # Errors
    /// The kernel refused to say when packets under way are done. Every address has its old leaf or its
    /// new one, and the networks are those that the nodes are about now; the call may be repeated.
    pub(super) fn write<S: Memory>(
        &mut self,
        store: &mut S,
        networks: &mut Ipcache<Leaf>,
        changed: &[IpNet],
    ) -> Result<(), S::Error> {
        let everything = [Block::all(false), Block::all(true)];
        let changed = if self.torn { everything.to_vec() } else { write::disjoint(changed) };
        let result = Writer { store: &mut *store, networks, nodes: self }.write(&changed);
        self.torn = result.is_err();
        if self.torn {
            *networks = self.read(store);
        }
        result
    }

    /// The networks that the nodes are about. What isn't in use may be what packets are still at.
    fn read<S: Memory>(&mut self, store: &S) -> Ipcache<Leaf> {
        let (networks, used) = read::networks(store);
        let unused = (ROOTS..ROOTS + self.all).rev().filter(|node| !used.contains(node));
        self.free.clear();
        self.retired = unused.collect();
        networks
    }

    /// A node that no packet can be at.
    fn take<S: Memory>(&mut self, store: &mut S) -> Result<u32, S::Error> {
        if self.free.is_empty() {
            store.grace_period()?;
            self.reclaim();
        }
        Ok(self.free.pop_first().expect("the caller has counted the nodes"))
    }

    /// The first of free nodes side by side, as many as [`wide::RUN`], if some are found.
    fn run(&mut self) -> Option<u32> {
        // Single nodes are taken from the other end. Farther than this the nodes are full, or torn to pieces.
        const LOOKED_AT: usize = 1024;
        let mut found = 0..0;
        for node in self.free.iter().rev().take(LOOKED_AT) {
            found = if found.start == node + 1 { *node..found.end } else { *node..node + 1 };
            if found.len() == wide::RUN as usize {
                found.clone().for_each(|node| {
                    self.free.remove(&node);
                });
                return Some(found.start);
            }
        }
        None
    }
}

/// A directory, and the block that it is about.
#[derive(Clone, Copy, Debug)]
struct Directory {
    node: u32,
    block: Block,
}

impl Directory {
    /// The first directory on an address's way.
    fn root(block: Block) -> Self {
        let first = if block.v6 { ROOT } else { 0 };
        let block = block.around(ROOT_BITS);
        Self { node: first + block.first(ROOT_BITS), block }
    }

    /// The cell of a word.
    const fn cell(self, index: u8) -> IpcacheCell {
        IpcacheCell { node: self.node, index }
    }

    /// The block that a word is about.
    fn block_of(self, index: u8) -> Block {
        self.block.part(STRIDE, index.into())
    }

    /// The words about a part of its block.
    fn words_of(self, part: Block) -> Range<u8> {
        let first = part.nibble(self.block.length) as u8;
        first..first + (Node::WORDS >> (part.length - self.block.length))
    }
}

/// What a bucket holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Keys {
    keys: [u64; Node::ENTRIES],
    /// A byte for each.
    shifts: u32,
}

impl Keys {
    /// Those of a block's entries, of which there is at least one; what isn't used repeats the last.
    fn of(block: Block, entries: &[Entry]) -> Self {
        let entry = |index: usize| entries[index.min(entries.len() - 1)].block();
        let shift = |index| 64 - (entry(index).length - block.length);
        Self {
            keys: [0, 1, 2, 3].map(|index| entry(index).window(block.length)),
            shifts: u32::from_le_bytes([0, 1, 2, 3].map(shift)),
        }
    }

    /// As they lie in a node, from its first word on.
    fn words(self) -> [Word; Node::VALUES as usize] {
        let [a, b, c, d] = self.keys.map(Node::halves);
        [a[0], a[1], b[0], b[1], c[0], c[1], d[0], d[1], self.shifts].map(Word)
    }

    fn read<S: Memory>(store: &S, node: u32) -> Self {
        let word = |index| store.word(IpcacheCell { node, index }).0;
        let key = |entry: u8| Node::key([word(2 * entry), word(2 * entry + 1)]);
        Self { keys: [key(0), key(1), key(2), key(3)], shifts: word(Node::SHIFTS) }
    }

    /// The cell of each value, and the block of its entry.
    fn entries(self, node: u32, block: Block) -> impl Iterator<Item = (IpcacheCell, Block)> {
        let shifts = self.shifts.to_le_bytes();
        let entries = (Node::VALUES..).zip(self.keys.into_iter().zip(shifts));
        entries.map(move |(index, (key, shift))| {
            (IpcacheCell { node, index }, block.with_key(key, 64 - shift))
        })
    }
}
