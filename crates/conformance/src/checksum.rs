//! Checksums of transports, for frames that a real stack is meant to take.

const ETHERNET: usize = 14;

/// Fills in the checksum of TCP, UDP, ICMP or ICMPv6, behind tags and extension headers; what is none
/// of these stays as it is. Fragments must be cut afterwards.
#[must_use]
pub fn with_checksum(mut frame: Vec<u8>) -> Vec<u8> {
    let network = network(&frame);
    let v4 = frame[network] >> 4 == 4;
    let (protocol, transport) = if v4 {
        (frame[network + 9], network + usize::from(frame[network] & 15) * 4)
    } else {
        behind_extensions(&frame, network)
    };
    let Some(place) = place(protocol) else { return frame };
    let addresses = if v4 { network + 12..network + 20 } else { network + 8..network + 40 };
    let length = (frame.len() - transport) as u64;
    frame[transport + place..transport + place + 2].fill(0);
    let mut sum = sum_of(&frame[transport..]);
    // ICMP has no pseudo header.
    if protocol != 1 {
        sum += sum_of(&frame[addresses]) + length + u64::from(protocol);
    }
    // A datagram whose checksum is 0 would say that it has none.
    let checksum = match fold(sum) {
        0 if protocol == 17 => 0xffff,
        checksum => checksum,
    };
    frame[transport + place..transport + place + 2].copy_from_slice(&checksum.to_be_bytes());
    frame
}

/// Where the network header begins: behind tags.
fn network(frame: &[u8]) -> usize {
    let mut at = ETHERNET;
    while matches!(u16::from_be_bytes([frame[at - 2], frame[at - 1]]), 0x8100 | 0x88a8) {
        at += 4;
    }
    at
}

fn behind_extensions(frame: &[u8], network: usize) -> (u8, usize) {
    let (mut next, mut at) = (frame[network + 6], network + 40);
    while matches!(next, 0 | 43 | 44 | 51 | 60) {
        let more = usize::from(frame[at + 1]);
        let length = match next {
            44 => 8,
            51 => more * 4 + 8,
            _ => more * 8 + 8,
        };
        next = frame[at];
        at += length;
    }
    (next, at)
}

/// Where the checksum lies in the transport's header.
const fn place(protocol: u8) -> Option<usize> {
    match protocol {
        1 | 58 => Some(2),
        6 => Some(16),
        17 => Some(6),
        _ => None,
    }
}

pub(crate) fn sum_of(bytes: &[u8]) -> u64 {
    let word = |pair: &[u8]| u64::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
    bytes.chunks(2).map(word).sum()
}

pub(crate) fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::{self, Extension};

    #[test]
    fn the_sum_over_header_and_ends_is_zero() {
        let mut frame = vec![0; 12];
        frame.extend([8, 0, 0x45, 0, 0, 31, 0, 0, 0, 0, 64, 17, 0, 0]);
        frame.extend([198, 18, 0, 1, 198, 18, 0, 2]);
        frame.extend([0x13, 0x88, 0, 53, 0, 11, 0, 0, 0xaa, 0xbb, 0xcc]);
        let sum = |frame: &[u8]| sum_of(&frame[26..]) + 11 + 17;
        let whole = with_checksum(frame.clone());
        assert_eq!(fold(sum(&whole)), 0);
        assert_ne!(whole, frame);
        let tagged = with_checksum(envelope::tagged(&frame, &[0x88a8, 0x8100]));
        assert_eq!(tagged[22..], whole[14..]);
    }

    #[test]
    fn extension_headers_make_no_difference() {
        let mut frame = vec![0; 12];
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 9, 17, 64]);
        frame.extend([0x20; 32]);
        frame.extend([0x13, 0x88, 0, 53, 0, 9, 0, 0, 0xaa]);
        let whole = with_checksum(frame.clone());
        let extensions = [Extension::options(0, 1), Extension::authentication()];
        let extended = with_checksum(envelope::extended(&frame, &extensions));
        assert!(extended.ends_with(&whole[54..]));
    }
}
