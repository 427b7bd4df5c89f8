//! The dense tables: rows and decisions, each stored once.

use std::{
    collections::{BTreeMap, HashMap, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
};

use flowgate_abi::policy::{Action, Decision};

use crate::compile::{
    error::{CompileError, Numbered},
    kinds::index,
    rules::PolicyId,
};

/// A number of a set of port classes.
pub(super) type ClassSetId = u32;

/// The set that holds every port class.
pub(super) const EVERY_PORT: ClassSetId = 0;

/// What is allowed: these ports, by this policy.
pub(super) type Allowed = (PolicyId, ClassSetId);

/// Rows and what they consist of.
pub(super) struct Tables {
    rows: Slices,
    decisions: Vec<Decision>,
    decision_numbers: HashMap<Decision, u16>,
    pub(super) cookies: Vec<Vec<PolicyId>>,
    cookie_numbers: HashMap<Vec<PolicyId>, u32>,
    class_sets: Vec<Vec<u16>>,
    class_set_numbers: HashMap<Vec<u16>, ClassSetId>,
    known: HashMap<(u16, Vec<Allowed>), u16>,
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
        tables.cookie(&[]);
        tables
    }

    /// The number of a set of policies. The empty set has 0.
    pub(super) fn cookie(&mut self, policies: &[PolicyId]) -> u32 {
        if let Some(&number) = self.cookie_numbers.get(policies) {
            return number;
        }
        let number = index(self.cookies.len());
        self.cookies.push(policies.to_vec());
        self.cookie_numbers.insert(policies.to_vec(), number);
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
    pub(super) fn decision(&mut self, decision: Decision) -> Result<u16, CompileError> {
        if let Some(&number) = self.decision_numbers.get(&decision) {
            return Ok(number);
        }
        let too_many = CompileError::TooMany { what: Numbered::Decisions, limit: 1 << 16 };
        let number = u16::try_from(self.decisions.len()).map_err(|_| too_many)?;
        self.decisions.push(decision);
        self.decision_numbers.insert(decision, number);
        Ok(number)
    }

    /// The row in which every port gets `decision`.
    pub(super) fn flat_row(&mut self, decision: Decision) -> Result<u16, CompileError> {
        let decision = self.decision(decision)?;
        self.row(decision, Vec::new())
    }

    /// The row that allows `allowed`, and otherwise decides `default`.
    pub(super) fn row(
        &mut self,
        default: u16,
        mut allowed: Vec<Allowed>,
    ) -> Result<u16, CompileError> {
        allowed.sort_unstable();
        allowed.dedup();
        if let Some(&row) = self.known.get(&(default, allowed.clone())) {
            return Ok(row);
        }
        let cells = self.cells(default, &allowed)?;
        let too_many = CompileError::TooMany { what: Numbered::Rows, limit: 1 << 16 };
        let row = u16::try_from(self.rows.intern(&cells)?).map_err(|_| too_many)?;
        self.known.insert((default, allowed), row);
        Ok(row)
    }

    fn cells(&mut self, default: u16, allowed: &[Allowed]) -> Result<Vec<u16>, CompileError> {
        let everywhere: Vec<PolicyId> = allowed
            .iter()
            .filter(|(_, set)| *set == EVERY_PORT)
            .map(|(policy, _)| *policy)
            .collect();
        let mut by_class: BTreeMap<u16, Vec<PolicyId>> = BTreeMap::new();
        for &(policy, set) in allowed {
            for &class in &self.class_sets[set as usize] {
                by_class.entry(class).or_insert_with(|| everywhere.clone()).push(policy);
            }
        }
        let rest = match everywhere.is_empty() {
            true => default,
            false => self.allow(everywhere)?,
        };
        let mut cells = vec![rest; self.rows.width];
        for (class, policies) in by_class {
            cells[usize::from(class)] = self.allow(policies)?;
        }
        Ok(cells)
    }

    fn allow(&mut self, mut policies: Vec<PolicyId>) -> Result<u16, CompileError> {
        policies.sort_unstable();
        policies.dedup();
        let cookie = self.cookie(&policies);
        self.decision(Decision::new(Action::Allow, 0, cookie))
    }

    /// The cells of all rows, and the decisions.
    pub(super) fn into_cells(self) -> (Vec<u16>, Vec<Decision>, Vec<Vec<PolicyId>>) {
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
