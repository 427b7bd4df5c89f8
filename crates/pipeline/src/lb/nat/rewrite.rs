//! A packet with other ends: addresses, ports, one hop less, and what that means to its checksums.
//!
//! Checksums are brought up to date by what has changed (RFC 1624, equation 3), so one that was wrong stays
//! wrong. A UDP checksum of zero says that there is none, and stays; one that comes out as zero is sent as
//! all ones (RFC 768).

use flowgate_abi::{Addr6, Be16, Be32};

use super::super::{Balanceable, Buffer, forward::turned};
use crate::{
    V4, V6,
    family::Tuple,
    hook::Rewrite,
    sum::folded,
    wire::{Icmp, protocol},
};

const ETHERNET: u32 = 14;

/// What has changed of the words that a checksum covers.
#[derive(Clone, Copy, Default)]
pub struct Change(u64);

impl Change {
    /// A word was replaced.
    #[inline(always)]
    pub(crate) fn replaced(&mut self, old: u32, new: u32) {
        self.0 += u64::from(!old) + u64::from(new);
    }

    /// Two words were.
    #[inline(always)]
    fn replaced64(&mut self, old: u64, new: u64) {
        self.replaced(old as u32, new as u32);
        self.replaced((old >> 32) as u32, (new >> 32) as u32);
    }

    /// Both.
    #[inline(always)]
    pub(crate) fn and(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// The checksum afterwards.
    #[inline(always)]
    pub(crate) fn applied(self, checksum: Be16) -> Be16 {
        let halves = (self.0 & 0xffff_ffff) + (self.0 >> 32) + u64::from(!checksum.raw());
        let quarters = (halves & 0xffff) + (halves >> 16 & 0xffff) + (halves >> 32);
        Be16::from_raw(!folded(quarters as u32))
    }
}

/// A family whose packets can be given other ends.
pub trait Rewritable: Balanceable {
    /// An address as [`Family::wide`](crate::Family::wide) has it.
    fn narrow(wide: [u64; 2]) -> Self::Addr;
    /// Gives the network header at an offset other ends; returns what has changed.
    fn set_addresses<B: Rewrite>(
        buffer: &mut B,
        offset: u32,
        ends: (Self::Addr, Self::Addr),
    ) -> Option<Change>;
    /// What an ICMP message's checksum covers of changed addresses, those of the packet and of the one that is
    /// quoted.
    fn covered(addresses: Change, quoted: Change) -> Change;
}

impl Rewritable for V4 {
    #[inline(always)]
    fn narrow(wide: [u64; 2]) -> Self::Addr {
        Be32::from_raw(u64::from_le(wide[0]) as u32)
    }

    #[inline(always)]
    fn set_addresses<B: Rewrite>(
        buffer: &mut B,
        offset: u32,
        (source, destination): (Self::Addr, Self::Addr),
    ) -> Option<Change> {
        let old: [u32; 2] = buffer.load(offset + 12)?;
        let mut change = Change::default();
        change.replaced(old[0], source.raw());
        change.replaced(old[1], destination.raw());
        let sum: Be16 = buffer.load(offset + 10)?;
        buffer.store(offset + 10, change.applied(sum)).then_some(())?;
        buffer.store(offset + 12, [source.raw(), destination.raw()]).then_some(change)
    }

    /// The quoted header's own checksum makes up for its addresses.
    #[inline(always)]
    fn covered(_addresses: Change, _quoted: Change) -> Change {
        Change::default()
    }
}

impl Rewritable for V6 {
    #[inline(always)]
    fn narrow(wide: [u64; 2]) -> Self::Addr {
        Addr6 { first: wide[0], last: wide[1] }
    }

    #[inline(always)]
    fn set_addresses<B: Rewrite>(
        buffer: &mut B,
        offset: u32,
        (source, destination): (Self::Addr, Self::Addr),
    ) -> Option<Change> {
        let old: [u64; 4] = buffer.load(offset + 8)?;
        let mut change = Change::default();
        change.replaced64(old[0], source.first);
        change.replaced64(old[1], source.last);
        change.replaced64(old[2], destination.first);
        change.replaced64(old[3], destination.last);
        let new = [source.first, source.last, destination.first, destination.last];
        buffer.store(offset + 8, new).then_some(change)
    }

