//! Bringing nodes to what the networks say, from the roots down, part by part.

use flowgate_abi::{
    endpoint::Leaf,
    ipcache::{Node, ROOT_BITS, Word},
};
use flowgate_identity::Ipcache;
use ipnet::IpNet;

use super::{Directory, Keys, Memory, Nodes};
use crate::{
    install::IpcacheCell,
    ipcache::{Block, Entry, Part, STRIDE, Shape, parts, shape},
};

/// Networks as blocks, sorted, those inside of others left out.
pub(super) fn disjoint(networks: &[IpNet]) -> Vec<Block> {
    let mut blocks: Vec<Block> = networks.iter().copied().map(Block::from).collect();
    blocks.sort_unstable();
    blocks.dedup_by(|inner, outer| outer.contains(*inner));
    blocks
}

/// Those of disjoint blocks that meet another one.
pub(super) fn within(blocks: &[Block], block: Block) -> &[Block] {
    let first = blocks.partition_point(|other| *other < block && !other.meets(block));
    let count = blocks[first..].partition_point(|other| other.meets(block));
    &blocks[first..first + count]
}

/// `around` is always the leaf of the longest network that contains the block at hand.
pub(super) struct Writer<'a, S> {
    pub(super) store: &'a mut S,
    pub(super) networks: &'a Ipcache<Leaf>,
    pub(super) nodes: &'a mut Nodes,
}

