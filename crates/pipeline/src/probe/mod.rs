//! A balancer's own checks on the way that clients' packets take: to the service's address, in the backend's
//! tunnel.
//!
//! A check's connection is one to the backend's own address, as far as the host knows. [`leave`] sees its
//! packets on their way out, and [`answer`] what comes back from the service's address.
//!
//! Not here: which connections are checks ([`Probes`]), how checksums are kept right that the kernel may not
//! have finished ([`Own`]), and the outer headers ([`crate::lb::forward`]).
//!
//! Invariants: no unsafe code; what is no check's passes unchanged; a check's packet goes in its tunnel or
//! nowhere.
//!
//! Tested on the host in `hook`, and on a wire by `checks_go_through_the_tunnel` (`flowgate-datapath`).

mod hook;
mod host;
mod seams;

pub use hook::{answer, leave};
pub use seams::{End, Fate, Own, Probes};
