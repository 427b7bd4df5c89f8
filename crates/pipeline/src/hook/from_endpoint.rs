//! A packet comes from an endpoint: its egress, and, if it goes to another local endpoint, that
//! one's ingress in the same run.

use flowgate_abi::{DropReason, endpoint::Endpoint, event::Counter};

use super::{Frame, account, dropped, forward, track};
use crate::{
    Cursor, FlowTable, Packet, Verdict,
    parse::{self, Parse, Role},
};

/// The steps of `tc_from_endpoint`.
#[inline(always)]
pub fn from_endpoint<F: Parse, C: Cursor, T: FlowTable<F>>(
    mut cursor: C,
    frame: Frame,
    tables: &T,
) -> Verdict {
    let Some(endpoint) = tables.endpoint(frame.ifindex) else {
        return dropped(tables, frame, DropReason::UnknownEndpoint);
    };
    let result = steps::<F, C, T>(&mut cursor, frame, endpoint, tables);
    account(tables, frame, endpoint, result)
}

#[inline(always)]
fn steps<F: Parse, C: Cursor, T: FlowTable<F>>(
    cursor: &mut C,
    frame: Frame,
    endpoint: &Endpoint,
    tables: &T,
) -> Result<Verdict, DropReason> {
    let mut packet = Packet::<F>::unread();
    parse::frame(cursor, &mut packet)?;
    if packet.role == Role::Neighbour {
        if !F::is_link_scoped(packet.sender) {
            owns_source::<F>(endpoint, &packet)?;
        }
        tables.count(Counter::NeighbourPassed);
        return Ok(Verdict::Pass);
    }
    owns_source::<F>(endpoint, &packet)?;
    let destination = track::track(tables, frame, endpoint, &packet)?;
    Ok(forward::choose(tables, &packet, destination))
}

/// An endpoint sends from its own address, and reports errors about its own flows alone.
#[inline(always)]
fn owns_source<F: Parse>(endpoint: &Endpoint, packet: &Packet<F>) -> Result<(), DropReason> {
    let own = F::address(endpoint);
    if packet.sender != own || own == F::Addr::default() {
        return Err(DropReason::InvalidSourceAddress);
    }
    if packet.role == Role::Error && packet.tuple.source != own {
        return Err(DropReason::UnrelatedIcmpError);
    }
    Ok(())
}
