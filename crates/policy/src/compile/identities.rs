//! The numeric identities of peers, held from plan to plan.
//!
//! Invariant: each peer of the last plan holds its number once, and so does each that the plan before
//! had and the last one hasn't.

use std::collections::HashMap;

use flowgate_identity::{AllocateError, IdentityAllocator, IdentityLabels, NumericIdentity, Scope};

use crate::compile::population::Who;

/// Identities by peer.
#[derive(Clone, Debug)]
pub(super) struct Identities<A> {
    allocator: A,
    /// The last plan's, in its order.
    held: Vec<(Who, NumericIdentity)>,
    /// Those of peers that the last plan hasn't any more.
    leaving: Vec<NumericIdentity>,
}

impl<A: IdentityAllocator> Identities<A> {
    pub(super) fn new(allocator: A) -> Self {
        Self { allocator, held: Vec::new(), leaving: Vec::new() }
    }

    pub(super) const fn allocator(&self) -> &A {
        &self.allocator
    }

    /// Peers have other numbers from now on; what they hold leaves with the next plan.
    pub(super) fn forget(&mut self) {
        self.leaving.extend(self.held.drain(..).map(|(_, identity)| identity));
    }

    /// The identities of a plan's peers. If there are too few, nothing has changed.
    pub(super) fn renew(
        &mut self,
        peers: impl ExactSizeIterator<Item = Who> + Clone,
        labels: impl Fn(&Who) -> IdentityLabels,
    ) -> Result<Vec<NumericIdentity>, AllocateError> {
        let leaving = if peers.clone().eq(self.held.iter().map(|(who, _)| *who)) {
            std::mem::take(&mut self.leaving)
        } else {
            self.exchange(peers, labels)?
        };
        self.release(leaving);
        Ok(self.held.iter().map(|(_, identity)| *identity).collect())
    }

    /// Holds those of other peers. Returns what has left.
    fn exchange(
        &mut self,
        peers: impl ExactSizeIterator<Item = Who>,
        labels: impl Fn(&Who) -> IdentityLabels,
    ) -> Result<Vec<NumericIdentity>, AllocateError> {
        let mut before: HashMap<Who, NumericIdentity> = self.held.iter().copied().collect();
        let mut held = Vec::with_capacity(peers.len());
        let mut new = Vec::new();
        for who in peers {
            let known = before.remove(&who);
            let allocated = || allocate(&mut self.allocator, &who, &labels(&who));
            let identity = match known.map_or_else(allocated, Ok) {
                Ok(identity) => identity,
                Err(error) => {
                    self.release(new);
                    return Err(error);
                }
            };
            new.extend(known.is_none().then_some(identity));
            held.push((who, identity));
        }
        self.held = held;
        Ok(std::mem::replace(&mut self.leaving, before.into_values().collect()))
    }

    fn release(&mut self, identities: Vec<NumericIdentity>) {
        for identity in identities {
            // It is held, so there is nothing that could be wrong with it.
            let _ = self.allocator.release(identity);
        }
    }
}

/// A number for a peer.
pub(super) fn allocate<A: IdentityAllocator>(
    allocator: &mut A,
    who: &Who,
    labels: &IdentityLabels,
) -> Result<NumericIdentity, AllocateError> {
    let scope = if who.holder.is_some() { Scope::Global } else { Scope::Local };
    allocator.allocate(scope, labels)
}
