//! What answers a denied packet: written down from the RFCs, and sharing nothing with the pipeline.
//!
//! Not here: whether a packet is denied, and how many are answered. It reads frames that are sound; what
//! would be dropped before any policy is asked, it may answer or not.

use flowgate_policy::model::Response;

use crate::frames::tcp;

/// A frame, cut where its headers begin.
struct Cut<'f> {
    frame: &'f [u8],
    /// Behind Ethernet and its tags.
    network: usize,
    /// Behind the network header with all that belongs to it.
    transport: usize,
    protocol: u8,
    v4: bool,
}

/// The answer to a frame that was denied at its sender's link, or at its receiver's; `None`: there is none.
#[must_use]
pub fn answer(frame: &[u8], response: Response) -> Option<Vec<u8>> {
    let cut = Cut::new(frame)?;
    if response == Response::Silence
        || frame[0] & 1 == 1
        || cut.to_nobody()
        || cut.is_unanswerable()
    {
        return None;
    }
    let bare = cut.transport == cut.network + cut.header();
    if response == Response::Reset && cut.protocol == 6 && bare {
        return Some(cut.reset());
    }
    Some(cut.prohibited())
}

impl<'f> Cut<'f> {
    fn new(frame: &'f [u8]) -> Option<Self> {
        let mut network = 14;
        while matches!(frame.get(network - 2..network)?, [0x81, 0] | [0x88, 0xa8]) {
            network += 4;
        }
        match frame.get(network - 2..network)? {
            [0x08, 0x00] => Self::ipv4(frame, network),
            [0x86, 0xdd] => Self::ipv6(frame, network),
            _ => None,
        }
    }

    /// `None`: a later fragment (RFC 1122: "not the initial one").
    fn ipv4(frame: &'f [u8], network: usize) -> Option<Self> {
        let header = frame.get(network..network + 20)?;
        let transport = network + usize::from(header[0] & 15) * 4;
        let first = header[6] & 0x1f == 0 && header[7] == 0;
        first.then_some(Self { frame, network, transport, protocol: header[9], v4: true })
    }

    fn ipv6(frame: &'f [u8], network: usize) -> Option<Self> {
        let mut protocol = *frame.get(network + 6)?;
        let mut transport = network + 40;
        while matches!(protocol, 0 | 43 | 44 | 51 | 60 | 135 | 139 | 140) {
            let header = frame.get(transport..transport + 8)?;
            if protocol == 44 && (header[2] != 0 || header[3] & 0xf8 != 0) {
                return None;
            }
            transport += match protocol {
                44 => 8,
                51 => 4 * (usize::from(header[1]) + 2),
                _ => 8 * (usize::from(header[1]) + 1),
            };
            protocol = header[0];
        }
        Some(Self { frame, network, transport, protocol, v4: false })
    }

    const fn header(&self) -> usize {
        if self.v4 { 20 } else { 40 }
    }

    /// The ends as they lie in the header: from whom, to whom.
    fn ends(&self) -> (&[u8], &[u8]) {
        let (first, length) = if self.v4 { (12, 4) } else { (8, 16) };
        self.frame[self.network + first..][..2 * length].split_at(length)
    }

    /// The destination is a group's, or none that anybody could answer from.
    fn to_nobody(&self) -> bool {
        match self.ends().1 {
            v4 @ [_, _, _, _] => matches!(v4[0], 0 | 127 | 224..),
            v6 => {
                v6[0] == 0xff
                    || v6[..10] == [0; 10] && (v6[10..12] == [0xff; 2] || v6[10..15] == [0; 5])
            }
        }
    }

    /// A reset, or an ICMP error.
    fn is_unanswerable(&self) -> bool {
        let transport = &self.frame[self.transport..];
        match self.protocol {
            6 => transport[13] & tcp::RST != 0,
            1 => matches!(transport[0], 3 | 4 | 5 | 11 | 12),
            58 => transport[0] < 128,
            _ => false,
        }
    }

    /// What the packet says of its length, from the network header on, as far as that is true.
    fn packet(&self) -> &[u8] {
        let there = &self.frame[self.network..];
        let says = |at: usize| usize::from(u16::from_be_bytes([there[at], there[at + 1]]));
        let length = if self.v4 { says(2) } else { 40 + says(4) };
        let least = self.transport - self.network + 8;
        if (least..=there.len()).contains(&length) { &there[..length] } else { there }
    }

    /// Ethernet and tags turned around, and a network header over a payload.
    fn back(&self, protocol: u8, mut payload: Vec<u8>, checksum_at: usize) -> Vec<u8> {
        let (sender, receiver) = self.ends();
        let mut answer =
            [&self.frame[6..12], &self.frame[..6], &self.frame[12..self.network]].concat();
        let mut pseudo = [receiver, sender].concat();
        pseudo.extend((payload.len() as u32).to_be_bytes());
        pseudo.extend([0, 0, 0, protocol]);
        if protocol == 1 {
            pseudo.clear();
        }
        let sum = checksum(&[&pseudo[..], &payload].concat());
        payload[checksum_at..checksum_at + 2].copy_from_slice(&sum);
        if self.v4 {
            let class = if protocol == 1 { 0xc0 } else { 0 };
            let mut header = vec![0x45, class];
            header.extend((20 + payload.len() as u16).to_be_bytes());
            header.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
            header.extend([receiver, sender].concat());
            let sum = checksum(&header);
            header[10..12].copy_from_slice(&sum);
            answer.extend(header);
        } else {
            answer.extend([0x60, 0, 0, 0]);
            answer.extend((payload.len() as u16).to_be_bytes());
            answer.extend([protocol, 64]);
            answer.extend([receiver, sender].concat());
        }
        [answer, payload].concat()
    }

    /// RFC 9293, section 3.10.7.1: a segment for a connection that isn't there.
    fn reset(&self) -> Vec<u8> {
        let segment = &self.frame[self.transport..];
        let number = |at: usize| u32::from_be_bytes(segment[at..at + 4].try_into().expect("4"));
        let flags = segment[13];
        let said = &self.frame[self.network..];
        let says = |at: usize| u32::from(u16::from_be_bytes([said[at], said[at + 1]]));
        let behind = if self.v4 { says(2).saturating_sub(20) } else { says(4) };
        let data = behind.saturating_sub(u32::from(segment[12] >> 4) * 4);
        let counted = u32::from(flags & tcp::SYN != 0) + u32::from(flags & tcp::FIN != 0);
        let (sequence, acknowledgement, flags) = match flags & tcp::ACK {
            0 => (0, number(4).wrapping_add(data + counted), tcp::RST | tcp::ACK),
            _ => (number(8), 0, tcp::RST),
        };
        let mut reset = [&segment[2..4], &segment[..2]].concat();
        reset.extend(u32::to_be_bytes(sequence));
        reset.extend(u32::to_be_bytes(acknowledgement));
        reset.extend([0x50, flags, 0, 0, 0, 0, 0, 0]);
        self.back(6, reset, 16)
    }

    /// RFC 1812, section 5.2.7.1, and RFC 4443, section 3.1; as much of the packet as fits into 576 bytes,
    /// or into the least MTU.
    fn prohibited(&self) -> Vec<u8> {
        let (protocol, about, fits) =
            if self.v4 { (1, [3, 13], 576 - 28) } else { (58, [1, 1], 1280 - 48) };
        let packet = self.packet();
        let mut error = [&about[..], &[0; 6]].concat();
        error.extend(&packet[..packet.len().min(fits)]);
        self.back(protocol, error, 2)
    }
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    let mut sum: u32 = bytes.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}
