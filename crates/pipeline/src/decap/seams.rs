//! The decapsulator's seams: what is configured, and the frame in its buffer.

use flowgate_abi::{
    DropReason,
    decap::{Network, Settings},
    lb::Target,
};

use crate::{hook::Rewrite, parse::Layer3};

/// What happens to a frame.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// On to the host's stack, unchanged: it isn't in a tunnel to this backend.
    Pass,
    /// On to the host's stack, without its outer headers.
    Unwrapped,
    /// Dropped.
    Drop(DropReason),
}

/// Look-ups, and what is counted.
pub trait Ends {
    /// The settings.
    fn settings(&self) -> Settings;
    /// What an address is: [`flowgate_abi::decap::TUNNEL_END`], [`flowgate_abi::decap::SERVICE`], both, or 0.
    fn role(&self, address: &Target) -> u32;
    /// A network of balancers.
    fn network(&self, index: u32) -> Option<&Network>;
    /// Counts a packet that was dropped: bytes from its outer IP header on.
    fn count_drop(&self, reason: DropReason, bytes: u32);
    /// Counts something else, by its number: bytes from the inner IP header on.
    fn count(&self, counter: u32, bytes: u32);
}

/// A frame in its buffer, which may lose headers.
pub trait Wrapped: Rewrite {
    /// It is known to be several packets in one (GRO, GSO).
    fn is_super(&self) -> bool;
    /// Takes out the bytes between the Ethernet header and the packet that is this family's; `false`: it
    /// can't be done, and the frame may be anything.
    fn unwrap(&mut self, bytes: u32, inner: Layer3) -> bool;
}
