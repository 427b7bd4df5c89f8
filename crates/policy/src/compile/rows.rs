//! Rows: what an endpoint decides about a peer, as a function of the service.
//!
//! All services lie in one line, the port tables end to end. A row is cut where its decision changes;
//! each row, and each decision, is stored once. Rows say nothing of port classes, so they outlive
//! them.
//!
//! Invariant: a row begins with the first service, no two neighbouring runs decide alike, and its last
//! run is what it decides where no rule names the service: no rule can name the last one.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use flowgate_abi::policy::PortTable;

use crate::{
    compile::{
        interned::{Interned, Slices},
        policies::{PolicyId, PolicyName},
        ports::Span,
        rules::{PortSetId, Terms},
        ruling::{self, Isolating, Match, Ruling},
    },
    model::Response,
    outcome::SideVerdict,
};

/// A number of a row.
pub(super) type RowId = u32;
/// A number of what is decided.
pub(super) type AccountId = u32;
/// A place in the line of all services.
pub(super) type ServiceKey = u32;

/// How many services there are.
pub(super) const SERVICES: ServiceKey = (PortTable::COUNT * PortTable::PORTS) as ServiceKey;

/// Services from one on, up to the next run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Run {
    pub(super) first: ServiceKey,
    pub(super) account: AccountId,
}

/// What is decided, and by whom.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Account {
    pub(super) verdict: SideVerdict,
    /// The policies that decided, ascending.
    pub(super) policies: Vec<PolicyName>,
    /// What the sender is told, if it is denied.
    pub(super) response: Response,
    /// What staged policies would decide instead.
    pub(super) staged: Option<SideVerdict>,
}

/// The rows.
#[derive(Clone, Debug, Default)]
pub(super) struct Rows {
    rows: Slices<Run>,
    pub(super) accounts: Interned<Account>,
}

/// Makes rows of matching rules, each combination of them once.
pub(super) struct RowMaker<'a> {
    rows: &'a mut Rows,
    pub(super) terms: &'a mut Terms,
    /// By policy: its name.
    names: Vec<PolicyName>,
    known: HashMap<Vec<Isolating>, HashMap<Vec<Match>, RowId>>,
}

impl Rows {
    /// The runs of a row.
    pub(super) fn runs(&self, row: RowId) -> &[Run] {
        self.rows.get(row)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }
}

impl<'a> RowMaker<'a> {
    pub(super) fn new(rows: &'a mut Rows, terms: &'a mut Terms, names: Vec<PolicyName>) -> Self {
        Self { rows, terms, names, known: HashMap::new() }
    }

    /// The row in which every service is allowed, by nobody.
    pub(super) fn allowed(&mut self) -> RowId {
        let account = self.account(Ruling::by(SideVerdict::Allow, Vec::new()));
        self.rows.rows.intern(&[Run { first: 0, account }])
    }

    /// The row of what `matches` come to at an endpoint that `isolating` isolate.
    pub(super) fn row(&mut self, isolating: &[Isolating], mut matches: Vec<Match>) -> RowId {
        matches.sort_unstable();
        matches.dedup();
        if let Some(&row) = self.known.get(isolating).and_then(|rows| rows.get(&matches)) {
            return row;
        }
        let runs = self.runs(isolating, &matches);
        let row = self.rows.rows.intern(&runs);
        self.known.entry(isolating.to_vec()).or_default().insert(matches, row);
        row
    }

    /// Goes along the line of services, from border to border of what the matches name.
    fn runs(&mut self, isolating: &[Isolating], matches: &[Match]) -> Vec<Run> {
        let mut present: BTreeSet<usize> = BTreeSet::new();
        let mut borders: BTreeMap<ServiceKey, Vec<usize>> = BTreeMap::from([(0, Vec::new())]);
        for (at, one) in matches.iter().enumerate() {
            match one.ports {
                None => drop(present.insert(at)),
                Some(ports) => {
                    for border in self.borders(ports) {
                        borders.entry(border).or_default().push(at);
                    }
                }
            }
        }
        let mut runs: Vec<Run> = Vec::new();
        for (first, changing) in borders {
            for at in changing {
                if !present.remove(&at) {
                    present.insert(at);
                }
            }
            let here: Vec<Match> = present.iter().map(|&at| matches[at]).collect();
            let account = self.account(ruling::rule(isolating, &here));
            if runs.last().is_none_or(|last| last.account != account) {
                runs.push(Run { first, account });
            }
        }
        runs
    }

    /// Where a set of ports begins and ends, again and again.
    fn borders(&self, ports: PortSetId) -> impl Iterator<Item = ServiceKey> + use<> {
        let spans = self.terms.port_sets.get(ports).spans().to_vec();
        spans.into_iter().flat_map(|span| [first(span), last(span) + 1])
    }

    /// The number of what is decided.
    fn account(&mut self, ruling: Ruling) -> AccountId {
        let Ruling { verdict, policies, response, staged } = ruling;
        let name = |policy: PolicyId| self.names[policy as usize];
        let mut policies: Vec<PolicyName> = policies.into_iter().map(name).collect();
        policies.sort_unstable();
        self.rows.accounts.intern(&Account { verdict, policies, response, staged })
    }
}

/// The place of a service.
pub(super) const fn service(table: PortTable, port: u16) -> ServiceKey {
    table as ServiceKey * PortTable::PORTS as ServiceKey + port as ServiceKey
}

const fn first((table, first, _): Span) -> ServiceKey {
    service(table, first)
}

const fn last((table, _, last): Span) -> ServiceKey {
    service(table, last)
}
