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

use crate::{Tables, Verdict};

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
