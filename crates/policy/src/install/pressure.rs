//! How full the tables are: known before a plan doesn't fit any more.

use super::{Installer, Store};
use crate::cost::Table;

/// How full a table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pressure {
    /// The table.
    pub table: Table,
    /// Elements in use. Of what each generation has for itself: by the running one.
    pub used: usize,
    /// Elements that have room.
    pub capacity: usize,
}

impl<S: Store> Installer<S> {
    /// How full each table is. After adoption the tables of a generation count as empty until a plan is
    /// applied.
    #[must_use]
    pub fn pressure(&self) -> Vec<Pressure> {
        let capacity = &self.capacity;
        let plan = self.plan.as_ref();
        let tables = [
            (Table::Endpoints, self.bindings.len(), capacity.endpoints),
            (Table::Peers, capacity.peers - self.numbers.free(), capacity.peers),
            (
                Table::RowCells,
                plan.map_or(0, |plan| plan.groups() * plan.line()),
                capacity.row_cells,
            ),
            (
                Table::DecisionCells,
                plan.map_or(0, |plan| plan.decision.len()),
                capacity.decision_cells,
            ),
            (Table::Decisions, plan.map_or(0, |plan| plan.decisions.len()), capacity.decisions),
            (Table::IpcacheNodes, self.nodes.used(), capacity.ipcache_nodes),
        ];
        tables.map(|(table, used, capacity)| Pressure { table, used, capacity }).into()
    }
}
