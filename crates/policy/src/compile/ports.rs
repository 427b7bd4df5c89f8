//! Port classes: the ports of a protocol that no rule tells apart share a class.
//!
//! The port space is cut at every boundary that a rule names; then each distinct set of ports
//! splits the classes that it cuts through. Class 0 is what no set holds. ICMP types and protocols by
//! number are ports of a table of their own.

use std::{
    collections::{BTreeSet, HashMap},
    ops::Range,
};

use flowgate_abi::policy::PortTable;

use crate::{
    compile::error::{CompileError, Numbered},
    model::{Port, PortMatch, Ports, Protocol, Service},
};

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

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
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

/// The port classes.
pub(super) struct PortClasses {
    /// By table and port.
    pub(super) tables: [Box<[u16]>; PortTable::COUNT],
    /// How many there are, class 0 included.
    pub(super) count: u32,
    segments: Vec<Span>,
    /// By segment.
    class: Vec<u16>,
}

impl PortClasses {
    /// The coarsest classes of which each of `sets` is a union.
    pub(super) fn new(sets: &BTreeSet<PortSet>) -> Result<Self, CompileError> {
        let mut partition = Partition::cut(sets);
        for set in sets {
            partition.split(set);
        }
        partition.publish()
    }

    /// The classes of the ports in `set`, ascending.
    pub(super) fn of(&self, set: &PortSet) -> Vec<u16> {
        let spans = set.0.iter().flat_map(|span| &self.class[within(&self.segments, *span)]);
        let classes: BTreeSet<u16> = spans.copied().collect();
        classes.into_iter().collect()
    }
}

/// Which segments lie in `span`; it cuts none of them.
fn within(segments: &[Span], (table, first, last): Span) -> Range<usize> {
    let from = segments.partition_point(|&(t, start, _)| (t, start) < (table, first));
    let to = segments.partition_point(|&(t, start, _)| (t, start) <= (table, last));
    from..to
}

pub(super) const fn table(protocol: Protocol) -> PortTable {
    match protocol {
        Protocol::Tcp => PortTable::Tcp,
        Protocol::Udp => PortTable::Udp,
        Protocol::Sctp => PortTable::Sctp,
    }
}

/// Segments that no set cuts, each with its class so far.
struct Partition {
    segments: Vec<Span>,
    class: Vec<usize>,
    classes: usize,
}

impl Partition {
    fn cut(sets: &BTreeSet<PortSet>) -> Self {
        let mut starts: BTreeSet<(PortTable, u32)> = BTreeSet::new();
        for table in [PortTable::Tcp, PortTable::Udp, PortTable::Sctp, PortTable::Other] {
            starts.insert((table, 0));
        }
        for &(table, first, last) in sets.iter().flat_map(|set| &set.0) {
            starts.insert((table, u32::from(first)));
            starts.insert((table, u32::from(last) + 1));
        }
        let starts: Vec<_> = starts.into_iter().filter(|(_, start)| *start <= 0xffff).collect();
        let segments: Vec<Span> = starts
            .iter()
            .enumerate()
            .map(|(at, &(table, start))| {
                let next = starts.get(at + 1).filter(|(t, _)| *t == table);
                (table, narrow(start), next.map_or(u16::MAX, |(_, next)| narrow(next - 1)))
            })
            .collect();
        Self { class: vec![0; segments.len()], segments, classes: 1 }
    }

    /// What is in `set` leaves the class in which it was.
    fn split(&mut self, set: &PortSet) {
        let mut moved: HashMap<usize, usize> = HashMap::new();
        for &span in &set.0 {
            for class in &mut self.class[within(&self.segments, span)] {
                let classes = &mut self.classes;
                *class = *moved.entry(*class).or_insert_with(|| {
                    *classes += 1;
                    *classes - 1
                });
            }
        }
    }

    /// Numbers the classes in the order in which ports first show them.
    fn publish(self) -> Result<PortClasses, CompileError> {
        let mut tables = [(); PortTable::COUNT].map(|()| vec![0u16; PortTable::PORTS]);
        let mut numbers: HashMap<usize, u16> = HashMap::from([(0, 0)]);
        let mut numbered = Vec::with_capacity(self.segments.len());
        for (&(table, first, last), class) in self.segments.iter().zip(&self.class) {
            let known = numbers.get(class).copied();
            let next = || u16::try_from(numbers.len()).map_err(|_| too_many());
            let number = known.map_or_else(next, Ok)?;
            numbers.insert(*class, number);
            numbered.push(number);
            tables[table as usize][usize::from(first)..=usize::from(last)].fill(number);
        }
        let count = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
        let tables = tables.map(Vec::into_boxed_slice);
        Ok(PortClasses { tables, count, segments: self.segments, class: numbered })
    }
}

const fn too_many() -> CompileError {
    CompileError::TooMany { what: Numbered::PortClasses, limit: 1 << 16 }
}

fn narrow(port: u32) -> u16 {
    u16::try_from(port).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use PortTable::{Sctp, Tcp, Udp};

    fn set(spans: &[Span]) -> PortSet {
        spans.iter().copied().collect()
    }

    fn classes(sets: &[PortSet]) -> PortClasses {
        PortClasses::new(&sets.iter().cloned().collect()).unwrap()
    }

    #[test]
    fn without_rules_there_is_one_class() {
        let classes = classes(&[]);
        assert_eq!(classes.count, 1);
        assert!(classes.tables.iter().all(|table| table.iter().all(|&class| class == 0)));
    }

    #[test]
    fn spans_merge_across_touching_ends() {
        assert_eq!(set(&[(Tcp, 81, 90), (Tcp, 80, 80)]), set(&[(Tcp, 80, 90)]));
        assert_eq!(set(&[(Tcp, 80, 90), (Tcp, 85, 86)]), set(&[(Tcp, 80, 90)]));
        assert_ne!(set(&[(Tcp, 80, 80), (Udp, 81, 81)]), set(&[(Tcp, 80, 81)]));
        assert!(set(&[(Tcp, 9, 8)]).is_empty());
    }

    #[test]
    fn ports_that_a_rule_names_together_share_a_class() {
        let classes = classes(&[set(&[(Tcp, 80, 80), (Udp, 53, 53)])]);
        assert_eq!(classes.count, 2);
        assert_eq!((classes.tables[0][80], classes.tables[1][53]), (1, 1));
        assert_eq!(
            (classes.tables[0][79], classes.tables[0][81], classes.tables[1][80]),
            (0, 0, 0)
        );
    }

    #[test]
    fn overlapping_ranges_are_cut_apart() {
        let (low, high) = (set(&[(Tcp, 10, 20)]), set(&[(Tcp, 15, 30)]));
        let classes = classes(&[low.clone(), high.clone()]);
        assert_eq!(classes.count, 4);
        assert_eq!(classes.of(&low), [1, 2]);
        assert_eq!(classes.of(&high), [2, 3]);
    }

    #[test]
    fn a_whole_protocol_isnt_the_class_of_what_has_no_ports() {
        let all = set(&[(Tcp, 0, 65535), (Udp, 0, 65535), (Sctp, 0, 65535)]);
        let classes = classes(std::slice::from_ref(&all));
        assert_eq!(classes.of(&all), [1]);
        assert!(classes.tables[3].iter().all(|&class| class == 0));
        assert_eq!((classes.tables[0][0], classes.tables[2][65535]), (1, 1));
    }
}
