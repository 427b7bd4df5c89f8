//! The compiler: an inventory and policies to a [`Plan`] (recursive flow classification, Gupta and
//! McKeown 1999).
//!
//! What no rule tells apart shares a class: peers by the rules that name them, ports by the sets of
//! ports that hold them. What decides alike is stored once: endpoint policies, rows, decisions. No
//! step is quadratic in workloads and policies; a selector is evaluated once per distinct set of
//! labels that it could match.
//!
//! Not here: whether a plan fits ([`Plan::fits`]), and who gets which number in the running tables.
//! Invariant: nothing is allowed that no rule, no missing isolation, no audit and no node's right to
//! its own workloads allows; an empty set of peers or ports matches nothing.
//! Tested against [`crate::oracle`], which shares no code with it.

mod classes;
mod endpoint_policies;
mod error;
mod input;
mod kinds;
mod peers;
mod ports;
mod rules;
mod ruling;
mod subjects;
mod tables;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, sync::Arc};

use flowgate_abi::policy::Direction;
use flowgate_identity::{IdentityAllocator, NumericIdentity, ReleaseError, Scope};

pub use self::error::{CompileError, Numbered, Owner};
use self::{
    classes::PeerClasses,
    endpoint_policies::EndpointPolicies,
    input::Input,
    kinds::Kinds,
    peers::{Endpoint, Population},
    ports::{PortClasses, PortSet, table},
    rules::{NameId, Rules},
    subjects::Subjects,
    tables::Account,
};
use crate::{
    inventory::Inventory,
    model::{Policy, Protocol},
    options::Options,
    peer_key::PeerKey,
    plan::{Cookie, Plan, PlannedEndpoint, PlannedPeer},
};

/// Compiles policies; holds the allocator of the peers' identities.
///
/// ```
/// use flowgate_identity::LocalAllocator;
/// use flowgate_policy::{compile::Compiler, inventory::Inventory, options::Options};
///
/// let mut compiler = Compiler::new(LocalAllocator::new());
/// let plan = compiler.compile(&Inventory::default(), &[], &Options::default())?;
/// assert_eq!(plan.ipcache.len(), 2, "the default routes of both families");
/// # Ok::<(), flowgate_policy::compile::CompileError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Compiler<A> {
    allocator: A,
}

impl<A: IdentityAllocator> Compiler<A> {
    /// A compiler that takes identities from `allocator`.
    #[must_use]
    pub const fn new(allocator: A) -> Self {
        Self { allocator }
    }

    /// Who knows what the identities stand for.
    #[must_use]
    pub const fn allocator(&self) -> &A {
        &self.allocator
    }

    /// Compiles. The plan holds each of its peers' identities once, until [`Self::release`].
    ///
    /// # Errors
    ///
    /// [`CompileError`] if the input contradicts itself, or if the tables can't express it; no
    /// identity is held then.
    pub fn compile(
        &mut self,
        inventory: &Inventory,
        policies: &[Policy],
        options: &Options,
    ) -> Result<Plan, CompileError> {
        let input = Input::new(inventory, policies)?;
        let kinds = Kinds::new(&input, options);
        let subjects = Subjects::new(&input, &kinds);
        let population = Population::new(&input, &kinds, &subjects.networks(&input), options);
        let networks = subjects.networks_by_policy(&input);
        let rules = Rules::new(&input, subjects, &population);
        let classes = PeerClasses::new(&population, &rules, options)?;
        let ports = PortClasses::new(&port_sets(&population, &rules))?;
        let mut made = EndpointPolicies::new(&rules, &classes, &ports, options);
        let endpoints = population.endpoints.iter();
        let endpoints: Vec<PlannedEndpoint> =
            endpoints.map(|endpoint| planned(&mut made, endpoint)).collect::<Result<_, _>>()?;
        let EndpointPolicies { tables, groups, .. } = made;
        let row = groups.cells;
        let (decision, decisions, cookies) = tables.into_cells();
        let peers = self.identify(&population.peers, &classes.of_peer, options)?;
        Ok(Plan {
            endpoints,
            peers,
            ipcache: population.ipcache.clone(),
            peer_classes: classes.count,
            port_classes: ports.count,
            port_class: ports.tables,
            row,
            decision,
            decisions,
            cookies: cookies.into_iter().map(|account| cookie(&input, account)).collect(),
            networks,
        })
    }

