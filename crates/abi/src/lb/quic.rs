//! How the connection ids of a service's QUIC name its servers: bits of a frontend's flags.

use super::{Frontend, ServerIds};

/// What a frontend's flags say of connection ids.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QuicIds(pub u32);

impl QuicIds {
    /// The bits of ids with this config rotation, 0 to 6, and so many octets of server id, 1 to 4, below a power
    /// of two of which this is the binary logarithm, up to 14.
    #[must_use]
    pub const fn new(rotation: u32, octets: u32, logarithm: u32) -> Self {
        let octets = octets.wrapping_sub(1) & 3;
        let ids = ServerIds::below(logarithm);
        Self(Frontend::QUIC | (rotation & 7) << 13 | octets << 16 | ids)
    }

    /// Connection ids name servers.
    #[inline(always)]
    #[must_use]
    pub const fn is_some(self) -> bool {
        self.0 & Frontend::QUIC != 0
    }

    /// The three bits with which ids that name servers begin.
    #[inline(always)]
    #[must_use]
    pub const fn rotation(self) -> u32 {
        self.0 >> 13 & 7
    }

    /// Octets of a server id.
    #[inline(always)]
    #[must_use]
    pub const fn octets(self) -> u32 {
        (self.0 >> 16 & 3) + 1
    }
}
