//! Health checks: who is asked when, what the answers mean, and the asking.
//!
//! [`Checks`] decides, without clock, sockets or chance of its own: time, results and a seed go in; jobs and
//! changes come out. [`probe`] asks. Whoever drives both ([`crate::daemon`]) hands over what changed.
//!
//! Not here: what becomes of a backend that fails ([`crate::desired`]).
//!
//! Invariant: a backend has at most one check under way, and a result that belongs to an earlier
//! configuration changes nothing. Tested without time in `checks.rs`; [`probe`] against real servers in
//! `tests/probes.rs`.

mod checks;
pub mod probe;
mod threshold;
mod tls;

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use flowgate_services::{
    Uplink,
    model::{Backend, Service, ServiceName},
};

pub use checks::{Change, Checks, Job, State};
use serde::{Deserialize, Serialize};
pub use threshold::Threshold;

/// Whose health it is: one backend of one service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// The service.
    pub service: ServiceName,
    /// The backend's address.
    pub backend: IpAddr,
}

/// How somebody is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// No check has been answered yet: it gets flows, and the first result decides.
    #[default]
    Unknown,
    /// Its checks succeed.
    Up,
    /// Its checks fail: it gets no new flows.
    Down,
}

/// How a check is to be made.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Whom to ask, at its own address.
    pub address: SocketAddr,
    /// Through which tunnel; `None`: directly.
    pub tunnel: Option<Arc<Tunnel>>,
    /// What, how often, and what the results mean.
    pub check: crate::config::model::Check,
}

/// The tunnel through which a backend is asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Tunnel {
    /// Which of the service's addresses, and which port.
    pub destination: SocketAddr,
    /// How packets of the service reach backends; without the backends.
    pub service: Service,
    /// The backend.
    pub backend: Backend,
    /// How packets leave.
    pub uplink: Uplink,
}
