//! What becomes of each kind of packet, told by examples on the host's tables.
//!
//! That the loaded programs say the same is held by the tests of `flowgate-datapath`, whose corpus has
//! frames of all these kinds.

mod answers;
mod audit;
mod events;
mod fragments;
mod headers;
mod link;
mod nodes;
mod protocols;
mod world;
