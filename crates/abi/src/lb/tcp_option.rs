//! The option of TCP that names a service's servers: bits of a frontend's flags.

use super::{Frontend, ServerIds};

/// What a frontend's flags say of the option.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpOption(pub u32);

impl TcpOption {
    /// Octets of an option that has a server id: kind, length, and the id, its lowest octet first.
    pub const LENGTH: u8 = 6;

    /// The bits of an option of this kind, and of server ids below a power of two of which this is the binary
    /// logarithm, up to 14.
    #[must_use]
    pub const fn new(kind: u8, logarithm: u32) -> Self {
        Self(Frontend::TCP_OPTION | ServerIds::below(logarithm) | (kind as u32) << 22)
    }

    /// Options name servers.
    #[inline(always)]
    #[must_use]
    pub const fn is_some(self) -> bool {
        self.0 & Frontend::TCP_OPTION != 0
    }

    /// The option's kind.
    #[inline(always)]
    #[must_use]
    pub const fn kind(self) -> u8 {
        (self.0 >> 22) as u8
    }
}
