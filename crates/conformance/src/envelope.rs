//! What lies around a packet: tags, extension headers, fragments; and frames that aren't IP.
//!
//! Each function takes a whole frame (Ethernet, then IPv4 or IPv6) and returns another.

use std::net::{Ipv4Addr, Ipv6Addr};

const ETHERNET: usize = 14;
const IPV6: usize = 40;

/// Puts tags between Ethernet and IP, the outermost first: 0x8100 (802.1Q) or 0x88a8 (802.1ad).
#[must_use]
pub fn tagged(frame: &[u8], ethertypes: &[u16]) -> Vec<u8> {
    let mut bytes = frame[..12].to_vec();
    for (number, ethertype) in ethertypes.iter().enumerate() {
        bytes.extend(ethertype.to_be_bytes());
        bytes.extend((100 + number as u16).to_be_bytes());
    }
    bytes.extend(&frame[12..]);
    bytes
}

/// An IPv6 extension header: its number, and its bytes from the length on (a multiple of 8, less 1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extension {
    /// The number by which the header in front names it.
    pub kind: u8,
    /// Everything behind its first byte, which names the next header.
    pub rest: Vec<u8>,
}

impl Extension {
    /// Options of `units` times 8 bytes, 1 at least, all padding.
    #[must_use]
    pub fn options(kind: u8, units: u8) -> Self {
        let mut rest = vec![units - 1];
        let padding = usize::from(units) * 8 - 4;
        rest.extend([1, padding as u8]);
        rest.resize(usize::from(units) * 8 - 1, 0);
        Self { kind, rest }
    }

    /// A routing header of a type, with segments left.
    #[must_use]
    pub fn routing(segments_left: u8) -> Self {
        Self { kind: 43, rest: vec![0, 4, segments_left, 0, 0, 0, 0] }
    }

    /// An authentication header, whose length counts in units of 4 bytes.
    #[must_use]
    pub fn authentication() -> Self {
        let mut rest = vec![4];
        rest.resize(23, 0x11);
        Self { kind: 51, rest }
    }

    /// A fragment header; offset in bytes.
    #[must_use]
    pub fn fragment(identification: u32, offset: u16, more: bool) -> Self {
        let place = offset | u16::from(more);
        let mut rest = vec![0];
        rest.extend(place.to_be_bytes());
        rest.extend(identification.to_be_bytes());
        Self { kind: 44, rest }
    }
}

/// Puts extension headers behind the IPv6 header.
#[must_use]
pub fn extended(frame: &[u8], extensions: &[Extension]) -> Vec<u8> {
    let (head, transport) = frame.split_at(ETHERNET + IPV6);
    let mut head = head.to_vec();
    let mut next = head[ETHERNET + 6];
    let mut body = transport.to_vec();
    for extension in extensions.iter().rev() {
        let mut bytes = vec![next];
        bytes.extend(&extension.rest);
        bytes.extend(body);
        (body, next) = (bytes, extension.kind);
    }
    head[ETHERNET + 6] = next;
    head[ETHERNET + 4..ETHERNET + 6].copy_from_slice(&(body.len() as u16).to_be_bytes());
    head.extend(body);
    head
}

/// Cuts a packet into fragments of so many bytes of payload, a multiple of 8.
#[must_use]
pub fn fragments(frame: &[u8], identification: u16, size: usize) -> Vec<Vec<u8>> {
    let v4 = frame[12] == 8;
    let header = if v4 { usize::from(frame[ETHERNET] & 15) * 4 } else { IPV6 };
    let (head, payload) = frame.split_at(ETHERNET + header);
    let last = payload.len().div_ceil(size);
    let piece = |(number, piece): (usize, &[u8])| {
        let (offset, more) = (number * size, number + 1 < last);
        let whole = [head, piece].concat();
        if v4 {
            piece4(whole, identification, (offset, more))
        } else {
            let extension = Extension::fragment(identification.into(), offset as u16, more);
            extended(&whole, &[extension])
        }
    };
    payload.chunks(size).enumerate().map(piece).collect()
}

/// Makes an IPv4 packet a fragment.
#[must_use]
pub fn piece4(mut frame: Vec<u8>, identification: u16, (offset, more): (usize, bool)) -> Vec<u8> {
    let total = (frame.len() - ETHERNET) as u16;
    let place = (offset / 8) as u16 | u16::from(more) << 13;
    let ip = &mut frame[ETHERNET..];
    ip[2..4].copy_from_slice(&total.to_be_bytes());
    ip[4..6].copy_from_slice(&identification.to_be_bytes());
    ip[6..8].copy_from_slice(&place.to_be_bytes());
    frame
}

/// An ARP request about `target` whose sender says that it has these addresses; in a frame from
/// `source`.
#[must_use]
pub fn arp(source: [u8; 6], sender: ([u8; 6], Ipv4Addr), target: Ipv4Addr) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(source);
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(sender.0);
    frame.extend(sender.1.octets());
    frame.extend([0; 6]);
    frame.extend(target.octets());
    frame
}

/// The target of a neighbour solicitation or advertisement (RFC 4861, section 4.3).
#[must_use]
pub fn with_target(mut frame: Vec<u8>, target: Ipv6Addr) -> Vec<u8> {
    frame.truncate(ETHERNET + IPV6 + 8);
    frame.extend(target.octets());
    let length = (frame.len() - ETHERNET - IPV6) as u16;
    frame[ETHERNET + 4..ETHERNET + 6].copy_from_slice(&length.to_be_bytes());
    frame
}
