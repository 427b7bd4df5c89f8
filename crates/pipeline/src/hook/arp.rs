//! What isn't IP: ARP, and everything else, which doesn't pass.

use flowgate_abi::{DropReason, endpoint::Endpoint, event::Counter, event::Hook};

use super::{Frame, dropped, is_node};
use crate::{
    Skip, Tables, Verdict,
    parse::{self, Layer3, Link},
};

/// The steps of both hooks for what isn't IP.
///
/// At a node's uplink all of it passes: it is for the link. ARP that comes from another endpoint must
/// tell the truth about its sender: the endpoint's own addresses, or the unspecified IPv4 address of a
/// probe (RFC 5227). ARP that goes to an endpoint passes.
#[inline(always)]
pub fn not_ip<C: Skip, T: Tables>(mut cursor: C, link: Link, frame: Frame, tables: &T) -> Verdict {
    let endpoint = tables.endpoint(frame.ifindex);
    if endpoint.is_some_and(is_node) {
        return Verdict::Pass;
    }
    if link.layer3 != Layer3::Arp {
        return dropped(tables, frame, DropReason::UnsupportedEtherType);
    }
    let Some(endpoint) = endpoint else {
        return dropped(tables, frame, DropReason::UnknownEndpoint);
    };
    if frame.hook == Hook::FromEndpoint
        && let Err(reason) = tells_truth(&mut cursor, link, endpoint)
    {
        return dropped(tables, frame, reason);
    }
    tables.count(Counter::NeighbourPassed);
    Verdict::Pass
}

#[inline(always)]
fn tells_truth<C: Skip>(cursor: &mut C, link: Link, endpoint: &Endpoint) -> Result<(), DropReason> {
    let claim = parse::arp(cursor, link.tags)?;
    let known = endpoint.flags & Endpoint::CHECK_MAC != 0;
    if claim.frame != claim.mac || (known && claim.mac != endpoint.mac) {
        return Err(DropReason::InvalidSourceMac);
    }
    if claim.address != endpoint.addr4.raw() && claim.address != 0 {
        return Err(DropReason::InvalidSourceAddress);
    }
    Ok(())
}
