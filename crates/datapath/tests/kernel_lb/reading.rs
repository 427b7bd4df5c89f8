//! A naive reader of frames for the oracle: by slices and offsets, from the RFCs, without the pipeline.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use flowgate_abi::DropReason;

/// What a packet says of its flow, from the client's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) client: (IpAddr, u16),
    pub(crate) service: (IpAddr, u16),
    pub(crate) protocol: u8,
}

/// What names a datagram in fragments.
pub(crate) type Datagram = (IpAddr, IpAddr, u32, u8);

/// What a packet is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// A packet of a flow, with its TCP flags.
    Of(Key, u8),
    /// An ICMP error about one.
    About(Key),
    /// An echo request.
    Echo,
    /// It never leaves its link.
    OnLink,
    /// A later fragment: its datagram has the ports.
    Later,
    /// None of these.
    Bad(DropReason),
}

/// A packet that says where it goes to.
#[derive(Clone, Debug)]
pub(crate) struct Read {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) hops: u8,
    /// Bytes from its IP header on, as that says.
    pub(crate) length: usize,
    /// It has neither options nor extension headers.
    pub(crate) bare: bool,
    /// It is one piece of a datagram.
    pub(crate) fragment: Option<Datagram>,
    pub(crate) content: Content,
}

/// An IP header with whatever belongs to it.
struct Network<'b> {
    source: IpAddr,
    destination: IpAddr,
    hops: u8,
    protocol: u8,
    /// The fragment's name, its offset, and more to come.
    piece: Option<(u32, u8, u16, bool)>,
    bad: Option<DropReason>,
    rest: &'b [u8],
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// A frame's packet; `None`: nothing that the balancer looks at.
pub(crate) fn read(frame: &[u8]) -> Option<Read> {
    let ip = frame.get(14..)?;
    let v4 = match word(frame, 12) {
        0x0800 => true,
        0x86dd => false,
        _ => return None,
    };
    let network = if v4 { ipv4(ip)? } else { ipv6(ip)? };
    let later = network.piece.is_some_and(|(_, _, offset, _)| offset > 0);
    let content = match network.bad {
        Some(reason) => Content::Bad(reason),
        None if later => Content::Later,
        None => transport(&network, v4),
    };
    let fragment = network.piece.filter(|(_, _, offset, more)| *offset > 0 || *more);
    Some(Read {
        source: network.source,
        destination: network.destination,
        hops: network.hops,
        length: if v4 { word(ip, 2).into() } else { usize::from(word(ip, 4)) + 40 },
        bare: if v4 { ip[0] == 0x45 } else { ip[6] == 58 },
        fragment: fragment
            .map(|(id, protocol, ..)| (network.source, network.destination, id, protocol)),
        content,
    })
}

fn ipv4(ip: &[u8]) -> Option<Network<'_>> {
    let header = usize::from(*ip.first()? & 15) * 4;
    if ip[0] >> 4 != 4 || header < 20 || ip.len() < header {
        return None;
    }
    let address = |at: usize| Ipv4Addr::new(ip[at], ip[at + 1], ip[at + 2], ip[at + 3]).into();
    let field = word(ip, 6);
    let (offset, more) = ((field & 0x1fff) * 8, field & 0x2000 != 0);
    Some(Network {
        source: address(12),
        destination: address(16),
        hops: ip[8],
        protocol: ip[9],
        piece: Some((word(ip, 4).into(), ip[9], offset, more)),
        bad: None,
        rest: &ip[header..],
    })
}

fn ipv6(ip: &[u8]) -> Option<Network<'_>> {
    if ip.len() < 40 || ip[0] >> 4 != 6 {
        return None;
    }
    let address = |at: usize| -> IpAddr {
        let octets: [u8; 16] = ip[at..at + 16].try_into().expect("16 bytes");
        Ipv6Addr::from(octets).into()
    };
    let mut network = Network {
        source: address(8),
        destination: address(24),
        hops: ip[7],
        protocol: ip[6],
        piece: None,
        bad: None,
        rest: &ip[40..],
    };
    for number in 0.. {
        let later = network.piece.is_some_and(|(_, _, offset, _)| offset > 0);
        if later || !matches!(network.protocol, 0 | 43 | 44 | 51 | 60 | 135 | 139 | 140) {
            break;
        }
        let read = if number < 8 {
            extension(&mut network, number == 0)
        } else {
            Err(DropReason::ExtensionHeader)
        };
        if let Err(reason) = read {
            network.bad = Some(reason);
            break;
        }
    }
    Some(network)
}

