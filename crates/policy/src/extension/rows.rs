//! The rows of a plan in the numbers of another one that runs: what is there keeps its number, what is
//! new comes behind it.
//!
//! Not here: which classes and groups are the same in both ([`Pairs`]).
//! Invariant: each row, decision and cookie of the running plan is in the extended one under its number.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use flowgate_abi::policy::{Decision, PortTable};

use super::{NotAnExtension, Pairs, count};
use crate::plan::{Cookie, Plan};

/// Rows of the next plan as rows of the extended one.
pub(super) struct Rows<'a> {
    running: &'a Plan,
    next: &'a Plan,
    /// By port class of the running plan: that of the next one.
    services: Vec<u16>,
    /// By group of the extended plan: a number that groups share whose rows have the same columns.
    shapes: Vec<usize>,
    /// By shape and row of the next plan.
    of_next: HashMap<(usize, u16), u16>,
    /// By shape, and what they decide about each column.
    known: HashMap<(usize, Vec<u16>), u16>,
    /// The decision cells of the extended plan.
    pub(super) decision: Vec<u16>,
    /// The columns of its groups; empty if the running plan isn't narrow.
    pub(super) columns: Vec<Arc<[u16]>>,
    pub(super) made: Decisions<'a>,
}

/// A row of the next plan, and a group whose it is there and in the extended plan.
#[derive(Clone, Copy)]
struct NextRow {
    number: u16,
    group: u32,
    extended: usize,
}

impl<'a> Rows<'a> {
    /// # Errors
    /// A new group tells more services apart than rows of the running plan have columns.
    pub(super) fn new(
        running: &'a Plan,
        next: &'a Plan,
        services: Vec<u16>,
        groups: &Pairs,
    ) -> Result<Self, NotAnExtension> {
        let mut rows = Self {
            running,
            next,
            services,
            shapes: vec![0; groups.next_of.len()],
            of_next: HashMap::new(),
            known: HashMap::new(),
            decision: running.decision.clone(),
            columns: running.columns.clone(),
            made: Decisions::new(running, next),
        };
        if running.is_narrow() {
            rows.add_columns(groups)?;
        }
        rows.know();
        Ok(rows)
    }

    /// The columns of new groups are those that they have in the next plan.
    fn add_columns(&mut self, groups: &Pairs) -> Result<(), NotAnExtension> {
        // Row 0 is as wide as the widest, and nothing that is there can become wider.
        let room = (0..self.columns.len()).map(|group| self.running.width(group as u32)).max();
        for group in groups.next_of.iter().skip(self.columns.len()) {
            let column = |class: &u16| self.next.column(group.unwrap_or_default(), *class);
            let columns: Arc<[u16]> = self.services.iter().map(column).collect();
            if columns.iter().any(|column| Some(usize::from(*column)) >= room) {
                return Err(NotAnExtension::Numbers);
            }
            self.columns.push(columns);
        }
        let mut shapes: HashMap<&[u16], usize> = HashMap::new();
        for (shape, columns) in self.shapes.iter_mut().zip(&self.columns) {
            let new = shapes.len();
            *shape = *shapes.entry(columns).or_insert(new);
        }
        Ok(())
    }

    /// Finds the rows that are there.
    fn know(&mut self) {
        let mut seen: HashSet<(usize, u16)> = HashSet::new();
        let lines = self.running.row.chunks(self.running.peer_classes as usize);
        for ((line, shape), group) in lines.zip(&self.shapes).zip(0..).skip(1) {
            for row in line[1..].chunk_by(|a, b| a == b).map(|alike| alike[0]) {
                if seen.insert((*shape, row)) {
                    let cells = self.running.cells(group, row).into_owned();
                    self.known.insert((*shape, cells), row);
                }
            }
        }
    }

    /// The row cells of the extended plan. Cells that are there come first: all rows of theirs are.
    pub(super) fn cells(
        &mut self,
        groups: &Pairs,
        classes: &Pairs,
    ) -> Result<Vec<u16>, NotAnExtension> {
        let (was, width) = (self.running.peer_classes as usize, classes.next_of.len());
        let mut cells = vec![0; groups.next_of.len() * width];
        let before = self.running.row.chunks(was);
        let there = cells.chunks_mut(width).zip(before).zip(&groups.next_of);
        for (extended, ((cells, before), &group)) in there.enumerate() {
            cells[..was].copy_from_slice(before);
            let Some(group) = group else { continue };
            self.check(before, (extended, group), classes)?;
        }
        let known = self.running.groups();
        for (extended, cells) in cells.chunks_mut(width).enumerate() {
            let Some(group) = groups.next_of[extended] else { continue };
            let from = if extended < known { was } else { 0 };
            for (cell, class) in cells.iter_mut().zip(&classes.next_of).skip(from) {
                let Some(class) = *class else { continue };
                let number = self.next_cell(group, class);
                *cell = self.row(NextRow { number, group, extended })?;
            }
        }
        Ok(cells)
    }

    /// The rows of a group are those that it has in the next plan, for peers who are in both.
    fn check(
        &mut self,
        before: &[u16],
        (extended, group): (usize, u32),
        classes: &Pairs,
    ) -> Result<(), NotAnExtension> {
        let mut last = None;
        for (&row, class) in before.iter().zip(&classes.next_of) {
            let Some(class) = *class else { continue };
            let number = self.next_cell(group, class);
            if last.replace((row, number)) == Some((row, number)) {
                continue;
            }
            if !self.is(row, NextRow { number, group, extended }) {
                return Err(self.others(group));
            }
        }
        Ok(())
    }

