//! Allocation of numeric identities: the trait, and the allocator that lives in this process.
//!
//! Not here: agreement between nodes; an allocator over a shared store implements
//! [`IdentityAllocator`] elsewhere. Invariant: a number has one description as long as anybody
//! holds it, and the same calls in the same order give the same numbers.
//! Tested by a table of cases, and by a property test against a naive model.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use thiserror::Error;

use crate::{IdentityLabels, NumericIdentity, Scope};

/// Gives numbers to identities, and takes them back.
pub trait IdentityAllocator {
    /// The number of `labels` in `scope`; the caller holds it once more than before.
    ///
    /// A reserved identity has its number in whatever scope, and isn't counted.
    ///
    /// # Errors
    ///
    /// [`AllocateError`] if no number is left, or if there is no such reserved identity.
    fn allocate(
        &mut self,
        scope: Scope,
        labels: &IdentityLabels,
    ) -> Result<NumericIdentity, AllocateError>;

    /// Gives one hold of `id` back; with the last one the number becomes free.
    ///
    /// # Errors
    ///
    /// [`ReleaseError`] if nobody holds `id`.
    fn release(&mut self, id: NumericIdentity) -> Result<Released, ReleaseError>;

    /// What `id` stands for, if anybody holds it or it is reserved.
    fn labels(&self, id: NumericIdentity) -> Option<&IdentityLabels>;
}

/// Why there is no number.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AllocateError {
    /// All numbers of the scope are held.
    #[error("all {capacity} identities of the {scope} scope are in use")]
    Exhausted {
        /// The scope.
        scope: Scope,
        /// How many numbers it has.
        capacity: u32,
    },
    /// A reserved identity was asked for by a number that isn't one.
    #[error("{id} is not a reserved identity")]
    NotReserved {
        /// The number.
        id: NumericIdentity,
    },
}

/// Why a number can't be given back.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ReleaseError {
    /// Nobody holds it.
    #[error("identity {id} is not allocated")]
    NotAllocated {
        /// The number.
        id: NumericIdentity,
    },
}

/// What became of a number that was given back.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Released {
    /// It is free.
    Freed,
    /// Others still hold it.
    InUse {
        /// How many times it is held.
        holds: u32,
    },
    /// It is reserved, and stays.
    Reserved,
}

/// How many numbers an allocator may give out per scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScopeCapacities {
    /// In [`Scope::Global`].
    pub global: u32,
    /// In [`Scope::Local`].
    pub local: u32,
    /// In [`Scope::RemoteNode`].
    pub remote_node: u32,
}

impl Default for ScopeCapacities {
    /// All that the scopes have.
    fn default() -> Self {
        Self {
            global: Scope::Global.capacity(),
            local: Scope::Local.capacity(),
            remote_node: Scope::RemoteNode.capacity(),
        }
    }
}

/// The allocator that lives in this process: the lowest free number of the scope, counted by holds.
///
/// ```
/// use flowgate_identity::{IdentityAllocator, IdentityLabels, LocalAllocator, Released, Scope};
///
/// let mut allocator = LocalAllocator::new();
/// let networks = IdentityLabels::cidrs(["198.51.100.0/24".parse()?]);
/// let id = allocator.allocate(Scope::Local, &networks)?;
/// assert_eq!(id.scope(), Scope::Local);
/// assert_eq!(allocator.allocate(Scope::Local, &networks)?, id);
/// assert_eq!(allocator.release(id)?, Released::InUse { holds: 1 });
/// assert_eq!(allocator.release(id)?, Released::Freed);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct LocalAllocator {
    capacities: ScopeCapacities,
    global: Pool,
    local: Pool,
    remote_node: Pool,
    numbers: HashMap<(Scope, IdentityLabels), NumericIdentity>,
    held: BTreeMap<NumericIdentity, Held>,
}

#[derive(Clone, Debug)]
struct Held {
    labels: IdentityLabels,
    holds: u32,
}

/// The offsets of one scope. Invariant: every offset in `freed` is below `untouched`.
#[derive(Clone, Debug, Default)]
struct Pool {
    freed: BTreeSet<u32>,
    untouched: u32,
}

impl Pool {
    fn take(&mut self, capacity: u32) -> Option<u32> {
        if let Some(offset) = self.freed.pop_first() {
            return Some(offset);
        }
        let offset = self.untouched;
        (offset < capacity).then(|| {
            self.untouched += 1;
            offset
        })
    }

    fn give_back(&mut self, offset: u32) {
        self.freed.insert(offset);
    }
}

