//! Everything that a compilation needs, kept from one to the next: what the input is now, and what was
//! found out about each part of it.
//!
//! Each stage of a build is a function of its input alone. What is kept is either addressed by that
//! input, or taken over by way of representatives ([`super::groups`]); so the result doesn't depend on
//! what was built before.

use std::{net::IpAddr, sync::Arc};

use flowgate_identity::{IdentityLabels, NumericIdentity};
use ipnet::IpNet;

use crate::{
    compile::{
        census::{Census, Holder},
        classes::{Parts, PeerClasses},
        error::CompileError,
        groups::{Before, GroupId, GroupMaker, Groups, Lineage},
        interned::{Interned, index},
        policies::{Policies, with_default_routes},
        population::{Endpoint, PeerId, Population, Who, representatives},
        rows::{RowMaker, Rows},
        rules::{DIRECTIONS, Terms},
        tables::{Source, Tables, Told},
    },
    inventory::Inventory,
    model::{Policy, PolicyRef},
    options::Options,
    plan::{Plan, PlannedEndpoint, PlannedPeer},
};

/// The input, and what is known about it.
#[derive(Clone, Debug)]
pub(super) struct State {
    census: Census,
    policies: Policies,
    terms: Terms,
    names: Interned<PolicyRef>,
    rows: Rows,
    holders: Option<Holders>,
    built: Option<Built>,
}

/// Who holds each address; sorted.
type Holders = Arc<[(IpAddr, Holder)]>;

/// What was built last.
#[derive(Clone, Debug)]
struct Built {
    population: Arc<Population>,
    classes: PeerClasses,
    groups: Groups,
    /// How many of the rows are used.
    rows: usize,
    /// What was made of accounts.
    told: Told,
}

/// What may be remembered beside what there is.
pub(super) const SPARE: usize = 1 << 10;

/// A plan but for identities.
pub(super) struct Draft {
    /// With their classes.
    pub(super) peers: Vec<(Who, u16)>,
    pub(super) ipcache: Vec<(IpNet, PeerId)>,
    pub(super) peer_classes: u32,
    pub(super) endpoints: Vec<PlannedEndpoint>,
    pub(super) tables: Tables,
    pub(super) networks: Vec<(PolicyRef, Vec<IpNet>)>,
}

impl State {
    pub(super) fn new(options: Options) -> Self {
        Self {
            census: Census::new(options),
            policies: Policies::default(),
            terms: Terms::default(),
            names: Interned::default(),
            rows: Rows::default(),
            holders: None,
            built: None,
        }
    }

    /// Takes over an input, in which nothing may be twice.
    pub(super) fn fill(
        &mut self,
        inventory: &Inventory,
        policies: &[Policy],
    ) -> Result<(), CompileError> {
        for policy in policies {
            if self.policies.contains(&policy.id) {
                return Err(CompileError::DuplicatePolicy { policy: policy.id.clone() });
            }
            self.set_policy(policy.clone());
        }
        self.census.fill(inventory)
    }

    /// The policies; for reading.
    pub(super) const fn policies(&self) -> &Policies {
        &self.policies
    }

    /// Adds a policy, or puts it in the place of the one of that name. `false`: it is the same.
    pub(super) fn set_policy(&mut self, policy: Policy) -> bool {
        self.policies.set(policy, &mut self.names)
    }

    pub(super) fn remove_policy(&mut self, name: &PolicyRef) -> bool {
        self.policies.remove(name)
    }

    pub(super) const fn options(&self) -> &Options {
        self.census.options()
    }

    /// The census; for reading.
    pub(super) const fn census(&self) -> &Census {
        &self.census
    }

    /// The census, of which everything that follows is made anew.
    pub(super) fn recount(&mut self) -> &mut Census {
        self.holders = None;
        &mut self.census
    }

