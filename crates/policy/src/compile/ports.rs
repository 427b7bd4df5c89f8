//! Sets of ports, as rules name them. ICMP types and protocols by number are ports of a table of their
//! own.

use std::collections::BTreeSet;

use flowgate_abi::policy::PortTable;

use crate::model::{Port, PortMatch, Ports, Protocol, Service};

/// Entries of a port table, from the first to the last.
pub(super) type Span = (PortTable, u16, u16);

/// A set of ports: sorted, merged spans. Equal sets are equal values.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct PortSet(Vec<Span>);

impl FromIterator<Span> for PortSet {
    fn from_iter<I: IntoIterator<Item = Span>>(spans: I) -> Self {
        let mut spans: Vec<Span> =
            spans.into_iter().filter(|(_, first, last)| first <= last).collect();
        spans.sort_unstable();
        let mut merged: Vec<Span> = Vec::with_capacity(spans.len());
        for (table, first, last) in spans {
            match merged.last_mut() {
                Some((t, _, end)) if *t == table && first <= end.saturating_add(1) => {
                    *end = last.max(*end);
                }
                _ => merged.push((table, first, last)),
            }
        }
        Self(merged)
    }
}

impl PortSet {
    /// The ports that a rule names by number, and the names by which it names others.
    pub(super) fn of(ports: &Ports) -> Option<(Self, Vec<PortName>)> {
        let Ports::OneOf(ports) = ports else { return None };
        let mut names = BTreeSet::new();
        let mut spans = Vec::new();
        for service in ports {
            match service {
                Service::Port(Port { protocol, port: PortMatch::Named(name) }) => {
                    names.insert((name.clone(), *protocol));
                }
                service => spans.extend(named_by_number(service)),
            }
        }
        Some((spans.into_iter().collect(), names.into_iter().collect()))
    }

    /// The ports of a protocol that an end declares under a name.
    pub(super) fn named(protocol: Protocol, ports: &[u16]) -> Self {
        ports.iter().map(|&port| (table(protocol), port, port)).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The ports, in spans that neither overlap nor touch.
    pub(super) fn spans(&self) -> &[Span] {
        &self.0
    }
}

/// Where the port tables have what a rule names by number.
fn named_by_number(service: &Service) -> Vec<Span> {
    const ICMP: Span = (PortTable::Other, PortTable::icmp4(0), PortTable::icmp4(u8::MAX));
    const ICMP6: Span = (PortTable::Other, PortTable::icmp6(0), PortTable::icmp6(u8::MAX));
    let type_of = |index: u16| vec![(PortTable::Other, index, index)];
    let whole = |protocol| vec![(table(protocol), 0, u16::MAX)];
    match service {
        Service::Port(Port { protocol, port }) => match port {
            PortMatch::All => whole(*protocol),
            PortMatch::Range(first, last) => vec![(table(*protocol), *first, *last)],
            PortMatch::Named(_) => Vec::new(),
        },
        Service::Icmp(Some(icmp_type)) => type_of(PortTable::icmp4(*icmp_type)),
        Service::Icmp(None) => vec![ICMP],
        Service::Icmp6(Some(icmp_type)) => type_of(PortTable::icmp6(*icmp_type)),
        Service::Icmp6(None) => vec![ICMP6],
        Service::Protocol(number) => {
            let known = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
            if let Some(protocol) = known.into_iter().find(|known| known.number() == *number) {
                return whole(protocol);
            }
            // The types of the own family's ICMP lie apart, that of the other family by its number.
            let mut spans = type_of(u16::from(*number));
            spans.extend(
                [(1, ICMP), (58, ICMP6)].into_iter().filter(|(n, _)| n == number).map(|(_, s)| s),
            );
            spans
        }
    }
}

/// A port by name.
pub(super) type PortName = (std::sync::Arc<str>, Protocol);

const fn table(protocol: Protocol) -> PortTable {
    match protocol {
        Protocol::Tcp => PortTable::Tcp,
        Protocol::Udp => PortTable::Udp,
        Protocol::Sctp => PortTable::Sctp,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use PortTable::{Tcp, Udp};

    fn set(spans: &[Span]) -> PortSet {
        spans.iter().copied().collect()
    }

    #[test]
    fn spans_merge_across_touching_ends() {
        assert_eq!(set(&[(Tcp, 81, 90), (Tcp, 80, 80)]), set(&[(Tcp, 80, 90)]));
        assert_eq!(set(&[(Tcp, 80, 90), (Tcp, 85, 86)]), set(&[(Tcp, 80, 90)]));
        assert_ne!(set(&[(Tcp, 80, 80), (Udp, 81, 81)]), set(&[(Tcp, 80, 81)]));
        assert!(set(&[(Tcp, 9, 8)]).is_empty());
    }
}
