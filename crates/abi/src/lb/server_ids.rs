//! Server ids, by which packets name backends: bits of a frontend's flags.

use super::{Frontend, SLOTS};

/// What a frontend's flags say of server ids, wherever packets have them. The servers' numbers lie behind the table's
/// slots, a word for each server id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerIds(pub u32);

impl ServerIds {
    /// The bits of so many ids: a power of two of which this is the binary logarithm, up to 14.
    pub(super) const fn below(logarithm: u32) -> u32 {
        (logarithm & 15) << 18
    }

    /// Packets may name servers.
    #[inline(always)]
    #[must_use]
    pub const fn is_some(self) -> bool {
        self.0 & (Frontend::QUIC | Frontend::TCP_OPTION) != 0
    }

    /// How many server ids there may be.
    #[inline(always)]
    #[must_use]
    pub const fn count(self) -> u32 {
        1 << (self.0 >> 18 & 15)
    }

    /// Where the word of server id 0 lies, from the first slot of a table of so many.
    #[inline(always)]
    #[must_use]
    pub const fn start(size: u32) -> u32 {
        size.wrapping_add(SLOTS as u32 - 1) & !(SLOTS as u32 - 1)
    }
}