    /// There is a pseudo header (RFC 4443, section 2.3).
    #[inline(always)]
    fn covered(addresses: Change, quoted: Change) -> Change {
        addresses.and(quoted)
    }
}

/// Gives a packet without options or extension headers other ends, and sends it to an Ethernet address, the
/// low 48 bits as they lie at a frame's start; `None`: to who has delivered it.
#[inline(always)]
pub(super) fn send<F: Rewritable, B: Buffer>(
    buffer: &mut B,
    ends: &Tuple<F::Addr>,
    to: Option<u64>,
) -> Option<()> {
    F::one_hop_less(buffer)?;
    let change = F::set_addresses(buffer, ETHERNET, (ends.source, ends.destination))?;
    let transport = ETHERNET + u32::from(F::HEADER);
    set_ports(buffer, transport, ends, change)?;
    redirect(buffer, to)
}

/// Other ports, and the transport's checksum.
#[inline(always)]
fn set_ports<A, B: Rewrite>(
    buffer: &mut B,
    offset: u32,
    ends: &Tuple<A>,
    mut change: Change,
) -> Option<()> {
    let [source, destination]: [Be16; 2] = buffer.load(offset)?;
    change.replaced(source.raw().into(), ends.source_port.raw().into());
    change.replaced(destination.raw().into(), ends.destination_port.raw().into());
    buffer.store(offset, [ends.source_port.raw(), ends.destination_port.raw()]).then_some(())?;
    if ends.protocol == protocol::TCP {
        let sum: Be16 = buffer.load(offset + 16)?;
        return buffer.store(offset + 16, change.applied(sum)).then_some(());
    }
    let sum: Be16 = buffer.load(offset + 6)?;
    if sum.raw() == 0 {
        return Some(());
    }
    let sum = change.applied(sum);
    let sum = if sum.raw() == 0 { Be16::from_raw(0xffff) } else { sum };
    buffer.store(offset + 6, sum).then_some(())
}

/// Gives an ICMP error of so many bytes other ends, and the packet that it quotes the same ones, reversed: it
/// becomes one about a packet that goes the other way. Where it is sent is as for [`send`]. Neither header has
/// options or extension headers.
#[inline(always)]
pub(super) fn send_error<F: Rewritable, B: Buffer>(
    buffer: &mut B,
    ends: &Tuple<F::Addr>,
    (to, length): (Option<u64>, u32),
) -> Option<()> {
    let header = u32::from(F::HEADER);
    let message = ETHERNET + header;
    let quoted = message + size_of::<Icmp>() as u32;
    F::one_hop_less(buffer)?;
    let outer = F::set_addresses(buffer, ETHERNET, (ends.source, ends.destination))?;
    let inner = F::set_addresses(buffer, quoted, (ends.destination, ends.source))?;
    let left = (ETHERNET + length).saturating_sub(quoted + header);
    let change = set_quoted_ports(buffer, (quoted + header, left), &ends.reversed(), inner)?;
    let change = F::covered(outer, inner).and(change);
    let sum: Be16 = buffer.load(message + 2)?;
    buffer.store(message + 2, change.applied(sum)).then_some(())?;
    redirect(buffer, to)
}

/// Other ports, and the transport's checksum, if so much is quoted; returns what has changed of the quotation.
#[inline(always)]
fn set_quoted_ports<A, B: Rewrite>(
    buffer: &mut B,
    (offset, quoted): (u32, u32),
    ends: &Tuple<A>,
    addresses: Change,
) -> Option<Change> {
    let [source, destination]: [Be16; 2] = buffer.load(offset)?;
    let mut change = Change::default();
    change.replaced(source.raw().into(), ends.source_port.raw().into());
    change.replaced(destination.raw().into(), ends.destination_port.raw().into());
    buffer.store(offset, [ends.source_port.raw(), ends.destination_port.raw()]).then_some(())?;
    let is_tcp = ends.protocol == protocol::TCP;
    if quoted < if is_tcp { 18 } else { 8 } {
        return Some(change);
    }
    let sum: Be16 = if is_tcp { buffer.load(offset + 16)? } else { buffer.load(offset + 6)? };
    if !is_tcp && sum.raw() == 0 {
        return Some(change);
    }
    let mut new = addresses.and(change).applied(sum);
    if !is_tcp && new.raw() == 0 {
        new = Be16::from_raw(0xffff);
    }
    let is_stored =
        if is_tcp { buffer.store(offset + 16, new) } else { buffer.store(offset + 6, new) };
    change.replaced(sum.raw().into(), new.raw().into());
    is_stored.then_some(change)
}

/// Writes the Ethernet addresses: from whom the frame was sent to.
#[inline(always)]
fn redirect<B: Rewrite>(buffer: &mut B, to: Option<u64>) -> Option<()> {
    let came: [u64; 2] = buffer.load(0)?;
    let came = came.map(u64::from_le);
    let [mut first, end] = turned(came);
    if let Some(to) = to {
        first = first & !0xffff_ffff_ffff | u64::from_le(to) & 0xffff_ffff_ffff;
    }
    let second = end | came[1] & !0xffff_ffff;
    buffer.store(0, [first.to_le(), second.to_le()]).then_some(())
}
