//! Which clients a service takes: a set of addresses, as a tree over the bounds of its ranges.
//!
//! ABI: bounds are addresses as numbers of 128 bits, most significant word first, an IPv4 address in the
//! upper 32. They ascend; each begins or ends a range by turns, so an address is in the set if the bounds
//! that aren't above it are odd in number. A node has four bounds; unused ones are all ones, so that address
//! has to be asked about beforehand. In a leaf, of which all but the last are full, the bounds' number is odd
//! as that of the set's is. In any other node the bounds are the first ones of the last four of five
//! subtrees. The children of node `n` are `5 * n + 1` and the four behind it.

use crate::Shared64;

/// Bounds of a node.
pub const BOUNDS: usize = 4;
/// Subtrees of a node that is no leaf.
pub const SUBTREES: u32 = BOUNDS as u32 + 1;
/// Levels that a tree has at most: 312,500 bounds.
pub const SOURCE_LEVELS: u32 = 8;
/// A node: bounds, in two words each.
pub type SourceNode = [Shared64; 2 * BOUNDS];

/// Where a frontend's tree is, and what it means. Zero: there is none, and every client is taken.
///
/// Bits 0 to 31: the index of the root among all nodes; 32 to 55: nodes; 56 to 59: levels; 60:
/// [`Sources::REFUSED`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sources(pub u64);

impl Sources {
    /// Whoever is in the set is refused; without it, whoever isn't.
    pub const REFUSED: u64 = 1 << 60;

    /// Of its parts, without [`Sources::REFUSED`]; a tree has at least one level.
    #[must_use]
    pub const fn new(root: u32, nodes: u32, levels: u32) -> Self {
        Self(root as u64 | (nodes as u64 & 0xff_ffff) << 32 | (levels as u64 & 15) << 56)
    }

    /// The index of its root.
    #[inline(always)]
    #[must_use]
    pub const fn root(self) -> u32 {
        self.0 as u32
    }

    /// How many nodes it has.
    #[must_use]
    pub const fn nodes(self) -> u32 {
        (self.0 >> 32) as u32 & 0xff_ffff
    }

    /// How many levels it has.
    #[inline(always)]
    #[must_use]
    pub const fn levels(self) -> u32 {
        (self.0 >> 56) as u32 & 15
    }

    /// Whoever is in the set is refused.
    #[inline(always)]
    #[must_use]
    pub const fn refuses_members(self) -> bool {
        self.0 & Self::REFUSED != 0
    }
}

const _: () = assert!(size_of::<SourceNode>() == 64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_keeps_its_parts_apart() {
        let sources = Sources::new(u32::MAX, 0xff_ffff, 8);
        assert_eq!((sources.root(), sources.nodes(), sources.levels()), (u32::MAX, 0xff_ffff, 8));
        assert!(!sources.refuses_members());
        let refused = Sources(sources.0 | Sources::REFUSED);
        assert!(refused.refuses_members() && refused.levels() == 8);
    }
}
