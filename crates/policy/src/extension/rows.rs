//! The rows of a plan in the numbers of another one that runs: what is there keeps its number, what is
//! new comes behind it.
//!
//! Not here: which classes and groups are the same in both ([`Pairs`]).
//! Invariant: each row, decision and cookie of the running plan is in the extended one under its number.

use std::{collections::HashMap, sync::Arc};

use flowgate_abi::policy::Decision;

use super::{NotAnExtension, Pairs, count};
use crate::plan::{Cookie, Plan};

/// Rows of the next plan as rows of the extended one.
pub(super) struct Rows<'a> {
    running: &'a Plan,
    next: &'a Plan,
    /// By port class of the running plan: that of the next one.
    services: Vec<u16>,
    /// By row of the next plan.
    of_next: Vec<Option<u16>>,
    /// The decision cells of the extended plan.
    pub(super) decision: Vec<u16>,
    pub(super) made: Decisions<'a>,
}

impl<'a> Rows<'a> {
    pub(super) fn new(running: &'a Plan, next: &'a Plan, services: Vec<u16>) -> Self {
        Self {
            running,
            next,
            services,
            of_next: vec![None; next.decision.len() / next.port_classes as usize],
            decision: running.decision.clone(),
            made: Decisions::new(running, next),
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
        for ((cells, before), &group) in cells.chunks_mut(width).zip(before).zip(&groups.next_of) {
            cells[..was].copy_from_slice(before);
            self.check(before, group, classes)?;
        }
        let known = self.running.row.len() / was;
        for (number, cells) in cells.chunks_mut(width).enumerate() {
            let Some(group) = groups.next_of[number] else { continue };
            let from = if number < known { was } else { 0 };
            for (cell, class) in cells.iter_mut().zip(&classes.next_of).skip(from) {
                let Some(class) = *class else { continue };
                *cell = self.row(self.next_cell(group, class))?;
            }
        }
        Ok(cells)
    }

    /// The rows of a group are those that it has in the next plan, for peers who are in both.
    fn check(
        &mut self,
        before: &[u16],
        group: Option<u32>,
        classes: &Pairs,
    ) -> Result<(), NotAnExtension> {
        let Some(group) = group else { return Ok(()) };
        for (&row, class) in before.iter().zip(&classes.next_of) {
            if class.is_some_and(|class| !self.is(row, self.next_cell(group, class))) {
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
    fn is(&mut self, running: u16, next: u16) -> bool {
        if let Some(known) = self.of_next[usize::from(next)] {
            return known == running;
        }
        let width = self.services.len();
        let same = self
            .translated(next)
            .is_ok_and(|cells| cells == self.decision[usize::from(running) * width..][..width]);
        if same {
            self.of_next[usize::from(next)] = Some(running);
        }
        same
    }

    /// The number of a row of the next plan, which is added if it is new.
    fn row(&mut self, next: u16) -> Result<u16, NotAnExtension> {
        if let Some(known) = self.of_next[usize::from(next)] {
            return Ok(known);
        }
        let cells = self.translated(next)?;
        let mut rows = self.decision.chunks(self.services.len());
        let (known, all) = (rows.position(|row| row == cells), self.decision.len() / cells.len());
        let number = u16::try_from(known.unwrap_or(all)).map_err(|_| NotAnExtension::Numbers)?;
        if known.is_none() {
            self.decision.extend(cells);
        }
        self.of_next[usize::from(next)] = Some(number);
        Ok(number)
    }

    fn translated(&mut self, next: u16) -> Result<Vec<u16>, NotAnExtension> {
        let width = self.next.port_classes as usize;
        let cells = &self.next.decision[usize::from(next) * width..][..width];
        self.services.iter().map(|&class| self.made.number(cells[usize::from(class)])).collect()
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
