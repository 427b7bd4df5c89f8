//! Frames, read once more and in another way than the pipeline does.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use flowgate_abi::DropReason;
use flowgate_conformance::{
    answers,
    frames::tcp,
    trio::{Party, RESPONSE},
};
use flowgate_pipeline::Verdict;
use flowgate_policy::{host::Passed, outcome::FlowProtocol};

/// A packet without anything special in its headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plain {
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
    /// With the destination's port, or the query's type.
    pub(crate) protocol: FlowProtocol,
    /// A TCP packet with RST.
    pub(crate) resets: bool,
}

impl Plain {
    /// Reads a frame; `None`: it isn't that plain.
    pub(crate) fn read(frame: &[u8]) -> Option<Self> {
        let (addresses, number, rest) = match frame.get(12..14)? {
            [0x08, 0x00] => ipv4(&frame[14..])?,
            [0x86, 0xdd] => ipv6(&frame[14..])?,
            _ => return None,
        };
        let port = |at: usize| rest.get(at..at + 2).map(|b| u16::from_be_bytes([b[0], b[1]]));
        let (protocol, ports) = match number {
            6 => (FlowProtocol::Tcp(port(2)?), [port(0)?, port(2)?]),
            17 => (FlowProtocol::Udp(port(2)?), [port(0)?, port(2)?]),
            132 => (FlowProtocol::Sctp(port(2)?), [port(0)?, port(2)?]),
            1 if rest.first() == Some(&8) => (FlowProtocol::Icmp { icmp_type: 8 }, [port(4)?, 0]),
            58 if rest.first() == Some(&128) => {
                (FlowProtocol::Icmp6 { icmp_type: 128 }, [port(4)?, 0])
            }
            _ => return None,
        };
        Some(Self {
            source: SocketAddr::new(addresses[0], ports[0]),
            destination: SocketAddr::new(addresses[1], ports[1]),
            protocol,
            resets: number == 6 && rest.get(13)? & tcp::RST != 0,
        })
    }
}

type Network<'f> = ([IpAddr; 2], u8, &'f [u8]);

fn ipv4(packet: &[u8]) -> Option<Network<'_>> {
    let header = packet.get(..20)?;
    let fragmented = (u16::from(header[6]) << 8 | u16::from(header[7])) & 0x3fff != 0;
    if header[0] >> 4 != 4 || fragmented {
        return None;
    }
    let address = |at: usize| Ipv4Addr::from(<[u8; 4]>::try_from(&header[at..at + 4]).expect("4"));
    let rest = packet.get(usize::from(header[0] & 15) * 4..)?;
    Some(([address(12).into(), address(16).into()], header[9], rest))
}

fn ipv6(packet: &[u8]) -> Option<Network<'_>> {
    let header = packet.get(..40)?;
    let address = |at: usize| {
        let octets = <[u8; 16]>::try_from(&header[at..at + 16]).expect("16");
        IpAddr::from(Ipv6Addr::from(octets))
    };
    let addresses = [address(8), address(24)];
    (header[0] >> 4 == 6).then_some((addresses, header[6], &packet[40..]))
}

/// Where the network header begins: behind Ethernet and whatever VLAN tags there are.
fn network_at(frame: &[u8]) -> usize {
    let mut at = 14;
    while matches!(frame[at - 2..at], [0x81, 0x00] | [0x88, 0xa8]) && frame.len() >= at + 4 {
        at += 4;
    }
    at
}

/// Only a redirected frame changes: Ethernet's addresses, hops, and IPv4's checksum.
pub(crate) fn assert_kept(frame: &[u8], passed: &Passed) {
    assert_eq!(frame.len(), passed.frame.len());
    let (Verdict::Redirect(slot) | Verdict::RedirectPeer(slot)) = passed.verdict else {
        assert_eq!(frame, passed.frame, "{:?}", passed.verdict);
        return;
    };
    let network = network_at(frame);
    let routed: &[usize] = if frame[network - 2] == 0x08 { &[8, 10, 11] } else { &[7] };
    let differs = |at: &usize| frame[*at] != passed.frame[*at];
    let changed = (12..frame.len()).filter(differs);
    assert!(changed.into_iter().all(|at| routed.iter().any(|field| network + field == at)));
    let to = if slot == 1 { Party::Client } else { Party::Server };
    let addresses = [to.mac(), [2, 0, 0, 0, 0, slot as u8]].concat();
    assert_eq!(passed.frame[..12], addresses, "routed to slot {slot}");
}

/// Only what policy has dropped is answered, and with the bytes that the RFCs ask for.
pub(crate) fn assert_answered(frame: &[u8], passed: &Passed) {
    let Some(answer) = &passed.answer else { return };
    let Verdict::Drop(reason) = passed.verdict else { panic!("{:?} is answered", passed.verdict) };
    assert!(reason.is_policy() || reason == DropReason::Revoked, "{reason:?} is answered");
    assert_eq!(Some(answer), answers::answer(frame, RESPONSE).as_ref());
}

/// What passes from an endpoint has its own address as its source, but for ARP, and for what stays
/// on the link.
pub(crate) fn assert_own(frame: &[u8], party: Party) {
    assert!(party != Party::Client || frame[6..12] == party.mac(), "a spoofed sender passes");
    let network = network_at(frame);
    let source = match frame[network - 2..network] {
        [0x08, 0x06] => return,
        [0x08, 0x00] => ipv4_source(&frame[network..]),
        [0x86, 0xdd] => ipv6_source(&frame[network..]),
        _ => None,
    };
    let own = source
        .is_some_and(|source| party.address(source.is_ipv6()) == source || is_link_scoped(source));
    assert!(own, "a spoofed source passes: {source:?} from {party:?}");
}

fn is_link_scoped(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(address) => address.is_unicast_link_local() || address.is_unspecified(),
    }
}

fn ipv4_source(packet: &[u8]) -> Option<IpAddr> {
    let octets: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
    Some(Ipv4Addr::from(octets).into())
}

fn ipv6_source(packet: &[u8]) -> Option<IpAddr> {
    let octets: [u8; 16] = packet.get(8..24)?.try_into().ok()?;
    Some(Ipv6Addr::from(octets).into())
}
