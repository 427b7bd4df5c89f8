//! Where rows lie whose groups are scattered: each group has records and an area of its own.
//!
//! Not here: an area itself ([`Area`]).
//! Invariant: the first cell of decisions is nobody's, and a row's number is good in its group alone.

use std::sync::Arc;

use flowgate_abi::policy;

use crate::compile::{
    area::Area,
    error::CompileError,
    groups::GroupId,
    interned::index,
    port_classes::PortClasses,
    tables::{Decisions, Source},
};

/// The layout of a scattered plan.
pub(super) struct Scattered {
    /// By group, in order.
    areas: Vec<Arc<Area>>,
    /// By endpoint policy: where its rows are.
    pub(super) told: Vec<policy::Scattered>,
    /// By endpoint policy: the column of each port class.
    pub(super) columns: Vec<Arc<[u16]>>,
    /// The cells of decisions.
    pub(super) room: usize,
}

impl Scattered {
    /// `None`: a group's rows don't fit into an area, or all of them into the tables.
    pub(super) fn new(
        source: &Source<'_>,
        groups: &[GroupId],
        ports: &PortClasses,
    ) -> Result<Option<Self>, CompileError> {
        let mut made = Self {
            areas: Vec::with_capacity(groups.len()),
            told: vec![policy::Scattered::default()],
            columns: vec![vec![0; ports.count as usize].into()],
            room: 1,
        };
        for &group in groups {
            let group = source.groups.get(group);
            let Some(area) = group.area(source.rows)? else { return Ok(None) };
            let stride = 1 + area.blocks;
            let begin = made.room + area.rests.len() * usize::from(stride);
            made.told.push(policy::Scattered {
                records: index(made.room),
                area: index(begin),
                stride,
                shift: area.shift,
            });
            made.columns.push(group.ports(source.rows)?.of_classes(ports).into());
            made.room += area.size();
            if made.room > source.options.max_cells {
                return Ok(None);
            }
            made.areas.push(area);
        }
        Ok(Some(made))
    }

    /// How many cells decisions and columns take.
    pub(super) fn cells(&self) -> usize {
        self.room + self.columns.iter().map(|columns| columns.len()).sum::<usize>()
    }

    /// By group in order, and class of peers: the number of the row; class 0 has none.
    pub(super) fn row_cells(source: &Source<'_>, groups: &[GroupId]) -> Vec<u16> {
        let width = source.peer_classes as usize;
        let mut cells = vec![0; (groups.len() + 1) * width];
        let mut numbers = vec![0; source.rows.len()];
        for (&group, cells) in groups.iter().zip(cells.chunks_mut(width).skip(1)) {
            let group = source.groups.get(group);
            for (number, row) in (1..=u16::MAX).zip(group.rows()) {
                numbers[*row as usize] = number;
            }
            cells[1..].fill(numbers[group.rest as usize]);
            for (class, row) in &group.others {
                cells[usize::from(*class)] = numbers[*row as usize];
            }
        }
        cells
    }

    pub(super) fn decision_cells(
        &self,
        source: &Source<'_>,
        groups: &[GroupId],
        made: &mut Decisions<'_>,
    ) -> Result<Vec<u16>, CompileError> {
        let mut cells = Vec::with_capacity(self.room);
        cells.push(0);
        for (&group, area) in groups.iter().zip(&self.areas) {
            for &row in source.groups.get(group).rows() {
                made.number_row(source.rows.runs(row))?;
            }
            for (rest, places) in
                area.rests.iter().zip(area.places.chunks(usize::from(area.blocks)))
            {
                cells.push(made.known(*rest));
                cells.extend(places);
            }
            for &(place, account) in &area.cells {
                cells.extend([place, if place == 0 { 0 } else { made.known(account) }]);
            }
        }
        Ok(cells)
    }
}
