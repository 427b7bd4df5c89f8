//! The dense tables: rows and decisions, each stored once.

use std::{
    collections::{BTreeMap, HashMap, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
};

use flowgate_abi::policy::{Action, Decision, Response};

use crate::compile::{
    error::{CompileError, Numbered},
    kinds::index,
    ruling::{self, Isolating, Match, Ruling},
    subjects::PolicyId,
};
use crate::outcome::SideVerdict;

/// A number of a set of port classes.
pub(super) type ClassSetId = u32;

/// The set that holds every port class.
pub(super) const EVERY_PORT: ClassSetId = 0;

/// What a decision's cookie stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Account {
    /// The policies that decided, ascending.
    pub(super) policies: Vec<PolicyId>,
    /// What staged policies would decide instead.
    pub(super) staged: Option<SideVerdict>,
}

/// Rows and what they consist of.
pub(super) struct Tables {
    rows: Slices,
    decisions: Vec<Decision>,
    decision_numbers: HashMap<Decision, u16>,
    cookies: Vec<Account>,
    cookie_numbers: HashMap<Account, u32>,
    class_sets: Vec<Vec<u16>>,
    class_set_numbers: HashMap<Vec<u16>, ClassSetId>,
    known: HashMap<Vec<Isolating>, HashMap<Vec<Match>, u16>>,
}

impl Tables {
    pub(super) fn new(port_classes: u32, max_cells: usize) -> Self {
        let limit = (Numbered::DecisionCells, max_cells);
        let mut tables = Self {
            rows: Slices::new(port_classes as usize, limit),
            decisions: vec![Decision::UNREACHABLE],
            decision_numbers: HashMap::from([(Decision::UNREACHABLE, 0)]),
            cookies: Vec::new(),
            cookie_numbers: HashMap::new(),
            class_sets: vec![Vec::new()],
            class_set_numbers: HashMap::new(),
            known: HashMap::new(),
        };
        tables.cookie(Account::default());
        tables
    }

    /// The number of an account. Nobody's has 0.
    fn cookie(&mut self, account: Account) -> u32 {
        if let Some(&number) = self.cookie_numbers.get(&account) {
            return number;
        }
        let number = index(self.cookies.len());
        self.cookies.push(account.clone());
        self.cookie_numbers.insert(account, number);
        number
    }

    /// The number of a set of port classes.
    pub(super) fn class_set(&mut self, classes: Vec<u16>) -> ClassSetId {
        if let Some(&number) = self.class_set_numbers.get(&classes) {
            return number;
        }
        let number = index(self.class_sets.len());
        self.class_sets.push(classes.clone());
        self.class_set_numbers.insert(classes, number);
        number
    }

    /// The number of a decision.
    fn decision(&mut self, ruling: Ruling) -> Result<u16, CompileError> {
        let (action, flags) = match ruling.verdict {
            SideVerdict::Allow => (Action::Allow, 0),
            SideVerdict::Deny => (Action::deny(ruling.response), 0),
            SideVerdict::DefaultAllow => (Action::Allow, Decision::DEFAULT),
            SideVerdict::DefaultDeny => (Action::deny(ruling.response), Decision::DEFAULT),
            SideVerdict::Audit => (Action::Allow, Decision::AUDIT),
        };
        let cookie = self.cookie(Account { policies: ruling.policies, staged: ruling.staged });
        let decision = Decision::new(action, flags, cookie);
        if let Some(&number) = self.decision_numbers.get(&decision) {
            return Ok(number);
        }
        let too_many = CompileError::TooMany { what: Numbered::Decisions, limit: 1 << 16 };
        let number = u16::try_from(self.decisions.len()).map_err(|_| too_many)?;
        self.decisions.push(decision);
        self.decision_numbers.insert(decision, number);
        Ok(number)
    }

