//! Every decision about a packet: parse, conntrack, policy verdict, event.
//!
//! Not here: maps, clocks, sockets, allocation. The same code is compiled for BPF, where it decides
//! about live traffic, and for the host, where it simulates, tests and fuzzes.
//!
//! A packet's way: [`hook`] names the steps in their order and nothing else does; [`parse`] reads
//! the headers once into a [`Packet`], with the help of [`fragment`] where they are missing; [`conntrack`] finds its flow; [`policy`] judges a flow that
//! is new or was judged under another generation; [`event`] tells of it, and [`answer`] tells the sender
//! of what was denied.
//!
//! Invariants: no unsafe code; every loop has a constant bound; a miss is never an allow, and no
//! path passes a packet without naming the decision that allowed it.
//!
//! The two seams are [`Cursor`] (bounded access to bytes) and [`Tables`] (look-ups and narrow
//! updates); both are generic parameters, so that the compiler inlines them to nothing.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod answer;
mod budget;
pub mod conntrack;
mod cursor;
pub mod decap;
pub mod event;
pub mod family;
pub mod fragment;
pub mod hook;
pub mod ipcache;
pub mod lb;
pub mod parse;
pub mod policy;
pub mod probe;
mod sum;
pub mod sweep;
mod tables;
mod verdict;
pub mod wire;

pub use cursor::{Cursor, Skip, SliceCursor};
pub use family::{Family, V4, V6};
pub use parse::Packet;
pub use tables::{FlowTable, Tables};
pub use verdict::Verdict;