    /// Gives back the identities of a plan that nobody uses any more, or never will.
    ///
    /// # Errors
    ///
    /// [`ReleaseError`] if they were given back before; the others are given back nevertheless.
    pub fn release(&mut self, plan: &Plan) -> Result<(), ReleaseError> {
        let mut all = Ok(());
        for peer in &plan.peers {
            let released = self.allocator.release(peer.identity).map(|_| ());
            all = all.and(released);
        }
        all
    }

    fn identify(
        &mut self,
        keys: &[PeerKey],
        classes: &[u16],
        options: &Options,
    ) -> Result<Vec<PlannedPeer>, CompileError> {
        let mut peers: Vec<PlannedPeer> = Vec::with_capacity(keys.len());
        for (key, &class) in keys.iter().zip(classes) {
            match self.identity(key, options) {
                Ok(identity) => peers.push(PlannedPeer { key: key.clone(), identity, class }),
                Err(error) => {
                    self.give_back(&peers);
                    return Err(error);
                }
            }
        }
        Ok(peers)
    }

    fn identity(
        &mut self,
        key: &PeerKey,
        options: &Options,
    ) -> Result<NumericIdentity, CompileError> {
        let scope = match key {
            PeerKey::Network(_) => Scope::Local,
            PeerKey::Workload { .. } | PeerKey::Node { .. } => Scope::Global,
        };
        Ok(self.allocator.allocate(scope, &key.identity(options.local_node.as_ref()))?)
    }

    fn give_back(&mut self, peers: &[PlannedPeer]) {
        for peer in peers {
            // It was allocated a moment ago, so there is nothing that could be wrong with it.
            let _ = self.allocator.release(peer.identity);
        }
    }
}

/// Every set of ports that must be a union of port classes.
fn port_sets(population: &Population<'_>, rules: &Rules) -> BTreeSet<PortSet> {
    let mut sets: BTreeSet<PortSet> = rules.port_sets().cloned().collect();
    let mut resolve = |name: NameId, of: &dyn Fn(&str, Protocol) -> BTreeSet<Vec<u16>>| {
        let (text, protocol) = &rules.names[name as usize];
        let resolved = of(text, *protocol).into_iter().filter(|ports| !ports.is_empty());
        let spans = |port: u16| (table(*protocol), port, port);
        sets.extend(resolved.map(|ports| ports.into_iter().map(spans).collect()));
    };
    for name in rules.names_used(Direction::Egress) {
        let peers = population.peers.iter();
        resolve(name, &|text, protocol| peers.clone().map(|p| p.resolve(text, protocol)).collect());
    }
    for name in rules.names_used(Direction::Ingress) {
        let own = population.endpoints.iter().map(|endpoint| &endpoint.ports);
        resolve(name, &|text, protocol| own.clone().map(|p| p.resolve(text, protocol)).collect());
    }
    sets
}

fn planned<'a>(
    made: &mut EndpointPolicies<'a>,
    endpoint: &Endpoint<'a>,
) -> Result<PlannedEndpoint, CompileError> {
    Ok(PlannedEndpoint {
        workload: endpoint.workload.id.clone(),
        addresses: endpoint.workload.addresses.clone(),
        node: endpoint.workload.node.clone(),
        peer4: endpoint.peer4,
        peer6: endpoint.peer6,
        egress: made.number(endpoint, Direction::Egress)?,
        ingress: made.number(endpoint, Direction::Ingress)?,
    })
}

fn cookie(input: &Input<'_>, account: Account) -> Arc<Cookie> {
    let policies = || account.policies.iter().map(|policy| input.policies[*policy as usize]);
    Arc::new(Cookie {
        policies: policies().map(|policy| policy.id.clone()).collect(),
        staged: account.staged,
        log: policies().filter_map(|policy| policy.log.clone()).collect(),
    })
}
