//! Kinds of workload (namespace and labels), and which of them a selector matches.
//!
//! Kinds are added and never taken away, so a selection goes on from where it ended. A selector is
//! evaluated once per kind that could match: kinds are found by namespace, or by the label that the
//! fewest of them have.
//!
//! Invariant: the numbers of a selection ascend, and so do those of every list that it is made from.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use flowgate_identity::{Labels, Operator, Requirement, Selector};

use crate::{
    compile::interned::index,
    model::{NamespaceSelector, WorkloadSelector},
};

/// A number of a kind.
pub(super) type KindId = u32;
/// A number of a namespace with its labels.
pub(super) type NamespaceId = u32;

/// Workloads with the same namespace and labels.
#[derive(Clone, Debug)]
struct Kind {
    namespace: NamespaceId,
    labels: Labels,
}

/// A namespace as it was once labelled.
#[derive(Clone, Debug)]
struct Namespace {
    name: Arc<str>,
    labels: Labels,
    kinds: Vec<KindId>,
}

/// In the order in which the peers of kinds are sorted: namespace, its labels, own labels.
type Place = (Arc<str>, Labels, Labels);

/// All kinds.
#[derive(Clone, Debug, Default)]
pub(super) struct Kinds {
    kinds: Vec<Kind>,
    namespaces: Vec<Namespace>,
    by_name: HashMap<Arc<str>, Vec<NamespaceId>>,
    sorted: BTreeMap<Place, KindId>,
    postings: HashMap<Arc<str>, HashMap<Arc<str>, Vec<KindId>>>,
    /// By namespace: whether the selector matches it.
    matching: HashMap<Selector, Vec<bool>>,
}

/// The namespaces that a selector matches.
enum Spaces<'a> {
    /// All of one name.
    Named(&'a [NamespaceId]),
    /// By namespace.
    Matching(&'a [bool]),
}

impl Spaces<'_> {
    fn contain(&self, namespace: NamespaceId) -> bool {
        match self {
            Self::Named(those) => those.contains(&namespace),
            Self::Matching(all) => all[namespace as usize],
        }
    }

    fn iter(&self) -> Box<dyn Iterator<Item = NamespaceId> + '_> {
        match self {
            Self::Named(those) => Box::new(those.iter().copied()),
            Self::Matching(all) => {
                Box::new((0..index(all.len())).filter(|&namespace| all[namespace as usize]))
            }
        }
    }
}

impl Kinds {
    /// How many there are.
    pub(super) fn len(&self) -> KindId {
        index(self.kinds.len())
    }

    /// The namespace of that name, labelled so.
    pub(super) fn namespace(&mut self, name: &Arc<str>, labels: &Labels) -> NamespaceId {
        let known = self.by_name.entry(name.clone()).or_default();
        let same = known.iter().find(|&&id| self.namespaces[id as usize].labels == *labels);
        if let Some(&known) = same {
            return known;
        }
        let id = index(self.namespaces.len());
        known.push(id);
        let (name, labels) = (name.clone(), labels.clone());
        self.namespaces.push(Namespace { name, labels, kinds: Vec::new() });
        id
    }

    /// The kind of workloads in a namespace with `labels`.
    pub(super) fn intern(&mut self, namespace: NamespaceId, labels: &Labels) -> KindId {
        let place = self.place(namespace, labels);
        if let Some(&known) = self.sorted.get(&place) {
            return known;
        }
        let kind = self.len();
        self.kinds.push(Kind { namespace, labels: labels.clone() });
        self.namespaces[namespace as usize].kinds.push(kind);
        self.sorted.insert(place, kind);
        for (key, value) in labels.iter() {
            let values = self.postings.entry(key.into()).or_default();
            values.entry(value.into()).or_default().push(kind);
        }
        kind
    }

    fn place(&self, namespace: NamespaceId, labels: &Labels) -> Place {
        let Namespace { name, labels: of_namespace, .. } = &self.namespaces[namespace as usize];
        (name.clone(), of_namespace.clone(), labels.clone())
    }

    /// The namespace, its labels and the labels of a kind.
    pub(super) fn describe(&self, kind: KindId) -> (&Arc<str>, &Labels, &Labels) {
        let kind = &self.kinds[kind as usize];
        let namespace = &self.namespaces[kind.namespace as usize];
        (&namespace.name, &namespace.labels, &kind.labels)
    }

    /// By kind: its place in the order of what describes it.
    pub(super) fn ranks(&self) -> Vec<u32> {
        let mut ranks = vec![0; self.kinds.len()];
        for (rank, &kind) in (0..).zip(self.sorted.values()) {
            ranks[kind as usize] = rank;
        }
        ranks
    }

