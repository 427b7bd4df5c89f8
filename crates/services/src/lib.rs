//! Typed services, and their backends.
//!
//! [`model`] says what a service is: addresses that clients know, a protocol and a port, and the
//! backends among which its flows are spread. [`Services`] is a set of them that contradicts itself
//! nowhere.
//!
//! Not here: kernels and maps (`flowgate-datapath`), health checks, configuration files, and any I/O.
#![forbid(unsafe_code)]

mod adopt;
mod balancer;
mod change;
mod clock;
mod directory;
mod error;
mod explain;
mod frontends;
mod header;
pub mod host;
#[cfg(test)]
mod interleavings;
pub mod life;
pub mod maglev;
mod marks;
mod members;
pub mod model;
mod nat;
mod places;
mod quic;
mod ranges;
mod room;
mod running;
mod server_ids;
mod services;
mod source_ranges;
mod sources;
mod stats;
mod step;
pub mod store;
mod sweep;
mod table_size;
mod tcp_option;
mod translated;
mod uplink;

pub use balancer::{Applied, Balancer, Ticked};
pub use change::Moved;
pub use error::ServiceError;
pub use explain::{ClientFlow, Explained, Named};
pub use header::line_to;
pub use nat::{NatTimeouts, SourcesError};
pub use quic::{ConnectionId, QuicServers};
pub use room::{ApplyError, Cost, Overflow, Table};
pub use services::Services;
pub use stats::{ServiceStats, Traffic};
pub use table_size::TableSize;
pub use tcp_option::TcpServers;
pub use translated::{SourceStats, Translated};
pub use uplink::Uplink;
