//! How a packet goes on to its backend: outer headers in front of it, or another Ethernet address.
//!
//! A backend's line has the outer header finished but for what differs from packet to packet; here that
//! is put in: length, traffic class, entropy, checksum. The traffic class is the inner packet's, so that
//! congestion marks survive (RFC 6040, normal mode); the inner packet has one hop less (RFC 2003,
//! section 3.1; RFC 2473, section 3.1). The outer IPv4 header forbids fragmentation.

use flowgate_abi::{
    Be16, DropReason,
    lb::{Backend, Kind, Tail},
};

use super::{Balanceable, Buffer, Request};
use crate::sum::folded;

/// Bytes of Ethernet, IPv4, IPv6 and UDP headers.
const ETHERNET: u32 = 14;
const IPV4: u32 = 20;
const IPV6: u32 = 40;
const UDP: u32 = 8;

/// Sends a packet on: rewrites the frame, which is transmitted then.
///
/// # Errors
/// The reason for which it can't be.
#[inline(always)]
pub fn forward<F: Balanceable, B: Buffer>(
    buffer: &mut B,
    request: &Request<F>,
    (backend, tail): (&Backend, Tail),
    hash: u64,
) -> Result<(), DropReason> {
    F::one_hop_less(buffer).ok_or(DropReason::MalformedPacket)?;
    let [first, second] = ethernet(buffer, backend, tail)?;
    let mut outer = Outer { header: backend.header, tail, hash, written: false };
    (outer.header[0], outer.header[1]) = (first, second);
    let kind = tail.kind();
    if kind == Kind::Tunnel4 as u8 {
        outer.in_ipv4(buffer, request, 0);
    } else if kind == Kind::Tunnel6 as u8 {
        outer.in_ipv6(buffer, request, 0);
    } else if kind == Kind::Gue4 as u8 {
        outer.in_ipv4(buffer, request, UDP);
    } else if kind == Kind::Gue6 as u8 {
        outer.in_ipv6(buffer, request, UDP);
    } else if kind == Kind::Layer2 as u8 {
        outer.written = buffer.store(0, [first, second]);
    } else {
        return Err(DropReason::NoBackend);
    }
    if outer.written { Ok(()) } else { Err(DropReason::NoHeadroom) }
}

/// The first 16 bytes of the frame that leaves, without what belongs to the IP header in it; for
/// layer-2 forwarding with it. It comes from the address that the packet was sent to.
#[inline(always)]
fn ethernet<B: Buffer>(buffer: &B, backend: &Backend, tail: Tail) -> Result<[u64; 2], DropReason> {
    let came: [u64; 2] = buffer.load(0).ok_or(DropReason::MalformedPacket)?;
    let came = came.map(u64::from_le);
    let [mut first, end] = turned(came);
    if !tail.has(Tail::TO_SENDER) {
        first = first & !ADDRESS | u64::from_le(backend.header[0]);
    }
    let layer2 = tail.kind() == Kind::Layer2 as u8;
    let behind = if layer2 { came[1] } else { u64::from_le(backend.header[1]) };
    Ok([first.to_le(), (end | behind & !ADDRESS_END).to_le()])
}

/// The destination address, in the first word of a frame.
const ADDRESS: u64 = 0xffff_ffff_ffff;
/// The last four bytes of the source address, in the second word of a frame.
const ADDRESS_END: u64 = 0xffff_ffff;

/// Source and destination of a frame's first 16 bytes exchanged, seen as little-endian words; the last
/// four bytes are zero.
#[inline(always)]
pub(super) const fn turned([first, second]: [u64; 2]) -> [u64; 2] {
    let destination = first & ADDRESS;
    let source = first >> 48 | (second & ADDRESS_END) << 16;
    [source | destination << 48, destination >> 16]
}

/// The outer headers of one packet, in the making.
struct Outer {
    header: [u64; 7],
    tail: Tail,
    hash: u64,
    written: bool,
}

impl Outer {
    /// Puts IPv4 in front, and `udp` bytes of UDP.
    #[inline(always)]
    fn in_ipv4<F: Balanceable, B: Buffer>(
        &mut self,
        buffer: &mut B,
        request: &Request<F>,
        udp: u32,
    ) {
        let length = Be16::new((request.length + IPV4 + udp) as u16).raw();
        let class = Be16::new(u16::from(request.traffic_class)).raw();
        let entropy = Be16::new(self.entropy() as u16).raw();
        let sum = self.tail.sum() + u32::from(length) + u32::from(class) + u32::from(entropy);
        let words = &mut self.header;
        words[1] |= lane(u64::from(request.traffic_class), 7);
        words[2] |= lane16(length, 0);
        words[3] |= lane16(!folded(sum), 0) | lane16(entropy, 4);
        if !buffer.grow(IPV4 + udp) {
            return;
        }
        let start = [words[0], words[1], words[2], words[3]];
        let end = u64::from_le(words[4]) as u16;
        self.written = buffer.store_both(0, start, end.to_le())
            && (udp == 0 || buffer.store(ETHERNET + IPV4, self.udp(request.length)));
    }

    /// Puts IPv6 in front, and `udp` bytes of UDP.
    #[inline(always)]
    fn in_ipv6<F: Balanceable, B: Buffer>(
        &mut self,
        buffer: &mut B,
        request: &Request<F>,
        udp: u32,
    ) {
        let class = u64::from(request.traffic_class);
        let entropy = (self.entropy() as u32).to_be();
        let words = &mut self.header;
        words[1] |= lane(class >> 4, 6) | lane(class << 4 & 0xf0, 7);
        words[2] |= lane16(Be16::new((request.length + udp) as u16).raw(), 2);
        words[4] |= lane(u64::from(u32::from_le(entropy)), 2);
        if !buffer.grow(IPV6 + udp) {
            return;
        }
        let start = [words[0], words[1], words[2], words[3], words[4], words[5]];
        let end = u64::from_le(words[6]);
        let (end, last) = ((end as u32).to_le(), ((end >> 32) as u16).to_le());
        self.written = buffer.store(0, start)
            && buffer.store_both(48, end, last)
            && (udp == 0 || buffer.store(ETHERNET + IPV6, self.udp(request.length)));
    }

    /// The UDP header of a tunnel. The source port differs from flow to flow; there is no checksum, as
    /// tunnels may do also over IPv6 (RFC 6935, RFC 6936): the inner packet has its own.
    #[inline(always)]
    fn udp(&self, inner: u32) -> u64 {
        let source = Be16::new(0xc000 | (self.hash >> 32) as u16 & 0x3fff).raw();
        let length = Be16::new((inner + UDP) as u16).raw();
        lane16(source, 0) | lane16(self.tail.port(), 2) | lane16(length, 4)
    }

    /// Bits of the flow's hash for the end of the source address.
    #[inline(always)]
    fn entropy(&self) -> u64 {
        self.hash & (1u64 << self.tail.entropy()).wrapping_sub(1)
    }
}

/// A number at a byte of a word, little end first, as the word lies in memory.
#[inline(always)]
const fn lane(value: u64, byte: u32) -> u64 {
    (value << (8 * byte)).to_le()
}

/// 16 bits as they lie in memory, at a byte of a word.
#[inline(always)]
const fn lane16(raw: u16, byte: u32) -> u64 {
    lane(u16::from_le(raw) as u64, byte)
}
