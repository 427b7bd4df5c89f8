//! What a compiler may be told beside the policies.

use std::sync::Arc;

/// Settings of a compilation; the oracle obeys the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The node for which the plan is made. Its identity is `host`, every other node's
    /// `remote-node`, and a workload whose node isn't known counts as running on it.
    pub local_node: Option<Arc<str>>,
    /// A node may always reach the workloads on it, whatever isolates them.
    pub allow_local_node: bool,
    /// The most cells that the rows, or the decisions, of a plan may have, 2 bytes each. What is
    /// over it is refused before memory is taken.
    pub max_cells: usize,
}

impl Default for Options {
    /// No node is local, a node may reach its workloads, and 2^27 cells.
    fn default() -> Self {
        Self { local_node: None, allow_local_node: true, max_cells: 1 << 27 }
    }
}
