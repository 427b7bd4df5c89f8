//! ICMP and ICMPv6: queries, errors, and what keeps a link together.

use flowgate_abi::{Be16, DropReason};

use super::{Packet, Parse, ports};
use crate::{Family, Skip, V4, family::Tuple, wire::Icmp};

/// What a packet means to the flow that it belongs to.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It may open a flow, or go on with one.
    Any = 0,
    /// It answers; alone it means nothing (an ICMP reply).
    Reply = 1,
    /// It reports an error about a packet of the flow, which it quotes: the tuple is the quoted
    /// one, seen from the one who gets the report.
    Error = 2,
    /// Neighbour discovery: passed unjudged, since nothing works without it. The tuple's source is
    /// the address that the sender says is its own.
    Neighbour = 3,
    /// Multicast listener discovery: passed unjudged on its link.
    Listener = 4,
    /// What only a router says: an advertisement, or a redirect.
    Router = 5,
}

impl Role {
    /// It belongs to no flow and never leaves its link.
    #[inline(always)]
    #[must_use]
    pub fn stays_on_link(self) -> bool {
        matches!(self, Self::Neighbour | Self::Listener | Self::Router)
    }
}

#[inline(always)]
pub(crate) fn icmp<F: Parse, C: Skip>(
    cursor: &mut C,
    packet: &mut Packet<F>,
) -> Result<(), DropReason> {
    let header: Icmp = cursor.take().ok_or(DropReason::MalformedPacket)?;
    packet.role = F::icmp_role(header.icmp_type)?;
    match packet.role {
        Role::Error => quoted(cursor, packet),
        Role::Neighbour => neighbour(cursor, &header, packet),
        Role::Router => on_link(packet.hops == 255 && header.code == 0),
        // RFC 3810, section 5.
        Role::Listener => on_link(packet.hops == 1),
        role => {
            query(&header, role, &mut packet.tuple);
            Ok(())
        }
    }
}

/// What has crossed a router isn't what it says it is (RFC 4861, section 7.1).
#[inline(always)]
fn on_link(is: bool) -> Result<(), DropReason> {
    if is { Ok(()) } else { Err(DropReason::ForbiddenIcmp6) }
}

/// The address that the sender calls its own: the target of an advertisement, and of a solicitation
/// by which it asks whether somebody has that address already.
#[inline(always)]
fn neighbour<F: Parse, C: Skip>(
    cursor: &mut C,
    header: &Icmp,
    packet: &mut Packet<F>,
) -> Result<(), DropReason> {
    on_link(packet.hops == 255 && header.code == 0)?;
    if header.icmp_type == ROUTER_SOLICITATION {
        return Ok(());
    }
    let target: F::Addr = cursor.take().ok_or(DropReason::MalformedPacket)?;
    let probes = packet.sender == F::Addr::default();
    if header.icmp_type == NEIGHBOUR_ADVERTISEMENT || probes {
        packet.tuple.source = target;
    }
    Ok(())
}

const ROUTER_SOLICITATION: u8 = 133;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;

/// The identifier is the port of the one who asks, and the one who answers has port 0: so a reply
/// belongs to its query and to nothing else, and two ends that ask with one identifier have a flow
/// each. A reply has the type of its query, so that both have one key.
#[inline(always)]
fn query<A>(header: &Icmp, role: Role, tuple: &mut Tuple<A>) {
    let (asks, answers) = (header.identifier, Be16::new(0));
    let reply = role == Role::Reply;
    tuple.source_port = if reply { answers } else { asks };
    tuple.destination_port = if reply { asks } else { answers };
    tuple.icmp_type = match (header.icmp_type, role) {
        (0, Role::Reply) => V4::ECHO[0],
        (query, Role::Reply) => query - 1,
        (query, _) => query,
    };
}

/// The tuple becomes that of the quoted packet, reversed: as if the other end had sent it.
#[inline(always)]
fn quoted<F: Parse, C: Skip>(cursor: &mut C, packet: &mut Packet<F>) -> Result<(), DropReason> {
    let mut inner = Tuple::default();
    let network = F::network(cursor, &mut inner)?;
    // Without its ports nobody can say what it belonged to.
    if network.fragment.is_later() {
        return Err(DropReason::UnrelatedIcmpError);
    }
    if inner.protocol == F::ICMP {
        let header: Icmp = cursor.take().ok_or(DropReason::MalformedPacket)?;
        let role = F::icmp_role(header.icmp_type)?;
        // No error about an error (RFC 1122, section 3.2.2), nor about what belongs to no flow.
        if role == Role::Error || role.stays_on_link() {
            return Err(DropReason::UnrelatedIcmpError);
        }
        query(&header, role, &mut inner);
    } else if super::whole::has_ports(inner.protocol) {
        ports(cursor, &mut inner)?;
    }
    packet.tuple = inner.reversed();
    // Who gets the report must have sent what it quotes.
    if packet.tuple.destination != packet.receiver {
        return Err(DropReason::UnrelatedIcmpError);
    }
    if F::is_martian_source(packet.sender) {
        return Err(DropReason::Martian);
    }
    Ok(())
}
