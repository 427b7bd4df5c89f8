//! Ethernet frames: a builder, and a generator aimed at what a datapath must tell apart.
//!
//! Not here: what should become of a frame (the oracle, and the host pipeline, say that).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use flowgate_policy::outcome::{Flow, FlowProtocol};

use crate::{
    envelope::{self, Extension},
    generate::Generator,
};

/// TCP flags.
pub mod tcp {
    /// No more data.
    pub const FIN: u8 = 1;
    /// Opens a connection.
    pub const SYN: u8 = 2;
    /// Resets a connection.
    pub const RST: u8 = 4;
    /// Acknowledges.
    pub const ACK: u8 = 16;
}

/// A frame in the making: one packet of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The flow's ends, protocol, and destination port or type.
    pub flow: Flow,
    /// The source port, or the identifier of an ICMP query.
    pub source_port: u16,
    /// TCP flags.
    pub tcp_flags: u8,
    /// The packet runs from the flow's destination to its source.
    pub reply: bool,
    /// Bytes behind the headers.
    pub payload: usize,
    /// Hops left.
    pub hops: u8,
    /// Words of 32 bits of IPv4 options, up to 10.
    pub options: u8,
}

impl Frame {
    /// The first packet of a flow.
    #[must_use]
    pub const fn opening(flow: Flow, source_port: u16) -> Self {
        Self {
            flow,
            source_port,
            tcp_flags: tcp::SYN,
            reply: false,
            payload: 8,
            hops: 64,
            options: 0,
        }
    }

    /// The answer to it: from the flow's destination to its source.
    #[must_use]
    pub const fn answer(mut self) -> Self {
        self.reply = true;
        self.tcp_flags = tcp::SYN | tcp::ACK;
        self
    }

    /// With these TCP flags.
    #[must_use]
    pub const fn flags(mut self, flags: u8) -> Self {
        self.tcp_flags = flags;
        self
    }

    /// Who sends the packet.
    #[must_use]
    pub const fn sender(&self) -> IpAddr {
        if self.reply { self.flow.destination } else { self.flow.source }
    }

    /// Who gets it.
    #[must_use]
    pub const fn receiver(&self) -> IpAddr {
        if self.reply { self.flow.source } else { self.flow.destination }
    }

    /// The bytes. Checksums of the transport are zero; the IPv4 header's is right.
    ///
    /// # Panics
    /// If the ends are of different families.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let transport = self.transport();
        let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
        match (self.sender(), self.receiver()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                frame.extend([8, 0]);
                frame.extend(self.ipv4(source, destination, transport.len()));
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                frame.extend([0x86, 0xdd]);
                frame.extend(self.ipv6(source, destination, transport.len()));
            }
            ends => panic!("a packet has one family: {ends:?}"),
        }
        frame.extend(transport);
        frame
    }

    fn protocol(&self) -> u8 {
        match self.flow.protocol {
            FlowProtocol::Tcp(_) => 6,
            FlowProtocol::Udp(_) => 17,
            FlowProtocol::Sctp(_) => 132,
            FlowProtocol::Icmp { .. } => 1,
            FlowProtocol::Icmp6 { .. } => 58,
            FlowProtocol::Other(number) => number,
        }
    }

    fn transport(&self) -> Vec<u8> {
        let mut bytes = match self.flow.protocol {
            FlowProtocol::Tcp(port) => {
                let mut bytes = self.ports(port);
                bytes.extend([
                    0,
                    0,
                    0,
                    1,
                    0,
                    0,
                    0,
                    0,
                    0x50,
                    self.tcp_flags,
                    0xff,
                    0xff,
                    0,
                    0,
                    0,
                    0,
                ]);
                bytes
            }
            FlowProtocol::Udp(port) => {
                let mut bytes = self.ports(port);
                bytes.extend(((8 + self.payload) as u16).to_be_bytes());
                bytes.extend([0, 0]);
                bytes
            }
            FlowProtocol::Sctp(port) => {
                let mut bytes = self.ports(port);
                bytes.extend([0, 0, 0, 1, 0, 0, 0, 0]);
                bytes
            }
            FlowProtocol::Icmp { icmp_type } | FlowProtocol::Icmp6 { icmp_type } => {
                let mut bytes = vec![self.icmp_type(icmp_type), 0, 0, 0];
                bytes.extend(self.source_port.to_be_bytes());
                bytes.extend([0, 1]);
                bytes
            }
            FlowProtocol::Other(_) => vec![0; 8],
        };
        bytes.extend(vec![0x5a; self.payload]);
        bytes
    }

    /// Replies to queries have a type of their own.
    fn icmp_type(&self, query: u8) -> u8 {
        match (self.reply, query) {
            (true, 8) => 0,
            (true, 128) => 129,
            (true, query) => query.wrapping_add(1),
            (false, query) => query,
        }
    }

    fn ports(&self, port: u16) -> Vec<u8> {
        let (source, destination) =
            if self.reply { (port, self.source_port) } else { (self.source_port, port) };
        [source.to_be_bytes(), destination.to_be_bytes()].concat()
    }

    fn ipv4(&self, source: Ipv4Addr, destination: Ipv4Addr, length: usize) -> Vec<u8> {
        let header = 20 + usize::from(self.options) * 4;
        let mut bytes = vec![0x45 + self.options, 0];
        bytes.extend(((header + length) as u16).to_be_bytes());
        bytes.extend([0x12, 0x34, 0x40, 0, self.hops, self.protocol(), 0, 0]);
        bytes.extend(source.octets());
        bytes.extend(destination.octets());
        bytes.extend(vec![1; header - 20]);
        let sum: u32 = bytes.chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
        let folded = (sum & 0xffff) + (sum >> 16);
        let checksum = !((folded & 0xffff) + (folded >> 16)) as u16;
        bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
        bytes
    }

    fn ipv6(&self, source: Ipv6Addr, destination: Ipv6Addr, length: usize) -> Vec<u8> {
        let mut bytes = vec![0x60, 0, 0, 0];
        bytes.extend((length as u16).to_be_bytes());
        bytes.extend([self.protocol(), self.hops]);
        bytes.extend(source.octets());
        bytes.extend(destination.octets());
        bytes
    }
}

