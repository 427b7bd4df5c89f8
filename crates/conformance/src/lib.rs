//! What flowgate's evaluators are compared on: generated inventories, policies and flows, aimed at
//! the boundaries of rules; and [`scenarios`] with what is expected of them. And what the flow table
//! is compared with: a reference model of [`connections`], and [`walk`]s that lead the host
//! pipeline past it.
//!
//! Not here: the comparison of verdicts; it is in the tests of whoever evaluates. Not published.
//! Invariant: a seed always gives the same cases; there is no clock and no other source of chance.
//! Addresses are from 198.18.0.0/15, 198.51.100.0/24, 203.0.113.0/24 and `2001:db8::/32` alone.
//!
//! ```
//! use flowgate_conformance::generate::Generator;
//!
//! let mut generator = Generator::new(7);
//! let case = generator.case();
//! let flow = generator.flow(&case);
//! assert_eq!(flow.source.is_ipv4(), flow.destination.is_ipv4());
//! ```
#![forbid(unsafe_code)]

pub mod answers;
pub mod attended;
pub mod checksum;
pub mod connections;
pub mod envelope;
pub mod frames;
pub mod generate;
pub mod links;
pub mod lookups;
pub mod mixture;
pub mod mortal;
pub mod nat;
pub mod parallel;
pub mod room;
pub mod scenarios;
pub mod shapes;
pub mod strategy;
pub mod trio;
pub mod under_way;
pub mod walk;
