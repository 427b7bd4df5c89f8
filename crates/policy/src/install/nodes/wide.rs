//! Directories that lie side by side, so that eight bits of an address are one step.
//!
//! An afterthought to what [`super::write`] has made: with or without it every address has the same leaf, and as many
//! nodes are in use. Nodes stay side by side only as long as nothing else becomes of one of them; what is left of a
//! run then are nodes like any other. Invariant: a word is wide only while the directory's words lead to the nodes
//! behind it.

use flowgate_abi::ipcache::{Node, ROOT_BITS, Word};

use super::{
    Directory, Keys, Memory,
    write::{Writer, within},
};
use crate::{
    install::IpcacheCell,
    ipcache::{Block, STRIDE},
};

/// A directory, and the sixteen behind it.
pub(super) const RUN: u32 = 1 + Node::WORDS as u32;

impl<S: Memory> Writer<'_, S> {
    /// Nothing leads past a directory any more, whose words are about to change.
    pub(super) fn narrow(&mut self, directory: Directory) {
        if let Some(word) = self.node_of(directory.block).filter(|word| word.is_wide()) {
            self.lead_to(directory.block, word.narrow());
        }
    }

    /// Makes words wide on the ways from a root to blocks that have changed, wherever that can be.
    pub(super) fn widen(&mut self, block: Block, changed: &[Block]) {
        let changed = within(changed, block);
        match block.length {
            _ if changed.is_empty() => {}
            ROOT_BITS => {
                let root = Word::directory(ROOT_BITS, Directory::root(block).node);
                self.widen_below(root, block, changed);
            }
            _ => block.halves().into_iter().for_each(|half| self.widen(half, changed)),
        }
    }

    fn widen_word(&mut self, word: Word, block: Block, changed: &[Block]) {
        let directory = Directory { node: word.node(), block };
        let run = if word.is_bucket() { None } else { self.side_by_side(directory) };
        let Some(run) = run else { return self.widen_below(word, block, changed) };
        // Directories further down had other ways past them.
        let changed = if run == directory.node { changed } else { &[block] };
        let wide = Word::directory(block.length, run).wide();
        self.lead_to(block, wide);
        // Nothing leads past those behind it.
        for (word, block) in self.changed_below(wide, block, changed) {
            self.widen_below(word, block, changed);
        }
    }

    fn widen_below(&mut self, word: Word, block: Block, changed: &[Block]) {
        for (below, inner) in self.changed_below(word, block, changed) {
            self.widen_word(below, inner, changed);
        }
    }

    /// The nodes that a block's node leads to, of which something has changed.
    fn changed_below(&self, word: Word, block: Block, changed: &[Block]) -> Vec<(Word, Block)> {
        let mut below = self.below(word, block);
        below.retain(|(_, inner)| !within(changed, *inner).is_empty());
        below
    }

    /// The node of a directory that has all of its own behind it, where both were moved if they weren't so; `None`:
    /// not all of them are directories, or there is no room.
    fn side_by_side(&mut self, directory: Directory) -> Option<u32> {
        let length = directory.block.length + STRIDE;
        let own: Vec<Word> = self.words(directory).map(|(word, _)| word).collect();
        if own.iter().any(|word| word.narrow() != Word::directory(length, word.node())) {
            return None;
        }
        // None of them is wide: its own may be moved, and packets don't come by what leads to it.
        let mut behind = own.iter().zip(directory.node + 1..);
        if behind.all(|(word, behind)| *word == Word::directory(length, behind)) {
            return Some(directory.node);
        }
        let run = self.nodes.run()?;
        for (number, word) in (0..).zip(&own) {
            let moved = Word::directory(length, run + 1 + u32::from(number));
            self.store.set_word(IpcacheCell { node: run, index: number }, moved);
            for index in 0..Node::WORDS {
                let word = self.store.word(IpcacheCell { node: word.node(), index });
                self.store.set_word(IpcacheCell { node: moved.node(), index }, word);
            }
        }
        self.nodes.retired.push(directory.node);
        self.nodes.retired.extend(own.into_iter().map(Word::node));
        Some(run)
    }

    /// Writes the words that lead to the node of a block.
    fn lead_to(&mut self, block: Block, new: Word) {
        let Some(above) = self.above(block) else { return };
        let (node, around) = (above.node(), block.around(above.at() as u8));
        if !above.is_bucket() {
            let index = block.nibble(around.length) as u8;
            return self.set(IpcacheCell { node, index }, new);
        }
        let entries = Keys::read(self.store, node).entries(node, around);
        let cells = entries.filter(|(_, entry)| *entry == block).map(|(cell, _)| cell);
        cells.for_each(|cell| self.set(cell, new));
    }
}
