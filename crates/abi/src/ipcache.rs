//! The ipcache's nodes: which network an address is in, for both families in one array.
//!
//! A node is one line of the cache: a **directory** is 16 words, picked by four bits of the address; a
//! **bucket** holds up to four networks (or blocks that go on in a node of their own), longest first,
//! and what the addresses around them have. So a look-up touches one line per node, and where networks
//! are sparse four of them share a line. A word is a leaf or leads to a node; it changes by one store.
//!
//! Where networks are dense, all sixteen words of a directory lead to directories. If these lie side by
//! side behind it, the word that leads to it may say so, as a **wide** one: eight bits of the address pick
//! a word of theirs, and the directory between isn't read (level compression, as in the LC-trie of Nilsson
//! and Karlsson, 1999). What a wide word means is the same without it.
//!
//! Invariant: what a node's words mean, but for the leaves in them, never changes while a packet may
//! reach it: a bucket of other networks is another node.

use crate::{Shared64, endpoint::Leaf};

/// A word of a node. 0: nothing, which is a defect.
///
/// ABI: a leaf also says how long its network is, so that the nodes alone tell all networks to who
/// adopts them.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Word(pub u32);

impl Word {
    /// Nothing.
    pub const NONE: Self = Self(0);
    const NODE: u32 = 1 << 31;
    const BUCKET: u32 = 1 << 30;
    const AT: u32 = 23;
    /// Directories begin at multiples of four bits, so this bit of theirs is free.
    const WIDE: u32 = 1 << Self::AT;
    const INDEX: u32 = MAX_NODES - 1;
    const LENGTH: u32 = 21;
    const LENGTH_MASK: u32 = 0xff << Self::LENGTH;

    /// The leaf of a network of so many bits.
    #[must_use]
    pub const fn leaf(leaf: Leaf, length: u8) -> Self {
        Self(leaf.0 | (length as u32) << Self::LENGTH)
    }

    /// A directory, by bits of the address from `at` (less than 128, a multiple of four) on.
    #[inline(always)]
    #[must_use]
    pub const fn directory(at: u8, node: u32) -> Self {
        Self(Self::NODE | (at as u32) << Self::AT | node)
    }

    /// A bucket, whose keys are bits of the address from `at` (less than 128) on.
    #[must_use]
    pub const fn bucket(at: u8, node: u32) -> Self {
        Self(Self::directory(at, node).0 | Self::BUCKET)
    }

    /// The same directory, whose words lead to the nodes behind it, in their order, which are directories too.
    #[must_use]
    pub const fn wide(self) -> Self {
        Self(self.0 | Self::WIDE)
    }

    /// What a wide word leads to without what it says of the nodes behind; any other word as it is.
    #[must_use]
    pub const fn narrow(self) -> Self {
        if self.is_wide() { Self(self.0 & !Self::WIDE) } else { self }
    }

    /// It leads to a directory with sixteen others behind it.
    #[inline(always)]
    #[must_use]
    pub const fn is_wide(self) -> bool {
        self.0 & (Self::NODE | Self::BUCKET | Self::WIDE) == Self::NODE | Self::WIDE
    }

    /// It leads to a node.
    #[inline(always)]
    #[must_use]
    pub const fn is_node(self) -> bool {
        self.0 & Self::NODE != 0
    }

    /// The node is a bucket.
    #[inline(always)]
    #[must_use]
    pub const fn is_bucket(self) -> bool {
        self.0 & Self::BUCKET != 0
    }

    /// The node's index.
    #[inline(always)]
    #[must_use]
    pub const fn node(self) -> u32 {
        self.0 & Self::INDEX
    }

    /// The first bit of the address, from the left, that the node looks at.
    #[inline(always)]
    #[must_use]
    pub const fn at(self) -> u32 {
        self.0 >> Self::AT & if self.is_bucket() { 0x7f } else { 0x7c }
    }

    /// The node and the word in it that an address goes on with from a directory, by the bits of the address that
    /// begin where the directory does.
    #[inline(always)]
    #[must_use]
    pub const fn towards(self, bits: u64) -> (u32, u32) {
        // VERIFIER: without branches, which would be verified apart at each step.
        let wide = (self.0 & Self::WIDE) >> Self::AT;
        let first = (bits >> 60) as u32;
        let node = self.node() + (wide.wrapping_neg() & (first + 1));
        (node, (bits >> (60 - 4 * wide)) as u32 & 15)
    }

    /// The leaf that it is, if it leads to no node.
    #[inline(always)]
    #[must_use]
    pub const fn as_leaf(self) -> Leaf {
        Leaf(self.0 & !Self::LENGTH_MASK)
    }

    /// How long a leaf's network is.
    #[must_use]
    pub const fn length(self) -> u8 {
        (self.0 >> Self::LENGTH) as u8
    }
}

