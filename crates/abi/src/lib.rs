//! Every byte that crosses the kernel boundary: keys, values, events, drop reasons, map names.
//!
//! Not here: decisions (`flowgate-pipeline`), and how maps are created or pinned
//! (`flowgate-datapath`).
//!
//! Invariants, each asserted at compile time below its type:
//! - types are `#[repr(C)]` and free of padding; enums cross as integers;
//! - byte order is in the type ([`Be16`], [`Be32`]); everything else is in the machine's order;
//! - a word that the other side may write at any time is a [`Shared32`] or [`Shared64`];
//! - [`LAYOUT`] changes whenever a layout does, and is part of the pin path, so state of another
//!   layout is migrated or refused, never reinterpreted.
#![no_std]

mod bytes;
mod counters;
pub mod decap;
mod drop_reason;
pub mod endpoint;
pub mod event;
pub mod flow;
pub mod fragment;
pub mod ipcache;
mod layout;
pub mod lb;
pub mod maps;
pub mod policy;
pub mod probe;
pub mod sample;
pub mod server_id;
mod settings;
mod shared;

pub use bytes::{Addr4, Addr6, Be16, Be32, EtherAddr, Mac};
pub use drop_reason::DropReason;
pub use layout::LAYOUT;
pub use settings::{Settings, Timeouts};
pub use shared::{Shared32, Shared64};
