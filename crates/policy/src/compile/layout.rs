//! Where rows lie in the table of decisions, and which columns they have.
//!
//! Dense: every row has a column for each port class. Narrow, where that would take too much: rows have
//! columns for the classes that their group tells apart. Groups that tell the same apart are of one shape,
//! and share rows.
//!
//! Invariant: row 0 is as wide as the widest, so a cell without a row denies whatever the column.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use crate::compile::{
    error::{CompileError, Numbered},
    groups::GroupId,
    interned::index,
    port_classes::PortClasses,
    rows::RowId,
    tables::{Source, too_many},
};

/// Numbers of rows that a narrow plan uses at most if it can: a quarter is left to those who join it.
const WANTED: usize = 3 << 14;
/// Numbers that a row takes at most if it can, on the average: then little of its last one is lost.
const EACH: usize = 4;
/// Numbers of rows that there are.
const NUMBERS: usize = 1 << 16;

/// The layout of a plan's decisions.
pub(super) struct Layout {
    /// Cells from one number of a row to the next.
    pub(super) step: u32,
    /// How many numbers are used, that of row 0 included.
    pub(super) count: u32,
    /// By group, in order: an index into the shapes.
    pub(super) shape_of: Vec<usize>,
    pub(super) shapes: Vec<Shape>,
    /// By endpoint policy: the column of each port class; empty if dense.
    pub(super) columns: Vec<Arc<[u16]>>,
}

/// Rows that have the same columns.
pub(super) struct Shape {
    /// What the columns are; `None`: the classes of all rows.
    pub(super) classes: Option<Arc<PortClasses>>,
    pub(super) order: Vec<RowId>,
    /// In that order.
    pub(super) numbers: Vec<u16>,
}

impl Layout {
    /// All rows have all columns.
    pub(super) fn dense(
        rows: Vec<RowId>,
        groups: usize,
        port_classes: u32,
    ) -> Result<Self, CompileError> {
        let shape = Shape { classes: None, order: rows, numbers: Vec::new() };
        let mut layout = Self {
            step: port_classes,
            count: 0,
            shape_of: vec![0; groups],
            shapes: vec![shape],
            columns: Vec::new(),
        };
        layout.number(|_| port_classes as usize)?;
        Ok(layout)
    }

    /// Rows have the columns of their groups.
    pub(super) fn narrow(
        source: &Source<'_>,
        groups: &[GroupId],
        ports: &PortClasses,
    ) -> Result<Self, CompileError> {
        if ports.count as usize >= NUMBERS {
            return Err(too_many(Numbered::PortClasses, NUMBERS - 1));
        }
        let mut shapes = Shapes::default();
        let mut layout = Self {
            step: 1,
            count: 0,
            shape_of: Vec::with_capacity(groups.len()),
            shapes: Vec::new(),
            columns: vec![vec![0; ports.count as usize].into()],
        };
        for &group in groups {
            let (shape, columns) = shapes.of_group(source, group, ports)?;
            layout.shape_of.push(shape);
            layout.columns.push(columns);
        }
        layout.shapes = shapes.finish();
        let width = |shape: &Shape| shape.classes.as_ref().map_or(0, |own| own.count as usize);
        let sizes = layout.shapes.iter().map(|one| (width(one), one.order.len()));
        layout.step = step(&sizes.collect::<Vec<_>>());
        layout.number(width)?;
        Ok(layout)
    }

    /// How many cells decisions and columns take.
    pub(super) fn cells(&self) -> usize {
        let columns: usize = self.columns.iter().map(|columns| columns.len()).sum();
        self.count as usize * self.step as usize + columns
    }

    /// Gives rows their numbers, shape by shape.
    fn number(&mut self, width: impl Fn(&Shape) -> usize) -> Result<(), CompileError> {
        let numbers = |width: usize| width.div_ceil(self.step as usize);
        let mut next = self.shapes.iter().map(|shape| numbers(width(shape))).max().unwrap_or(1);
        for shape in &mut self.shapes {
            let width = width(shape);
            for _ in &shape.order {
                let number = u16::try_from(next).map_err(|_| too_many(Numbered::Rows, NUMBERS))?;
                shape.numbers.push(number);
                next += numbers(width);
            }
        }
        self.count = index(next);
        Ok(())
    }
}

/// The least step with which there are few enough numbers. `shapes`: the width of rows, and how many
/// there are.
fn step(shapes: &[(usize, usize)]) -> u32 {
    let widest = shapes.iter().map(|(width, _)| *width).max().unwrap_or(1);
    let rows: usize = shapes.iter().map(|(_, rows)| rows).sum();
    let wanted = WANTED.min(EACH * (rows + 1));
    let numbers = |step: usize| {
        let rows = shapes.iter().map(|(width, rows)| width.div_ceil(step) * rows);
        rows.sum::<usize>() + widest.div_ceil(step)
    };
    let (mut few, mut many) = (widest, 0);
    while few - many > 1 {
        let middle = many.midpoint(few);
        match numbers(middle) > wanted {
            true => many = middle,
            false => few = middle,
        }
    }
    index(few)
}

/// Shapes in the making.
#[derive(Default)]
struct Shapes {
    by_columns: HashMap<Arc<[u16]>, usize>,
    made: Vec<(Arc<PortClasses>, Distinct)>,
}

impl Shapes {
    fn of_group(
        &mut self,
        source: &Source<'_>,
        group: GroupId,
        ports: &PortClasses,
    ) -> Result<(usize, Arc<[u16]>), CompileError> {
        let group = source.groups.get(group);
        let own = group.ports(source.rows)?;
        let columns: Arc<[u16]> = own.of_classes(ports).into();
        if let Some((columns, shape)) = self.by_columns.get_key_value(&columns) {
            self.made[*shape].1.add(group.rows());
            return Ok((*shape, Arc::clone(columns)));
        }
        let shape = self.made.len();
        self.by_columns.insert(Arc::clone(&columns), shape);
        self.made.push((own, Distinct::new(group.rows())));
        Ok((shape, columns))
    }

    fn finish(self) -> Vec<Shape> {
        let made = self.made.into_iter();
        made.map(|(own, rows)| Shape { classes: Some(own), order: rows.order, numbers: Vec::new() })
            .collect()
    }
}

/// Rows, each once, in the order in which they came.
struct Distinct {
    order: Vec<RowId>,
    /// Those of them: asked for, and so made, where groups share a shape.
    known: Option<HashSet<RowId>>,
}

impl Distinct {
    /// `rows`: each once.
    fn new(rows: &[RowId]) -> Self {
        Self { order: rows.to_vec(), known: None }
    }

    fn add(&mut self, rows: &[RowId]) {
        let order = &mut self.order;
        let known = self.known.get_or_insert_with(|| order.iter().copied().collect());
        order.extend(rows.iter().filter(|&&row| known.insert(row)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_as_small_as_numbers_allow() {
        assert_eq!(step(&[]), 1);
        assert_eq!(step(&[(4, 10)]), 1, "four numbers a row");
        assert_eq!(step(&[(9, 10)]), 3, "three");
        // 30,000 rows of 40 columns: two numbers each are too many.
        assert_eq!(step(&[(40, 30_000)]), 40);
        assert_eq!(step(&[(40, 20_000)]), 20);
        // More rows than numbers that are wanted.
        assert_eq!(step(&[(40, 60_000), (3, 1)]), 40);
    }
}
