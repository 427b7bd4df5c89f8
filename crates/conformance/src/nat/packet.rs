//! Packets for full NAT, written and read by offsets, with every checksum summed over the whole.

use std::net::{IpAddr, SocketAddr};

use crate::checksum::{fold, sum_of};

/// What a packet says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Packet {
    /// From whom.
    pub source: SocketAddr,
    /// To whom.
    pub destination: SocketAddr,
    /// TCP's flags; `None`: a datagram of UDP.
    pub tcp: Option<u8>,
}

/// Opens a connection.
pub const SYN: u8 = 2;
/// Acknowledges.
pub const ACK: u8 = 16;
/// No more data.
pub const FIN: u8 = 1;
/// Ends a connection at once.
pub const RST: u8 = 4;

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn checksum(bytes: &[u8]) -> u16 {
    fold(sum_of(bytes))
}

fn pseudo(source: IpAddr, destination: IpAddr, protocol: u8, length: usize) -> Vec<u8> {
    [octets(source), octets(destination), vec![0, protocol], (length as u16).to_be_bytes().into()]
        .concat()
}

/// A frame as [`Packet::frame`] has it, of any protocol.
pub(super) fn framed(
    (source, destination): (IpAddr, IpAddr),
    (protocol, hops): (u8, u8),
    from: u8,
    transport: &[u8],
) -> Vec<u8> {
    let v4 = source.is_ipv4();
    let mut frame = vec![2, 0, 0, 0, 0, 0xba, 2, 0, 0, 0, 0, from];
    frame.extend(if v4 { [8, 0] } else { [0x86, 0xdd] });
    let ends = [octets(source), octets(destination)].concat();
    if v4 {
        let [high, low] = (20 + transport.len() as u16).to_be_bytes();
        let mut ip = vec![0x45, 0, high, low, 0x12, 0x34, 0x40, 0, hops, protocol, 0, 0];
        ip.extend(ends);
        let sum = checksum(&ip);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        frame.extend(ip);
    } else {
        let [high, low] = (transport.len() as u16).to_be_bytes();
        frame.extend([0x60, 0, 0, 0, high, low, protocol, hops]);
        frame.extend(ends);
    }
    frame.extend(transport);
    frame
}

impl Packet {
    /// A frame from 02:00:00:00:00:`from` to 02:00:00:00:00:ba, with so many hops left.
    #[must_use]
    pub fn frame(&self, from: u8, hops: u8) -> Vec<u8> {
        let protocol = if self.tcp.is_some() { 6 } else { 17 };
        let ends = (self.source.ip(), self.destination.ip());
        framed(ends, (protocol, hops), from, &self.transport())
    }

    fn transport(&self) -> Vec<u8> {
        let mut bytes =
            [self.source.port(), self.destination.port()].map(u16::to_be_bytes).concat();
        let (protocol, at) = if let Some(flags) = self.tcp {
            bytes.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
            (6, 16)
        } else {
            bytes.extend([0, 13, 0, 0]);
            (17, 6)
        };
        bytes.extend(b"hello");
        let head = pseudo(self.source.ip(), self.destination.ip(), protocol, bytes.len());
        let sum = match checksum(&[&head[..], &bytes].concat()) {
            // It would say that there is none.
            0 if protocol == 17 => 0xffff,
            sum => sum,
        };
        bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        bytes
    }

    /// What a frame says.
    ///
    /// # Panics
    /// A checksum is wrong, or anything is other than [`Packet::frame`] writes it.
    #[must_use]
    pub fn read(frame: &[u8]) -> Self {
        let v4 = frame[12] == 8;
        let (header, at, protocol) = if v4 { (20, 12, frame[23]) } else { (40, 8, frame[20]) };
        let ip = &frame[14..];
        let address = |at: usize| match v4 {
            true => IpAddr::from(<[u8; 4]>::try_from(&ip[at..at + 4]).expect("4")),
            false => IpAddr::from(<[u8; 16]>::try_from(&ip[at..at + 16]).expect("16")),
        };
        let (source, destination) = (address(at), address(at + (header - at) / 2));
        let bytes = &ip[header..];
        if v4 {
            assert_eq!(checksum(&ip[..20]), 0, "the header's checksum");
        }
        let head = pseudo(source, destination, protocol, bytes.len());
        assert_eq!(checksum(&[&head[..], bytes].concat()), 0, "the transport's checksum");
        let port = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let packet = Self {
            source: (source, port(0)).into(),
            destination: (destination, port(2)).into(),
            tcp: (protocol == 6).then(|| bytes[13]),
        };
        let hops = if v4 { ip[8] } else { ip[7] };
        let same = packet.frame(0, hops);
        assert_eq!(same[12..], frame[12..], "nothing else was changed");
        packet
    }
}