    fn next_cell(&self, group: u32, class: u32) -> u16 {
        self.next.row[(group * self.next.peer_classes + class) as usize]
    }

    fn others(&self, group: u32) -> NotAnExtension {
        let mut endpoints = self.next.endpoints.iter();
        let one = endpoints.find(|one| one.egress == group || one.ingress == group);
        one.map_or(NotAnExtension::Numbers, |one| NotAnExtension::Policies {
            workload: one.workload.clone(),
        })
    }

    /// A row of the running plan is that row of the next one.
    fn is(&mut self, running: u16, next: NextRow) -> bool {
        let key = (self.shapes[next.extended], next.number);
        if let Some(known) = self.of_next.get(&key) {
            return *known == running;
        }
        let same = self
            .translated(next)
            .is_ok_and(|cells| *cells == *self.running.cells(next.extended as u32, running));
        if same {
            self.of_next.insert(key, running);
        }
        same
    }

    /// The number of a row of the next plan, which is added if it is new.
    fn row(&mut self, next: NextRow) -> Result<u16, NotAnExtension> {
        let shape = self.shapes[next.extended];
        if let Some(known) = self.of_next.get(&(shape, next.number)) {
            return Ok(*known);
        }
        let key = (shape, self.translated(next)?);
        let number = match self.known.get(&key) {
            Some(known) => *known,
            None => self.add(key)?,
        };
        self.of_next.insert((shape, next.number), number);
        Ok(number)
    }

    fn add(&mut self, key: (usize, Vec<u16>)) -> Result<u16, NotAnExtension> {
        let step = self.running.step as usize;
        let last = |cells: usize| u16::try_from(cells / step);
        let number = last(self.decision.len()).map_err(|_| NotAnExtension::Numbers)?;
        self.decision.extend(&key.1);
        self.decision.resize(self.decision.len().next_multiple_of(step), 0);
        self.known.insert(key, number);
        Ok(number)
    }

    /// What a row decides about each column of its group in the extended plan.
    fn translated(&mut self, row: NextRow) -> Result<Vec<u16>, NotAnExtension> {
        let NextRow { number, group, extended } = row;
        let (next, columns) = (self.next, self.columns.get(extended));
        let cells = next.cells(group, number);
        let mut made: Vec<Option<u16>> = Vec::new();
        for (class, service) in (0..=u16::MAX).zip(&self.services) {
            let column = usize::from(columns.map_or(class, |columns| columns[usize::from(class)]));
            made.resize(made.len().max(column + 1), None);
            let decision = self.made.number(cells[usize::from(next.column(group, *service))])?;
            if *made[column].get_or_insert(decision) != decision {
                return Err(self.told_apart(class));
            }
        }
        Ok(made.into_iter().map(Option::unwrap_or_default).collect())
    }

    /// Services of a port class are told apart from others of its column.
    fn told_apart(&self, class: u16) -> NotAnExtension {
        let tables = [PortTable::Tcp, PortTable::Udp, PortTable::Sctp, PortTable::Other];
        let mut tables = tables.into_iter().zip(&self.running.port_class);
        let found = tables.find_map(|(table, classes)| {
            let port = classes.iter().position(|known| *known == class)?;
            Some(NotAnExtension::Service { table, port: u16::try_from(port).ok()? })
        });
        found.unwrap_or(NotAnExtension::Numbers)
    }
}

/// Decisions of the next plan as those of the extended one.
pub(super) struct Decisions<'a> {
    next: &'a Plan,
    /// By number in the next plan.
    of_next: Vec<Option<u16>>,
    numbers: HashMap<(Decision, Arc<Cookie>), u16>,
    cookie_numbers: HashMap<Arc<Cookie>, u32>,
    pub(super) decisions: Vec<Decision>,
    pub(super) cookies: Vec<Arc<Cookie>>,
}

impl<'a> Decisions<'a> {
    fn new(running: &Plan, next: &'a Plan) -> Self {
        let (decisions, cookies) = (running.decisions.clone(), running.cookies.clone());
        let numbers = decisions.iter().zip(0..);
        Self {
            next,
            of_next: vec![None; next.decisions.len()],
            numbers: numbers.map(|(&one, number)| (nameless(one, &cookies), number)).collect(),
            cookie_numbers: cookies.iter().cloned().zip(0..).collect(),
            decisions,
            cookies,
        }
    }

    fn number(&mut self, next: u16) -> Result<u16, NotAnExtension> {
        if let Some(known) = self.of_next[usize::from(next)] {
            return Ok(known);
        }
        let decision = nameless(self.next.decisions[usize::from(next)], &self.next.cookies);
        let number = match self.numbers.get(&decision) {
            Some(&known) => known,
            None => self.add(decision)?,
        };
        self.of_next[usize::from(next)] = Some(number);
        Ok(number)
    }

    fn add(&mut self, decision: (Decision, Arc<Cookie>)) -> Result<u16, NotAnExtension> {
        let number = u16::try_from(self.decisions.len()).map_err(|_| NotAnExtension::Numbers)?;
        let next = count(self.cookies.len())?;
        let cookie = *self.cookie_numbers.entry(Arc::clone(&decision.1)).or_insert(next);
        if cookie == next {
            self.cookies.push(Arc::clone(&decision.1));
        }
        self.decisions.push(Decision { cookie, ..decision.0 });
        self.numbers.insert(decision, number);
        Ok(number)
    }
}

/// A decision with its cookie instead of the cookie's number.
fn nameless(decision: Decision, cookies: &[Arc<Cookie>]) -> (Decision, Arc<Cookie>) {
    (Decision { cookie: 0, ..decision }, Arc::clone(&cookies[decision.cookie as usize]))
}
