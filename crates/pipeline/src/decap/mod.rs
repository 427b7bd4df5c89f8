//! A backend's end of the tunnels: from a packet that a balancer has sent to the client's packet in it.
//!
//! A packet's way: [`hook`] names the steps in their order and nothing else does; `outer` reads the headers in
//! front, `inner` the client's packet, [`ecn`] says what becomes of congestion marks.
//!
//! Not here: how a frame loses its headers ([`Wrapped`]) and where addresses lie ([`Ends`]); who has sent the
//! packets ([`crate::lb`]).
//!
//! Invariants: no unsafe code; what isn't in a tunnel to one of the ends passes unchanged; what is in one is
//! dropped by name, or goes on as a packet to a service: none reaches the host's own tunnel devices, and none
//! gets to another address of the host.
//!
//! Tested beside an oracle that reads bytes, by hand, and three ways at the kernel (`flowgate-datapath`).

pub mod ecn;
pub mod hook;
mod host;
mod inner;
mod outer;
mod seams;

pub use hook::decapsulate;
pub use inner::Inner;
pub use outer::Outer;
pub use seams::{Ends, Fate, Wrapped};
