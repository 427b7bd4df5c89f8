//! The load balancer: services on the wire.
//!
//! [`LoadBalancer::builder`] makes the decisions (kernel or host, sizes, pins, uplink),
//! [`LoadBalancer::attach`] binds it to an interface, [`LoadBalancer::apply`] makes services what they
//! should be, and [`LoadBalancer::tick`] lets time do its part. A [`Stage`] is a program of the embedder's in
//! front of the balancer or behind it. Everything detaches when the balancer is
//! dropped, unless it was pinned and [persisted](LoadBalancer::persist).
//!
//! Not here: what a service means and how its flows are spread (`flowgate-services`), health checks,
//! configuration files.
//!
//! The host backend needs no privileges and decides by the same code:
//!
//! ```
//! use std::time::Instant;
//! use flowgate_datapath::{Backend as Tables, lb::LoadBalancer};
//! use flowgate_services::{Services, model::{Backend, Service}};
//!
//! let web = Service::tcp("web", 443)
//!     .address("198.51.100.1".parse()?)
//!     .backend(Backend::new("198.18.0.11".parse()?))
//!     .backend(Backend::new("198.18.0.12".parse()?).weight(2));
//! let mut balancer = LoadBalancer::builder().backend(Tables::Host).open()?;
//! let applied = balancer.apply(&Services::new([web])?, Instant::now())?;
//! assert_eq!(applied.added, 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod attach;
mod balancer;
mod builder;
mod error;
mod nat;
mod options;
mod place;
mod replay;
mod report;
mod sample;
mod stage;
mod stats;
mod tables;

pub use attach::{AttachedXdp, Notice, XdpAttach, XdpMode};
pub use balancer::{LoadBalancer, NotPinned};
pub use builder::Builder;
pub use error::{ApplyError, DispatcherError, ReplayError, StageError, XdpError};
pub use nat::NatOptions;
pub use options::BalancerOptions;
pub use place::{Beside, Place};
pub use replay::{Balanced, Fate};
pub use report::{BalancerReport, BalancerState};
pub use sample::{SampleError, Sampled, Samples, Sampling};
pub(crate) use stage::{MOST, Stages};
pub use stage::{Position, Stage, StageReport, XdpAction};
pub use stats::BalancerStats;

pub use crate::sys::lb::StageMap;
