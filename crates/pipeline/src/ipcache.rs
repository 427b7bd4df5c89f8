//! Who an address belongs to: the longest network around it, by a walk over the ipcache's nodes.
//!
//! Not here: how nodes come about ([`flowgate_abi::ipcache`] says what they mean, the installer writes
//! them). Invariant: each step looks at bits further to the right, so the walk ends; an address whose
//! walk doesn't end in a leaf belongs to nobody.
//! Tested against the longest prefix of a list, where the nodes are written (`flowgate-policy`).

use flowgate_abi::{
    endpoint::Leaf,
    ipcache::{Node, ROOT_BITS, Word},
};

use crate::Family;

/// Where the nodes lie.
pub trait Nodes {
    /// A node.
    fn node(&self, index: u32) -> Option<&Node>;
    /// A word of a node, by its number below [`Node::WORDS`].
    fn word(&self, node: &Node, number: u32) -> u32;
}

/// The longest network that contains an address.
#[inline(always)]
pub fn lookup<F: Family, N: Nodes>(nodes: &N, address: &F::Addr) -> Leaf {
    let mut word = root::<F>(address);
    for _ in 0..F::IPCACHE_DEPTH {
        word = step::<F, N>(nodes, word, address);
        if !word.is_node() {
            return word.as_leaf();
        }
    }
    Leaf::NONE
}

/// The word that an address's walk begins with.
#[inline(always)]
pub fn root<F: Family>(address: &F::Addr) -> Word {
    let number = F::bits(address, 0) >> (64 - ROOT_BITS);
    Word::directory(ROOT_BITS, F::IPCACHE_ROOT + number as u32)
}

/// The word after one that leads to a node.
#[inline(always)]
pub fn step<F: Family, N: Nodes>(nodes: &N, word: Word, address: &F::Addr) -> Word {
    let bits = F::bits(address, word.at());
    let (index, number) = if word.is_bucket() { (word.node(), 0) } else { word.towards(bits) };
    let Some(node) = nodes.node(index) else { return Word::NONE };
    let number = if word.is_bucket() { matching(nodes, node, bits) as u32 } else { number };
    Word(nodes.word(node, number))
}

/// The word of a bucket whose key the address has: the first, since the longest come first.
///
/// VERIFIER: without branches, or each entry doubles what is verified behind it.
#[inline(always)]
fn matching<N: Nodes>(nodes: &N, node: &Node, bits: u64) -> u64 {
    let shifts = u64::from(nodes.word(node, Node::SHIFTS.into()));
    let (mut missed, mut index) = (1, u64::from(Node::VALUES));
    for entry in 0..Node::ENTRIES {
        let differs = (bits ^ node.0[entry].load()) >> (shifts >> (8 * entry) & 63);
        missed &= (differs | differs.wrapping_neg()) >> 63;
        index += missed;
    }
    index
}
