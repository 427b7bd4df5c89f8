//! The tables of a plan, made from groups and rows: what is used, in the order in which it is first used.
//!
//! Invariant: the tables are the same whatever was compiled before.

use std::collections::HashMap;
use std::sync::Arc;

use flowgate_abi::policy::{Action, Decision, PortTable};

use crate::{
    compile::{
        error::{CompileError, Numbered},
        groups::{Group, GroupId},
        interned::{Interned, index},
        layout::Layout,
        policies::{Applying, PolicyName},
        port_classes::PortClasses,
        rows::{Account, AccountId, RowId, Rows},
    },
    model::{PolicyRef, Response},
    options::Options,
    outcome::SideVerdict,
    plan::Cookie,
};

/// Cells up to which it doesn't matter that a dense layout would take fewer.
const TRIFLE: usize = 1 << 18;

/// The tables of a plan, as it has them.
pub(super) struct Tables {
    pub(super) port_classes: u32,
    pub(super) port_class: [Box<[u16]>; PortTable::COUNT],
    pub(super) row: Vec<u16>,
    pub(super) decision: Vec<u16>,
    pub(super) step: u32,
    pub(super) columns: Vec<Arc<[u16]>>,
    pub(super) decisions: Vec<Decision>,
    pub(super) cookies: Vec<Arc<Cookie>>,
    /// By group: its number in the tables.
    pub(super) numbers: HashMap<GroupId, u32>,
    /// How many rows there are.
    pub(super) rows: usize,
}

/// What tables are made from.
pub(super) struct Source<'a> {
    pub(super) groups: &'a Interned<Group>,
    pub(super) rows: &'a Rows,
    pub(super) names: &'a Interned<PolicyRef>,
    pub(super) applying: &'a Applying,
    pub(super) peer_classes: u32,
    pub(super) options: &'a Options,
}

/// Numbers in the order in which they are asked for, from 1 on.
#[derive(Default)]
pub(super) struct Numbering {
    numbers: HashMap<u32, u32>,
    pub(super) order: Vec<u32>,
}

impl Numbering {
    pub(super) fn number(&mut self, of: u32) -> u32 {
        let order = &mut self.order;
        *self.numbers.entry(of).or_insert_with(|| {
            order.push(of);
            index(order.len())
        })
    }
}

impl Source<'_> {
    /// The tables of those groups that are used, in that order.
    pub(super) fn tables(
        &self,
        used: impl Iterator<Item = GroupId>,
    ) -> Result<Tables, CompileError> {
        let mut groups = Numbering::default();
        for group in used {
            groups.number(group);
        }
        let mut rows = Numbering::default();
        for row in groups.order.iter().flat_map(|&group| self.rows_of(group)) {
            rows.number(row);
        }
        let ports = PortClasses::new(rows.order.iter().map(|&row| self.rows.runs(row)))?;
        let count = rows.order.len();
        let layout = self.layout(rows, &groups.order, &ports)?;
        let row = self.row_cells(&groups.order, &layout, &ports)?;
        let mut made = Decisions::new(self);
        let decision = self.decision_cells(&layout, &ports, &mut made)?;
        Ok(Tables {
            port_classes: ports.count,
            port_class: ports.tables(),
            row,
            decision,
            step: layout.step,
            columns: layout.columns,
            decisions: made.decisions,
            cookies: made.cookies,
            numbers: groups.numbers,
            rows: count,
        })
    }

    /// Narrow where dense takes too much, unless narrow takes more or runs out of numbers.
    fn layout(
        &self,
        rows: Numbering,
        groups: &[GroupId],
        ports: &PortClasses,
    ) -> Result<Layout, CompileError> {
        let dense = (rows.order.len() + 1) * ports.count as usize;
        if dense > self.options.dense_cells {
            let narrow = Layout::narrow(self, groups, ports);
            if let Some(narrow) = narrow.ok().filter(|one| one.cells() <= dense.max(TRIFLE)) {
                return Ok(narrow);
            }
        }
        Layout::dense(rows, groups.len(), ports.count)
    }

    /// The rows of a group, as its classes of peers come to them.
    pub(super) fn rows_of(&self, group: GroupId) -> impl Iterator<Item = RowId> {
        let Group { rest, others } = self.groups.get(group);
        [*rest].into_iter().chain(others.iter().map(|(_, row)| *row))
    }

    fn row_cells(
        &self,
        groups: &[GroupId],
        layout: &Layout,
        ports: &PortClasses,
    ) -> Result<Vec<u16>, CompileError> {
        let width = self.peer_classes as usize;
        let columns = if layout.columns.is_empty() { 0 } else { ports.count as usize };
        self.checked(Numbered::RowCells, (groups.len() + 1) * (width + columns))?;
        let mut cells = vec![0; (groups.len() + 1) * width];
        let lines = cells.chunks_mut(width).skip(1);
        for ((group, shape), cells) in groups.iter().zip(&layout.shape_of).zip(lines) {
            let numbers = &layout.shapes[*shape].numbers;
            let Group { rest, others } = self.groups.get(*group);
            cells[1..].fill(numbers[rest]);
            for (class, row) in others {
                cells[usize::from(*class)] = numbers[row];
            }
        }
        Ok(cells)
    }

    fn decision_cells(
        &self,
        layout: &Layout,
        ports: &PortClasses,
        made: &mut Decisions<'_>,
    ) -> Result<Vec<u16>, CompileError> {
        let step = layout.step as usize;
        let room = self.checked(Numbered::DecisionCells, layout.count as usize * step)?;
        let mut cells = Vec::with_capacity(room);
        for shape in &layout.shapes {
            let classes = shape.classes.as_ref().unwrap_or(ports);
            for row in &shape.order {
                let runs = self.rows.runs(*row);
                // What is decided elsewhere is numbered before what is decided about some services.
                for run in runs.last().into_iter().chain(runs) {
                    made.number(run.account)?;
                }
                cells.resize(usize::from(shape.numbers[row]) * step, 0);
                classes.expand(runs, |account| made.known(account), &mut cells);
            }
        }
        cells.resize(room, 0);
        Ok(cells)
    }

    fn checked(&self, what: Numbered, cells: usize) -> Result<usize, CompileError> {
        let limit = self.options.max_cells;
        if cells > limit { Err(too_many(what, limit)) } else { Ok(cells) }
    }
}

