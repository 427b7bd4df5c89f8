//! Port classes: the ports that no row tells apart share a class.
//!
//! The line of services is cut where a row's decision changes; then each distinct set of services about
//! which a row decides something of its own splits the classes that it cuts through. Class 0 is that
//! of the last service, which no rule can name. So it is for all rows, and in narrow tables once more
//! for those of each group, whose classes are the columns of its rows.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use flowgate_abi::policy::PortTable;

use crate::compile::{
    error::{CompileError, Numbered},
    interned::index,
    rows::{AccountId, Run, SERVICES, ServiceKey},
};

/// A set of services: stretches, each from one up to another that is left out, ascending.
pub(super) type ServiceSet = Vec<(ServiceKey, ServiceKey)>;

/// The port classes of some rows.
#[derive(Debug)]
pub(super) struct PortClasses {
    /// Where segments of one class begin, ascending, each with its class; the first at 0.
    segments: Vec<(ServiceKey, u16)>,
    /// How many there are, class 0 included.
    pub(super) count: u32,
    /// By place in the line: a service of each class, and the class.
    samples: Vec<(ServiceKey, u16)>,
}

impl PortClasses {
    /// The coarsest classes on each of which all rows are constant; `sets`: those of all rows
    /// ([`sets_of`]).
    pub(super) fn new(sets: &HashSet<&ServiceSet>) -> Result<Self, CompileError> {
        let mut partition = Partition::cut(sets.iter().copied().flatten().copied());
        for set in sets {
            partition.split(set);
        }
        partition.publish()
    }

    /// By table and port.
    pub(super) fn tables(&self) -> [Box<[u16]>; PortTable::COUNT] {
        let mut line = vec![0u16; SERVICES as usize];
        let ends = self.segments.iter().skip(1).map(|(first, _)| *first).chain([SERVICES]);
        for (&(first, class), end) in self.segments.iter().zip(ends) {
            line[first as usize..end as usize].fill(class);
        }
        let mut tables = line.chunks(PortTable::PORTS).map(Into::into);
        [(); PortTable::COUNT].map(|()| tables.next().unwrap_or_default())
    }

    /// By class of `finer`, which were made of these rows and others: the class here.
    pub(super) fn of_classes(&self, finer: &Self) -> Vec<u16> {
        let mut classes = vec![0; finer.count as usize];
        let mut segments = self.segments.iter().peekable();
        let mut here = 0;
        for &(service, class) in &finer.samples {
            while let Some((_, class)) = segments.next_if(|(first, _)| *first <= service) {
                here = *class;
            }
            classes[usize::from(class)] = here;
        }
        classes
    }

    /// Appends what a row decides about each class: everywhere what it decides at its end, but for the
    /// classes of runs that decide otherwise.
    pub(super) fn expand(
        &self,
        row: &[Run],
        number: impl Fn(AccountId) -> u16,
        cells: &mut Vec<u16>,
    ) {
        let begin = cells.len();
        cells.resize(begin + self.count as usize, row.last().map_or(0, |run| number(run.account)));
        let cells = &mut cells[begin..];
        self.otherwise(row, |class, account| cells[usize::from(class)] = number(account));
    }

    /// What a row decides about the classes about which it decides otherwise than at its end; ascending.
    pub(super) fn sparse(&self, row: &[Run]) -> Vec<(u16, AccountId)> {
        let mut classes = Vec::new();
        self.otherwise(row, |class, account| classes.push((class, account)));
        classes.sort_unstable();
        classes.dedup();
        classes
    }

    /// The classes about which a row decides otherwise than at its end.
    fn otherwise(&self, row: &[Run], mut tell: impl FnMut(u16, AccountId)) {
        let last = row.last().map(|run| run.account);
        let ends = row.iter().skip(1).map(|run| run.first);
        for (run, end) in row.iter().zip(ends).filter(|(run, _)| Some(run.account) != last) {
            let from = self.samples.partition_point(|(service, _)| *service < run.first);
            let classes = self.samples[from..].iter().take_while(|(service, _)| *service < end);
            classes.for_each(|(_, class)| tell(*class, run.account));
        }
    }
}

/// The sets of services about which some row decides alike, but for what it decides at its end; each once.
pub(super) fn sets_of<R: AsRef<[Run]>>(rows: impl Iterator<Item = R>) -> Vec<ServiceSet> {
    let distinct: BTreeSet<ServiceSet> = rows.flat_map(|row| sets_of_row(row.as_ref())).collect();
    distinct.into_iter().collect()
}

fn sets_of_row(row: &[Run]) -> impl Iterator<Item = ServiceSet> + use<> {
    let mut sets: BTreeMap<AccountId, ServiceSet> = BTreeMap::new();
    for pair in row.windows(2) {
        sets.entry(pair[0].account).or_default().push((pair[0].first, pair[1].first));
    }
    if let Some(last) = row.last() {
        sets.remove(&last.account);
    }
    sets.into_values()
}

/// Segments that no set cuts, each with its class so far.
struct Partition {
    /// Where segments begin, ascending; the first at 0.
    starts: Vec<ServiceKey>,
    class: Vec<usize>,
    classes: usize,
}

