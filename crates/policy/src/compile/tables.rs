//! The tables of a plan, made from groups and rows: what is used, in the order in which it is first used.
//!
//! Invariant: the tables are the same whatever was compiled before.

use std::collections::HashMap;
use std::sync::Arc;

use flowgate_abi::policy::{self, Action, Decision, PortTable};

use crate::{
    compile::{
        error::{CompileError, Numbered},
        group::Group,
        groups::GroupId,
        interned::{Interned, index},
        layout::{Layout, Shape},
        policies::{Applying, PolicyName},
        port_classes::PortClasses,
        rows::{Account, AccountId, RowId, Rows, Run},
        scattered::Scattered,
    },
    model::{PolicyRef, Response},
    options::Options,
    outcome::SideVerdict,
    plan::Cookie,
};

/// Cells up to which it doesn't matter that a dense layout would take fewer.
const TRIFLE: usize = 1 << 18;
/// The most port classes of a scattered plan: the cells at the end of its lines have a number of 16 bits.
const MOST_COLUMNS: u32 = (u16::MAX - policy::Scattered::CELLS) as u32;

/// The tables of a plan, as it has them.
pub(super) struct Tables {
    pub(super) port_classes: u32,
    pub(super) port_class: [Box<[u16]>; PortTable::COUNT],
    pub(super) row: Vec<u16>,
    pub(super) decision: Vec<u16>,
    pub(super) step: u32,
    pub(super) columns: Vec<Arc<[u16]>>,
    pub(super) scattered: Vec<policy::Scattered>,
    pub(super) decisions: Vec<Decision>,
    pub(super) cookies: Vec<Arc<Cookie>>,
    /// By group: its number in the tables.
    pub(super) numbers: HashMap<GroupId, u32>,
    /// How many rows there are.
    pub(super) rows: usize,
}

/// Where rows lie.
enum Laid {
    /// All of them a step apart.
    Even(Layout),
    /// In one another's gaps.
    Scattered(Scattered),
}

/// The cells of rows and of decisions, and what is said of them in a plan.
struct Cells {
    row: Vec<u16>,
    decision: Vec<u16>,
    step: u32,
    columns: Vec<Arc<[u16]>>,
    scattered: Vec<policy::Scattered>,
}

/// What tables are made from.
pub(super) struct Source<'a> {
    pub(super) groups: &'a Interned<Arc<Group>>,
    pub(super) rows: &'a Rows,
    pub(super) names: &'a Interned<PolicyRef>,
    pub(super) applying: &'a Applying,
    pub(super) peer_classes: u32,
    pub(super) options: &'a Options,
    /// What the plan before made of accounts.
    pub(super) told: Option<&'a Told>,
}

/// The cookies of accounts, as they are with some values for the log.
#[derive(Clone, Debug, Default)]
pub(super) struct Told {
    logs: HashMap<PolicyName, Arc<str>>,
    cookies: HashMap<AccountId, Arc<Cookie>>,
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
    /// The tables of those groups that are used, in that order; and what was made of accounts, for the plan after
    /// this one.
    pub(super) fn tables(
        &self,
        used: impl Iterator<Item = GroupId>,
    ) -> Result<(Tables, Told), CompileError> {
        let mut groups = Numbering::default();
        for group in used {
            groups.number(group);
        }
        let mut rows = Numbering::default();
        for &row in groups.order.iter().flat_map(|&group| self.groups.get(group).rows()) {
            rows.number(row);
        }
        let sets = groups.order.iter().flat_map(|&group| self.groups.get(group).sets(self.rows));
        let ports = PortClasses::new(&sets.collect())?;
        let count = rows.order.len();
        let mut made = Decisions::new(self);
        let cells = match self.layout(rows.order, &groups.order, &ports)? {
            Laid::Even(layout) => self.even_cells(&groups.order, layout, &ports, &mut made)?,
            Laid::Scattered(one) => self.scattered_cells(&groups.order, one, &ports, &mut made)?,
        };
        let tables = Tables {
            port_classes: ports.count,
            port_class: ports.tables(),
            row: cells.row,
            decision: cells.decision,
            step: cells.step,
            columns: cells.columns,
            scattered: cells.scattered,
            decisions: made.decisions,
            cookies: made.cookies,
            numbers: groups.numbers,
            rows: count,
        };
        Ok((tables, made.told))
    }

    /// Narrow where dense takes too much, and scattered where narrow does, each unless it takes more or runs
    /// out of numbers.
    fn layout(
        &self,
        rows: Vec<RowId>,
        groups: &[GroupId],
        ports: &PortClasses,
    ) -> Result<Laid, CompileError> {
        let dense = (rows.len() + 1) * ports.count as usize;
        if dense <= self.options.dense_cells {
            return Ok(Laid::Even(Layout::dense(rows, groups.len(), ports.count)?));
        }
        let narrow = Layout::narrow(self, groups, ports);
        let narrow = narrow.ok().filter(|one| one.cells() <= dense.max(TRIFLE));
        let even = match narrow {
            Some(narrow) => Ok(narrow),
            None => Layout::dense(rows, groups.len(), ports.count),
        };
        let least = even.as_ref().map_or(usize::MAX, Layout::cells);
        if least > self.options.narrow_cells && ports.count <= MOST_COLUMNS {
            let scattered = Scattered::new(self, groups, ports)?;
            if let Some(one) = scattered.filter(|one| one.cells() <= least.max(TRIFLE)) {
                return Ok(Laid::Scattered(one));
            }
        }
        Ok(Laid::Even(even?))
    }

