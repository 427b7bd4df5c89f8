//! The ipcache's nodes as they have to be: a function of the networks alone.
//!
//! Not here: what the nodes mean to a packet (`flowgate_abi::ipcache`), and writing them
//! ([`crate::install`]).

mod block;
mod shape;

pub(crate) use block::Block;
pub(crate) use shape::{Entry, Part, STRIDE, Shape, nodes, parts, shape};

/// Nodes that one network more needs at most.
pub(crate) const MOST_NODES: usize = 8;
