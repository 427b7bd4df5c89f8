//! The hooks: each names its steps in their order, and nothing else does.

mod arp;
mod forward;
mod from_endpoint;
mod host;
mod to_endpoint;
mod track;

pub use arp::not_ip;
pub use forward::{FrameBytes, Rewrite, Route, route};
pub use from_endpoint::from_endpoint;
pub use host::{Ran, run, run_and_answer};
pub use to_endpoint::to_endpoint;

use flowgate_abi::{DropReason, endpoint::Endpoint, event::Hook, policy::Direction};

use crate::{Family, Packet, Tables, Verdict, parse::Role};

/// A frame as the hook meets it.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    /// Bytes from the Ethernet header on, those that aren't linear included.
    pub length: u32,
    /// The interface on which it is seen.
    pub ifindex: u32,
    /// Which hook sees it.
    pub hook: Hook,
}

/// This node's own link, where only what has the node's own address is the node's.
#[inline(always)]
const fn is_node(endpoint: &Endpoint) -> bool {
    endpoint.flags & Endpoint::NODE != 0
}

/// A packet at a node's uplink is none of the node's: it is forwarded, for a group, or an error that the
/// node as a router tells about a flow of others; or nothing is known yet that could judge it.
#[inline(always)]
pub(crate) fn passes_by<F: Family, T: Tables>(
    tables: &T,
    hook: Hook,
    endpoint: &Endpoint,
    packet: &Packet<F>,
) -> bool {
    let own = match hook {
        Hook::ToEndpoint => packet.receiver,
        _ if packet.role == Role::Error => packet.tuple.source,
        _ => packet.sender,
    };
    is_node(endpoint) && (own != F::address(endpoint) || tables.generation() == 0)
}

#[inline(always)]
fn dropped<T: Tables>(tables: &T, frame: Frame, reason: DropReason) -> Verdict {
    tables.count_drop(frame.hook, reason, frame.length);
    Verdict::Drop(reason)
}

/// Counts what became of a packet, once.
#[inline(always)]
fn account<T: Tables>(
    tables: &T,
    frame: Frame,
    endpoint: &Endpoint,
    result: Result<Verdict, DropReason>,
) -> Verdict {
    let verdict = match result {
        Ok(verdict) => verdict,
        Err(reason) => return dropped(tables, frame, reason),
    };
    let direction = match frame.hook {
        Hook::ToEndpoint => Direction::Ingress,
        _ => Direction::Egress,
    };
    tables.count_traffic(endpoint.slot, direction, frame.length);
    if let Verdict::Redirect(slot) | Verdict::RedirectPeer(slot) | Verdict::Stack(slot) = verdict {
        tables.count_traffic(slot, Direction::Ingress, frame.length);
    }
    verdict
}
