//! What must leave for a backend, or go back to a client: byte for byte, from the RFCs, with every
//! checksum summed over the whole.

use std::net::IpAddr;

use flowgate_services::{
    Uplink,
    model::{Backend, Forwarding, NextHop},
};

/// The frame in which a packet goes to a backend. What depends on the flow's hash (the end of the outer
/// source address, the tunnel's source port) is taken from `sent`.
pub(crate) fn to_backend(
    frame: &[u8],
    (backend, forwarding, uplink): (&Backend, Forwarding, &Uplink),
    sent: &[u8],
) -> Vec<u8> {
    let inner = one_hop_less(&frame[14..]);
    let next_hop = match backend.next_hop {
        NextHop::Mac(mac) => Some(mac),
        _ => uplink.gateway,
    };
    if forwarding == Forwarding::Layer2 {
        let mac = next_hop.expect("in the same segment");
        return [&mac, &frame[..6], &frame[12..14], &inner].concat();
    }
    let mut bytes = match next_hop {
        Some(mac) => [&mac, &frame[..6]].concat(),
        None => [&frame[6..12], &frame[..6]].concat(),
    };
    let class = if inner[0] >> 4 == 4 { inner[1] } else { inner[0] << 4 | inner[1] >> 4 };
    let length = if inner[0] >> 4 == 4 {
        u16::from_be_bytes([inner[2], inner[3]])
    } else {
        u16::from_be_bytes([inner[4], inner[5]]) + 40
    };
    let (protocol, udp) = match forwarding {
        Forwarding::Gue { port } => (17, Some(port)),
        _ => (if inner[0] >> 4 == 4 { 4 } else { 41 }, None),
    };
    let udp = udp.map(|port| udp_header(port, length, backend.address, sent));
    let udp = udp.unwrap_or_default();
    let length = length + udp.len() as u16;
    match backend.address {
        IpAddr::V4(to) => {
            let [a, b, ..] = uplink.source4.network().octets();
            let source = [&[a, b], &sent[28..30]].concat();
            bytes.extend([8, 0]);
            bytes.extend(ipv4((class, protocol, length + 20), &source, &to.octets()));
        }
        IpAddr::V6(to) => {
            let source = [&uplink.source6.network().octets()[..12], &sent[34..38]].concat();
            bytes.extend([0x86, 0xdd, 0x60 | class >> 4, class << 4, 0, 0]);
            bytes.extend(length.to_be_bytes());
            bytes.extend([protocol, 64]);
            bytes.extend([source, to.octets().to_vec()].concat());
        }
    }
    [bytes, udp, inner].concat()
}

/// No checksum: the inner packet has its own (RFC 6935).
fn udp_header(port: u16, inner: u16, to: IpAddr, sent: &[u8]) -> Vec<u8> {
    let at = if to.is_ipv4() { 34 } else { 54 };
    let source: [u8; 2] = sent[at..at + 2].try_into().expect("a port");
    assert!(source[0] >= 0xc0, "a dynamic port (RFC 6335): {source:?}");
    [source, port.to_be_bytes(), (inner + 8).to_be_bytes(), [0, 0]].concat()
}

/// Don't fragment, identification 0, 64 hops.
fn ipv4((class, protocol, length): (u8, u8, u16), source: &[u8], destination: &[u8]) -> Vec<u8> {
    let [high, low] = length.to_be_bytes();
    let mut bytes = vec![0x45, class, high, low, 0, 0, 0x40, 0, 64, protocol, 0, 0];
    bytes.extend(source);
    bytes.extend(destination);
    let sum = checksum(&bytes);
    bytes[10..12].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// The packet with one hop less. The checksum of IPv4 is right afterwards if it was before (RFC 1624).
fn one_hop_less(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    if packet[0] >> 4 == 6 {
        packet[7] -= 1;
        return packet;
    }
    packet[8] -= 1;
    let wrong = u32::from(!u16::from_be_bytes([packet[10], packet[11]]));
    // In one's complement: less 0x0100.
    let sum = wrong + 0xfeff;
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// The internet checksum (RFC 1071).
pub(crate) fn checksum(bytes: &[u8]) -> u16 {
    let word = |pair: &[u8]| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
    let mut sum: u32 = bytes.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// The reply to an echo request without options: its ends change places, 64 hops.
pub(crate) fn echo_reply(frame: &[u8]) -> Vec<u8> {
    let mut bytes = [&frame[6..12], &frame[..6], &frame[12..]].concat();
    let v4 = bytes[14] >> 4 == 4;
    let (hops, from, length, icmp) = if v4 { (22, 26, 4, 34) } else { (21, 22, 16, 54) };
    bytes[from..from + 2 * length].rotate_left(length);
    let change = (u16::from(bytes[hops]), 64);
    bytes[hops] = 64;
    if v4 {
        replace(&mut bytes[24..26], (change.0 << 8, change.1 << 8));
    }
    let reply = if v4 { 0 } else { 129 };
    let change = (u16::from(bytes[icmp]) << 8, reply << 8);
    bytes[icmp] = reply as u8;
    replace(&mut bytes[icmp + 2..icmp + 4], change);
    bytes
}

/// A checksum after a word has changed (RFC 1624, equation 3).
fn replace(checksum: &mut [u8], (old, new): (u16, u16)) {
    let before = u16::from_be_bytes([checksum[0], checksum[1]]);
    let sum = u32::from(!before) + u32::from(!old) + u32::from(new);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    checksum.copy_from_slice(&sum.to_be_bytes());
}

/// What tells the sender of a packet how large its packets may be: fragmentation needed (RFC 1191), or
/// packet too big (RFC 4443, section 3.2).
pub(crate) fn too_big(frame: &[u8], room: usize) -> Vec<u8> {
    let ip = &frame[14..];
    let bytes = [&frame[6..12], &frame[..6], &frame[12..14]].concat();
    let [high, low] = (room as u16).to_be_bytes();
    if ip[0] >> 4 == 4 {
        let mut icmp = vec![3, 4, 0, 0, 0, 0, high, low];
        icmp.extend(&ip[..72]);
        let sum = checksum(&icmp);
        icmp[2..4].copy_from_slice(&sum.to_be_bytes());
        let header = ipv4((0, 1, 100), &ip[16..20], &ip[12..16]);
        return [bytes, header, icmp].concat();
    }
    let mut icmp = vec![2, 0, 0, 0, 0, 0, high, low];
    icmp.extend(&ip[..128]);
    let ends = [&ip[24..40], &ip[8..24]].concat();
    let sum = checksum(&[&ends[..], &[0, 0, 0, 136, 0, 0, 0, 58], &icmp].concat());
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    [&bytes[..], &[0x60, 0, 0, 0, 0, 136, 58, 64], &ends, &icmp].concat()
}
