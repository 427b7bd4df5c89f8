//! What can go wrong, and what to do about it.

use std::io;

use thiserror::Error;

use crate::error::TableError;

/// Why the balancer couldn't be bound to an interface. Nothing is left of the attempt.
#[non_exhaustive]
#[derive(Debug, Error)]
pub enum XdpError {
    /// There is no such interface in this thread's network namespace.
    #[error("interface {interface}: {source}")]
    UnknownInterface {
        /// Its name.
        interface: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The balancer is bound to it already.
    #[error("interface {interface} has the balancer already: detach it first")]
    Attached {
        /// Its name.
        interface: String,
    },
    /// The host backend has no programs.
    #[error("the host backend has no programs to attach: open the balancer with Backend::Kernel")]
    NoPrograms,
    /// The kernel refused.
    #[error(
        "interface {interface}: the program couldn't be attached: {source}; is another XDP program there? (ip link show {interface})"
    )]
    Refused {
        /// Its name.
        interface: String,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Why services couldn't be applied.
pub type ApplyError = flowgate_services::ApplyError<TableError>;

/// Why a frame couldn't be replayed.
#[non_exhaustive]
#[derive(Debug, Error)]
pub enum ReplayError {
    /// The frame has no Ethernet header.
    #[error("a frame of {bytes} bytes has no Ethernet header")]
    TooShort {
        /// Its length.
        bytes: usize,
    },
    /// The kernel refused to run the program.
    #[error(transparent)]
    Tables(#[from] TableError),
}
