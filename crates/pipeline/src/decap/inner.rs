//! The client's packet inside: what of it is checked, and the congestion mark that it gets.

use flowgate_abi::{Be16, lb::Target};

use super::outer::{Outer, end};
use crate::{
    Family, V4, V6,
    hook::{FrameBytes, Rewrite},
    parse::Layer3,
    sum::updated,
    wire::{Ipv4, Ipv6},
};

/// What a packet's header says, as far as it matters here.
#[derive(Clone, Copy)]
pub struct Packet {
    /// To whom, with the family alone.
    pub destination: Target,
    /// Nobody can have sent it from there.
    pub is_martian: bool,
    /// Bytes of the packet, its header included.
    pub length: u32,
    /// Hops left.
    pub hops: u8,
    /// The ECN field.
    pub ecn: u8,
}

/// How a family's inner header is read.
pub trait Inner: Outer {
    /// What its EtherType says.
    const LAYER3: Layer3;

    /// Reads the header at an offset of the frame; `None`: there is none.
    fn packet<B: FrameBytes>(frame: &B, at: u32) -> Option<Packet>;
    /// Writes the ECN field.
    fn set_ecn<B: Rewrite>(frame: &mut B, at: u32, ecn: u8) -> Option<()>;
}

impl Inner for V4 {
    const LAYER3: Layer3 = Layer3::Ipv4;

    #[inline(always)]
    fn packet<B: FrameBytes>(frame: &B, at: u32) -> Option<Packet> {
        let header: Ipv4 = frame.load(at)?;
        let words = u32::from(header.version_length & 15);
        let length = u32::from(header.total_length.get());
        let is_one = header.version_length >> 4 == 4 && words >= 5 && length >= words * 4;
        is_one.then_some(Packet {
            destination: end::<Self>(header.destination),
            is_martian: Self::is_martian_source(header.source),
            length,
            hops: header.ttl,
            ecn: header.traffic_class & 3,
        })
    }

    #[inline(always)]
    fn set_ecn<B: Rewrite>(frame: &mut B, at: u32, ecn: u8) -> Option<()> {
        let old: [u8; 2] = frame.load(at)?;
        let new = [old[0], old[1] & !3 | ecn];
        let checksum: Be16 = frame.load(at + 10)?;
        let checksum = updated(checksum, u16::from_ne_bytes(old), u16::from_ne_bytes(new));
        (frame.store(at, new) && frame.store(at + 10, checksum)).then_some(())
    }
}

impl Inner for V6 {
    const LAYER3: Layer3 = Layer3::Ipv6;

    #[inline(always)]
    fn packet<B: FrameBytes>(frame: &B, at: u32) -> Option<Packet> {
        let header: Ipv6 = frame.load(at)?;
        let first = header.version_class_label.get();
        (first >> 28 == 6).then_some(Packet {
            destination: end::<Self>(header.destination),
            is_martian: Self::is_martian_source(header.source)
                || Self::is_link_scoped(header.source),
            length: u32::from(header.payload_length.get()) + Self::BYTES,
            hops: header.hop_limit,
            ecn: (first >> 20) as u8 & 3,
        })
    }

    #[inline(always)]
    fn set_ecn<B: Rewrite>(frame: &mut B, at: u32, ecn: u8) -> Option<()> {
        let byte: u8 = frame.load(at + 1)?;
        frame.store(at + 1, byte & !0x30 | ecn << 4).then_some(())
    }
}
