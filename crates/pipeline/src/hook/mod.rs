//! The hooks: each names its steps in their order, and nothing else does.

mod forward;
mod from_endpoint;
mod to_endpoint;
mod track;

pub use forward::{FrameBytes, Route, route};
pub use from_endpoint::from_endpoint;
pub use to_endpoint::to_endpoint;

use flowgate_abi::{
    DropReason,
    endpoint::Endpoint,
    event::{Counter, Hook},
    policy::Direction,
};

use crate::{Cursor, FlowTable, Tables, V4, V6, Verdict, parse::Layer3};

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

/// A packet's way through either hook, by what is inside of the frame.
///
/// The eBPF programs make the same choice at their entry, to give each family a subprogram.
pub fn run<C: Cursor, T: FlowTable<V4> + FlowTable<V6>>(
    cursor: C,
    layer3: Layer3,
    frame: Frame,
    tables: &T,
) -> Verdict {
    match (layer3, frame.hook) {
        (Layer3::Ipv4, Hook::ToEndpoint) => to_endpoint::<V4, C, T>(cursor, frame, tables),
        (Layer3::Ipv4, _) => from_endpoint::<V4, C, T>(cursor, frame, tables),
        (Layer3::Ipv6, Hook::ToEndpoint) => to_endpoint::<V6, C, T>(cursor, frame, tables),
        (Layer3::Ipv6, _) => from_endpoint::<V6, C, T>(cursor, frame, tables),
        (Layer3::Arp | Layer3::Other, _) => other(layer3, frame, tables),
    }
}

/// What isn't IP: ARP passes, anything else doesn't.
#[inline(always)]
pub fn other<T: Tables>(layer3: Layer3, frame: Frame, tables: &T) -> Verdict {
    if layer3 == Layer3::Arp {
        tables.count(Counter::NeighbourPassed);
        return Verdict::Pass;
    }
    dropped(tables, frame, DropReason::UnsupportedEtherType)
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
