//! What can go wrong, and what to do about it.

use std::{io, net::IpAddr};

use thiserror::Error;

use crate::error::TableError;

/// Why checks can't leave by an interface. Nothing is left of the attempt.
#[non_exhaustive]
#[derive(Debug, Error)]
pub enum AttachError {
    /// There is no such interface in this thread's network namespace.
    #[error("interface {interface}: {source}")]
    UnknownInterface {
        /// Its name.
        interface: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel refused.
    #[error("interface {interface}: checks' programs couldn't be attached at TC: {source}")]
    Refused {
        /// Its name.
        interface: String,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Why a check can't go through a tunnel.
#[non_exhaustive]
#[derive(Debug, Error)]
pub enum CheckError {
    /// The service's packets go to backends in no tunnel.
    #[error("packets of {service} go to its backends in no tunnel: ask them directly")]
    NoTunnel {
        /// The service.
        service: String,
    },
    /// A socket has one family.
    #[error("{address} and {backend} are of different families: ask the backend directly")]
    Mixed {
        /// The service's address.
        address: IpAddr,
        /// The backend's.
        backend: IpAddr,
    },
    /// The table is full, or couldn't be written.
    #[error("{} checks at a time have room: {source}", flowgate_abi::probe::PROBES)]
    Table {
        /// What the kernel said.
        source: TableError,
    },
}
