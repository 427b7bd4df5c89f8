//! The first packet of a flow, as a frame.
//!
//! Checksums are left zero: programs that judge don't look at them, and the frame goes nowhere.

use std::net::IpAddr;

use flowgate_policy::outcome::{Flow, FlowProtocol};

const SYN: u8 = 2;
const HOPS: u8 = 64;

/// The first packet of a flow, from this port or with this identifier. `None` for an ICMP type that
/// opens no flow: replies and errors are judged by the flow that they belong to, and other types are
/// never let through.
pub(crate) fn opening(flow: &Flow, from_port: u16) -> Option<Vec<u8>> {
    let (number, segment) = segment(flow.protocol, from_port)?;
    let mut frame = vec![0; 12];
    match (flow.source, flow.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let length = u16::try_from(20 + segment.len()).ok()?;
            frame.extend([0x08, 0x00, 0x45, 0]);
            frame.extend(length.to_be_bytes());
            frame.extend([0, 0, 0x40, 0, HOPS, number, 0, 0]);
            frame.extend(source.octets());
            frame.extend(destination.octets());
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let length = u16::try_from(segment.len()).ok()?;
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend(length.to_be_bytes());
            frame.extend([number, HOPS]);
            frame.extend(source.octets());
            frame.extend(destination.octets());
        }
        _ => return None,
    }
    frame.extend(segment);
    Some(frame)
}

fn segment(protocol: FlowProtocol, from_port: u16) -> Option<(u8, Vec<u8>)> {
    let ports = |to: u16| [from_port.to_be_bytes(), to.to_be_bytes()].concat();
    let echo = |kind: u8| [&[kind, 0, 0, 0], &from_port.to_be_bytes()[..], &[0, 1]].concat();
    let padded = |mut bytes: Vec<u8>, length: usize| {
        bytes.resize(length, 0);
        bytes
    };
    match protocol {
        FlowProtocol::Tcp(to) => {
            let mut header = padded(ports(to), 20);
            header[12] = 5 << 4;
            header[13] = SYN;
            Some((6, header))
        }
        FlowProtocol::Udp(to) => Some((17, [ports(to), vec![0, 8, 0, 0]].concat())),
        FlowProtocol::Sctp(to) => Some((132, padded(ports(to), 12))),
        // Echo, timestamp, information and address mask requests (RFC 792, RFC 950).
        FlowProtocol::Icmp { icmp_type: kind @ (8 | 13 | 15 | 17) } => Some((1, echo(kind))),
        FlowProtocol::Icmp6 { icmp_type: kind @ 128 } => Some((58, echo(kind))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(source: &str, destination: &str, protocol: FlowProtocol) -> Option<Vec<u8>> {
        let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
        opening(&Flow { source, destination, protocol }, 0x1234)
    }

    #[test]
    fn a_tcp_flow_opens_with_syn() {
        let frame = frame("198.18.0.1", "198.18.0.2", FlowProtocol::Tcp(80)).unwrap();
        assert_eq!(frame[12..18], [8, 0, 0x45, 0, 0, 40]);
        assert_eq!(frame[23], 6);
        assert_eq!(frame[26..38], [198, 18, 0, 1, 198, 18, 0, 2, 0x12, 0x34, 0, 80]);
        assert_eq!((frame[46], frame[47], frame.len()), (0x50, SYN, 54));
    }

    #[test]
    fn a_ping_over_ipv6() {
        let ping = FlowProtocol::Icmp6 { icmp_type: 128 };
        let frame = frame("2001:db8::1", "2001:db8::2", ping).unwrap();
        assert_eq!(frame[12..22], [0x86, 0xdd, 0x60, 0, 0, 0, 0, 8, 58, HOPS]);
        assert_eq!(frame[54..], [128, 0, 0, 0, 0x12, 0x34, 0, 1]);
    }

    #[test]
    fn a_reply_opens_nothing() {
        let reply = FlowProtocol::Icmp { icmp_type: 0 };
        assert_eq!(frame("198.18.0.1", "198.18.0.2", reply), None);
    }
}
