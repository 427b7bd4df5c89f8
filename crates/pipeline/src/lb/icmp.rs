//! ICMP to a service: echo requests are answered, packets that are too big as well.
//!
//! Not here: errors about flows, which go to the flow's backend like its packets ([`super::hook`]).
//!
//! An answer comes from the service's address. It quotes 72 bytes of IPv4 (whatever options it has, and
//! 8 bytes of the transport's header) or 128 of IPv6, not as much as would fit: each is paid for in the
//! checksum.

use flowgate_abi::{Be16, DropReason};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Balance, Balanceable, Buffer, Request, forward::turned};
use crate::{
    Family, V4, V6,
    budget::{self, Limit},
    sum::{folded, updated},
    wire::{Icmp, Ipv4, Ipv6},
};

/// Answers an echo request in its own frame.
///
/// # Errors
/// The reason for which it can't be.
#[inline(always)]
pub fn echo<F: Answer, B: Buffer>(buffer: &mut B, request: &Request<F>) -> Result<(), DropReason> {
    answerable(request)?;
    turn(buffer).ok_or(DropReason::MalformedPacket)?;
    F::echo(buffer).ok_or(DropReason::MalformedPacket)
}

/// Nobody is answered who can't have asked.
#[inline(always)]
fn answerable<F: Answer>(request: &Request<F>) -> Result<(), DropReason> {
    if F::is_martian_source(request.tuple.source) {
        return Err(DropReason::Martian);
    }
    Ok(())
}

/// Tells the sender of a packet how large its packets may be.
///
/// # Errors
/// [`DropReason::RateLimited`], or the reason for which it can't be told.
#[inline(always)]
pub fn too_big<F: Answer, B: Buffer, T: Balance>(
    buffer: &mut B,
    request: &Request<F>,
    tables: &T,
    room: u32,
) -> Result<(), DropReason> {
    let link_mtu = tables.head().map_or(0, |head| head.link_mtu.load());
    if link_mtu != 0 && request.length > link_mtu {
        return Err(DropReason::SuperPacket);
    }
    answerable(request)?;
    take_token(tables)?;
    let ethernet = turned_frame(buffer).ok_or(DropReason::MalformedPacket)?;
    if !buffer.truncate(ETHERNET + F::QUOTED) {
        return Err(DropReason::MalformedPacket);
    }
    // The last two bytes are the next header's, which comes.
    if !buffer.grow(F::HEADERS) || !buffer.store(0, ethernet) {
        return Err(DropReason::NoHeadroom);
    }
    F::write_too_big(buffer, request, room).ok_or(DropReason::MalformedPacket)
}

const ETHERNET: u32 = 14;

/// Takes one of this CPU's errors, of which there are so many a second (RFC 4443, section 2.4).
#[inline(always)]
fn take_token<T: Balance>(tables: &T) -> Result<(), DropReason> {
    let settings = tables.settings();
    let limit = Limit { each: settings.errors_per_second, hz: settings.hz };
    let mut budget = tables.error_budget().ok_or(DropReason::RateLimited)?;
    if !budget::take(&mut budget, limit, tables.jiffies()) {
        return Err(DropReason::RateLimited);
    }
    tables.set_error_budget(budget);
    Ok(())
}

/// Exchanges a frame's Ethernet addresses.
#[inline(always)]
pub(crate) fn turn<B: Buffer>(buffer: &mut B) -> Option<()> {
    let turned = turned_frame(buffer)?;
    buffer.store(0, turned).then_some(())
}

/// The first 16 bytes of a frame with its Ethernet addresses exchanged.
#[inline(always)]
fn turned_frame<B: Buffer>(buffer: &B) -> Option<[u64; 2]> {
    let came: [u64; 2] = buffer.load(0)?;
    let came = came.map(u64::from_le);
    let [first, end] = turned(came);
    let second = end | came[1] & !0xffff_ffff;
    Some([first.to_le(), second.to_le()])
}

/// How a family answers.
pub trait Answer: Balanceable {
    /// Bytes of the packet that an error quotes.
    const QUOTED: u32;
    /// Bytes of headers in front of what is quoted.
    const HEADERS: u32;

    /// Turns an echo request without options or extension headers into its reply.
    fn echo<B: Buffer>(buffer: &mut B) -> Option<()>;
    /// Writes IP and ICMP header of an error in front of what is quoted.
    fn write_too_big<B: Buffer>(buffer: &mut B, request: &Request<Self>, room: u32) -> Option<()>;
}

/// Adds both halves of a word, as they lie in memory, to a sum for a checksum. Carries gather in the upper half:
/// adding them at once would be a branch for each word, which no CPU foresees.
#[inline(always)]
const fn sum64(sum: u64, word: u64) -> u64 {
    sum + (word & 0xffff_ffff) + (word >> 32)
}

/// The checksum of such a sum.
#[inline(always)]
fn checksum(sum: u64) -> Be16 {
    let halves = (sum & 0xffff_ffff) + (sum >> 32);
    let quarters = (halves & 0xffff) + (halves >> 16 & 0xffff) + (halves >> 32);
    Be16::from_raw(!folded(quarters as u32))
}

/// The sum of some words.
#[inline(always)]
fn sum_of<const N: usize>(words: [u64; N]) -> u64 {
    words.into_iter().fold(0, sum64)
}

