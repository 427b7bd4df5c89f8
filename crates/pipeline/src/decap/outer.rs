//! The headers in front: IP, and UDP for GUE.

use flowgate_abi::{Be16, lb::Target};

use crate::{
    V4, V6,
    hook::FrameBytes,
    lb::Balanceable,
    wire::{Ipv4, Ipv6, Ports},
};

/// Bytes of an Ethernet header.
pub(super) const ETHERNET: u32 = 14;
/// Bytes of a UDP header.
pub(super) const UDP: u32 = 8;

/// An outer IP header.
#[derive(Clone, Copy)]
pub struct Envelope {
    /// From whom, with the family alone.
    pub source: Target,
    /// To whom, with the family alone.
    pub destination: Target,
    /// What is inside.
    pub protocol: u8,
    /// The ECN field.
    pub ecn: u8,
    /// Bytes of the packet, this header included.
    pub length: u32,
    /// It is a fragment, and not the first one.
    pub is_later: bool,
    /// It has neither options nor fragments.
    pub bare: bool,
}

/// How a family's outer header is read.
pub trait Outer: Balanceable {
    /// Bytes of the header without options.
    const BYTES: u32;

    /// Reads it; `None`: there is none.
    fn envelope<B: FrameBytes>(frame: &B) -> Option<Envelope>;
}

/// An address with its family alone.
#[inline(always)]
pub(super) fn end<F: Balanceable>(address: F::Addr) -> Target {
    F::target(address, Be16::from_raw(0), Target::ANYTHING)
}

/// The UDP header behind a header without options.
#[inline(always)]
pub(super) fn udp<O: Outer, B: FrameBytes>(frame: &B) -> Option<Ports> {
    frame.load(ETHERNET + O::BYTES)
}

/// More fragments, and the offset.
const FRAGMENTED: u16 = 0x3fff;
const OFFSET: u16 = 0x1fff;

impl Outer for V4 {
    const BYTES: u32 = size_of::<Ipv4>() as u32;

    #[inline(always)]
    fn envelope<B: FrameBytes>(frame: &B) -> Option<Envelope> {
        let header: Ipv4 = frame.load(ETHERNET)?;
        let fragment = header.fragment.get();
        (header.version_length >> 4 == 4).then_some(Envelope {
            source: end::<Self>(header.source),
            destination: end::<Self>(header.destination),
            protocol: header.protocol,
            ecn: header.traffic_class & 3,
            length: u32::from(header.total_length.get()),
            is_later: fragment & OFFSET != 0,
            bare: header.version_length == 0x45 && fragment & FRAGMENTED == 0,
        })
    }
}

impl Outer for V6 {
    const BYTES: u32 = size_of::<Ipv6>() as u32;

    #[inline(always)]
    fn envelope<B: FrameBytes>(frame: &B) -> Option<Envelope> {
        let header: Ipv6 = frame.load(ETHERNET)?;
        let first = header.version_class_label.get();
        (first >> 28 == 6).then_some(Envelope {
            source: end::<Self>(header.source),
            destination: end::<Self>(header.destination),
            protocol: header.next_header,
            ecn: (first >> 20) as u8 & 3,
            length: u32::from(header.payload_length.get()) + Self::BYTES,
            is_later: false,
            bare: true,
        })
    }
}
