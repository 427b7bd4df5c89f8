//! The network header of each family, with options, extension headers and fragments.

use flowgate_abi::DropReason;

use super::{Packet, Role};
use crate::{
    Cursor, Family, Skip, V4, V6,
    family::Tuple,
    wire::{Extension, Ipv4, Ipv6, protocol},
};

/// What is known of a packet once its network header is read.
#[derive(Clone, Copy, Debug)]
pub struct Network {
    /// Hops left.
    pub hops: u8,
    /// Bytes behind the headers that were read, as the first of them says.
    pub room: u32,
    /// Bytes of extension headers behind the fragment header: they count for a fragment's offset.
    pub before: u32,
    /// Where it lies in its datagram.
    pub fragment: Fragment,
}

/// Where a packet lies in its datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Names the datagram, with source, destination and `protocol`.
    pub identification: u32,
    /// The protocol that the fragment's own header names.
    pub protocol: u8,
    /// Offset in bytes, a multiple of 8; the last bit: more fragments follow. 0: the whole datagram.
    pub place: u32,
}

impl Fragment {
    /// No fragment.
    pub const WHOLE: Self = Self { identification: 0, protocol: 0, place: 0 };

    /// It is a fragment, and the first one.
    #[inline(always)]
    pub fn is_first(self) -> bool {
        self.place == 1
    }

    /// It is a fragment, and not the first one: it has no transport header.
    #[inline(always)]
    pub fn is_later(self) -> bool {
        self.place > 1
    }
}

/// How a family's header is read.
pub trait Parse: Family {
    /// Reads a network header without options, extension headers or fragment; `false`: it isn't one.
    fn plain<C: Cursor>(cursor: &mut C, packet: &mut Packet<Self>) -> bool;

    /// Reads a network header and leaves the cursor behind it and all that belongs to it.
    ///
    /// # Errors
    /// The reason for which the packet is dropped.
    fn network<C: Skip>(
        cursor: &mut C,
        tuple: &mut Tuple<Self::Addr>,
    ) -> Result<Network, DropReason>;

    /// What an ICMP type means.
    ///
    /// # Errors
    /// Such a message means nothing to a flow and may not pass by itself.
    fn icmp_role(icmp_type: u8) -> Result<Role, DropReason>;
}

/// More fragments, and the offset.
const FRAGMENTED: u16 = 0x3fff;

impl Parse for V4 {
    #[inline(always)]
    fn plain<C: Cursor>(cursor: &mut C, packet: &mut Packet<Self>) -> bool {
        let Some(header) = cursor.take::<Ipv4>() else { return false };
        ends4(&header, &mut packet.tuple);
        packet.hops = header.ttl;
        header.version_length == 0x45 && header.fragment.get() & FRAGMENTED == 0
    }

