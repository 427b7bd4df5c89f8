//! The area of a scattered group: what its rows decide about columns of their own, in one another's gaps.
//!
//! Rows are cut into blocks of columns, and each block is moved along the area until all its cells fall into
//! gaps, the fullest blocks first (first fit decreasing: Tarjan and Yao, "Storing a sparse table", 1979). Blocks
//! are as wide as all columns, and narrower if they leave too many gaps.
//!
//! Invariant: no two blocks have one place, none has place 0, and whatever is read of a block lies in the
//! area.

use std::collections::HashMap;

use crate::compile::{
    port_classes::PortClasses,
    rows::{AccountId, RowId, Rows},
};

/// Rows of which what they decide about columns of their own lies in one another's gaps.
#[derive(Debug)]
pub(super) struct Area {
    /// Binary logarithm of the columns of a block.
    pub(super) shift: u16,
    /// Blocks of a row.
    pub(super) blocks: u16,
    /// By row, in the order of its group: what it decides where it has no cell.
    pub(super) rests: Vec<AccountId>,
    /// By row and block: the block's place, or 0.
    pub(super) places: Vec<u16>,
    /// The place of the block whose a cell is, and what is decided; place 0 is nobody's.
    pub(super) cells: Vec<(u16, AccountId)>,
}

/// What rows decide about columns of their own, ascending.
type Sparse = Vec<(u16, AccountId)>;

/// An area of so many times the cells that rows need has too many gaps.
const GAPPY: usize = 2;
/// A step of narrowing makes four blocks of one.
const STEP: u16 = 2;

impl Area {
    /// `None`: the rows don't fit into as many cells as there are places.
    pub(super) fn new(of: &[RowId], rows: &Rows, ports: &PortClasses) -> Option<Self> {
        let rests = of.iter().filter_map(|&row| rows.runs(row).last()).map(|run| run.account);
        let rests: Vec<AccountId> = rests.collect();
        let sparse: Vec<Sparse> = of.iter().map(|&row| ports.sparse(rows.runs(row))).collect();
        let needed: usize = sparse.iter().map(Vec::len).sum();
        let mut shift = ports.count.next_power_of_two().trailing_zeros().min(15) as u16;
        let mut least: Option<Self> = None;
        loop {
            let made = Self::with_blocks(&sparse, &rests, (ports.count, shift));
            least = match (least, made) {
                (Some(least), Some(made)) if least.size() <= made.size() => return Some(least),
                (least, made) => made.or(least),
            };
            let is_full = least.as_ref().is_some_and(|one| one.cells.len() < GAPPY * needed);
            if is_full || shift < STEP {
                return least;
            }
            shift -= STEP;
        }
    }

    fn with_blocks(
        sparse: &[Sparse],
        rests: &[AccountId],
        (columns, shift): (u32, u16),
    ) -> Option<Self> {
        // One cell more is a record.
        let blocks =
            u16::try_from(columns.div_ceil(1 << shift)).ok().filter(|most| *most < u16::MAX)?;
        let mut alike: HashMap<Sparse, Vec<usize>> = HashMap::new();
        for (row, own) in sparse.iter().enumerate() {
            for block in own.chunk_by(|a, b| a.0 >> shift == b.0 >> shift) {
                let at = row * usize::from(blocks) + usize::from(block[0].0 >> shift);
                let inside =
                    block.iter().map(|(column, account)| (column % (1 << shift), *account));
                alike.entry(inside.collect()).or_default().push(at);
            }
        }
        let mut alike: Vec<(Sparse, Vec<usize>)> = alike.into_iter().collect();
        alike.sort_unstable_by(|a, b| (b.0.len(), &a.1).cmp(&(a.0.len(), &b.1)));
        let mut places = vec![0; rests.len() * usize::from(blocks)];
        let mut packing = Packing::new(1 << shift);
        for (block, holders) in &alike {
            let place = packing.place(block)?;
            holders.iter().for_each(|&holder| places[holder] = place);
        }
        Some(Self { shift, blocks, rests: rests.to_vec(), places, cells: packing.cells })
    }

    /// In cells of 2 bytes.
    pub(super) fn size(&self) -> usize {
        self.rests.len() + self.places.len() + 2 * self.cells.len()
    }
}

