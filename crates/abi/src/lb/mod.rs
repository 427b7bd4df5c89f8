//! The load balancer's part of the boundary: services, slots, backends, tracked flows.
//!
//! It has maps and a layout of its own, so that a balancer and a policy datapath are pinned, adopted and
//! migrated apart.
//!
//! A packet's way through them: the [`Frontend`] of its destination is found by two loads; it names a
//! table of [`Slot`]s, of which the flow's hash chooses one; the slot names a [`Backend`] by its number
//! within the service. Only if the slot says so are the tracked flows asked ([`Tracked`]). Where backends
//! answer the balancer, [`nat`] has what their packets become.

mod backend;
mod counter;
mod frontend;
pub mod maps;
pub mod nat;
mod quic;
mod server_ids;
mod settings;
mod slot;
mod sources;
mod tcp_option;
mod tracked;

pub use backend::{Backend, Kind, Tail};
pub use counter::{Counter, Load};
pub use frontend::{Frontend, Lines, Target};
pub use maps::LAYOUT;
pub use quic::QuicIds;
pub use server_ids::ServerIds;
pub use settings::{Head, Settings};
pub use slot::{BACKEND_NUMBERS, MAX_SLOTS, NOBODY, SLOTS, Slot};
pub use sources::{BOUNDS, SOURCE_LEVELS, SUBTREES, SourceNode, Sources};
pub use tcp_option::TcpOption;
pub use tracked::{AGES, Bucket, CELLS, COMMON, MARK, PLACES, Tracked};