static RESERVED: [IdentityLabels; 11] = [
    IdentityLabels::Reserved(NumericIdentity::UNKNOWN),
    IdentityLabels::Reserved(NumericIdentity::HOST),
    IdentityLabels::Reserved(NumericIdentity::WORLD),
    IdentityLabels::Reserved(NumericIdentity::UNMANAGED),
    IdentityLabels::Reserved(NumericIdentity::HEALTH),
    IdentityLabels::Reserved(NumericIdentity::INIT),
    IdentityLabels::Reserved(NumericIdentity::REMOTE_NODE),
    IdentityLabels::Reserved(NumericIdentity::KUBE_APISERVER),
    IdentityLabels::Reserved(NumericIdentity::INGRESS),
    IdentityLabels::Reserved(NumericIdentity::WORLD_IPV4),
    IdentityLabels::Reserved(NumericIdentity::WORLD_IPV6),
];

fn reserved(id: NumericIdentity) -> Option<&'static IdentityLabels> {
    RESERVED.get(usize::try_from(id.0).ok()?)
}

impl LocalAllocator {
    /// An allocator with all numbers of every scope.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An allocator with fewer numbers. More than a scope has counts as all that it has.
    #[must_use]
    pub fn with_capacities(capacities: ScopeCapacities) -> Self {
        let capacities = ScopeCapacities {
            global: capacities.global.min(Scope::Global.capacity()),
            local: capacities.local.min(Scope::Local.capacity()),
            remote_node: capacities.remote_node.min(Scope::RemoteNode.capacity()),
        };
        Self { capacities, ..Self::default() }
    }

    /// The numbers that are held, with what they stand for, sorted by number.
    pub fn iter(&self) -> impl Iterator<Item = (NumericIdentity, &IdentityLabels)> {
        self.held.iter().map(|(&id, held)| (id, &held.labels))
    }

    fn pool(&mut self, scope: Scope) -> (&mut Pool, u32) {
        match scope {
            Scope::Global => (&mut self.global, self.capacities.global),
            Scope::Local => (&mut self.local, self.capacities.local),
            Scope::RemoteNode => (&mut self.remote_node, self.capacities.remote_node),
        }
    }

    fn allocate_new(
        &mut self,
        scope: Scope,
        labels: &IdentityLabels,
    ) -> Result<NumericIdentity, AllocateError> {
        let (pool, capacity) = self.pool(scope);
        let offset = pool.take(capacity).ok_or(AllocateError::Exhausted { scope, capacity })?;
        let id = NumericIdentity(scope.first().0 + offset);
        self.numbers.insert((scope, labels.clone()), id);
        self.held.insert(id, Held { labels: labels.clone(), holds: 1 });
        Ok(id)
    }

    fn free(&mut self, id: NumericIdentity) -> Released {
        if let Some(held) = self.held.remove(&id) {
            self.numbers.remove(&(id.scope(), held.labels));
            self.pool(id.scope()).0.give_back(id.0 - id.scope().first().0);
        }
        Released::Freed
    }
}

impl IdentityAllocator for LocalAllocator {
    fn allocate(
        &mut self,
        scope: Scope,
        labels: &IdentityLabels,
    ) -> Result<NumericIdentity, AllocateError> {
        if let &IdentityLabels::Reserved(id) = labels {
            return reserved(id).map(|_| id).ok_or(AllocateError::NotReserved { id });
        }
        let known = self.numbers.get(&(scope, labels.clone()));
        let Some((id, held)) = known.and_then(|&id| Some((id, self.held.get_mut(&id)?))) else {
            return self.allocate_new(scope, labels);
        };
        held.holds += 1;
        Ok(id)
    }

    fn release(&mut self, id: NumericIdentity) -> Result<Released, ReleaseError> {
        if reserved(id).is_some() {
            return Ok(Released::Reserved);
        }
        let held = self.held.get_mut(&id).ok_or(ReleaseError::NotAllocated { id })?;
        held.holds -= 1;
        match held.holds {
            0 => Ok(self.free(id)),
            holds => Ok(Released::InUse { holds }),
        }
    }