/// Blocks being put into gaps.
struct Packing {
    /// Columns of a block.
    width: usize,
    cells: Vec<(u16, AccountId)>,
    /// By place: a block has it.
    taken: Vec<bool>,
    /// Where the last block of as many cells was put, before which there is hardly room for another.
    from: usize,
    length: usize,
}

impl Packing {
    fn new(width: usize) -> Self {
        let taken = vec![false; 1 << 16];
        Self { width, cells: vec![(0, 0); width], taken, from: 1, length: 0 }
    }

    /// Finds a block its place.
    fn place(&mut self, block: &[(u16, AccountId)]) -> Option<u16> {
        if block.len() != self.length {
            (self.from, self.length) = (1, block.len());
        }
        let cells = &self.cells;
        let is_gap = |at: usize| cells.get(at).is_none_or(|(place, _)| *place == 0);
        let fits = |at: &usize| block.iter().all(|(column, _)| is_gap(at + usize::from(*column)));
        let mut free = (self.from..self.taken.len()).filter(|at| !self.taken[*at]);
        let at = free.find(fits)?;
        let place = u16::try_from(at).ok()?;
        self.from = at;
        self.taken[at] = true;
        self.cells.resize(self.cells.len().max(at + self.width), (0, 0));
        for &(column, account) in block {
            self.cells[at + usize::from(column)] = (place, account);
        }
        Some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a row decides about a column, as a packet finds it.
    fn found(area: &Area, row: usize, column: u16) -> AccountId {
        let place = area.places[row * usize::from(area.blocks) + usize::from(column >> area.shift)];
        let (owner, account) =
            area.cells[usize::from(place) + usize::from(column % (1 << area.shift))];
        if place != 0 && owner == place { account } else { area.rests[row] }
    }

    fn packed(sparse: &[Sparse], columns: u32, shift: u16) -> Option<Area> {
        let area = Area::with_blocks(sparse, &vec![0; sparse.len()], (columns, shift))?;
        for (row, own) in sparse.iter().enumerate() {
            for column in 0..u16::try_from(columns).unwrap() {
                let known = own.iter().find(|(own, _)| *own == column);
                assert_eq!(found(&area, row, column), known.map_or(0, |(_, account)| *account));
            }
        }
        Some(area)
    }

    #[test]
    fn rows_lie_in_one_anothers_gaps() {
        let every =
            |nth: u16, from: u16| (from..12).step_by(usize::from(nth)).map(|c| (c, 1)).collect();
        let sparse: Vec<Sparse> = vec![every(2, 0), every(2, 1), every(3, 0), vec![], vec![(5, 2)]];
        let area = packed(&sparse, 12, 4).expect("few");
        let own: usize = sparse.iter().map(Vec::len).sum();
        assert_eq!(area.cells.iter().filter(|(place, _)| *place != 0).count(), own);
        assert_eq!(area.places[3], 0, "nothing of its own");
        for shift in 0..4 {
            packed(&sparse, 12, shift).expect("few");
        }
    }

    #[test]
    fn blocks_that_decide_alike_share_a_place() {
        let sparse = vec![vec![(1, 7), (9, 7)], vec![(1, 7)], vec![(1, 8)]];
        let area = packed(&sparse, 16, 3).expect("few");
        assert_eq!((area.blocks, area.places[0]), (2, area.places[1]));
        assert_eq!(area.places[0], area.places[2]);
        assert_ne!(area.places[0], area.places[4]);
    }

    #[test]
    fn a_shorter_block_lies_in_gaps_before_longer_ones() {
        let sparse = [vec![(0, 1), (3, 1)], vec![(0, 1), (2, 1)], vec![(0, 1)]];
        assert_eq!(packed(&sparse, 4, 2).expect("few").places, [1, 3, 2]);
    }

    #[test]
    fn there_are_as_many_places_as_numbers() {
        let sparse = |rows: u32| -> Vec<Sparse> { (1..=rows).map(|own| vec![(0, own)]).collect() };
        assert!(Area::with_blocks(&sparse(65_535), &vec![0; 65_535], (1, 0)).is_some());
        assert!(Area::with_blocks(&sparse(65_536), &vec![0; 65_536], (1, 0)).is_none());
        // A record is one cell wider than the row's blocks.
        assert!(Area::with_blocks(&[], &[], (65_534, 0)).is_some());
        assert!(Area::with_blocks(&[], &[], (65_535, 0)).is_none());
    }
}
