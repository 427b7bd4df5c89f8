//! What a balancer's own checks go through: which connections of the host are checks, of whom, and the outer
//! headers of their packets.
//!
//! A check's socket is connected to the backend's own address, so that the host finds the way to it. The
//! program at TC egress makes the service's address of that and sends the packet in the backend's tunnel; the
//! one at TC ingress makes the backend's address of the service's again.

use crate::{Addr6, Be16, Shared64, lb::Backend};

/// Checks under way at a time that there is room for.
pub const PROBES: u32 = 4096;

/// A check under way; found by the check's own port, protocol and family
/// ([`Target::kind`](crate::lb::Target::kind)).
///
/// ABI: made by user space before the socket connects, removed after it is closed; programs write `sent` alone.
#[repr(C)]
#[cfg_attr(
    not(target_arch = "bpf"),
    derive(Debug, Default, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout)
)]
pub struct Probe {
    /// The service's address; IPv4 in the first four bytes.
    pub service: Addr6,
    /// The backend's own, likewise of the service's family.
    pub backend: Addr6,
    /// The outer headers of packets to the backend.
    pub line: Backend,
    /// Not 0: packets have gone into the tunnel.
    pub sent: Shared64,
    /// The port that is asked.
    pub port: Be16,
    /// Nothing.
    pub unused: [u8; 6],
}

const _: () = assert!(size_of::<Probe>() == 112);
