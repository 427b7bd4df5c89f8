//! Reads a packet's headers once, into a [`Packet`].
//!
//! Everything that the pipeline doesn't understand is an error with a reason of its own: fragments,
//! extension headers, protocols without a rule for them.

use flowgate_abi::{Be16, DropReason};

use crate::{
    Cursor, Family, V4, V6,
    family::Tuple,
    wire::{self, Ethernet, Icmp, Ipv4, Ipv6, Ports, Tcp, protocol},
};

/// What is inside of an Ethernet frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer3 {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
    /// ARP.
    Arp,
    /// Anything else.
    Other,
}

impl Layer3 {
    /// By EtherType.
    #[inline(always)]
    #[must_use]
    pub fn of(ethertype: Be16) -> Self {
        match ethertype.get() {
            wire::ETHERTYPE_IPV4 => Self::Ipv4,
            wire::ETHERTYPE_IPV6 => Self::Ipv6,
            wire::ETHERTYPE_ARP => Self::Arp,
            _ => Self::Other,
        }
    }
}

/// What a packet means to the flow that it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It may open a flow, or go on with one.
    Any,
    /// It answers; alone it means nothing (an ICMP reply).
    Reply,
    /// It reports an error about a packet of the flow, which it quotes: the tuple is the quoted
    /// one, seen from the one who gets the report.
    Error,
    /// Neighbour discovery: passed unjudged, since nothing works without it.
    Neighbour,
}

/// A packet's headers.
#[derive(Clone, Copy, Debug)]
pub struct Packet<F: Family> {
    /// Both ends, the protocol, the ports.
    pub tuple: Tuple<F::Addr>,
    /// Who sent the packet: the tuple's source, but for an error.
    pub sender: F::Addr,
    /// To whom the packet goes.
    pub receiver: F::Addr,
    /// Hops left before this one.
    pub hops: u8,
    /// The TCP flags; 0 for other protocols.
    pub tcp_flags: u8,
    /// What it means to its flow.
    pub role: Role,
}

impl<F: Family> Packet<F> {
    /// Nothing read yet.
    #[inline(always)]
    #[must_use]
    pub fn unread() -> Self {
        Self {
            tuple: Tuple::default(),
            sender: F::Addr::default(),
            receiver: F::Addr::default(),
            hops: 0,
            tcp_flags: 0,
            role: Role::Any,
        }
    }
}

/// How a family's header is read.
pub trait Parse: Family {
    /// Reads the network header, leaves the cursor behind it, and returns the hops left.
    ///
    /// # Errors
    /// The reason for which the packet is dropped.
    fn network<C: Cursor>(cursor: &mut C, tuple: &mut Tuple<Self::Addr>) -> Result<u8, DropReason>;

    /// What an ICMP type means.
    fn icmp_role(icmp_type: u8) -> Result<Role, DropReason>;
}

impl Parse for V4 {
    #[inline(always)]
    fn network<C: Cursor>(cursor: &mut C, tuple: &mut Tuple<Self::Addr>) -> Result<u8, DropReason> {
        let header: Ipv4 = cursor.take().ok_or(DropReason::MalformedPacket)?;
        let length = (header.version_length & 15) as usize * 4;
        if header.version_length >> 4 != 4 || length < size_of::<Ipv4>() {
            return Err(DropReason::MalformedPacket);
        }
        // More fragments, or an offset: the ports aren't all here.
        if header.fragment.get() & 0x3fff != 0 {
            return Err(DropReason::Fragment);
        }
        if length > size_of::<Ipv4>() {
            cursor.skip(length - size_of::<Ipv4>()).ok_or(DropReason::MalformedPacket)?;
        }
        tuple.source = header.source;
        tuple.destination = header.destination;
        tuple.protocol = header.protocol;
        Ok(header.ttl)
    }

    #[inline(always)]
    fn icmp_role(icmp_type: u8) -> Result<Role, DropReason> {
        match icmp_type {
            8 | 13 | 15 | 17 => Ok(Role::Any),
            0 | 14 | 16 | 18 => Ok(Role::Reply),
            // Destination unreachable, source quench, time exceeded, parameter problem (RFC 792).
            3 | 4 | 11 | 12 => Ok(Role::Error),
            _ => Err(DropReason::InvalidForFlow),
        }
    }
}

impl Parse for V6 {
    #[inline(always)]
    fn network<C: Cursor>(cursor: &mut C, tuple: &mut Tuple<Self::Addr>) -> Result<u8, DropReason> {
        let header: Ipv6 = cursor.take().ok_or(DropReason::MalformedPacket)?;
        if header.version_class_label.get() >> 28 != 6 {
            return Err(DropReason::MalformedPacket);
        }
        tuple.source = header.source;
        tuple.destination = header.destination;
        tuple.protocol = header.next_header;
        Ok(header.hop_limit)
    }

