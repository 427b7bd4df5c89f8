//! The load balancer: from a packet that comes in to the packet that goes on to a backend.
//!
//! A packet's way: [`hook`] names the steps in their order and nothing else does; [`request`] reads the
//! headers, [`find`] finds the service, [`sources`] refuses clients, [`choose`] the backend, [`tracking`] the flow
//! where the slot doesn't know its backend, [`pin`] the client that has one of its own, [`forward`] writes the outer
//! headers, [`icmp`] answers and steers.
//! [`quic`] and [`tcp_option`] read whom a packet names itself, [`server_id`] finds that one. [`nat`] has the steps for
//! services whose backends answer the balancer.
//!
//! Not here: how slots and backends come to be what they are (`flowgate-services`), and where they lie
//! ([`Balance`], [`Buffer`]).
//!
//! Invariants: no unsafe code; every loop has a constant bound; what isn't for a service passes
//! unchanged; no entry of a live flow is overwritten or evicted.
//!
//! Tested beside a model that knows nothing of tables (`flowgate-services`), and three ways at the
//! kernel (`flowgate-datapath`).

pub mod choose;
pub mod find;
pub mod forward;
pub mod hook;
mod host;
pub mod icmp;
pub mod nat;
pub mod pin;
pub mod quic;
pub mod request;
mod seams;
pub mod server_id;
pub mod sources;
pub mod tcp_option;
pub mod tracking;

pub use host::{HostBuffer, run};
pub use request::{Balanceable, Request};
pub use seams::{Action, Balance, Buffer, Translations};