    /// What the input comes to now.
    ///
    /// # Errors
    /// The input contradicts itself, or the tables can't express it.
    pub(super) fn build(&mut self) -> Result<Draft, CompileError> {
        let (holders, recounted) = self.holders()?;
        let Self { census, policies, terms, names, rows, built, .. } = self;
        let there = census.subjects_there();
        let stations = census.stations();
        let applying = policies.apply(&mut census.subjects, (&there, &stations), terms);
        let networks = applying.networks();
        let named = with_default_routes(&networks);
        let same = built.as_ref().filter(|built| !recounted && built.population.networks == named);
        let population = match same {
            Some(built) => Arc::clone(&built.population),
            None => Arc::new(Population::new(census, &holders, named)),
        };
        let endpoints = population.endpoints(census, &stations, &applying.selected);
        let parts = &mut Parts {
            census: &mut *census,
            terms: &mut *terms,
            population: &population,
            applying: &applying,
            endpoints: &endpoints,
        };
        let classes = PeerClasses::new(parts, same.map(|built| &built.classes))?;
        let lineage = built.as_ref().map(|built| built.become_of(&population, &classes));
        let (groups, used) = groups(
            GroupMaker {
                census,
                applying: &applying,
                classes: &classes,
                rows: RowMaker::new(rows, terms, applying.names()),
                before: before_of(built.as_ref(), lineage.as_ref()),
                made: Groups::default(),
            },
            &endpoints,
        );
        let tables = Source {
            groups: &groups.all,
            rows,
            names,
            applying: &applying,
            peer_classes: classes.count,
            options: census.options(),
            told: built.as_ref().map(|built| &built.told),
        };
        let (tables, told) = tables.tables(used.iter().flatten().copied())?;
        let endpoints = endpoints
            .into_iter()
            .zip(used)
            .map(|(endpoint, groups)| endpoint.planned(groups.map(|group| tables.numbers[&group])));
        let peers = population.peers.iter().copied().zip(classes.of_peer.iter().copied());
        let draft = Draft {
            peers: peers.collect(),
            ipcache: population.ipcache.clone(),
            peer_classes: classes.count,
            endpoints: endpoints.collect(),
            networks,
            tables,
        };
        self.built = Some(Built { population, classes, groups, rows: draft.tables.rows, told });
        Ok(draft)
    }

    /// What a peer's numeric identity stands for.
    pub(super) fn identity_labels(&self, who: &Who) -> IdentityLabels {
        who.key(&self.census).identity(self.options().local_node.as_ref())
    }

    /// It remembers several times as much as there is.
    pub(super) fn is_worn(&self) -> bool {
        let used = self.built.as_ref().map_or(0, |built| built.rows + built.classes.lists());
        let there = self.census.residents().count() + self.policies.iter().count() + used;
        self.remembered() > 4 * there + SPARE
    }

    /// Parts of inputs, as they are and as they were.
    pub(super) fn remembered(&self) -> usize {
        let kinds = (self.census.kinds.len() + self.census.subjects.len()) as usize;
        self.rows.len() + self.terms.lists() + self.names.all().len() + kinds
    }

    /// The same input, and nothing remembered.
    pub(super) fn renewed(&self) -> Self {
        let mut state = Self { census: self.census.renewed(), ..Self::new(self.options().clone()) };
        for policy in self.policies.iter() {
            state.set_policy(policy.clone());
        }
        state
    }

    /// Who holds each address, and whether that is news.
    fn holders(&mut self) -> Result<(Holders, bool), CompileError> {
        if let Some(holders) = &self.holders {
            return Ok((Arc::clone(holders), false));
        }
        let holders: Holders = self.census.holders()?.into();
        self.holders = Some(Arc::clone(&holders));
        Ok((holders, true))
    }
}

impl Draft {
    /// The plan, with its peers identified.
    pub(super) fn plan(self, state: &State, identities: Vec<NumericIdentity>) -> Plan {
        let tables = self.tables;
        let peers = self.peers.into_iter().zip(identities);
        let peers = peers.map(|((who, class), identity)| {
            let key = who.key(&state.census);
            PlannedPeer { key, identity, class }
        });
        Plan {
            endpoints: self.endpoints,
            peers: peers.collect(),
            ipcache: self.ipcache,
            peer_classes: self.peer_classes,
            port_classes: tables.port_classes,
            port_class: tables.port_class,
            row: tables.row,
            decision: tables.decision,
            step: tables.step,
            columns: tables.columns,
            scattered: tables.scattered,
            decisions: tables.decisions,
            cookies: tables.cookies,
            networks: self.networks,
            local_node: state.options().local_node.clone(),
            keep_established: state.options().keep_established,
            scope: state.options().endpoints,
        }
    }
}

impl Built {
    fn become_of(&self, population: &Population, classes: &PeerClasses) -> Lineage {
        let representatives = match std::ptr::eq(&*self.population, population) {
            true => (0..index(population.peers.len())).map(Some).collect(),
            false => representatives(&self.population, population),
        };
        Lineage::new(classes, &self.classes, &representatives)
    }
}

/// The groups of endpoints in both directions, each made once.
fn groups(mut maker: GroupMaker<'_>, endpoints: &[Endpoint]) -> (Groups, Vec<[GroupId; 2]>) {
    let of = |endpoint| DIRECTIONS.map(|direction| maker.group(endpoint, direction));
    let used = endpoints.iter().map(of).collect();
    (maker.made, used)
}

fn before_of<'a>(built: Option<&'a Built>, lineage: Option<&'a Lineage>) -> Option<Before<'a>> {
    Some(Before { groups: &built?.groups, lineage: lineage? })
}
