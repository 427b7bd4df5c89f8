//! A packet goes to an endpoint from elsewhere: another node, this node, the world.
//!
//! What `tc_from_endpoint` has judged carries a mark and doesn't come here.

use flowgate_abi::{DropReason, endpoint::Endpoint, event::Counter};

use super::{Frame, account, dropped, track};
use crate::{
    Cursor, FlowTable, Packet, Verdict,
    parse::{self, Parse, Role},
};

/// The steps of `tc_to_endpoint`.
#[inline(always)]
pub fn to_endpoint<F: Parse, C: Cursor, T: FlowTable<F>>(
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
        tables.count(Counter::NeighbourPassed);
        return Ok(Verdict::Pass);
    }
    track::track(tables, frame, endpoint, &packet)?;
    Ok(Verdict::Pass)
}