/// A node: 16 words of 32 bits, two to each of these.
///
/// A bucket's first four are the keys of its entries: bits of the address, from the left. Word
/// [`Node::SHIFTS`] holds a byte for each entry, by how far to the right a key and an address agree if
/// they agree; the values follow from [`Node::VALUES`] on, at last that of the addresses around.
/// Entries that aren't used repeat the last one.
#[repr(C)]
#[cfg_attr(
    not(target_arch = "bpf"),
    derive(Debug, Default, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout)
)]
pub struct Node(pub [Shared64; 8]);

impl Node {
    /// Words of a node.
    pub const WORDS: u8 = 16;
    /// Entries of a bucket.
    pub const ENTRIES: usize = 4;
    /// The word of a bucket with the shifts.
    pub const SHIFTS: u8 = 8;
    /// The word of a bucket with its first value.
    pub const VALUES: u8 = 9;
    /// The word of a bucket with the value of the addresses around its entries.
    pub const AROUND: u8 = Self::VALUES + Self::ENTRIES as u8;

    /// A word, by its number below [`Node::WORDS`].
    ///
    /// # Panics
    /// There is no such word.
    #[cfg(not(target_arch = "bpf"))]
    #[inline]
    #[must_use]
    pub fn word(&self, number: u8) -> u32 {
        Self::halves(self.0[usize::from(number / 2)].load())[usize::from(number % 2)]
    }

    /// Writes a word. Who writes the other half at the same time undoes it.
    ///
    /// # Panics
    /// There is no such word.
    #[cfg(not(target_arch = "bpf"))]
    #[inline]
    pub fn set_word(&self, number: u8, word: u32) {
        let both = &self.0[usize::from(number / 2)];
        let mut halves = Self::halves(both.load());
        halves[usize::from(number % 2)] = word;
        both.store(Self::key(halves));
    }

    /// A key as two words, in the order in which they lie in memory.
    #[inline]
    #[must_use]
    pub const fn halves(key: u64) -> [u32; 2] {
        let [a, b, c, d, e, f, g, h] = key.to_ne_bytes();
        [u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h])]
    }

    /// The key of two words.
    #[must_use]
    pub const fn key(halves: [u32; 2]) -> u64 {
        let [[a, b, c, d], [e, f, g, h]] = [halves[0].to_ne_bytes(), halves[1].to_ne_bytes()];
        u64::from_ne_bytes([a, b, c, d, e, f, g, h])
    }
}

/// Bits of an address that pick a directory of the root.
pub const ROOT_BITS: u8 = 12;
/// Directories of one family's root. IPv4's come first in the array, then IPv6's, then all other nodes.
pub const ROOT: u32 = 1 << ROOT_BITS;
/// Nodes that both roots take.
pub const ROOTS: u32 = 2 * ROOT;
/// Nodes beside those that networks may need: while one is replaced, the old and the new one are there.
pub const SPARE: u32 = 64;
/// The most nodes that words can name, those of the roots and the spare ones included.
pub const MAX_NODES: u32 = 1 << Word::AT;

const _: () = assert!(size_of::<Node>() == 64);
const _: () = assert!(Node::AROUND < Node::WORDS);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_keeps_what_it_says() {
        let directory = Word::directory(124, MAX_NODES - 1);
        for (word, at) in [
            (directory, 124),
            (directory.wide(), 124),
            (Word::bucket(127, MAX_NODES - 1), 127),
            (Word::bucket(1, MAX_NODES - 1), 1),
        ] {
            assert!(word.is_node());
            assert_eq!((word.at(), word.node()), (at, MAX_NODES - 1));
            assert_eq!(word.is_bucket(), at % 4 != 0);
        }
        assert!(
            directory.wide().is_wide() && !directory.is_wide() && !Word::bucket(1, 0).is_wide()
        );
        assert_eq!(directory.wide().narrow(), directory);
        assert_eq!(Word::bucket(1, 0).narrow(), Word::bucket(1, 0));
        for leaf in [Leaf::peer(crate::endpoint::MAX_PEERS - 1), Leaf::endpoint(0xffff)] {
            let word = Word::leaf(leaf, 128);
            assert!(!word.is_node());
            assert_eq!((word.as_leaf(), word.length()), (leaf, 128));
        }
        assert_eq!(Word::NONE.as_leaf(), Leaf::NONE);
    }

    #[test]
    fn a_wide_word_leads_past_the_directory() {
        let bits = 0xa5ff_ffff_ffff_ffff;
        let directory = Word::directory(32, 100);
        assert_eq!(directory.towards(bits), (100, 0xa));
        assert_eq!(directory.wide().towards(bits), (100 + 1 + 0xa, 5));
    }

    #[test]
    fn halves_make_the_key_again() {
        let key = 0x0123_4567_89ab_cdef;
        assert_eq!(Node::key(Node::halves(key)), key);
    }
}
