//! The networks that nodes are about, and which nodes those are.

use std::collections::BTreeSet;

use flowgate_abi::{
    endpoint::Leaf,
    ipcache::{Node, ROOT_BITS, Word},
};
use flowgate_identity::Ipcache;

use super::{Directory, Keys, Memory};
use crate::{
    install::IpcacheCell,
    ipcache::{Block, STRIDE},
};

/// The networks, and the nodes beside the roots. A network of which every address is in a longer one
/// may be missing: no packet asks for it.
pub(super) fn networks<S: Memory>(store: &S) -> (Ipcache<Leaf>, BTreeSet<u32>) {
    let mut reader = Reader { store, networks: Ipcache::new(), used: BTreeSet::new(), last: None };
    for v6 in [false, true] {
        for number in 0..1 << ROOT_BITS {
            reader.directory(Directory::root(Block::all(v6).part(ROOT_BITS, number)));
        }
    }
    (reader.networks, reader.used)
}

struct Reader<'a, S> {
    store: &'a S,
    networks: Ipcache<Leaf>,
    used: BTreeSet<u32>,
    /// The leaf before and its network, which often has the next one too.
    last: Option<(Word, Block)>,
}

impl<S: Memory> Reader<'_, S> {
    fn directory(&mut self, directory: Directory) {
        for index in 0..Node::WORDS {
            let word = self.store.word(directory.cell(index));
            if !self.is_last(word, directory.block) {
                self.word(word, directory.block_of(index), directory.block);
            }
        }
    }

    fn bucket(&mut self, node: u32, block: Block) {
        for (cell, entry) in Keys::read(self.store, node).entries(node, block) {
            self.word(self.store.word(cell), entry, block);
        }
        let around = self.store.word(IpcacheCell { node, index: Node::AROUND });
        self.leaf(around, block);
    }

    /// A word that an address of a block meets, in the node of a larger one.
    fn word(&mut self, word: Word, block: Block, parent: Block) {
        if !word.is_node() {
            return self.leaf(word, block);
        }
        let at = word.at() as u8;
        // Each once, or nodes that are none would lead round in circles.
        if at < parent.length || at > block.length || !self.used.insert(word.node()) {
            return;
        }
        let block = block.around(at);
        match word.is_bucket() {
            true => self.bucket(word.node(), block),
            false if at.is_multiple_of(STRIDE) => {
                self.directory(Directory { node: word.node(), block });
            }
            false => {}
        }
    }

    fn is_last(&self, word: Word, block: Block) -> bool {
        self.last.is_some_and(|(last, network)| last == word && network.contains(block))
    }

    fn leaf(&mut self, word: Word, block: Block) {
        if word == Word::NONE || word.length() > block.length {
            return;
        }
        let network = block.around(word.length());
        self.networks.insert(network.net(), word.as_leaf());
        self.last = Some((word, network));
    }
}