    /// The row in which every port is allowed, by nobody.
    pub(super) fn allowed_row(&mut self) -> Result<u16, CompileError> {
        let ruling = Ruling {
            verdict: SideVerdict::Allow,
            policies: Vec::new(),
            response: Response::Silence,
            staged: None,
        };
        let cells = vec![self.decision(ruling)?; self.rows.width];
        self.intern(&cells)
    }

    /// The row of what `matches` come to at an endpoint that `isolating` isolate.
    pub(super) fn row(
        &mut self,
        isolating: &[Isolating],
        mut matches: Vec<Match>,
    ) -> Result<u16, CompileError> {
        matches.sort_unstable();
        matches.dedup();
        if let Some(&row) = self.known.get(isolating).and_then(|rows| rows.get(&matches)) {
            return Ok(row);
        }
        let cells = self.cells(isolating, &matches)?;
        let row = self.intern(&cells)?;
        self.known.entry(isolating.to_vec()).or_default().insert(matches, row);
        Ok(row)
    }

    fn intern(&mut self, cells: &[u16]) -> Result<u16, CompileError> {
        let too_many = CompileError::TooMany { what: Numbered::Rows, limit: 1 << 16 };
        u16::try_from(self.rows.intern(cells)?).map_err(|_| too_many)
    }

    fn cells(
        &mut self,
        isolating: &[Isolating],
        matches: &[Match],
    ) -> Result<Vec<u16>, CompileError> {
        let everywhere: Vec<Match> =
            matches.iter().filter(|one| one.ports == EVERY_PORT).copied().collect();
        let mut by_class: BTreeMap<u16, Vec<Match>> = BTreeMap::new();
        for one in matches {
            for &class in &self.class_sets[one.ports as usize] {
                by_class.entry(class).or_insert_with(|| everywhere.clone()).push(*one);
            }
        }
        let rest = self.decision(ruling::rule(isolating, &everywhere))?;
        let mut cells = vec![rest; self.rows.width];
        for (class, mut matches) in by_class {
            matches.sort_unstable();
            cells[usize::from(class)] = self.decision(ruling::rule(isolating, &matches))?;
        }
        Ok(cells)
    }

    /// The cells of all rows, and the decisions.
    pub(super) fn into_cells(self) -> (Vec<u16>, Vec<Decision>, Vec<Account>) {
        (self.rows.cells, self.decisions, self.cookies)
    }
}

/// Slices of one width, each stored once. Number 0 is all zeros.
pub(super) struct Slices {
    width: usize,
    pub(super) cells: Vec<u16>,
    numbers: HashMap<u64, Vec<u32>>,
    limit: (Numbered, usize),
}

impl Slices {
    pub(super) fn new(width: usize, limit: (Numbered, usize)) -> Self {
        let mut slices = Self { width, cells: Vec::new(), numbers: HashMap::new(), limit };
        let zeros = vec![0; width];
        slices.append(&zeros, hash(&zeros));
        slices
    }

    /// The number of `slice`.
    pub(super) fn intern(&mut self, slice: &[u16]) -> Result<u32, CompileError> {
        let hash = hash(slice);
        let known = self.numbers.get(&hash).into_iter().flatten();
        let mut same = known.filter(|&&number| self.slice(number) == slice);
        if let Some(&number) = same.next() {
            return Ok(number);
        }
        let (what, limit) = self.limit;
        if self.cells.len() + slice.len() > limit {
            return Err(CompileError::TooMany { what, limit });
        }
        Ok(self.append(slice, hash))
    }

    fn slice(&self, number: u32) -> &[u16] {
        &self.cells[number as usize * self.width..][..self.width]
    }

    fn append(&mut self, slice: &[u16], hash: u64) -> u32 {
        let number = index(self.cells.len() / self.width);
        self.cells.extend_from_slice(slice);
        self.numbers.entry(hash).or_default().push(number);
        number
    }
}

fn hash(slice: &[u16]) -> u64 {
    let mut hasher = DefaultHasher::new();
    slice.hash(&mut hasher);
    hasher.finish()
}