impl Partition {
    fn cut(stretches: impl Iterator<Item = (ServiceKey, ServiceKey)>) -> Self {
        let tables = (0..PortTable::COUNT).map(|table| (table * PortTable::PORTS) as ServiceKey);
        let mut starts: Vec<ServiceKey> =
            tables.chain(stretches.flat_map(|(first, end)| [first, end])).collect();
        starts.sort_unstable();
        starts.dedup();
        Self { class: vec![0; starts.len()], starts, classes: 1 }
    }

    /// What is in a set leaves the class in which it was.
    fn split(&mut self, set: &[(ServiceKey, ServiceKey)]) {
        let mut moved: HashMap<usize, usize> = HashMap::new();
        for &(first, end) in set {
            let from = self.starts.partition_point(|start| *start < first);
            let to = self.starts.partition_point(|start| *start < end);
            for class in &mut self.class[from..to] {
                let classes = &mut self.classes;
                *class = *moved.entry(*class).or_insert_with(|| {
                    *classes += 1;
                    *classes - 1
                });
            }
        }
    }

    /// Numbers the classes in the order in which services first show them, from 1 on but for the last
    /// one's.
    fn publish(self) -> Result<PortClasses, CompileError> {
        let last = self.class[self.class.len() - 1];
        let mut numbers: HashMap<usize, u16> = HashMap::from([(last, 0)]);
        let mut samples = vec![(SERVICES - 1, 0)];
        let mut segments = Vec::with_capacity(self.starts.len());
        for (first, class) in self.starts.into_iter().zip(self.class) {
            let next = u16::try_from(numbers.len()).ok();
            let number = match numbers.get(&class) {
                Some(&known) => known,
                None => {
                    let number = next.ok_or(TOO_MANY)?;
                    numbers.insert(class, number);
                    samples.push((first, number));
                    number
                }
            };
            segments.push((first, number));
        }
        samples.sort_unstable();
        Ok(PortClasses { segments, count: index(numbers.len()), samples })
    }
}

const TOO_MANY: CompileError =
    CompileError::TooMany { what: Numbered::PortClasses, limit: 1 << 16 };

#[cfg(test)]
mod tests {
    use PortTable::{Other, Sctp, Tcp, Udp};

    use super::*;
    use crate::compile::rows::service;

    /// A row that decides 1 about some spans, and 0 about everything else.
    fn row(spans: &[(PortTable, u16, u16)]) -> Vec<Run> {
        let mut runs = vec![Run { first: 0, account: 0 }];
        for &(table, first, last) in spans {
            runs.retain(|run| run.first != service(table, first));
            runs.push(Run { first: service(table, first), account: 1 });
            runs.push(Run { first: service(table, last) + 1, account: 0 });
        }
        runs
    }

    fn classes(rows: &[Vec<Run>]) -> PortClasses {
        let sets = sets_of(rows.iter());
        PortClasses::new(&sets.iter().collect()).unwrap()
    }

    #[test]
    fn without_rules_there_is_one_class() {
        let classes = classes(&[]);
        assert_eq!(classes.count, 1);
        assert!(classes.tables().iter().all(|table| table.iter().all(|&class| class == 0)));
    }

    #[test]
    fn ports_about_which_a_row_decides_alike_share_a_class() {
        let classes = classes(&[row(&[(Tcp, 80, 80), (Udp, 53, 53)])]);
        assert_eq!(classes.count, 2);
        let tables = classes.tables();
        assert_eq!((tables[0][80], tables[1][53]), (1, 1));
        let others = (tables[0][79], tables[0][81], tables[1][80]);
        assert_eq!(others, (0, 0, 0));
    }

    #[test]
    fn overlapping_ranges_are_cut_apart() {
        let (low, high) = (row(&[(Tcp, 10, 20)]), row(&[(Tcp, 15, 30)]));
        let classes = classes(&[low.clone(), high.clone()]);
        assert_eq!(classes.count, 4);
        let same = |account| u16::try_from(account).unwrap();
        let mut cells = vec![7];
        [low, high].iter().for_each(|row| classes.expand(row, same, &mut cells));
        assert_eq!(cells, [7, 0, 1, 1, 0, 0, 0, 1, 1]);
    }

    #[test]
    fn the_classes_of_some_rows_are_told_by_those_of_all() {
        let (few, more) = (row(&[(Tcp, 10, 20)]), row(&[(Tcp, 15, 30), (Udp, 53, 53)]));
        let (own, all) = (classes(std::slice::from_ref(&few)), classes(&[few, more]));
        assert_eq!((own.count, all.count), (2, 4));
        let (of, tables, own) = (own.of_classes(&all), all.tables(), own.tables());
        for (all, own) in tables.iter().flatten().zip(own.iter().flatten()) {
            assert_eq!(of[usize::from(*all)], *own);
        }
    }

    #[test]
    fn a_whole_protocol_isnt_the_class_of_what_has_no_ports() {
        let all = [(Tcp, 0, 65535), (Udp, 0, 65535), (Sctp, 0, 65535)];
        let classes = classes(&[vec![
            Run { first: 0, account: 1 },
            Run { first: service(all[2].0, 65535) + 1, account: 0 },
        ]]);
        assert_eq!(classes.count, 2);
        let tables = classes.tables();
        assert!(tables[Other as usize].iter().all(|&class| class == 0));
        assert_eq!((tables[0][0], tables[2][65535]), (1, 1));
    }
}