pub(super) const fn too_many(what: Numbered, limit: usize) -> CompileError {
    CompileError::TooMany { what, limit }
}

/// Decisions and cookies, in the order in which rows first need them.
struct Decisions<'a> {
    source: &'a Source<'a>,
    decisions: Vec<Decision>,
    cookies: Vec<Arc<Cookie>>,
    by_account: HashMap<AccountId, u16>,
    logs: HashMap<PolicyName, Arc<str>>,
    cookie_numbers: HashMap<Cookie, u32>,
}

impl<'a> Decisions<'a> {
    fn new(source: &'a Source<'a>) -> Self {
        let mut made = Self {
            source,
            decisions: vec![Decision::UNREACHABLE],
            cookies: Vec::new(),
            by_account: HashMap::new(),
            logs: source.applying.logs(),
            cookie_numbers: HashMap::new(),
        };
        made.cookie(Cookie::default());
        made
    }

    fn known(&self, account: AccountId) -> u16 {
        self.by_account.get(&account).copied().unwrap_or_default()
    }

    fn number(&mut self, account: AccountId) -> Result<u16, CompileError> {
        if let Some(&known) = self.by_account.get(&account) {
            return Ok(known);
        }
        let Account { verdict, policies, response, staged } =
            self.source.rows.accounts.get(account);
        let cookie = self.cookie(Cookie {
            policies: policies
                .iter()
                .map(|policy| self.source.names.get(*policy).clone())
                .collect(),
            staged: *staged,
            log: policies.iter().filter_map(|policy| self.logs.get(policy).cloned()).collect(),
        });
        let too_many = |_| too_many(Numbered::Decisions, 1 << 16);
        let number = u16::try_from(self.decisions.len()).map_err(too_many)?;
        self.decisions.push(decision(*verdict, *response, cookie));
        self.by_account.insert(account, number);
        Ok(number)
    }

    fn cookie(&mut self, cookie: Cookie) -> u32 {
        if let Some(&known) = self.cookie_numbers.get(&cookie) {
            return known;
        }
        let number = index(self.cookies.len());
        self.cookies.push(Arc::new(cookie.clone()));
        self.cookie_numbers.insert(cookie, number);
        number
    }
}

const fn decision(verdict: SideVerdict, response: Response, cookie: u32) -> Decision {
    let (action, flags) = match verdict {
        SideVerdict::Allow => (Action::Allow, 0),
        SideVerdict::Deny => (Action::deny(response), 0),
        SideVerdict::DefaultAllow => (Action::Allow, Decision::DEFAULT),
        SideVerdict::DefaultDeny => (Action::deny(response), Decision::DEFAULT),
        SideVerdict::Audit => (Action::Allow, Decision::AUDIT),
    };
    Decision::new(action, flags, cookie)
}
