//! Services that neither of two plans tells apart, and how ranges of them are told.
//!
//! Invariant: a segment holds no service that packets of its family can't have: TCP by protocol
//! number, or the ICMP of the other family by type.

use std::fmt;

use flowgate_abi::policy::PortTable;

use crate::{model::Protocol, outcome::FlowProtocol, plan::Plan};

const ICMP: u8 = 1;
const ICMP6: u8 = 58;

/// Services of one kind, from the first to the last. Displays as `TCP/80-81`, `ICMP type 8`,
/// `protocol 47`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Services {
    /// Every service of either family.
    Every,
    /// Ports of a protocol.
    Ports {
        /// The protocol.
        protocol: Protocol,
        /// The first port.
        first: u16,
        /// The last port.
        last: u16,
    },
    /// Every service that has no port, of either family: the types of ICMP and the other protocols.
    WithoutPorts,
    /// Types of ICMP.
    Icmp {
        /// The first type.
        first: u8,
        /// The last type.
        last: u8,
    },
    /// Types of `ICMPv6`.
    Icmp6 {
        /// The first type.
        first: u8,
        /// The last type.
        last: u8,
    },
    /// Protocols by number. Those that have ports, and the own family's ICMP, are passed over.
    Protocols {
        /// The first number.
        first: u8,
        /// The last number.
        last: u8,
    },
}

impl Services {
    /// They hold the service of a flow.
    #[must_use]
    pub fn contain(&self, service: FlowProtocol) -> bool {
        match *self {
            Self::Every => true,
            Self::WithoutPorts => service.port().is_none(),
            Self::Ports { protocol, first, last } => service
                .port()
                .is_some_and(|(p, port)| p == protocol && (first..=last).contains(&port)),
            Self::Icmp { first, last } => {
                matches!(service, FlowProtocol::Icmp { icmp_type: t } if (first..=last).contains(&t))
            }
            Self::Icmp6 { first, last } => {
                matches!(service, FlowProtocol::Icmp6 { icmp_type: t } if (first..=last).contains(&t))
            }
            Self::Protocols { first, last } => {
                matches!(service, FlowProtocol::Other(n) if (first..=last).contains(&n))
            }
        }
    }

    /// One of them that a flow of a family can have: the first.
    pub(super) fn sample(self, ipv4: bool) -> FlowProtocol {
        match self {
            Self::Every => FlowProtocol::Tcp(80),
            // Nobody listens at port 0.
            Self::Ports { protocol, first, last } => {
                FlowProtocol::to_port(protocol, first.max(1).min(last))
            }
            Self::WithoutPorts if ipv4 => FlowProtocol::Icmp { icmp_type: 0 },
            Self::WithoutPorts => FlowProtocol::Icmp6 { icmp_type: 0 },
            Self::Icmp { first, .. } => FlowProtocol::Icmp { icmp_type: first },
            Self::Icmp6 { first, .. } => FlowProtocol::Icmp6 { icmp_type: first },
            Self::Protocols { first, .. } => FlowProtocol::Other(first),
        }
    }
}

impl fmt::Display for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Every => f.write_str("all"),
            Self::WithoutPorts => f.write_str("ICMP and other protocols"),
            Self::Ports { protocol, first: 0, last: u16::MAX } => protocol.fmt(f),
            Self::Ports { protocol, first, last } if first == last => {
                write!(f, "{protocol}/{first}")
            }
            Self::Ports { protocol, first, last } => write!(f, "{protocol}/{first}-{last}"),
            Self::Icmp { first, last } => types(f, "ICMP", first, last),
            Self::Icmp6 { first, last } => types(f, "ICMPv6", first, last),
            Self::Protocols { first, last } if first == last => write!(f, "protocol {first}"),
            Self::Protocols { first, last } => write!(f, "protocols {first}-{last}"),
        }
    }
}

fn types(f: &mut fmt::Formatter<'_>, protocol: &str, first: u8, last: u8) -> fmt::Result {
    match (first, last) {
        (0, u8::MAX) => f.write_str(protocol),
        _ if first == last => write!(f, "{protocol} type {first}"),
        _ => write!(f, "{protocol} types {first}-{last}"),
    }
}

/// What kind of service a segment holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Ports(Protocol),
    Icmp { ipv4: bool },
    Protocols { ipv4: bool },
}

