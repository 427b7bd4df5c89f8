//! What must become of a frame, read from its bytes.

use std::net::IpAddr;

use flowgate_abi::DropReason;

use crate::rig::{GUE, balancers, services, tunnel_ends};

/// What must become of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    Pass,
    Drop(DropReason),
    Unwrapped(Vec<u8>),
}

/// Bytes of Ethernet, IPv4, IPv6 and UDP headers.
const ETHERNET: usize = 14;
const IPV4: usize = 20;
const IPV6: usize = 40;
const UDP: usize = 8;

pub(crate) fn judge(frame: &[u8]) -> Expected {
    let Some(outer) = Outer::read(frame) else { return Expected::Pass };
    let Some(tunnel) = outer.tunnel() else { return Expected::Pass };
    if !tunnel_ends().contains(&outer.destination) {
        return Expected::Pass;
    }
    match open(&outer, tunnel) {
        Ok(inner) => {
            let ethertype = if inner[0] >> 4 == 4 { [8, 0] } else { [0x86, 0xdd] };
            Expected::Unwrapped([&frame[..12], &ethertype, &inner].concat())
        }
        Err(reason) => Expected::Drop(reason),
    }
}

/// Which version is inside, if the outer header says it, and how many bytes of headers are in front.
#[derive(Clone, Copy)]
enum Tunnel {
    Of { version: u8 },
    Gue,
}

/// A frame's outer packet.
struct Outer<'f> {
    packet: &'f [u8],
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    ecn: u8,
    length: usize,
    header: usize,
    /// Options, or a fragment.
    special: bool,
    later: bool,
}

fn word(bytes: &[u8], at: usize) -> usize {
    usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]))
}

fn ip(bytes: &[u8]) -> IpAddr {
    match <[u8; 4]>::try_from(bytes) {
        Ok(four) => IpAddr::from(four),
        Err(_) => IpAddr::from(<[u8; 16]>::try_from(bytes).expect("sixteen")),
    }
}

impl<'f> Outer<'f> {
    fn read(frame: &'f [u8]) -> Option<Self> {
        let packet = frame.get(ETHERNET..)?;
        match word(frame, 12) {
            0x0800 if packet.len() >= IPV4 && packet[0] >> 4 == 4 => Some(Self {
                packet,
                source: ip(&packet[12..16]),
                destination: ip(&packet[16..20]),
                protocol: packet[9],
                ecn: packet[1] & 3,
                length: word(packet, 2),
                header: IPV4,
                special: packet[0] != 0x45 || word(packet, 6) & 0x3fff != 0,
                later: word(packet, 6) & 0x1fff != 0,
            }),
            0x86dd if packet.len() >= IPV6 && packet[0] >> 4 == 6 => Some(Self {
                packet,
                source: ip(&packet[8..24]),
                destination: ip(&packet[24..40]),
                protocol: packet[6],
                ecn: packet[1] >> 4 & 3,
                length: word(packet, 4) + IPV6,
                header: IPV6,
                special: false,
                later: false,
            }),
            _ => None,
        }
    }

    fn tunnel(&self) -> Option<Tunnel> {
        let udp = self.packet.get(self.header..self.header + UDP);
        match self.protocol {
            4 => Some(Tunnel::Of { version: 4 }),
            41 => Some(Tunnel::Of { version: 6 }),
            17 if !self.later && word(udp?, 2) == usize::from(GUE) => Some(Tunnel::Gue),
            _ => None,
        }
    }
}

/// The inner packet as it goes on.
fn open(outer: &Outer<'_>, tunnel: Tunnel) -> Result<Vec<u8>, DropReason> {
    if outer.special {
        return Err(DropReason::UnsupportedOuter);
    }
    if !balancers().iter().any(|network| network.contains(&outer.source)) {
        return Err(DropReason::UnknownBalancer);
    }
    let malformed = DropReason::MalformedPacket;
    let mut headers = outer.header;
    let version = match tunnel {
        Tunnel::Of { version } => version,
        Tunnel::Gue => {
            headers += UDP;
            let first = *outer.packet.get(headers).ok_or(malformed)?;
            if word(outer.packet, outer.header + 4) + outer.header != outer.length {
                return Err(malformed);
            }
            if first >> 4 == 6 { 6 } else { 4 }
        }
    };
    let inner = outer.packet.get(headers..).ok_or(malformed)?;
    let inner = Inner::read(inner, version).ok_or(malformed)?;
    if inner.length + headers != outer.length {
        return Err(malformed);
    }
    if is_nobodys(inner.source) {
        return Err(DropReason::Martian);
    }
    if !services().contains(&inner.destination) {
        return Err(DropReason::UnknownService);
    }
    if inner.hops == 0 {
        return Err(DropReason::HopsExceeded);
    }
    inner.told(outer.ecn)
}

/// A client's packet.
struct Inner<'f> {
    packet: &'f [u8],
    source: IpAddr,
    destination: IpAddr,
    length: usize,
    hops: u8,
}

impl<'f> Inner<'f> {
    fn read(packet: &'f [u8], version: u8) -> Option<Self> {
        let (header, ends, hops) = if version == 4 { (IPV4, 12, 8) } else { (IPV6, 8, 7) };
        if packet.len() < header || packet[0] >> 4 != version {
            return None;
        }
        let middle = (ends + header) / 2;
        let inner = Self {
            packet,
            source: ip(&packet[ends..middle]),
            destination: ip(&packet[middle..header]),
            length: if version == 4 { word(packet, 2) } else { word(packet, 4) + IPV6 },
            hops: packet[hops],
        };
        let least = if version == 4 { usize::from(packet[0] & 15) * 4 } else { IPV6 };
        (least >= header && inner.length >= least).then_some(inner)
    }

    /// The packet with what its receiver has to be told about congestion (RFC 6040, section 4.2).
    fn told(&self, outer: u8) -> Result<Vec<u8>, DropReason> {
        let mut packet = self.packet.to_vec();
        let v4 = packet[0] >> 4 == 4;
        let ecn = if v4 { packet[1] & 3 } else { packet[1] >> 4 & 3 };
        let ecn = match (ecn, outer) {
            (0b00, 0b11) => return Err(DropReason::CongestionMark),
            (0b01 | 0b10, 0b11) => 0b11,
            (0b10, 0b01) => 0b01,
            _ => return Ok(packet),
        };
        if v4 {
            let old = word(&packet, 0) as u32;
            packet[1] = packet[1] & !3 | ecn;
            // RFC 1624, equation 3.
            let sum =
                (!word(&packet, 10) as u32 & 0xffff) + (!old & 0xffff) + word(&packet, 0) as u32;
            let sum = (sum & 0xffff) + (sum >> 16);
            let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
        } else {
            packet[1] = packet[1] & 0xcf | ecn << 4;
        }
        Ok(packet)
    }
}

/// Such a source can't have sent a packet that a router has sent on (RFC 6890, RFC 4291).
fn is_nobodys(source: IpAddr) -> bool {
    match source {
        IpAddr::V4(source) => matches!(source.octets()[0], 0 | 127 | 224..),
        IpAddr::V6(source) => {
            source.is_unspecified()
                || source.is_loopback()
                || source.is_multicast()
                || source.is_unicast_link_local()
                || source.to_ipv4_mapped().is_some()
        }
    }
}