    fn even_cells(
        &self,
        groups: &[GroupId],
        layout: Layout,
        ports: &PortClasses,
        made: &mut Decisions<'_>,
    ) -> Result<Cells, CompileError> {
        let columns = if layout.columns.is_empty() { 0 } else { ports.count };
        self.check_lines(groups, columns)?;
        let row = self.row_cells(groups, &layout);
        let decision = self.decision_cells(&layout, ports, made)?;
        let Layout { step, columns, .. } = layout;
        Ok(Cells { row, decision, step, columns, scattered: Vec::new() })
    }

    fn scattered_cells(
        &self,
        groups: &[GroupId],
        laid: Scattered,
        ports: &PortClasses,
        made: &mut Decisions<'_>,
    ) -> Result<Cells, CompileError> {
        self.check_lines(groups, ports.count + u32::from(policy::Scattered::CELLS))?;
        self.checked(Numbered::DecisionCells, laid.room)?;
        let row = Scattered::row_cells(self, groups);
        let decision = laid.decision_cells(self, groups, made)?;
        Ok(Cells { row, decision, step: 1, columns: laid.columns, scattered: laid.told })
    }

    /// `beside`: the cells of a group's line that aren't rows.
    fn check_lines(&self, groups: &[GroupId], beside: u32) -> Result<usize, CompileError> {
        let line = self.peer_classes as usize + beside as usize;
        self.checked(Numbered::RowCells, (groups.len() + 1) * line)
    }

    fn row_cells(&self, groups: &[GroupId], layout: &Layout) -> Vec<u16> {
        let width = self.peer_classes as usize;
        let mut cells = vec![0; (groups.len() + 1) * width];
        let lines = cells.chunks_mut(width).skip(1);
        let mut numbers = vec![0; self.rows.len()];
        let mut shape_of_numbers = None;
        for ((group, shape), cells) in groups.iter().zip(&layout.shape_of).zip(lines) {
            let group = self.groups.get(*group);
            if shape_of_numbers.replace(*shape) != Some(*shape) {
                let Shape { order, numbers: own, .. } = &layout.shapes[*shape];
                order.iter().zip(own).for_each(|(row, own)| numbers[*row as usize] = *own);
            }
            cells[1..].fill(numbers[group.rest as usize]);
            for &(class, row) in &group.others {
                cells[usize::from(class)] = numbers[row as usize];
            }
        }
        cells
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
            let classes = shape.classes.as_deref().unwrap_or(ports);
            for (row, number) in shape.order.iter().zip(&shape.numbers) {
                let runs = self.rows.runs(*row);
                made.number_row(runs)?;
                cells.resize(usize::from(*number) * step, 0);
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
pub(super) struct Decisions<'a> {
    source: &'a Source<'a>,
    decisions: Vec<Decision>,
    cookies: Vec<Arc<Cookie>>,
    /// By account: its decision; 0: none needs it so far.
    by_account: Vec<u16>,
    /// By what makes a cookie what it is, beside the values for the log.
    cookie_numbers: HashMap<(&'a [PolicyName], Option<SideVerdict>), u32>,
    told: Told,
    /// The cookies of the plan before, if it had the same values for the log.
    before: Option<&'a HashMap<AccountId, Arc<Cookie>>>,
}

impl<'a> Decisions<'a> {
    fn new(source: &'a Source<'a>) -> Self {
        let told = Told { logs: source.applying.logs(), cookies: HashMap::new() };
        let before = source.told.filter(|before| before.logs == told.logs);
        Self {
            source,
            decisions: vec![Decision::UNREACHABLE],
            cookies: vec![Arc::default()],
            by_account: vec![0; source.rows.accounts.all().len()],
            cookie_numbers: HashMap::from([((&[][..], None), 0)]),
            told,
            before: before.map(|before| &before.cookies),
        }
    }

    pub(super) fn known(&self, account: AccountId) -> u16 {
        self.by_account[account as usize]
    }

    /// What is decided elsewhere is numbered before what is decided about some services.
    pub(super) fn number_row(&mut self, runs: &[Run]) -> Result<(), CompileError> {
        runs.last().into_iter().chain(runs).try_for_each(|run| self.number(run.account))
    }

    fn number(&mut self, account: AccountId) -> Result<(), CompileError> {
        if self.known(account) != 0 {
            return Ok(());
        }
        let Account { verdict, response, .. } = self.source.rows.accounts.get(account);
        let cookie = self.cookie(account);
        let too_many = |_| too_many(Numbered::Decisions, 1 << 16);
        let number = u16::try_from(self.decisions.len()).map_err(too_many)?;
        self.decisions.push(decision(*verdict, *response, cookie));
        self.by_account[account as usize] = number;
        Ok(())
    }

    fn cookie(&mut self, account: AccountId) -> u32 {
        let Account { policies, staged, .. } = self.source.rows.accounts.get(account);
        if let Some(&known) = self.cookie_numbers.get(&(policies.as_slice(), *staged)) {
            return known;
        }
        let cookie = self.before.and_then(|before| before.get(&account).cloned());
        let cookie = cookie.unwrap_or_else(|| Arc::new(self.told_of(policies, *staged)));
        let number = index(self.cookies.len());
        self.told.cookies.insert(account, Arc::clone(&cookie));
        self.cookies.push(cookie);
        self.cookie_numbers.insert((policies, *staged), number);
        number
    }

    fn told_of(&self, policies: &[PolicyName], staged: Option<SideVerdict>) -> Cookie {
        let logs = &self.told.logs;
        Cookie {
            policies: policies.iter().map(|name| self.source.names.get(*name).clone()).collect(),
            staged,
            log: policies.iter().filter_map(|name| logs.get(name).cloned()).collect(),
        }
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