/// An ICMP error about a packet, from a router or from the packet's receiver: 20 or 40 bytes of
/// header and 8 more are quoted.
#[must_use]
pub fn error_about(quoted: &Frame, reporter: IpAddr, icmp_type: u8) -> Vec<u8> {
    let protocol = match reporter {
        IpAddr::V4(_) => FlowProtocol::Icmp { icmp_type },
        IpAddr::V6(_) => FlowProtocol::Icmp6 { icmp_type },
    };
    let flow = Flow { source: reporter, destination: quoted.sender(), protocol };
    let mut frame = Frame { payload: 0, ..Frame::opening(flow, 0) }.bytes();
    let inner = &quoted.bytes()[14..];
    let header = if quoted.sender().is_ipv4() { 20 + usize::from(quoted.options) * 4 } else { 40 };
    frame.extend(&inner[..(header + 8).min(inner.len())]);
    frame
}

fn extension(generator: &mut Generator) -> Extension {
    match generator.below(8) {
        0 => Extension::authentication(),
        1 => Extension::routing(generator.below(2) as u8),
        2 => Extension::fragment(7, 0, false),
        3 => Extension::options(0, 1),
        _ => Extension::options(60, 1 + generator.below(4) as u8),
    }
}

/// What a generated frame is meant to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The first packet of a new flow: the oracle knows what becomes of it.
    Opening(Frame),
    /// A later packet of some flow, either way.
    Later(Frame),
    /// An ICMP error.
    Error,
    /// Something broken or unsupported.
    Odd,
}

/// Frames around flows.
#[derive(Debug, Default)]
pub struct Frames {
    ports: u16,
    recent: Vec<Frame>,
}

impl Frames {
    /// A frame about a flow, or about one of the flows before it.
    pub fn next(&mut self, generator: &mut Generator, flow: Flow) -> (Kind, Vec<u8>) {
        match generator.below(24) {
            0..=9 => self.opening(generator, flow),
            10..=16 => self.later(generator, flow),
            17..=18 => self.error(generator, flow),
            19 => self.neighbour(generator, flow),
            20..=21 => self.wrapped(generator, flow),
            22 => self.pieces(generator, flow),
            _ => self.odd(generator, flow),
        }
    }

    /// A tag, extension headers, or both, around a packet of some flow.
    fn wrapped(&mut self, generator: &mut Generator, flow: Flow) -> (Kind, Vec<u8>) {
        let (_, mut bytes) = self.later(generator, flow);
        if bytes[12] == 0x86 {
            let extensions: Vec<Extension> =
                (0..generator.below(10)).map(|_| extension(generator)).collect();
            bytes = envelope::extended(&bytes, &extensions);
        }
        let tags: &[u16] =
            [&[][..], &[0x8100], &[0x88a8, 0x8100], &[0x8100; 3]][generator.below(4) as usize];
        let bytes = envelope::tagged(&bytes, tags);
        (Kind::Odd, bytes)
    }

