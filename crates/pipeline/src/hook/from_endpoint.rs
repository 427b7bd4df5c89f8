//! A packet comes from an endpoint: its egress, and, if it goes to another local endpoint, that
//! one's ingress in the same run.
//!
//! Or it leaves a node by its uplink: then the node's egress, if it is the node's own.

use flowgate_abi::{DropReason, endpoint::Endpoint, event::Counter};

use super::{Frame, account, dropped, forward, is_node, passes_by, track};
use crate::{
    FlowTable, Packet, Verdict,
    parse::{Parse, Role},
};

/// The steps of `tc_from_endpoint` for a packet that was read, or the reason for which it couldn't be.
#[inline(always)]
pub fn from_endpoint<F: Parse, T: FlowTable<F>>(
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
    if packet.role.stays_on_link() {
        return stays_on_link::<F, T>(packet, endpoint, tables);
    }
    if !is_node(endpoint) {
        owns_mac::<F>(endpoint, packet)?;
        owns_source::<F>(endpoint, packet)?;
    }
    let destination = track::track(tables, frame, endpoint, packet)?;
    Ok(forward::choose(tables, packet, destination))
}

/// What is between neighbours: a node's are its own business.
#[inline(always)]
fn stays_on_link<F: Parse, T: FlowTable<F>>(
    packet: &Packet<F>,
    endpoint: &Endpoint,
    tables: &T,
) -> Result<Verdict, DropReason> {
    if is_node(endpoint) {
        tables.count(Counter::NeighbourPassed);
        return Ok(Verdict::Pass);
    }
    owns_mac::<F>(endpoint, packet)?;
    tells_truth::<F>(endpoint, packet)?;
    tables.count(Counter::NeighbourPassed);
    Ok(on_link::<F>(packet.receiver))
}

/// How what was passed unjudged stays on its link: a unicast address may be the host's own, or lie
/// anywhere, and a router forwards neighbour discovery like any other packet.
#[inline(always)]
fn on_link<F: Parse>(receiver: F::Addr) -> Verdict {
    if F::is_link_scoped(receiver) || F::is_martian_source(receiver) {
        return Verdict::Pass;
    }
    Verdict::HostAlone
}

/// Where its Ethernet address is known, an endpoint sends from no other.
#[inline(always)]
fn owns_mac<F: Parse>(endpoint: &Endpoint, packet: &Packet<F>) -> Result<(), DropReason> {
    if endpoint.flags & Endpoint::CHECK_MAC != 0 && packet.mac != endpoint.mac {
        return Err(DropReason::InvalidSourceMac);
    }
    Ok(())
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

/// An endpoint is no router, and says of no address but its own that it is its own. Link-local ones
/// aren't known, and lead nowhere but to the host side of its link.
#[inline(always)]
fn tells_truth<F: Parse>(endpoint: &Endpoint, packet: &Packet<F>) -> Result<(), DropReason> {
    if packet.role == Role::Router {
        return Err(DropReason::ForbiddenIcmp6);
    }
    let own = F::address(endpoint);
    for address in [packet.sender, packet.tuple.source] {
        if address != own && !F::is_link_scoped(address) {
            return Err(DropReason::InvalidSourceAddress);
        }
    }
    Ok(())
}
