//! The dense tables of a plan, made from groups and rows: what is used, in the order in which it is
//! first used.
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
        policies::{Applying, PolicyName},
        port_classes::PortClasses,
        rows::{Account, AccountId, RowId, Rows},
    },
    model::{PolicyRef, Response},
    outcome::SideVerdict,
    plan::Cookie,
};

/// The tables of a plan, as it has them.
pub(super) struct Tables {
    pub(super) port_classes: u32,
    pub(super) port_class: [Box<[u16]>; PortTable::COUNT],
    pub(super) row: Vec<u16>,
    pub(super) decision: Vec<u16>,
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
    pub(super) max_cells: usize,
}

/// Numbers in the order in which they are asked for, from 1 on.
struct Numbering {
    numbers: HashMap<u32, u32>,
    order: Vec<u32>,
}

impl Numbering {
    fn new() -> Self {
        Self { numbers: HashMap::new(), order: Vec::new() }
    }

    fn number(&mut self, of: u32) -> u32 {
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
        let mut groups = Numbering::new();
        for group in used {
            groups.number(group);
        }
        let mut rows = Numbering::new();
        let row = self.row_cells(&groups.order, &mut rows)?;
        let ports = PortClasses::new(rows.order.iter().map(|&row| self.rows.runs(row)))?;
        let mut made = Decisions::new(self);
        let decision = self.decision_cells(&rows.order, &ports, &mut made)?;
        Ok(Tables {
            port_classes: ports.count,
            port_class: ports.tables,
            row,
            decision,
            decisions: made.decisions,
            cookies: made.cookies,
            numbers: groups.numbers,
            rows: rows.order.len(),
        })
    }

    fn row_cells(
        &self,
        groups: &[GroupId],
        rows: &mut Numbering,
    ) -> Result<Vec<u16>, CompileError> {
        let width = self.peer_classes as usize;
        let mut cells = vec![0; self.checked(Numbered::RowCells, (groups.len() + 1) * width)?];
        let mut number = |row: RowId| {
            u16::try_from(rows.number(row)).map_err(|_| too_many(Numbered::Rows, 1 << 16))
        };
        for (group, cells) in groups.iter().zip(cells.chunks_mut(width).skip(1)) {
            let Group { rest, others } = self.groups.get(*group);
            cells[1..].fill(number(*rest)?);
            for &(class, row) in others {
                cells[usize::from(class)] = number(row)?;
            }
        }
        Ok(cells)
    }

    fn decision_cells(
        &self,
        rows: &[RowId],
        ports: &PortClasses,
        made: &mut Decisions<'_>,
    ) -> Result<Vec<u16>, CompileError> {
        let width = ports.count as usize;
        let room = self.checked(Numbered::DecisionCells, (rows.len() + 1) * width)?;
        let mut cells = Vec::with_capacity(room);
        cells.resize(width, 0);
        for &row in rows {
            let runs = self.rows.runs(row);
            // What is decided elsewhere is numbered before what is decided about some services.
            for run in runs.last().into_iter().chain(runs) {
                made.number(run.account)?;
            }
            ports.expand(runs, |account| made.known(account), &mut cells);
        }
        Ok(cells)
    }

    fn checked(&self, what: Numbered, cells: usize) -> Result<usize, CompileError> {
        let limit = self.max_cells;
        if cells > limit { Err(too_many(what, limit)) } else { Ok(cells) }
    }
}

const fn too_many(what: Numbered, limit: usize) -> CompileError {
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
