//! A TCP reset: what a host without the connection sends (RFC 9293, section 3.10.7.1).

use flowgate_abi::{Be16, Be32};

use super::{Answers, Reshape, network::Payload, turn_around};
use crate::{
    Packet,
    sum::Sum,
    wire::{Tcp, protocol, tcp},
};

/// Bytes of a header without options, and where in it the checksum lies.
const LENGTH: u16 = size_of::<Tcp>() as u16;
const CHECKSUM: u32 = core::mem::offset_of!(Tcp, checksum) as u32;

/// Makes the frame of a segment the reset that answers it. Its TCP header lies right behind the network
/// header, and stays where it is.
#[inline(always)]
pub(super) fn reset<F: Answers, B: Reshape>(bytes: &mut B, packet: &Packet<F>) -> Option<()> {
    let network = u32::from(packet.network);
    let at = network + u32::from(F::HEADER);
    let segment: Tcp = bytes.load(at)?;
    let header = u32::from(segment.data_offset >> 4) * 4;
    let data = F::length(bytes, network)?.saturating_sub(u32::from(F::HEADER) + header);
    let reset = answers(&segment, data);
    let payload = Payload { protocol: protocol::TCP, length: LENGTH };
    let shaped = bytes.set_length(at + u32::from(LENGTH));
    shaped.then_some(())?;
    turn_around(bytes, 0)?;
    let written = bytes.store(network, F::header(packet, payload)) && bytes.store(at, reset);
    written.then_some(())?;
    let pseudo = F::pseudo(packet, payload);
    let checksum = if bytes.is_unfinished(at + CHECKSUM) {
        Be16::from_raw(pseudo.folded())
    } else {
        pseudo.and(Sum::of::<10>(zerocopy::transmute!(reset))).checksum()
    };
    bytes.store(at + CHECKSUM, checksum).then_some(())
}

/// The header that answers a segment with so many bytes of data; its checksum is zero.
#[inline(always)]
fn answers(segment: &Tcp, data: u32) -> Tcp {
    let acknowledges = segment.flags & tcp::ACK != 0;
    let opens = u32::from(segment.flags & tcp::SYN != 0);
    let ends = u32::from(segment.flags & tcp::FIN != 0);
    let next = segment.sequence.get().wrapping_add(data + opens + ends);
    Tcp {
        source: segment.destination,
        destination: segment.source,
        sequence: if acknowledges { segment.acknowledgement } else { Be32::new(0) },
        acknowledgement: Be32::new(if acknowledges { 0 } else { next }),
        data_offset: (LENGTH as u8 / 4) << 4,
        flags: if acknowledges { tcp::RST } else { tcp::RST | tcp::ACK },
        window: Be16::new(0),
        checksum: Be16::new(0),
        urgent: Be16::new(0),
    }
}
