//! Why a set of policies can't be compiled.

use std::{fmt, net::IpAddr, sync::Arc};

use flowgate_identity::AllocateError;
use thiserror::Error;

use crate::{inventory::WorkloadRef, model::PolicyRef};

/// Why a set of policies can't be compiled.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CompileError {
    /// Two policies have the same kind, namespace and name.
    #[error("{policy} is there twice")]
    DuplicatePolicy {
        /// The name.
        policy: PolicyRef,
    },
    /// Two workloads have the same namespace and name.
    #[error("workload {workload} is there twice")]
    DuplicateWorkload {
        /// The name.
        workload: WorkloadRef,
    },
    /// A workload is in no namespace: so are nodes alone.
    #[error("workload {name} has no namespace: give it one")]
    NoNamespace {
        /// The workload's name.
        name: Arc<str>,
    },
    /// Two nodes have the same name.
    #[error("node {node} is there twice")]
    DuplicateNode {
        /// The name.
        node: Arc<str>,
    },
    /// One address has two owners, so nobody can say whose rules hold for it.
    #[error("{address} belongs to {first} and to {second}")]
    SharedAddress {
        /// The address.
        address: IpAddr,
        /// One owner.
        first: Owner,
        /// The other.
        second: Owner,
    },
    /// The tables can't express it.
    #[error("the policies need more than {limit} {what}")]
    TooMany {
        /// What there is too much of.
        what: Numbered,
        /// The most that there can be.
        limit: usize,
    },
    /// A peer gets no identity.
    #[error("no numeric identity for a peer")]
    Identity(#[from] AllocateError),
}

/// Who has an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A workload.
    Workload(WorkloadRef),
    /// A node, or a host-network workload on it.
    Node(Arc<str>),
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Workload(workload) => write!(f, "workload {workload}"),
            Self::Node(node) => write!(f, "node {node}"),
        }
    }
}

/// What a plan numbers with a fixed width, or what [`crate::options::Options::max_cells`] bounds.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numbered {
    /// Classes of peers (16 bits).
    PeerClasses,
    /// Classes of ports (16 bits).
    PortClasses,
    /// Distinct rows (16 bits).
    Rows,
    /// Distinct decisions (16 bits).
    Decisions,
    /// Endpoint policies times peer classes.
    RowCells,
    /// Rows times port classes.
    DecisionCells,
}

impl fmt::Display for Numbered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::PeerClasses => "peer classes",
            Self::PortClasses => "port classes",
            Self::Rows => "rows",
            Self::Decisions => "decisions",
            Self::RowCells => "row cells",
            Self::DecisionCells => "decision cells",
        })
    }
}
