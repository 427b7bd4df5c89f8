//! What can go wrong, and what to do about it.

use std::{io, net::IpAddr};

use thiserror::Error;

use crate::error::TableError;

/// Why addresses can't be what a decapsulator takes.
#[non_exhaustive]
#[derive(Debug, Error, PartialEq, Eq)]
pub enum EndsError {
    /// Nothing could ever be decapsulated.
    #[error(
        "a decapsulator needs an address of this host to which balancers send: Builder::tunnel_end"
    )]
    NoTunnelEnd,
    /// Packets to such an address come from no tunnel.
    #[error(
        "{address} is no address of one host: loopback, unspecified, multicast, or IPv4 written as IPv6"
    )]
    Address {
        /// Which.
        address: IpAddr,
    },
    /// There is no room for so many addresses.
    #[error("{given} addresses are too many: {room} have room", room = super::ADDRESSES)]
    TooManyAddresses {
        /// How many there are.
        given: usize,
    },
    /// There is no room for so many networks.
    #[error(
        "{given} networks of balancers are too many: {} have room",
        flowgate_abi::decap::NETWORKS
    )]
    TooManyNetworks {
        /// How many there are.
        given: usize,
    },
}

/// Why services couldn't be changed.
#[non_exhaustive]
#[derive(Debug, Error)]
pub enum ServicesError {
    /// These addresses can't be services'. Nothing has changed.
    #[error(transparent)]
    Ends(#[from] EndsError),
    /// The table couldn't be written; setting them again goes on.
    #[error(transparent)]
    Table(#[from] TableError),
}

/// Why the decapsulator couldn't be bound to an interface. Nothing is left of the attempt.
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
    /// The decapsulator is bound to it already.
    #[error("interface {interface} has the decapsulator already: detach it first")]
    Attached {
        /// Its name.
        interface: String,
    },
    /// The host backend has no programs.
    #[error(
        "the host backend has no programs to attach: open the decapsulator with Backend::Kernel"
    )]
    NoPrograms,
    /// The kernel refused.
    #[error(
        "interface {interface}: the program couldn't be attached: {source}; is another XDP program there? (ip link show {interface}; or attach at TC)"
    )]
    Refused {
        /// Its name.
        interface: String,
        /// What the kernel said.
        source: io::Error,
    },
}