    /// Adds the kinds from `since` on that `selector` matches.
    pub(super) fn select(
        &mut self,
        selector: &WorkloadSelector,
        since: KindId,
        selected: &mut Vec<KindId>,
    ) {
        self.look_at_namespaces(&selector.namespaces);
        let spaces = self.spaces(&selector.namespaces);
        let labels = &selector.labels;
        let begun = selected.len();
        match self.fewest(labels, since) {
            Some(lists) if !self.fewer_in(&spaces, since, &lists) => {
                let kinds = lists.into_iter().flatten().copied();
                selected
                    .extend(kinds.filter(|&k| spaces.contain(self.kinds[k as usize].namespace)));
            }
            _ => {
                let lists = spaces.iter().map(|id| &*self.namespaces[id as usize].kinds);
                selected.extend(lists.flat_map(|kinds| tail(kinds, since)));
            }
        }
        let mut kept = begun;
        for at in begun..selected.len() {
            if labels.matches(&self.kinds[selected[at] as usize].labels) {
                selected[kept] = selected[at];
                kept += 1;
            }
        }
        selected.truncate(kept);
        selected[begun..].sort_unstable();
    }

    /// Evaluates a selector of namespaces for those that have come since it was last.
    fn look_at_namespaces(&mut self, selector: &NamespaceSelector) {
        let NamespaceSelector::Matching(selector) = selector else { return };
        if !self.matching.contains_key(selector) {
            self.matching.insert(selector.clone(), Vec::new());
        }
        let Some(known) = self.matching.get_mut(selector) else { return };
        let more = &self.namespaces[known.len()..];
        known.extend(more.iter().map(|namespace| selector.matches(&namespace.labels)));
    }

    fn spaces(&self, selector: &NamespaceSelector) -> Spaces<'_> {
        match selector {
            NamespaceSelector::Named(name) => {
                Spaces::Named(self.by_name.get(name).map_or(&[], Vec::as_slice))
            }
            NamespaceSelector::Matching(selector) => {
                Spaces::Matching(self.matching.get(selector).map_or(&[], Vec::as_slice))
            }
        }
    }

    /// The namespaces have fewer kinds since then than the lists do.
    fn fewer_in(&self, spaces: &Spaces<'_>, since: KindId, lists: &[&[KindId]]) -> bool {
        let listed: usize = lists.iter().map(|kinds| kinds.len()).sum();
        if listed == 0 {
            return false;
        }
        let mut there = 0;
        for namespace in spaces.iter() {
            there += tail(&self.namespaces[namespace as usize].kinds, since).len();
            if there >= listed {
                return false;
            }
        }
        true
    }

    /// The kinds since then with one of the values that a requirement names, for the requirement that
    /// leaves the fewest.
    fn fewest(&self, selector: &Selector, since: KindId) -> Option<Vec<&[KindId]>> {
        let lists = selector.requirements().iter().filter_map(|one| self.lists(one, since));
        lists.min_by_key(|lists| lists.iter().map(|kinds| kinds.len()).sum::<usize>())
    }

    fn lists(&self, requirement: &Requirement, since: KindId) -> Option<Vec<&[KindId]>> {
        let Operator::In(values) = &requirement.operator else { return None };
        let Some(known) = self.postings.get(&requirement.key) else { return Some(Vec::new()) };
        let lists = values.iter().filter_map(|value| known.get(value));
        Some(lists.map(|kinds| tail(kinds, since)).collect())
    }
}

/// What of an ascending list comes at `since` or behind.
fn tail(kinds: &[KindId], since: KindId) -> &[KindId] {
    if since == 0 {
        return kinds;
    }
    &kinds[kinds.partition_point(|&kind| kind < since)..]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whichever lists a selector is looked up in.
    #[test]
    fn those_that_came_since_are_selected_once() {
        let mut kinds = Kinds::default();
        let space = kinds.namespace(&"a".into(), &Labels::new());
        let mut kind =
            |name: &str| kinds.intern(space, &Labels::from_iter([("app", "web"), ("name", name)]));
        let (first, second) = (kind("first"), kind("second"));
        for labels in [Selector::everything(), Selector::match_label("app", "web")] {
            let namespaces = NamespaceSelector::Named("a".into());
            let selector = WorkloadSelector { namespaces, labels };
            let mut selected = Vec::new();
            kinds.select(&selector, 0, &mut selected);
            assert_eq!(selected, [first, second]);
            kinds.select(&selector, second, &mut selected);
            assert_eq!(selected, [first, second, second]);
        }
    }
}
