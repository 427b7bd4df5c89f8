//! The compiler: an inventory and policies to a [`Plan`] (recursive flow classification, Gupta and
//! McKeown 1999).
//!
//! What no rule tells apart shares a class: peers by the lists of peers that hold them, ports by what
//! rows decide about them. What decides alike is stored once: groups of rows, rows, decisions. No
//! step is quadratic in workloads and policies; a selector is evaluated once per distinct set of
//! labels that it could match. [`Compiler`] compiles one input from nothing, [`Session`] an input that
//! changes, in proportion to the change where it can.
//!
//! Not here: whether a plan fits ([`Plan::fits`]), and who gets which number in the running tables.
//! Invariant: nothing is allowed that no rule, no missing isolation, no audit and no node's right to
//! its own workloads allows; an empty set of peers or ports matches nothing.
//! Tested against [`crate::oracle`], which shares no code with it.

mod area;
mod census;
mod classes;
mod error;
mod group;
mod groups;
mod identities;
mod interned;
mod kinds;
mod layout;
mod policies;
mod population;
mod port_classes;
mod ports;
mod rows;
mod rules;
mod ruling;
mod scattered;
mod session;
mod state;
mod tables;
#[cfg(test)]
mod tests;

use flowgate_identity::{IdentityAllocator, NumericIdentity, ReleaseError};

pub use self::{
    error::{CompileError, Numbered, Owner},
    session::Session,
};
use self::{identities::allocate, population::Who, state::State};
use crate::{inventory::Inventory, model::Policy, options::Options, plan::Plan};

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
        let mut state = State::new(options.clone());
        state.fill(inventory, policies)?;
        let draft = state.build()?;
        let identities = self.identify(&draft.peers, &state)?;
        Ok(draft.plan(&state, identities))
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
        peers: &[(Who, u16)],
        state: &State,
    ) -> Result<Vec<NumericIdentity>, CompileError> {
        let mut identities = Vec::with_capacity(peers.len());
        for (who, _) in peers {
            match allocate(&mut self.allocator, who, &state.identity_labels(who)) {
                Ok(identity) => identities.push(identity),
                Err(error) => {
                    self.give_back(&identities);
                    return Err(error.into());
                }
            }
        }
        Ok(identities)
    }

    fn give_back(&mut self, identities: &[NumericIdentity]) {
        for identity in identities {
            // It was allocated a moment ago, so there is nothing that could be wrong with it.
            let _ = self.allocator.release(*identity);
        }
    }
}
