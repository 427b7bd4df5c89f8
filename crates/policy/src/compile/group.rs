//! A group of rows: what some endpoints decide in one direction, by class of peers.
//!
//! Not here: which group an endpoint has, and how its rows come from rules ([`super::groups`]).
//! Invariant: what a group tells of its rows is a function of these alone, so it is found once, however
//! many plans the group is in. Rows must be those of one session.

use std::{
    hash::{Hash, Hasher},
    sync::{Arc, OnceLock},
};

use crate::compile::{
    area::Area,
    error::CompileError,
    port_classes::{PortClasses, ServiceSet, sets_of},
    rows::{RowId, Rows},
};

/// A row for each class of peers.
#[derive(Debug)]
pub(super) struct Group {
    /// That of everybody whom nobody knows, and of all classes that aren't named.
    pub(super) rest: RowId,
    /// The classes that have another, ascending.
    pub(super) others: Vec<(u16, RowId)>,
    rows: OnceLock<Vec<RowId>>,
    sets: OnceLock<Vec<ServiceSet>>,
    ports: OnceLock<Arc<PortClasses>>,
    area: OnceLock<Option<Arc<Area>>>,
}

impl Group {
    pub(super) fn new(rest: RowId, others: Vec<(u16, RowId)>) -> Self {
        let (rows, sets, ports) = (OnceLock::new(), OnceLock::new(), OnceLock::new());
        Self { rest, others, rows, sets, ports, area: OnceLock::new() }
    }

    /// Its rows, each once, in the order in which its classes come to them.
    pub(super) fn rows(&self) -> &[RowId] {
        self.rows.get_or_init(|| self.distinct())
    }

    /// The sets of services about which some row decides something of its own, each once.
    pub(super) fn sets(&self, rows: &Rows) -> &[ServiceSet] {
        self.sets.get_or_init(|| sets_of(self.rows().iter().map(|&row| rows.runs(row))))
    }

    /// The classes of ports that its rows tell apart.
    ///
    /// # Errors
    /// There are too many.
    pub(super) fn ports(&self, rows: &Rows) -> Result<Arc<PortClasses>, CompileError> {
        if let Some(known) = self.ports.get() {
            return Ok(Arc::clone(known));
        }
        let made = Arc::new(PortClasses::new(&self.sets(rows).iter().collect())?);
        Ok(Arc::clone(self.ports.get_or_init(|| made)))
    }

    /// Its rows where they are scattered; `None`: they don't fit into an area.
    ///
    /// # Errors
    /// There are too many classes of ports.
    pub(super) fn area(&self, rows: &Rows) -> Result<Option<Arc<Area>>, CompileError> {
        let ports = self.ports(rows)?;
        let area = || Area::new(self.rows(), rows, &ports).map(Arc::new);
        Ok(self.area.get_or_init(area).clone())
    }

    fn distinct(&self) -> Vec<RowId> {
        let all = || [self.rest].into_iter().chain(self.others.iter().map(|(_, row)| *row));
        let most = all().max().unwrap_or_default() as usize;
        let mut seen = vec![false; most + 1];
        all().filter(|&row| !std::mem::replace(&mut seen[row as usize], true)).collect()
    }
}

impl PartialEq for Group {
    fn eq(&self, other: &Self) -> bool {
        self.rest == other.rest && self.others == other.others
    }
}

impl Eq for Group {}

impl Hash for Group {
    /// A group has thousands of cells: they are mixed by a multiplication each, and only the sum is hashed
    /// with care.
    fn hash<H: Hasher>(&self, state: &mut H) {
        const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
        let mix = |sum: u64, &(class, row): &(u16, RowId)| {
            (sum.rotate_left(23) ^ (u64::from(class) << 32 | u64::from(row))).wrapping_mul(ODD)
        };
        state.write_u64(self.others.iter().fold(u64::from(self.rest), mix));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn rows_come_once_in_the_order_of_classes() {
        let group = Group::new(7, vec![(1, 3), (2, 7), (4, 3), (5, 0)]);
        assert_eq!(group.rows(), [7, 3, 0]);
    }

    #[test]
    fn groups_are_the_same_by_their_cells() {
        let groups = [(7, vec![]), (7, vec![(1, 3)]), (7, vec![(3, 1)]), (3, vec![(1, 7)])];
        let made = || groups.iter().map(|(rest, others)| Group::new(*rest, others.clone()));
        made().for_each(|group| assert!(!group.rows().is_empty()));
        assert_eq!(made().chain(made()).collect::<HashSet<_>>().len(), groups.len());
    }
}
