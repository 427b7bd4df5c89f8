//! Packets to measure with: TCP between the pods of [`crate::manifests::NODE`] and the world.

use flowgate_conformance::frames::Frame;
use flowgate_policy::outcome::{Flow, FlowProtocol};

/// The IP version of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// An end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The pod that sends.
    Client,
    /// The pod that it may reach.
    Server,
    /// The pod that nobody may reach.
    Closed,
    /// Outside of every pod.
    World,
}

impl End {
    /// The pod's name; of the world, none.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
            Self::Closed => "closed",
            Self::World => "",
        }
    }

    /// Its address.
    #[must_use]
    pub const fn address(self, version: Version) -> &'static str {
        match (self, version) {
            (Self::Client, Version::V4) => "198.18.0.1",
            (Self::Server, Version::V4) => "198.18.0.2",
            (Self::Closed, Version::V4) => "198.18.0.3",
            (Self::World, Version::V4) => "203.0.113.7",
            (Self::Client, Version::V6) => "2001:db8::1",
            (Self::Server, Version::V6) => "2001:db8::2",
            (Self::Closed, Version::V6) => "2001:db8::3",
            (Self::World, Version::V6) => "2001:db8:f::7",
        }
    }
}

/// The SYN of a connection to port 80, with as many hops left as there can be.
///
/// # Panics
/// Never: the addresses are right.
#[must_use]
pub fn syn(version: Version, source: End, destination: End, source_port: u16) -> Frame {
    let address = |end: End| end.address(version).parse().expect("an address");
    let flow = Flow {
        source: address(source),
        destination: address(destination),
        protocol: FlowProtocol::Tcp(80),
    };
    Frame { hops: 255, ..Frame::opening(flow, source_port) }
}

/// A packet as bytes, and where packets of other flows differ from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Ethernet and all that follows; [`Packet::LEAST`] bytes at least.
    pub bytes: Vec<u8>,
    /// Offset of the port or identifier that the client chooses.
    pub port_at: usize,
    /// Offset of the low 16 bits of the address of the client's counterpart.
    pub address_at: usize,
    /// The VLAN that it was tagged with, which the kernel keeps beside the bytes; 0: none.
    pub vlan: u16,
}

impl Packet {
    /// Shorter ones can't be measured.
    pub const LEAST: usize = 96;

    /// From a frame, which gets a longer payload if it has to.
    ///
    /// # Panics
    /// Never: addresses of one flow are of one family.
    #[must_use]
    pub fn new(frame: &Frame) -> Self {
        let bytes = Frame { payload: frame.payload.max(Self::LEAST), ..*frame }.bytes();
        let (source, destination, transport) =
            if frame.sender().is_ipv4() { (28, 32, 34) } else { (36, 52, 54) };
        let address_at = if frame.reply { source } else { destination };
        let port_at = match frame.flow.protocol {
            FlowProtocol::Icmp { .. } | FlowProtocol::Icmp6 { .. } => transport + 4,
            _ if frame.reply => transport + 2,
            _ => transport,
        };
        Self { bytes, port_at, address_at, vlan: 0 }
    }

    /// Tagged.
    #[must_use]
    pub const fn tagged(mut self, vlan: u16) -> Self {
        self.vlan = vlan;
        self
    }

    /// With a header of destination options between IPv6 and transport.
    #[must_use]
    pub fn with_options(self) -> Self {
        self.with_header(60, [0, 0, 1, 4, 0, 0, 0, 0])
    }

    /// A fragment of a larger packet, at a multiple of 8 bytes; the first one has the ports.
    #[must_use]
    pub fn fragment(mut self, eighths: u16, more: bool) -> Self {
        if self.bytes[12] == 8 {
            let field = eighths | u16::from(more) << 13;
            self.bytes[20..22].copy_from_slice(&field.to_be_bytes());
            return self;
        }
        let [high, low] = (eighths << 3 | u16::from(more)).to_be_bytes();
        self.with_header(44, [0, 0, high, low, 0, 0, 0x12, 0x34])
    }

    /// An ARP request (RFC 826) by who sends this IPv4 packet, for whom it goes to.
    ///
    /// # Panics
    /// If this isn't IPv4.
    #[must_use]
    pub fn arp(mut self) -> Self {
        assert_eq!(self.bytes[12..14], [8, 0], "ARP is about IPv4");
        let ends: [u8; 8] = self.bytes[26..34].try_into().expect("8 bytes");
        let mac: [u8; 6] = self.bytes[6..12].try_into().expect("6 bytes");
        let (sender, target) = ends.split_at(4);
        let request = [&[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &mac[..], sender, &[0; 6], target].concat();
        self.bytes[12..12 + request.len()].copy_from_slice(&request);
        // The target's address.
        (self.port_at, self.address_at) = (38, 40);
        self
    }

    /// Puts a header of 8 bytes behind the IPv6 header.
    fn with_header(mut self, number: u8, mut header: [u8; 8]) -> Self {
        header[0] = std::mem::replace(&mut self.bytes[20], number);
        let length = u16::from_be_bytes([self.bytes[18], self.bytes[19]]) + 8;
        self.bytes[18..20].copy_from_slice(&length.to_be_bytes());
        self.bytes.splice(54..54, header);
        self.port_at += 8;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_differ_where_the_packet_says() {
        for version in [Version::V4, Version::V6] {
            for reply in [false, true] {
                let frame = Frame { reply, ..syn(version, End::Client, End::World, 0x1234) };
                let packet = Packet::new(&frame);
                assert_eq!(packet.bytes[packet.port_at..][..2], [0x12, 0x34]);
                let counterpart = if version == Version::V4 { [113, 7] } else { [0, 7] };
                assert_eq!(packet.bytes[packet.address_at..][..2], counterpart);
            }
        }
    }

    #[test]
    fn a_header_between_moves_the_ports() {
        let plain = Packet::new(&syn(Version::V6, End::Client, End::World, 0x1234));
        for packet in [plain.clone().with_options(), plain.clone().fragment(0, true)] {
            assert_eq!(packet.bytes[packet.port_at..][..2], [0x12, 0x34]);
            assert_eq!(packet.bytes[54], plain.bytes[20]);
            assert_eq!(packet.bytes.len(), plain.bytes.len() + 8);
        }
    }
}
