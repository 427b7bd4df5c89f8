//! Maglev's table (Eisenbud et al., NSDI 2016), with weights.
//!
//! Each backend has a permutation of the slots, from a hash of its identity alone; in turns, each takes
//! the next slot of its permutation that is still free. One of weight `w` beside a heaviest of `m` takes
//! its turn in `w` of `m` rounds.
//!
//! Invariants: the table depends on identities and weights, not on the order in which they are given, nor
//! on the node; each backend has its share of the slots, to within 2 % or one slot. Tested by
//! `tests/maglev.rs`.

use std::net::IpAddr;

use crate::{TableSize, model::BackendId};

/// Who takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    /// Whose permutation it is.
    pub id: BackendId,
    /// Its share, in proportion to the others; at least 1.
    pub weight: u16,
}

/// Fills a table: for each slot the index of a member.
///
/// The time it takes is that of the slots, times the heaviest member's weight over the mean one.
///
/// # Panics
/// There are no members, or one of them has weight 0.
#[must_use]
pub fn fill(members: &[Member], size: TableSize) -> Vec<u16> {
    assert!(!members.is_empty() && members.iter().all(|member| member.weight > 0));
    let mut turns = turns(members, size);
    let heaviest = turns.iter().map(|turn| turn.weight).max().unwrap_or(1);
    let mut table = vec![FREE; size.slots() as usize];
    let mut left = table.len();
    loop {
        for turn in &mut turns {
            turn.saved += turn.weight;
            if turn.saved < heaviest {
                continue;
            }
            turn.saved -= heaviest;
            let slot = turn.next_free(&table);
            table[slot] = turn.index;
            left -= 1;
            if left == 0 {
                return table;
            }
        }
    }
}

/// No member's index: there are fewer than slots can name.
const FREE: u16 = u16::MAX;

/// A member that takes turns.
struct Turn {
    index: u16,
    weight: u32,
    /// What of its weight it hasn't used for a turn yet.
    saved: u32,
    next: u32,
    skip: u32,
    size: u32,
}

impl Turn {
    /// The next slot of its permutation that is free.
    fn next_free(&mut self, table: &[u16]) -> usize {
        loop {
            let slot = self.next as usize;
            self.next += self.skip;
            if self.next >= self.size {
                self.next -= self.size;
            }
            if table[slot] == FREE {
                return slot;
            }
        }
    }
}

/// In the order of identities, whatever the members' order.
fn turns(members: &[Member], size: TableSize) -> Vec<Turn> {
    let mut order: Vec<(u64, usize)> =
        members.iter().enumerate().map(|(index, member)| (identity(member.id), index)).collect();
    order.sort_unstable_by_key(|(hash, index)| (*hash, members[*index].id));
    let size = size.slots();
    let turn = |(hash, index): (u64, usize)| {
        let (offset, skip) = (scrambled(hash), scrambled(!hash));
        Turn {
            index: index as u16,
            weight: u32::from(members[index].weight),
            saved: 0,
            next: (offset % u64::from(size)) as u32,
            skip: (skip % u64::from(size - 1)) as u32 + 1,
            size,
        }
    };
    order.into_iter().map(turn).collect()
}

/// A hash of who a backend is, the same on every node and in every version.
fn identity(id: BackendId) -> u64 {
    let (high, low) = match id.address {
        IpAddr::V4(v4) => (0, u64::from(u32::from(v4)) | 4 << 32),
        IpAddr::V6(v6) => {
            let bits = u128::from(v6);
            ((bits >> 64) as u64, bits as u64)
        }
    };
    scrambled(scrambled(scrambled(high) ^ low) ^ u64::from(id.port))
}

/// A step and the output of splitmix64 (Steele, Lea and Flood, OOPSLA 2014).
fn scrambled(seed: u64) -> u64 {
    let mut hash = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    hash = (hash ^ hash >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ hash >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ hash >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(last: u8, weight: u16) -> Member {
        Member { id: IpAddr::from([198, 18, 0, last]).into(), weight }
    }

    #[test]
    fn one_member_has_everything() {
        let size = TableSize::ALL[0];
        assert!(fill(&[member(1, 7)], size).iter().all(|slot| *slot == 0));
    }

    #[test]
    fn as_many_members_as_slots_have_one_each() {
        let size = TableSize::ALL[0];
        let members: Vec<Member> = (0..251).map(|n| member(n as u8, 1)).collect();
        let mut table = fill(&members, size);
        table.sort_unstable();
        assert_eq!(table, (0..251).collect::<Vec<u16>>());
    }

    /// Other nodes may run another build: the table must never change between versions.
    #[test]
    fn the_table_is_what_it_was() {
        let members = [member(1, 1), member(2, 2), member(3, 1)];
        let table = fill(&members, TableSize::ALL[0]);
        let hash = table.iter().fold(0u64, |hash, slot| scrambled(hash ^ u64::from(*slot)));
        assert_eq!(hash, 1_915_594_809_600_481_800);
    }
}
