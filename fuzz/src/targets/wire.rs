//! What must hold of a frame that somebody sends.

use std::net::IpAddr;

use crate::ETHERNET;

const IPV4: [u8; 2] = [8, 0];
const IPV6: [u8; 2] = [0x86, 0xdd];

/// It has an IPv4 or IPv6 header of no more bytes than there are, and IPv4's checksum is right.
pub(crate) fn assert_sound(frame: &[u8]) {
    let packet = &frame[ETHERNET..];
    let number = |at: usize| usize::from(u16::from_be_bytes([packet[at], packet[at + 1]]));
    match ethertype(frame) {
        IPV4 => {
            let header = usize::from(packet[0] & 15) * 4;
            assert_eq!(packet[0] >> 4, 4);
            assert!((header..=packet.len()).contains(&number(2)), "total length {}", number(2));
            let sum = (0..header).step_by(2).map(number).sum::<usize>();
            assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff, "the header's checksum");
        }
        IPV6 => {
            assert_eq!(packet[0] >> 4, 6);
            assert!(number(4) + 40 <= packet.len(), "payload length {}", number(4));
        }
        other => panic!("a frame of type {other:02x?} is sent"),
    }
}

/// Where it goes.
pub(crate) fn destination(frame: &[u8]) -> IpAddr {
    let packet = &frame[ETHERNET..];
    match ethertype(frame) {
        IPV4 => <[u8; 4]>::try_from(&packet[16..20]).expect("four bytes").into(),
        _ => <[u8; 16]>::try_from(&packet[24..40]).expect("sixteen bytes").into(),
    }
}

fn ethertype(frame: &[u8]) -> [u8; 2] {
    [frame[12], frame[13]]
}