    /// One of the fragments of some packet, now and then before the first; or one that overlaps.
    fn pieces(&mut self, generator: &mut Generator, flow: Flow) -> (Kind, Vec<u8>) {
        let frame = Frame { payload: 40, ..self.any(generator, flow) }.bytes();
        let size = [8, 16, 24, 32][generator.below(4) as usize];
        let mut pieces = envelope::fragments(&frame, generator.below(3) as u16, size);
        let which = generator.below(pieces.len() as u64) as usize;
        (Kind::Odd, pieces.swap_remove(which))
    }

    /// ARP or neighbour discovery, true or not.
    fn neighbour(&mut self, generator: &mut Generator, flow: Flow) -> (Kind, Vec<u8>) {
        let other = self.any(generator, flow).flow;
        let mac = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 9]][generator.below(2) as usize];
        let bytes = match (flow.source, other.source) {
            (IpAddr::V4(target), IpAddr::V4(sender)) => {
                let sender = if generator.below(2) == 0 { sender } else { target };
                envelope::arp(mac, ([2, 0, 0, 0, 0, 1], sender), target)
            }
            (IpAddr::V6(source), IpAddr::V6(other)) => {
                let icmp_type = 130 + generator.below(8) as u8;
                let hops = [255, 255, 1, 64][generator.below(4) as usize];
                let flow = Flow { protocol: FlowProtocol::Icmp6 { icmp_type }, ..flow };
                let frame = Frame { hops, ..Frame::opening(flow, 0) };
                envelope::with_target(frame.bytes(), [source, other][generator.below(2) as usize])
            }
            _ => return self.odd(generator, flow),
        };
        (Kind::Odd, bytes)
    }

    fn opening(&mut self, generator: &mut Generator, flow: Flow) -> (Kind, Vec<u8>) {
        self.ports = self.ports.wrapping_add(1);
        let frame = Frame {
            payload: generator.below(40) as usize,
            hops: [64, 64, 64, 2, 1][generator.below(5) as usize],
            options: if generator.below(5) == 0 { generator.below(11) as u8 } else { 0 },
            ..Frame::opening(flow, 1024u16.wrapping_add(self.ports))
        };
        if self.recent.len() >= 16 {
            self.recent.remove(0);
        }
        self.recent.push(frame);
        (Kind::Opening(frame), frame.bytes())
    }

    fn any(&self, generator: &mut Generator, flow: Flow) -> Frame {
        match self.recent.len() as u64 {
            0 => Frame::opening(flow, 7),
            count => self.recent[generator.below(count) as usize],
        }
    }

    fn later(&mut self, generator: &mut Generator, flow: Flow) -> (Kind, Vec<u8>) {
        let flags = [tcp::ACK, tcp::SYN | tcp::ACK, tcp::SYN, tcp::FIN | tcp::ACK, tcp::RST];
        let frame = Frame {
            reply: generator.below(2) == 0,
            tcp_flags: flags[generator.below(5) as usize],
            ..self.any(generator, flow)
        };
        (Kind::Later(frame), frame.bytes())
    }

    fn error(&mut self, generator: &mut Generator, flow: Flow) -> (Kind, Vec<u8>) {
        let quoted = Frame { reply: generator.below(2) == 0, ..self.any(generator, flow) };
        let types: &[u8] = if quoted.sender().is_ipv4() { &[3, 11, 12] } else { &[1, 2, 3] };
        let icmp_type = types[generator.below(3) as usize];
        let reporter = if generator.below(2) == 0 { quoted.receiver() } else { flow.source };
        let reporter = if reporter.is_ipv4() == quoted.sender().is_ipv4() {
            reporter
        } else {
            quoted.receiver()
        };
        (Kind::Error, error_about(&quoted, reporter, icmp_type))
    }

    fn odd(&mut self, generator: &mut Generator, flow: Flow) -> (Kind, Vec<u8>) {
        let mut bytes = self.any(generator, flow).bytes();
        match generator.below(7) {
            // Cut anywhere behind what the kernel takes at all.
            0 => bytes.truncate(54 + generator.below(bytes.len() as u64) as usize),
            1 => bytes[12..14].copy_from_slice(&[8, 6]),
            2 => bytes[12..14].copy_from_slice(&[0x88, 0xcc]),
            // More fragments, or an offset; IPv6: part of the payload length.
            3 => bytes[20] |= [0x20, 0x01][generator.below(2) as usize],
            4 => bytes[14] = generator.below(256) as u8,
            5 => {
                // Another protocol or extension header.
                let at = if bytes[12] == 8 { 23 } else { 20 };
                bytes[at] = [0, 43, 44, 47, 50, 51, 59, 60, 2, 89][generator.below(10) as usize];
            }
            _ => {
                let at = 14 + generator.below(bytes.len() as u64 - 14) as usize;
                bytes[at] ^= 1 << generator.below(8);
            }
        }
        (Kind::Odd, bytes)
    }
}
