//! An ICMP error that says: administratively prohibited.

use flowgate_abi::Be16;

use super::{Answers, Refused, Reshape, network::Payload, turn_around};
use crate::{
    Packet,
    sum::Sum,
    wire::{Icmp, Tcp, protocol},
};

/// Bytes of the error's own header.
const HEADER: u32 = size_of::<Icmp>() as u32;
/// Bytes of a transport's header that are quoted, whatever the packet says of its length.
const LEAST: u32 = 8;

/// Makes the frame of a packet the error that quotes it: as much of it as fits.
#[inline(always)]
pub(super) fn icmp<F: Answers, B: Reshape>(bytes: &mut B, refused: &Refused<'_, F>) -> Option<()> {
    let network = u32::from(refused.packet.network);
    let quoted = quotes(bytes, refused)?;
    let room = u32::from(F::HEADER) + HEADER;
    let shaped = bytes.set_length(network + quoted) && bytes.push(room);
    shaped.then_some(())?;
    let sum = sum_of_quote(bytes, refused.packet, room, quoted)?;
    turn_around(bytes, room)?;
    move_tags(bytes, network, room)?;
    let payload = Payload { protocol: F::ICMP, length: (HEADER + quoted) as u16 };
    let mut error = Icmp {
        icmp_type: F::PROHIBITED[0],
        code: F::PROHIBITED[1],
        checksum: Be16::new(0),
        identifier: Be16::new(0),
        sequence: Be16::new(0),
    };
    let whole = F::pseudo(refused.packet, payload).and(Sum::of::<4>(zerocopy::transmute!(error)));
    error.checksum = whole.plus(sum).checksum();
    let written = bytes.store(network, F::header(refused.packet, payload))
        && bytes.store(network + u32::from(F::HEADER), error);
    written.then_some(())
}

/// How many bytes are quoted: what the packet says that it has, without what pads the frame.
#[inline(always)]
fn quotes<F: Answers, B: Reshape>(bytes: &B, refused: &Refused<'_, F>) -> Option<u32> {
    let network = u32::from(refused.packet.network);
    let there = refused.frame.length.checked_sub(network)?;
    let least = u32::from(refused.packet.transport).checked_sub(network)? + LEAST;
    let says = F::length(bytes, network)?;
    let packet = if says < least || says > there { there } else { says };
    Some(if packet < F::QUOTE { packet } else { F::QUOTE })
}

/// The sum of the quoted packet. Where its transport's checksum isn't finished, all that it covers will
/// come to the opposite of what the field holds.
#[inline(always)]
fn sum_of_quote<F: Answers, B: Reshape>(
    bytes: &mut B,
    packet: &Packet<F>,
    room: u32,
    quoted: u32,
) -> Option<u16> {
    let (network, transport) = (u32::from(packet.network), u32::from(packet.transport));
    let (mut finished, mut rest) = (quoted, 0);
    // Where the network header will be written.
    if has_checksum(packet.tuple.protocol) && bytes.is_unfinished(network) {
        finished = transport - network;
        rest = !bytes.load::<u16>(room + transport + checksum_at(packet.tuple.protocol))?;
    }
    let sum = bytes.sum(room + network, finished)?;
    Some(Sum::default().plus(sum).plus(rest).folded())
}

/// The links of senders finish the checksums of these.
#[inline(always)]
fn has_checksum(protocol: u8) -> bool {
    matches!(protocol, protocol::TCP | protocol::UDP)
}

#[inline(always)]
fn checksum_at(protocol: u8) -> u32 {
    if protocol == protocol::TCP { core::mem::offset_of!(Tcp, checksum) as u32 } else { 6 }
}

/// What lies between the Ethernet addresses and the network header, behind the room in front.
#[inline(always)]
fn move_tags<B: Reshape>(bytes: &mut B, network: u32, room: u32) -> Option<()> {
    for word in 0..5 {
        let at = 12 + 2 * word;
        if at < network {
            let kept: Be16 = bytes.load(room + at)?;
            bytes.store(at, kept).then_some(())?;
        }
    }
    Some(())
}