fn extension(network: &mut Network<'_>, first: bool) -> Result<(), DropReason> {
    let (kind, bytes) = (network.protocol, network.rest);
    if bytes.len() < 8 {
        return Err(DropReason::MalformedPacket);
    }
    let misplaced = (kind == 0 && !first) || (kind == 44 && network.piece.is_some());
    if misplaced || (kind == 43 && bytes[3] != 0) {
        return Err(DropReason::ExtensionHeader);
    }
    let more = usize::from(bytes[1]);
    let length = match kind {
        44 => 8,
        51 => more * 4 + 8,
        _ => more * 8 + 8,
    };
    network.protocol = bytes[0];
    if kind == 44 {
        let (field, id) =
            (word(bytes, 2), u32::from_be_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]));
        network.piece = Some((id, bytes[0], field & 0xfff8, field & 1 != 0));
    }
    network.rest = bytes.get(length..).ok_or(DropReason::MalformedPacket)?;
    Ok(())
}

fn transport(network: &Network<'_>, v4: bool) -> Content {
    let bytes = network.rest;
    let key = |bytes: &[u8]| Key {
        client: (network.source, word(bytes, 0)),
        service: (network.destination, word(bytes, 2)),
        protocol: network.protocol,
    };
    match (network.protocol, v4) {
        (6, _) if bytes.len() < 20 || bytes[12] >> 4 < 5 => {
            Content::Bad(DropReason::MalformedPacket)
        }
        (6, _) => Content::Of(key(bytes), bytes[13]),
        (17, _) | (1, true) | (58, false) if bytes.len() < 8 => {
            Content::Bad(DropReason::MalformedPacket)
        }
        (17, _) => Content::Of(key(bytes), 0),
        (1, true) => match bytes[0] {
            8 => Content::Echo,
            0 | 13..=18 => Content::Bad(DropReason::UnsupportedProtocol),
            3 | 4 | 11 | 12 => about(network, ipv4(&bytes[8..]), 1),
            _ => Content::Bad(DropReason::InvalidForFlow),
        },
        (58, false) => icmp6(network),
        _ => Content::Bad(DropReason::UnsupportedProtocol),
    }
}

fn icmp6(network: &Network<'_>) -> Content {
    let bytes = network.rest;
    let on_link = |hops| network.hops == hops && (hops == 1 || bytes[1] == 0);
    match bytes[0] {
        128 => Content::Echo,
        129 => Content::Bad(DropReason::UnsupportedProtocol),
        1..=4 => about(network, ipv6(&bytes[8..]), 58),
        133..=137 if !on_link(255) => Content::Bad(DropReason::ForbiddenIcmp6),
        130..=132 | 143 if !on_link(1) => Content::Bad(DropReason::ForbiddenIcmp6),
        135 | 136 if bytes.len() < 24 => Content::Bad(DropReason::MalformedPacket),
        130..=137 | 143 => Content::OnLink,
        _ => Content::Bad(DropReason::InvalidForFlow),
    }
}

/// An error quotes a packet that the service has sent: its flow is that packet's, turned round.
fn about(outer: &Network<'_>, quoted: Option<Network<'_>>, icmp: u8) -> Content {
    let Some(quoted) = quoted else { return Content::Bad(DropReason::MalformedPacket) };
    if let Some(reason) = quoted.bad {
        return Content::Bad(reason);
    }
    let unrelated = Content::Bad(DropReason::UnrelatedIcmpError);
    if quoted.piece.is_some_and(|(_, _, offset, _)| offset > 0) {
        return unrelated;
    }
    if !matches!(quoted.protocol, 6 | 17 | 132) && quoted.protocol != icmp {
        return if quoted.source == outer.destination { about_other(&quoted) } else { unrelated };
    }
    let bytes = quoted.rest;
    if bytes.len() < 8 {
        return Content::Bad(DropReason::MalformedPacket);
    }
    if quoted.protocol == icmp {
        let known: &[u8] = if icmp == 1 { &[0, 8, 13, 14, 15, 16, 17, 18] } else { &[128, 129] };
        let foreign: &[u8] = if icmp == 1 {
            &[3, 4, 11, 12]
        } else {
            &[1, 2, 3, 4, 130, 131, 132, 133, 134, 135, 136, 137, 143]
        };
        if !known.contains(&bytes[0]) && !foreign.contains(&bytes[0]) {
            return Content::Bad(DropReason::InvalidForFlow);
        }
        return unrelated;
    }
    if quoted.source != outer.destination {
        return unrelated;
    }
    Content::About(Key {
        client: (quoted.destination, word(bytes, 2)),
        service: (quoted.source, word(bytes, 0)),
        protocol: quoted.protocol,
    })
}

/// About a protocol without ports, which no service has.
fn about_other(quoted: &Network<'_>) -> Content {
    let (client, service) = ((quoted.destination, 0), (quoted.source, 0));
    Content::About(Key { client, service, protocol: quoted.protocol })
}
