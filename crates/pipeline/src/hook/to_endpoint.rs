//! A packet goes to an endpoint from elsewhere: another node, this node, the world.
//!
//! What `tc_from_endpoint` has judged carries a mark and doesn't come here. At a node's uplink it comes
//! from the link, and what isn't the node's own passes by.

use flowgate_abi::{DropReason, endpoint::Endpoint, event::Counter};

use super::{Frame, account, dropped, passes_by, track};
use crate::{FlowTable, Packet, Verdict, parse::Parse};

/// The steps of `tc_to_endpoint` for a packet that was read, or the reason for which it couldn't be.
#[inline(always)]
pub fn to_endpoint<F: Parse, T: FlowTable<F>>(
    packet: Result<&Packet<F>, DropReason>,
    frame: Frame,
    tables: &T,
) -> Verdict {
    let Some(endpoint) = tables.endpoint(frame.ifindex) else {
        return dropped(tables, frame, DropReason::UnknownEndpoint);
    };
    let result = match packet {
        Ok(packet) if passes_by(tables, frame.hook, endpoint, packet) => return Verdict::Pass,
        Ok(packet) => steps(packet, frame, endpoint, tables),
        Err(reason) => Err(reason),
    };
    account(tables, frame, endpoint, result)
}

#[inline(always)]
fn steps<F: Parse, T: FlowTable<F>>(
    packet: &Packet<F>,
    frame: Frame,
    endpoint: &Endpoint,
    tables: &T,
) -> Result<Verdict, DropReason> {
    // What stays on the link comes from its host side: nobody else is on it. A node's neighbours are its
    // own business.
    if packet.role.stays_on_link() {
        tables.count(Counter::NeighbourPassed);
        return Ok(Verdict::Pass);
    }
    track::track(tables, frame, endpoint, packet)?;
    Ok(Verdict::Pass)
}