/// The first four bytes of an ICMP message.
#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct Start {
    icmp_type: u8,
    code: u8,
    checksum: Be16,
}

/// Turns an echo request into a reply of another type.
#[inline(always)]
fn reply<B: Buffer>(buffer: &mut B, offset: u32, icmp_type: u8) -> Option<()> {
    let start: Start = buffer.load(offset)?;
    let word = |icmp_type| Be16::new(u16::from(icmp_type) << 8 | u16::from(start.code)).raw();
    let checksum = updated(start.checksum, word(start.icmp_type), word(icmp_type));
    buffer.store(offset, Start { icmp_type, checksum, ..start }).then_some(())
}

/// Hops that an answer gets.
const HOPS: u8 = 64;

impl Answer for V4 {
    const QUOTED: u32 = 72;
    const HEADERS: u32 = 28;

    #[inline(always)]
    fn echo<B: Buffer>(buffer: &mut B) -> Option<()> {
        let [source, destination]: [u32; 2] = buffer.load(ETHERNET + 12)?;
        // The sum stays what it is when both addresses change places.
        buffer.store(ETHERNET + 12, [destination, source]).then_some(())?;
        let [hops, protocol]: [u8; 2] = buffer.load(ETHERNET + 8)?;
        let sum: Be16 = buffer.load(ETHERNET + 10)?;
        let word = |hops| Be16::new(u16::from(hops) << 8 | u16::from(protocol)).raw();
        let sum = updated(sum, word(hops), word(HOPS));
        buffer.store(ETHERNET + 8, [HOPS, protocol]).then_some(())?;
        buffer.store(ETHERNET + 10, sum).then_some(())?;
        reply(buffer, ETHERNET + 20, Self::ECHO[1])
    }

    /// Destination unreachable, fragmentation needed (RFC 792, RFC 1191).
    #[inline(always)]
    fn write_too_big<B: Buffer>(buffer: &mut B, request: &Request<Self>, room: u32) -> Option<()> {
        let ip = Ipv4 {
            version_length: 0x45,
            traffic_class: 0,
            total_length: Be16::new((Self::HEADERS + Self::QUOTED) as u16),
            identification: Be16::new(0),
            fragment: Be16::new(0x4000),
            ttl: HOPS,
            protocol: Self::ICMP,
            checksum: Be16::new(0),
            source: request.receiver,
            destination: request.tuple.source,
        };
        let words: [u32; 5] = zerocopy::transmute!(ip);
        let sum = words.iter().fold(0, |sum, word| sum64(sum, u64::from(*word)));
        buffer.store(ETHERNET, Ipv4 { checksum: checksum(sum), ..ip }).then_some(())?;
        let icmp = Icmp {
            icmp_type: 3,
            code: 4,
            checksum: Be16::new(0),
            identifier: Be16::new(0),
            sequence: Be16::new(room as u16),
        };
        let quoted: [u64; Self::QUOTED as usize / 8] = buffer.load(ETHERNET + Self::HEADERS)?;
        let sum = checksum(sum64(sum_of(quoted), zerocopy::transmute!(icmp)));
        buffer.store(ETHERNET + 20, Icmp { checksum: sum, ..icmp }).then_some(())
    }
}

impl Answer for V6 {
    const QUOTED: u32 = 128;
    const HEADERS: u32 = 48;

    #[inline(always)]
    fn echo<B: Buffer>(buffer: &mut B) -> Option<()> {
        let [a, b, c, d]: [u64; 4] = buffer.load(ETHERNET + 8)?;
        buffer.store(ETHERNET + 8, [c, d, a, b]).then_some(())?;
        buffer.store(ETHERNET + 7, HOPS).then_some(())?;
        reply(buffer, ETHERNET + 40, Self::ECHO[1])
    }

    /// Packet too big (RFC 4443, section 3.2).
    #[inline(always)]
    fn write_too_big<B: Buffer>(buffer: &mut B, request: &Request<Self>, room: u32) -> Option<()> {
        let length = Self::QUOTED + 8;
        let ip = Ipv6 {
            version_class_label: flowgate_abi::Be32::new(6 << 28),
            payload_length: Be16::new(length as u16),
            next_header: Self::ICMP,
            hop_limit: HOPS,
            source: request.receiver,
            destination: request.tuple.source,
        };
        buffer.store(ETHERNET, ip).then_some(())?;
        let icmp = Icmp {
            icmp_type: 2,
            code: 0,
            checksum: Be16::new(0),
            identifier: Be16::new(0),
            sequence: Be16::new(room as u16),
        };
        // The pseudo header: both addresses, the length, the protocol.
        let pseudo = u64::from((length + u32::from(Self::ICMP)).to_be());
        let ends = [ip.source.first, ip.source.last, ip.destination.first, ip.destination.last];
        let quoted: [u64; Self::QUOTED as usize / 8] = buffer.load(ETHERNET + Self::HEADERS)?;
        let headers = sum64(pseudo, zerocopy::transmute!(icmp)) + sum_of(ends);
        let sum = checksum(headers + sum_of(quoted));
        buffer.store(ETHERNET + 40, Icmp { checksum: sum, ..icmp }).then_some(())
    }
}
