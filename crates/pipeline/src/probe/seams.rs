//! The seams of checks: what is under way, and a frame of the host's own.

use flowgate_abi::probe::Probe;

use crate::{Family, lb::Buffer, parse::Layer3};

/// What happens to a frame.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// On, unchanged: no check's.
    Pass,
    /// On, rewritten.
    Rewritten,
    /// Dropped: it is a check's, and can't go the way that a client's would.
    Drop,
}

/// Checks under way.
pub trait Probes {
    /// By port, protocol and family ([`flowgate_abi::lb::Target::kind`]).
    fn probe(&self, kind: u64) -> Option<&Probe>;
}

/// Which address of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Where it comes from.
    Source,
    /// Where it goes.
    Destination,
}

impl End {
    /// Where it lies in a packet, and how many 16-bit words it has.
    #[inline(always)]
    #[must_use]
    pub const fn place<F: Family>(self) -> (u32, usize) {
        match (F::NUMBER, self) {
            (4, Self::Source) => (12, 2),
            (4, Self::Destination) => (16, 2),
            (_, Self::Source) => (8, 8),
            (_, Self::Destination) => (24, 8),
        }
    }
}

/// A frame of the host's own, on its way out or in, whose checksums may be left to a device or be checked by
/// one.
pub trait Own: Buffer {
    /// What the frame carries.
    fn layer3(&self) -> Layer3;
    /// The packet, from its network header on.
    fn network(&self) -> Self::Head<'_>;
    /// Replaces an address of a packet without options or extension headers, as both lie in memory, in what
    /// its checksums cover too; `false`: it can't be done, and the frame may be anything.
    fn readdress<F: Family>(&mut self, end: End, protocol: u8, change: [[u64; 2]; 2]) -> bool;
}
