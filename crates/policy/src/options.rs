//! What a compiler may be told beside the policies.

use std::sync::Arc;

/// Settings of a compilation; the oracle obeys the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The node for which the plan is made. Its identity is `host`, every other node's
    /// `remote-node`, and a workload whose node isn't known counts as running on it.
    pub local_node: Option<Arc<str>>,
    /// Which workloads the plan has endpoints for.
    pub endpoints: EndpointScope,
    /// A node may always reach the workloads on it, whatever isolates them.
    pub allow_local_node: bool,
    /// Connections that are established outlive a plan that denies them, for as long as both ends' addresses
    /// belong to whom they belonged to. Without it a plan ends them.
    pub keep_established: bool,
    /// The most cells that the rows, or the decisions, of a plan may have, 2 bytes each. What is
    /// over it is refused before memory is taken.
    pub max_cells: usize,
    /// The most cells of decisions for which each row has a column for every class of ports of the node.
    /// With more the rows of an endpoint policy have columns for those classes alone that it tells apart:
    /// a plan of many ports takes far less room, the verdict of a new flow one load more, and an extension
    /// is refused if somebody new may use ports that the endpoint's policies didn't tell apart before. Where
    /// that would take more room, or more numbers of rows than there are, every row has all columns.
    pub dense_cells: usize,
    /// The most cells of decisions and columns for which rows lie side by side. With more they lie in one
    /// another's gaps: a plan in which thousands of peers may use other ports each takes room in proportion to
    /// what they may, the verdict of a new flow up to eight loads more than in a narrow plan, and nothing extends
    /// it. Where that would take more room, or more than 65,535 numbers for an endpoint policy, they stay side
    /// by side.
    pub narrow_cells: usize,
}

impl Default for Options {
    /// No node is local, every workload is an endpoint, a node may reach its workloads, what a plan denies
    /// ends, 2^27 cells, 2^18 (half a mebibyte) of decisions with a column for every class of ports, and 2^23
    /// (16 MiB) side by side.
    fn default() -> Self {
        Self {
            local_node: None,
            endpoints: EndpointScope::All,
            allow_local_node: true,
            keep_established: false,
            max_cells: 1 << 27,
            dense_cells: 1 << 18,
            narrow_cells: 1 << 23,
        }
    }
}

/// Which workloads a plan has endpoints for. All others are peers alone: rules may name them, and
/// nothing is decided for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EndpointScope {
    /// All of them: to simulate a cluster, or where one process serves every workload.
    #[default]
    All,
    /// Those on [`Options::local_node`], and those whose node isn't known: what an agent of that node
    /// enforces. Its tables don't grow with endpoints elsewhere, nor with policies that apply to
    /// none here.
    LocalNode,
}

impl EndpointScope {
    /// A workload on `node` is an endpoint of a plan for `local`.
    pub(crate) fn contains(self, node: Option<&Arc<str>>, local: Option<&Arc<str>>) -> bool {
        self == Self::All || node.is_none() || node == local
    }
}