/// Services of one kind that neither plan tells apart.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    kind: Kind,
    /// The first and the last that packets can have, and the places of both among all of those.
    first: (u16, u32),
    last: (u16, u32),
    /// The port classes of both plans.
    pub(super) classes: [u16; 2],
}

/// The segments of a family.
pub(super) fn segments(before: &Plan, after: &Plan, ipv4: bool) -> Vec<Segment> {
    let mut segments = Vec::new();
    for kind in kinds(ipv4) {
        let mut open: Option<Segment> = None;
        for (place, number) in (0..).zip(kind.numbers()) {
            let (table, index) = kind.index(number);
            let class = |plan: &Plan| plan.port_class[table as usize][usize::from(index)];
            let classes = [class(before), class(after)];
            match &mut open {
                Some(segment) if segment.classes == classes => segment.last = (number, place),
                _ => {
                    let here = (number, place);
                    segments.extend(open.replace(Segment {
                        kind,
                        first: here,
                        last: here,
                        classes,
                    }));
                }
            }
        }
        segments.extend(open);
    }
    segments
}

fn kinds(ipv4: bool) -> [Kind; 5] {
    let [tcp, udp, sctp] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].map(Kind::Ports);
    [tcp, udp, sctp, Kind::Icmp { ipv4 }, Kind::Protocols { ipv4 }]
}

impl Kind {
    /// The numbers that packets can have.
    fn numbers(self) -> impl Iterator<Item = u16> {
        let last = if matches!(self, Self::Ports(_)) { u16::MAX } else { u16::from(u8::MAX) };
        (0..=last).filter(move |&number| match self {
            Self::Ports(_) | Self::Icmp { .. } => true,
            Self::Protocols { ipv4 } => {
                let own = if ipv4 { ICMP } else { ICMP6 };
                ![6, 17, 132, u16::from(own)].contains(&number)
            }
        })
    }

    fn index(self, number: u16) -> (PortTable, u16) {
        match self {
            Self::Ports(Protocol::Tcp) => (PortTable::Tcp, number),
            Self::Ports(Protocol::Udp) => (PortTable::Udp, number),
            Self::Ports(Protocol::Sctp) => (PortTable::Sctp, number),
            Self::Icmp { ipv4: true } => (PortTable::Other, PortTable::icmp4(narrow(number))),
            Self::Icmp { ipv4: false } => (PortTable::Other, PortTable::icmp6(narrow(number))),
            Self::Protocols { .. } => (PortTable::Other, number),
        }
    }

    fn services(self, first: u16, last: u16) -> Services {
        match self {
            Self::Ports(protocol) => Services::Ports { protocol, first, last },
            Self::Icmp { ipv4: true } => {
                Services::Icmp { first: narrow(first), last: narrow(last) }
            }
            Self::Icmp { ipv4: false } => {
                Services::Icmp6 { first: narrow(first), last: narrow(last) }
            }
            Self::Protocols { .. } => {
                Services::Protocols { first: narrow(first), last: narrow(last) }
            }
        }
    }
}

fn narrow(number: u16) -> u8 {
    u8::try_from(number).unwrap_or(u8::MAX)
}

/// Ranges of neighbours as one; what is all of both families' is told the same for both.
pub(super) fn merge(segments: &[Segment]) -> Vec<Services> {
    let mut merged: Vec<Segment> = Vec::new();
    for segment in segments {
        match merged.last_mut() {
            Some(last) if last.kind == segment.kind && last.last.1 + 1 == segment.first.1 => {
                last.last = segment.last;
            }
            _ => merged.push(*segment),
        }
    }
    let whole = |segment: &&Segment| segment.is_whole();
    let without_ports =
        merged.iter().filter(|s| !matches!(s.kind, Kind::Ports(_))).filter(whole).count() == 2;
    if without_ports && merged.iter().filter(whole).count() == 5 {
        return vec![Services::Every];
    }
    let told = |one: &&Segment| !without_ports || matches!(one.kind, Kind::Ports(_));
    let ranges = merged.iter().filter(told).map(|one| one.kind.services(one.first.0, one.last.0));
    ranges.chain(without_ports.then_some(Services::WithoutPorts)).collect()
}

impl Segment {
    fn is_whole(&self) -> bool {
        let last = if matches!(self.kind, Kind::Ports(_)) { u16::MAX } else { u16::from(u8::MAX) };
        self.first.1 == 0 && self.last.0 == last
    }
}
