//! Whether a service takes a client: a walk down a tree of bounds ([`Sources`]).
//!
//! Invariants: a tree that doesn't answer refuses; so does every tree the last of all addresses, which is
//! no client's.

use flowgate_abi::lb::{SOURCE_LEVELS, SUBTREES, SourceNode, Sources};

use super::Balance;

/// A client is refused; `address` is its number in two words, as bounds have it.
#[inline(always)]
pub fn is_refused<T: Balance + ?Sized>(tables: &T, sources: Sources, address: [u64; 2]) -> bool {
    if address == [u64::MAX; 2] {
        return true;
    }
    let (mut node, mut below) = (0u32, 0u32);
    let mut level = 0;
    while level < SOURCE_LEVELS {
        if level >= sources.levels() {
            break;
        }
        let Some(bounds) = tables.source(sources.root().wrapping_add(node)) else { return true };
        // VERIFIER: which of the five it was mustn't be known, or each level would be verified five times as
        // often as the one above it.
        below = tables.forget(not_above(bounds, address), address[0]);
        node = node.wrapping_mul(SUBTREES).wrapping_add(1 + below);
        level += 1;
    }
    let is_member = below & 1 == 1;
    is_member == sources.refuses_members()
}

/// How many of a node's bounds, which ascend, aren't above an address.
#[inline(always)]
fn not_above(bounds: &SourceNode, address: [u64; 2]) -> u32 {
    if is_above([&bounds[0], &bounds[1]], address) {
        0
    } else if is_above([&bounds[2], &bounds[3]], address) {
        1
    } else if is_above([&bounds[4], &bounds[5]], address) {
        2
    } else if is_above([&bounds[6], &bounds[7]], address) {
        3
    } else {
        4
    }
}

#[inline(always)]
fn is_above([first, last]: [&flowgate_abi::Shared64; 2], address: [u64; 2]) -> bool {
    let first = first.load();
    first > address[0] || (first == address[0] && last.load() > address[1])
}