    #[inline(always)]
    fn network<C: Skip>(
        cursor: &mut C,
        tuple: &mut Tuple<Self::Addr>,
    ) -> Result<Network, DropReason> {
        let header: Ipv4 = cursor.take().ok_or(DropReason::MalformedPacket)?;
        let length = u32::from(header.version_length & 15) * 4;
        if header.version_length >> 4 != 4 || length < size_of::<Ipv4>() as u32 {
            return Err(DropReason::MalformedPacket);
        }
        cursor.skip(length - size_of::<Ipv4>() as u32).ok_or(DropReason::MalformedPacket)?;
        ends4(&header, tuple);
        let place = u32::from(header.fragment.get() & FRAGMENTED);
        Ok(Network {
            hops: header.ttl,
            room: u32::from(header.total_length.get()).saturating_sub(length),
            before: 0,
            fragment: Fragment {
                identification: u32::from(header.identification.raw()),
                protocol: header.protocol,
                place: (place & 0x1fff) << 3 | place >> 13,
            },
        })
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

#[inline(always)]
fn ends4(header: &Ipv4, tuple: &mut Tuple<<V4 as Family>::Addr>) {
    tuple.source = header.source;
    tuple.destination = header.destination;
    tuple.protocol = header.protocol;
}

/// Extension headers that one packet may have.
const EXTENSIONS: u32 = 8;

impl Parse for V6 {
    #[inline(always)]
    fn plain<C: Cursor>(cursor: &mut C, packet: &mut Packet<Self>) -> bool {
        let Some(header) = cursor.take::<Ipv6>() else { return false };
        ends6(&header, &mut packet.tuple);
        packet.hops = header.hop_limit;
        header.version_class_label.get() >> 28 == 6
    }

    #[inline(always)]
    fn network<C: Skip>(
        cursor: &mut C,
        tuple: &mut Tuple<Self::Addr>,
    ) -> Result<Network, DropReason> {
        let header: Ipv6 = cursor.take().ok_or(DropReason::MalformedPacket)?;
        if header.version_class_label.get() >> 28 != 6 {
            return Err(DropReason::MalformedPacket);
        }
        ends6(&header, tuple);
        let mut network = Network {
            hops: header.hop_limit,
            room: u32::from(header.payload_length.get()),
            before: 0,
            fragment: Fragment::WHOLE,
        };
        let mut may = Order { first: true, fragment: true };
        for _ in 0..EXTENSIONS {
            if !is_extension(tuple.protocol) || network.fragment.is_later() {
                return Ok(network);
            }
            extension(cursor, &mut tuple.protocol, &mut network, &mut may)?;
        }
        if is_extension(tuple.protocol) && !network.fragment.is_later() {
            return Err(DropReason::ExtensionHeader);
        }
        Ok(network)
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
            // Router advertisement and redirect (RFC 4861).
            134 | 137 => Ok(Role::Router),
            // Multicast listener query, reports, done (RFC 2710, RFC 3810).
            130..=132 | 143 => Ok(Role::Listener),
            _ => Err(DropReason::InvalidForFlow),
        }
    }
}

#[inline(always)]
fn ends6(header: &Ipv6, tuple: &mut Tuple<<V6 as Family>::Addr>) {
    tuple.source = header.source;
    tuple.destination = header.destination;
    tuple.protocol = header.next_header;
}

/// What may come only once, or only first.
struct Order {
    first: bool,
    fragment: bool,
}

#[inline(always)]
fn is_extension(next_header: u8) -> bool {
    matches!(
        next_header,
        protocol::HOP_BY_HOP
            | protocol::ROUTING
            | protocol::FRAGMENT
            | protocol::AUTHENTICATION
            | protocol::DESTINATION_OPTIONS
            | protocol::MOBILITY
            | protocol::HIP
            | protocol::SHIM6
    )
}

/// Reads one extension header; `next` names it, and then what follows it.
#[inline(always)]
fn extension<C: Skip>(
    cursor: &mut C,
    next: &mut u8,
    network: &mut Network,
    may: &mut Order,
) -> Result<(), DropReason> {
    let header: Extension = cursor.take().ok_or(DropReason::MalformedPacket)?;
    let kind = *next;
    let segments_left = header.middle.get() & 0xff;
    let misplaced = (kind == protocol::HOP_BY_HOP && !may.first)
        || (kind == protocol::FRAGMENT && !may.fragment);
    if misplaced || (kind == protocol::ROUTING && segments_left != 0) {
        return Err(DropReason::ExtensionHeader);
    }
    *next = header.next_header;
    may.first = false;
    let mut length = 8;
    if kind == protocol::FRAGMENT {
        may.fragment = false;
        network.fragment = Fragment {
            identification: header.identification.raw(),
            protocol: header.next_header,
            // The two bits between are reserved (RFC 8200, section 4.5).
            place: u32::from(header.middle.get() & 0xfff9),
        };
    } else {
        let more = u32::from(header.length);
        length = if kind == protocol::AUTHENTICATION { more * 4 + 8 } else { more * 8 + 8 };
    }
    cursor.skip(length - 8).ok_or(DropReason::MalformedPacket)?;
    network.room = network.room.saturating_sub(length);
    network.before = if kind == protocol::FRAGMENT { 0 } else { network.before + length };
    Ok(())
}

/// Bytes that a transport's header has at least: none of them may come by a later fragment.
#[inline(always)]
pub(super) fn least_header(protocol: u8) -> u32 {
    match protocol {
        protocol::TCP => 20,
        protocol::SCTP => 12,
        _ => 8,
    }
}