impl<S: Memory> Writer<'_, S> {
    pub(super) fn write(mut self, changed: &[Block]) -> Result<(), S::Error> {
        for v6 in [false, true] {
            let all = Block::all(v6);
            let around = self.leaf(all).unwrap_or_default();
            self.root(all, around, changed)?;
            self.widen(all, changed);
        }
        Ok(())
    }

    /// The part of a root that leads to a block.
    fn root(&mut self, block: Block, around: Word, changed: &[Block]) -> Result<(), S::Error> {
        let changed = within(changed, block);
        if changed.is_empty() {
            return Ok(());
        }
        if self.is_uniform(block) {
            let below = ROOT_BITS - block.length;
            for number in 0..1 << below {
                let directory = Directory::root(block.part(below, number));
                self.put(directory, directory.block, around);
            }
            return Ok(());
        }
        if block.length == ROOT_BITS {
            return self.directory(Directory::root(block), around, changed);
        }
        for half in block.halves() {
            let around = self.leaf(half).unwrap_or(around);
            self.root(half, around, changed)?;
        }
        Ok(())
    }

    fn directory(
        &mut self,
        directory: Directory,
        around: Word,
        changed: &[Block],
    ) -> Result<(), S::Error> {
        if let Some(below) = self.only_below(directory, changed) {
            let around = self.around(below.block, directory.block, around);
            return self.directory(below, around, changed);
        }
        for part in parts(self.networks, directory.block) {
            let (Part::Leaves(block) | Part::Node(block, _)) = part;
            if within(changed, block).is_empty() && self.is_right(directory, &part) {
                continue;
            }
            let around = self.around(block, directory.block, around);
            match part {
                Part::Leaves(_) => self.leaves(directory, block, around),
                Part::Node(_, shape) => {
                    let word = self.node(block, &shape, around, changed)?;
                    self.put(directory, block, word);
                }
            }
        }
        Ok(())
    }

    /// The directory below one word, if nothing changes but what is inside of its block, and it stays.
    fn only_below(&self, directory: Directory, changed: &[Block]) -> Option<Directory> {
        let (first, last) = (changed.first()?, changed.last()?);
        let length = directory.block.length + STRIDE;
        if first.length <= length || first.common(*last) < length {
            return None;
        }
        let block = first.around(length);
        let word = self.store.word(directory.cell(directory.words_of(block).start));
        let stays = word.narrow() == Word::directory(length, word.node())
            && shape(self.networks, block) == Shape::Directory;
        stays.then_some(Directory { node: word.node(), block })
    }

    /// A part's words are of its kind already, and those of a new directory aren't.
    fn is_right(&self, directory: Directory, part: &Part) -> bool {
        let (Part::Leaves(block) | Part::Node(block, _)) = part;
        let right = |word: Word| match part {
            Part::Leaves(_) => !word.is_node() && word != Word::NONE,
            Part::Node(block, shape) => {
                let bucket = matches!(shape, Shape::Bucket(_));
                word.is_node() && (word.at(), word.is_bucket()) == (u32::from(block.length), bucket)
            }
        };
        directory.words_of(*block).all(|index| right(self.store.word(directory.cell(index))))
    }

    fn leaves(&mut self, directory: Directory, block: Block, around: Word) {
        if self.is_uniform(block) {
            return self.put(directory, block, around);
        }
        for half in block.halves() {
            let around = self.leaf(half).unwrap_or(around);
            self.leaves(directory, half, around);
        }
    }

    /// The word that leads to a block's node, which is complete then.
    fn node(
        &mut self,
        block: Block,
        shape: &Shape,
        around: Word,
        changed: &[Block],
    ) -> Result<Word, S::Error> {
        match shape {
            Shape::Bucket(entries) => self.bucket(block, entries, around, changed),
            Shape::Directory => {
                let same = self.node_of(block).filter(|word| !word.is_bucket());
                if let Some(word) = same.filter(|_| within(changed, block).is_empty()) {
                    return Ok(word);
                }
                let node = match same {
                    Some(word) => word.node(),
                    None => self.blank()?,
                };
                self.directory(Directory { node, block }, around, changed)?;
                // It may have been wide before.
                let word = Word::directory(block.length, node);
                Ok(self.node_of(block).filter(|same| same.narrow() == word).unwrap_or(word))
            }
        }
    }

    fn bucket(
        &mut self,
        block: Block,
        entries: &[Entry],
        around: Word,
        changed: &[Block],
    ) -> Result<Word, S::Error> {
        let mut values = Vec::with_capacity(Node::ENTRIES + 1);
        for entry in entries {
            values.push(self.value(*entry, block, around, changed)?);
        }
        // What isn't used repeats the last one.
        values.resize(Node::ENTRIES, *values.last().unwrap_or(&around));
        values.push(around);
        let keys = Keys::of(block, entries);
        let same = |word: &Word| word.is_bucket() && Keys::read(self.store, word.node()) == keys;
        if let Some(word) = self.node_of(block).filter(same) {
            self.replace_values(word, block, &values);
            return Ok(word);
        }
        let node = self.nodes.take(self.store)?;
        for (index, word) in (0..).zip(keys.words().into_iter().chain(values)) {
            self.store.set_word(IpcacheCell { node, index }, word);
        }
        Ok(Word::bucket(block.length, node))
    }

    /// What an entry of a block's bucket leads to.
    fn value(
        &mut self,
        entry: Entry,
        block: Block,
        around: Word,
        changed: &[Block],
    ) -> Result<Word, S::Error> {
        match entry {
            Entry::Network(network) => Ok(self.leaf(network).unwrap_or_default()),
            Entry::Below(inner) => {
                let around = self.around(inner, block, around);
                self.node(inner, &shape(self.networks, inner), around, changed)
            }
        }
    }

    fn replace_values(&mut self, bucket: Word, block: Block, values: &[Word]) {
        let before = self.below(bucket, block);
        for (index, value) in (Node::VALUES..).zip(values) {
            self.set(IpcacheCell { node: bucket.node(), index }, *value);
        }
        before.into_iter().for_each(|(word, block)| self.retire(word, block));
    }

    /// Writes the words of a directory that lead to a block.
    fn put(&mut self, directory: Directory, block: Block, new: Word) {
        let mut before = Vec::new();
        for index in directory.words_of(block) {
            let old = self.store.word(directory.cell(index));
            if old != new {
                if old.is_node() && !old.is_bucket() {
                    self.narrow(directory);
                }
                self.store.set_word(directory.cell(index), new);
                before.push((old, directory.block_of(index)));
            }
        }
        for (word, part) in nodes(before.into_iter()) {
            // Neighbours that come later may still lead there.
            if self.words(directory).all(|(other, _)| other != word) {
                self.retire(word, part);
            }
        }
    }

    pub(super) fn set(&mut self, cell: IpcacheCell, new: Word) {
        if self.store.word(cell) != new {
            self.store.set_word(cell, new);
        }
    }

    /// Gives a node back, with all below it, unless packets are led there in another way.
    fn retire(&mut self, word: Word, block: Block) {
        if self.node_of(block).map(Word::narrow) == Some(word.narrow()) {
            return;
        }
        self.nodes.retired.push(word.node());
        for (below, block) in self.below(word, block) {
            self.retire(below, block);
        }
    }

    /// A new directory that leads nowhere.
    fn blank(&mut self) -> Result<u32, S::Error> {
        let node = self.nodes.take(self.store)?;
        for index in 0..Node::WORDS {
            self.store.set_word(IpcacheCell { node, index }, Word::NONE);
        }
        Ok(node)
    }

    /// The node that a block has now, if it has one of its own.
    pub(super) fn node_of(&self, block: Block) -> Option<Word> {
        self.above(block).map(|above| self.towards(above, block))
    }

    /// The node that leads to a block's, if it has one of its own.
    pub(super) fn above(&self, block: Block) -> Option<Word> {
        let mut at = Word::directory(ROOT_BITS, Directory::root(block).node);
        loop {
            let next = self.towards(at, block);
            if !next.is_node() || next.at() < at.at() || next.at() > block.length.into() {
                return None;
            }
            if next.at() == u32::from(block.length) {
                return Some(at);
            }
            at = next;
        }
    }

    /// The word of a node that an address of a block meets.
    fn towards(&self, node: Word, block: Block) -> Word {
        let around = block.around(node.at() as u8);
        let cell = if node.is_bucket() {
            let mut entries = Keys::read(self.store, node.node()).entries(node.node(), around);
            entries.find(|(_, entry)| entry.contains(block)).map(|(cell, _)| cell)
        } else {
            let index = block.nibble(node.at() as u8) as u8;
            Some(IpcacheCell { node: node.node(), index })
        };
        cell.map_or(Word::NONE, |cell| self.store.word(cell))
    }

    /// The nodes that a block's node leads to, with their blocks.
    pub(super) fn below(&self, node: Word, block: Block) -> Vec<(Word, Block)> {
        if node.is_bucket() {
            let entries = Keys::read(self.store, node.node()).entries(node.node(), block);
            nodes(entries.map(|(cell, entry)| (self.store.word(cell), entry)))
        } else {
            nodes(self.words(Directory { node: node.node(), block }))
        }
    }

    pub(super) fn words(&self, directory: Directory) -> impl Iterator<Item = (Word, Block)> + '_ {
        let word = move |index| (self.store.word(directory.cell(index)), directory.block_of(index));
        (0..Node::WORDS).map(word)
    }

    fn leaf(&self, network: Block) -> Option<Word> {
        let leaf = self.networks.get(network.net())?;
        Some(Word::leaf(*leaf, network.length))
    }

    /// What is around a block inside of one for which that is known.
    fn around(&self, inner: Block, outer: Block, around: Word) -> Word {
        let mut between = (outer.length + 1..=inner.length).rev();
        between.find_map(|length| self.leaf(inner.around(length))).unwrap_or(around)
    }

    fn is_uniform(&self, block: Block) -> bool {
        self.networks.inside(block.net()).next().is_none()
    }
}

/// The words that lead to nodes, each once, with the nodes' blocks.
fn nodes(words: impl Iterator<Item = (Word, Block)>) -> Vec<(Word, Block)> {
    let nodes = words.filter(|(word, _)| word.is_node());
    let mut nodes: Vec<_> =
        nodes.map(|(word, block)| (word.narrow(), block.around(word.at() as u8))).collect();
    nodes.dedup();
    nodes
}
