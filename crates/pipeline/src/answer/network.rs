//! The network header of an answer, of either family.

use flowgate_abi::{Addr4, Addr6, Be16, Be32};
use zerocopy::{Immutable, IntoBytes};

use super::HOPS;
use crate::{
    Family, Packet, V4, V6,
    hook::FrameBytes,
    parse::Parse,
    sum::Sum,
    wire::{Ipv4, Ipv6, protocol},
};

/// What an answer's network header says beside the ends.
#[derive(Clone, Copy, Debug)]
pub struct Payload {
    /// What is inside.
    pub protocol: u8,
    /// How many bytes of it.
    pub length: u16,
}

/// How a family answers.
pub trait Answers: Parse {
    /// Its network header.
    type Header: IntoBytes + Immutable;

    /// Type and code of the error that says: administratively prohibited.
    const PROHIBITED: [u8; 2];
    /// The most bytes of a packet that an error quotes: no error is longer than 576 bytes (RFC 1812,
    /// section 4.3.2.3), or than the least MTU of IPv6 (RFC 4443, section 2.4).
    const QUOTE: u32;

    /// The header of an answer to a packet.
    fn header(packet: &Packet<Self>, payload: Payload) -> Self::Header;
    /// The sum of the pseudo header of such an answer. ICMP of IPv4 has none.
    fn pseudo(packet: &Packet<Self>, payload: Payload) -> Sum;
    /// How long the packet at an offset says that it is, from its network header on.
    fn length<B: FrameBytes>(bytes: &B, network: u32) -> Option<u32>;
}

/// Don't fragment.
const DONT_FRAGMENT: u16 = 0x4000;
/// Precedence of an ICMP error: internetwork control (RFC 1812, section 4.3.2.5).
const PRECEDENCE: u8 = 0xc0;

impl Answers for V4 {
    type Header = Ipv4;
    const PROHIBITED: [u8; 2] = [3, 13];
    const QUOTE: u32 = 576 - 20 - 8;

    #[inline(always)]
    fn header(packet: &Packet<Self>, payload: Payload) -> Ipv4 {
        let mut header = Ipv4 {
            version_length: 0x45,
            traffic_class: if payload.protocol == protocol::ICMP { PRECEDENCE } else { 0 },
            total_length: Be16::new(Self::HEADER + payload.length),
            identification: Be16::new(0),
            fragment: Be16::new(DONT_FRAGMENT),
            ttl: HOPS,
            protocol: payload.protocol,
            checksum: Be16::new(0),
            source: packet.receiver,
            destination: packet.sender,
        };
        header.checksum = Sum::of::<10>(zerocopy::transmute!(header)).checksum();
        header
    }

    #[inline(always)]
    fn pseudo(packet: &Packet<Self>, payload: Payload) -> Sum {
        if payload.protocol == protocol::ICMP {
            return Sum::default();
        }
        let ends: [Addr4; 2] = [packet.receiver, packet.sender];
        Sum::of::<4>(zerocopy::transmute!(ends)).and(about(payload))
    }

    #[inline(always)]
    fn length<B: FrameBytes>(bytes: &B, network: u32) -> Option<u32> {
        let length: Be16 = bytes.load(network + 2)?;
        Some(u32::from(length.get()))
    }
}

impl Answers for V6 {
    type Header = Ipv6;
    const PROHIBITED: [u8; 2] = [1, 1];
    const QUOTE: u32 = 1280 - 40 - 8;

    #[inline(always)]
    fn header(packet: &Packet<Self>, payload: Payload) -> Ipv6 {
        Ipv6 {
            version_class_label: Be32::new(6 << 28),
            payload_length: Be16::new(payload.length),
            next_header: payload.protocol,
            hop_limit: HOPS,
            source: packet.receiver,
            destination: packet.sender,
        }
    }

    #[inline(always)]
    fn pseudo(packet: &Packet<Self>, payload: Payload) -> Sum {
        let ends: [Addr6; 2] = [packet.receiver, packet.sender];
        Sum::of::<16>(zerocopy::transmute!(ends)).and(about(payload))
    }

    #[inline(always)]
    fn length<B: FrameBytes>(bytes: &B, network: u32) -> Option<u32> {
        let length: Be16 = bytes.load(network + 4)?;
        Some(u32::from(length.get()) + u32::from(Self::HEADER))
    }
}

/// Protocol and length, as both pseudo headers have them.
#[inline(always)]
fn about(payload: Payload) -> Sum {
    Sum::of([Be16::new(u16::from(payload.protocol)), Be16::new(payload.length)].map(Be16::raw))
}