    #[inline(always)]
    fn icmp_role(icmp_type: u8) -> Result<Role, DropReason> {
        match icmp_type {
            128 => Ok(Role::Any),
            129 => Ok(Role::Reply),
            // Destination unreachable, packet too big, time exceeded, parameter problem (RFC 4443).
            1..=4 => Ok(Role::Error),
            // Router solicitation, neighbour solicitation and advertisement (RFC 4861).
            133 | 135 | 136 => Ok(Role::Neighbour),
            // Router advertisement and redirect: hosts must not believe an endpoint's.
            134 | 137 => Err(DropReason::ForbiddenIcmp6),
            _ => Err(DropReason::InvalidForFlow),
        }
    }
}

/// Reads a whole frame: Ethernet, IP, transport.
///
/// # Errors
/// The reason for which the packet is dropped.
#[inline(always)]
pub fn frame<F: Parse, C: Cursor>(
    cursor: &mut C,
    packet: &mut Packet<F>,
) -> Result<(), DropReason> {
    cursor.take::<Ethernet>().ok_or(DropReason::MalformedPacket)?;
    packet.hops = F::network(cursor, &mut packet.tuple)?;
    packet.sender = packet.tuple.source;
    packet.receiver = packet.tuple.destination;
    match packet.tuple.protocol {
        protocol::TCP => tcp(cursor, packet),
        protocol::UDP | protocol::SCTP => ports(cursor, &mut packet.tuple),
        p if p == F::ICMP => icmp(cursor, packet),
        p => Err(unsupported(p, F::NUMBER)),
    }
}

#[inline(always)]
fn unsupported(protocol: u8, family: u8) -> DropReason {
    match protocol {
        protocol::FRAGMENT if family == 6 => DropReason::Fragment,
        0 | 43 | 50 | 51 | 59 | 60 | 135 | 139 | 140 if family == 6 => DropReason::ExtensionHeader,
        _ => DropReason::UnsupportedProtocol,
    }
}

#[inline(always)]
fn tcp<F: Family, C: Cursor>(cursor: &mut C, packet: &mut Packet<F>) -> Result<(), DropReason> {
    let header: Tcp = cursor.take().ok_or(DropReason::MalformedPacket)?;
    if header.data_offset >> 4 < 5 {
        return Err(DropReason::MalformedPacket);
    }
    packet.tuple.source_port = header.source;
    packet.tuple.destination_port = header.destination;
    packet.tcp_flags = header.flags;
    Ok(())
}

#[inline(always)]
fn ports<A, C: Cursor>(cursor: &mut C, tuple: &mut Tuple<A>) -> Result<(), DropReason> {
    let header: Ports = cursor.take().ok_or(DropReason::MalformedPacket)?;
    tuple.source_port = header.source;
    tuple.destination_port = header.destination;
    Ok(())
}

#[inline(always)]
fn icmp<F: Parse, C: Cursor>(cursor: &mut C, packet: &mut Packet<F>) -> Result<(), DropReason> {
    let header: Icmp = cursor.take().ok_or(DropReason::MalformedPacket)?;
    packet.role = F::icmp_role(header.icmp_type)?;
    if packet.role == Role::Error {
        return quoted(cursor, packet);
    }
    // RFC 4861, section 7.1: what has crossed a router isn't neighbour discovery.
    if packet.role == Role::Neighbour && (packet.hops != 255 || header.code != 0) {
        return Err(DropReason::ForbiddenIcmp6);
    }
    query(&header, packet.role, &mut packet.tuple);
    Ok(())
}

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
fn quoted<F: Parse, C: Cursor>(cursor: &mut C, packet: &mut Packet<F>) -> Result<(), DropReason> {
    let mut inner = Tuple::default();
    F::network(cursor, &mut inner)?;
    if inner.protocol == F::ICMP {
        let header: Icmp = cursor.take().ok_or(DropReason::MalformedPacket)?;
        let role = F::icmp_role(header.icmp_type)?;
        // No error about an error (RFC 1122, section 3.2.2).
        if role == Role::Error {
            return Err(DropReason::UnrelatedIcmpError);
        }
        query(&header, role, &mut inner);
    } else {
        ports(cursor, &mut inner)?;
    }
    packet.tuple = inner.reversed();
    // Who gets the report must have sent what it quotes.
    if packet.tuple.destination != packet.receiver {
        return Err(DropReason::UnrelatedIcmpError);
    }
    Ok(())
}
