//! What happens to a packet.

use flowgate_abi::DropReason;

/// What happens to a packet.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// On to whoever is behind us: other programs, the host's stack, the endpoint.
    Pass,
    /// On to the host's stack, which may take it, and not forward it: it was passed unjudged.
    HostAlone,
    /// On to the host's stack, marked: it is judged for the local endpoint in this slot already.
    Stack(u32),
    /// Routed straight to the host side of the local endpoint in this slot, marked likewise.
    Redirect(u32),
    /// Routed straight into the network namespace of the local endpoint in this slot.
    RedirectPeer(u32),
    /// Dropped.
    Drop(DropReason),
}