    fn labels(&self, id: NumericIdentity) -> Option<&IdentityLabels> {
        reserved(id).or_else(|| self.held.get(&id).map(|held| &held.labels))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Labels;

    fn workload(name: &str) -> IdentityLabels {
        IdentityLabels::workload("ns", Labels::new(), Labels::from_iter([("app", name)]))
    }

    #[test]
    fn the_same_labels_share_a_number() {
        let mut allocator = LocalAllocator::new();
        let web = allocator.allocate(Scope::Global, &workload("web")).unwrap();
        assert_eq!(web, NumericIdentity(256));
        assert_eq!(allocator.allocate(Scope::Global, &workload("web")), Ok(web));
        let db = allocator.allocate(Scope::Global, &workload("db")).unwrap();
        assert_eq!(db, NumericIdentity(257));
        assert_eq!(allocator.labels(db), Some(&workload("db")));
    }

    #[test]
    fn the_lowest_free_number_is_used_again() {
        let mut allocator = LocalAllocator::new();
        for name in ["a", "b", "c"] {
            allocator.allocate(Scope::Local, &workload(name)).unwrap();
        }
        let (first, second) = (NumericIdentity(0x0100_0001), NumericIdentity(0x0100_0002));
        assert_eq!(allocator.release(second), Ok(Released::Freed));
        assert_eq!(allocator.release(first), Ok(Released::Freed));
        assert_eq!(allocator.labels(first), None);
        assert_eq!(allocator.allocate(Scope::Local, &workload("d")), Ok(first));
        assert_eq!(allocator.allocate(Scope::Local, &workload("e")), Ok(second));
    }

    #[test]
    fn a_number_is_free_with_its_last_hold() {
        let mut allocator = LocalAllocator::new();
        let id = allocator.allocate(Scope::Global, &workload("a")).unwrap();
        allocator.allocate(Scope::Global, &workload("a")).unwrap();
        assert_eq!(allocator.release(id), Ok(Released::InUse { holds: 1 }));
        assert_eq!(allocator.release(id), Ok(Released::Freed));
        assert_eq!(allocator.release(id), Err(ReleaseError::NotAllocated { id }));
    }

    #[test]
    fn exhaustion_names_scope_and_capacity() {
        let capacities = ScopeCapacities { remote_node: 1, ..ScopeCapacities::default() };
        let mut allocator = LocalAllocator::with_capacities(capacities);
        let id = allocator.allocate(Scope::RemoteNode, &workload("a")).unwrap();
        assert_eq!(id, NumericIdentity(0x0200_0001));
        let error = allocator.allocate(Scope::RemoteNode, &workload("b")).unwrap_err();
        assert_eq!(error, AllocateError::Exhausted { scope: Scope::RemoteNode, capacity: 1 });
        assert_eq!(error.to_string(), "all 1 identities of the remote-node scope are in use");
        assert_eq!(allocator.allocate(Scope::RemoteNode, &workload("a")), Ok(id));
    }

    #[test]
    fn the_global_scope_ends_at_65535() {
        let mut allocator = LocalAllocator::new();
        let mut last = None;
        for index in 0..Scope::Global.capacity() {
            last = allocator.allocate(Scope::Global, &workload(&index.to_string())).ok();
        }
        assert_eq!(last, Some(NumericIdentity::MAX_GLOBAL));
        assert!(allocator.allocate(Scope::Global, &workload("more")).is_err());
    }

    #[test]
    fn reserved_identities_are_always_there() {
        let mut allocator = LocalAllocator::new();
        let host = IdentityLabels::Reserved(NumericIdentity::HOST);
        assert_eq!(allocator.labels(NumericIdentity::HOST), Some(&host));
        assert_eq!(allocator.allocate(Scope::Local, &host), Ok(NumericIdentity::HOST));
        assert_eq!(allocator.release(NumericIdentity::HOST), Ok(Released::Reserved));
        let id = NumericIdentity(300);
        let error = allocator.allocate(Scope::Global, &IdentityLabels::Reserved(id));
        assert_eq!(error, Err(AllocateError::NotReserved { id }));
    }

    #[test]
    fn the_reserved_descriptions_are_in_order() {
        for (number, labels) in (0..).zip(&RESERVED) {
            assert_eq!(labels, &IdentityLabels::Reserved(NumericIdentity(number)));
            assert!(NumericIdentity(number).name().is_some());
        }
    }

    proptest! {
        /// The naive model: a slot per number, each with its name and how often it is held.
        #[test]
        fn agrees_with_a_row_of_slots(steps in proptest::collection::vec((any::<bool>(), 0..6u32), 0..60)) {
            let capacities = ScopeCapacities { global: 4, ..ScopeCapacities::default() };
            let mut allocator = LocalAllocator::with_capacities(capacities);
            let mut slots: [Option<(u32, u32)>; 4] = [None; 4];
            for (allocate, operand) in steps {
                if allocate {
                    let labels = workload(&operand.to_string());
                    let slot = slots.iter().position(|s| s.is_some_and(|(name, _)| name == operand))
                        .or_else(|| slots.iter().position(Option::is_none));
                    let expected = slot.map(|slot| {
                        let (_, holds) = slots[slot].unwrap_or((operand, 0));
                        slots[slot] = Some((operand, holds + 1));
                        NumericIdentity(256 + u32::try_from(slot).unwrap())
                    });
                    prop_assert_eq!(allocator.allocate(Scope::Global, &labels).ok(), expected);
                } else {
                    let expected = slots.get_mut(operand as usize).and_then(|slot| {
                        let (name, holds) = (*slot)?;
                        *slot = (holds > 1).then_some((name, holds - 1));
                        Some(slot.map_or(Released::Freed, |(_, holds)| Released::InUse { holds }))
                    });
                    prop_assert_eq!(allocator.release(NumericIdentity(256 + operand)).ok(), expected);
                }
            }
        }
    }
}
