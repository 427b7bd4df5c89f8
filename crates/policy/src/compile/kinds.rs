//! Kinds of workload (namespace and labels), and which of them a selector matches.
//!
//! A selector is evaluated once per kind that could match: kinds are found by namespace, or by the
//! label that the fewest of them have.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use flowgate_identity::{Labels, Operator, Requirement, Selector};

use crate::{
    compile::input::Input,
    inventory::Inventory,
    model::{NamespaceSelector, WorkloadSelector},
    options::Options,
};

/// A number of a kind.
pub(super) type KindId = u32;

/// Workloads with the same namespace and labels.
struct Kind {
    namespace: usize,
    labels: Labels,
    /// Some of its workloads are endpoints.
    has_endpoints: bool,
}

struct Namespace {
    name: Arc<str>,
    labels: Labels,
    kinds: Vec<KindId>,
}

/// All kinds.
#[derive(Default)]
pub(super) struct Kinds {
    /// Of the input's workloads, in their order.
    pub(super) of_workload: Vec<KindId>,
    kinds: Vec<Kind>,
    namespaces: Vec<Namespace>,
    by_name: BTreeMap<Arc<str>, usize>,
    by_labels: HashMap<(usize, Labels), KindId>,
    postings: HashMap<Arc<str>, HashMap<Arc<str>, Vec<KindId>>>,
}

impl Kinds {
    /// The kinds of the input's workloads.
    pub(super) fn new(input: &Input<'_>, options: &Options) -> Self {
        let mut kinds = Self::default();
        for workload in &input.workloads {
            let namespace = &workload.id.namespace;
            let kind = kinds.intern(input.inventory, namespace, &workload.labels);
            let local = options.local_node.as_ref();
            kinds.kinds[kind as usize].has_endpoints |=
                options.endpoints.contains(workload.node.as_ref(), local);
            kinds.of_workload.push(kind);
        }
        kinds
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.kinds.len()
    }

    /// The kind of workloads in `namespace` with `labels`.
    fn intern(&mut self, inventory: &Inventory, namespace: &Arc<str>, labels: &Labels) -> KindId {
        let namespace = self.namespace(inventory, namespace);
        if let Some(&kind) = self.by_labels.get(&(namespace, labels.clone())) {
            return kind;
        }
        let kind = index(self.kinds.len());
        self.kinds.push(Kind { namespace, labels: labels.clone(), has_endpoints: false });
        self.namespaces[namespace].kinds.push(kind);
        self.by_labels.insert((namespace, labels.clone()), kind);
        for (key, value) in labels.iter() {
            let values = self.postings.entry(key.into()).or_default();
            values.entry(value.into()).or_default().push(kind);
        }
        kind
    }

    /// The labels of the namespace of `kind`.
    pub(super) fn namespace_labels(&self, kind: KindId) -> &Labels {
        &self.namespaces[self.kinds[kind as usize].namespace].labels
    }

    fn namespace(&mut self, inventory: &Inventory, name: &Arc<str>) -> usize {
        if let Some(&known) = self.by_name.get(name) {
            return known;
        }
        let labels = inventory.namespace_labels(name);
        self.namespaces.push(Namespace { name: name.clone(), labels, kinds: Vec::new() });
        self.by_name.insert(name.clone(), self.namespaces.len() - 1);
        self.namespaces.len() - 1
    }

    /// The kinds with endpoints that `selector` matches, ascending.
    pub(super) fn select_subjects(&self, selector: &WorkloadSelector) -> Vec<KindId> {
        let mut selected = self.select(selector);
        selected.retain(|&kind| self.kinds[kind as usize].has_endpoints);
        selected
    }

    /// The kinds that `selector` matches, ascending.
    pub(super) fn select(&self, selector: &WorkloadSelector) -> Vec<KindId> {
        let namespaces = self.select_namespaces(&selector.namespaces);
        let in_namespaces: usize = namespaces.iter().map(|&n| self.namespaces[n].kinds.len()).sum();
        let candidates = match self.fewest(&selector.labels) {
            Some(postings) if postings.iter().map(|p| p.len()).sum::<usize>() < in_namespaces => {
                self.within(&postings, &namespaces)
            }
            _ => namespaces.iter().flat_map(|&n| &self.namespaces[n].kinds).copied().collect(),
        };
        let matches = |kind: &KindId| selector.labels.matches(&self.kinds[*kind as usize].labels);
        let mut selected: Vec<KindId> = candidates.into_iter().filter(matches).collect();
        selected.sort_unstable();
        selected
    }

    /// The namespaces that `selector` matches, ascending.
    fn select_namespaces(&self, selector: &NamespaceSelector) -> Vec<usize> {
        match selector {
            NamespaceSelector::Named(name) => self.by_name.get(name).copied().into_iter().collect(),
            NamespaceSelector::Matching(selector) => (0..self.namespaces.len())
                .filter(|&namespace| selector.matches(&self.namespaces[namespace].labels))
                .collect(),
        }
    }

    fn within(&self, postings: &[&[KindId]], namespaces: &[usize]) -> Vec<KindId> {
        let kinds = postings.iter().flat_map(|kinds| kinds.iter().copied());
        kinds
            .filter(|&kind| namespaces.binary_search(&self.kinds[kind as usize].namespace).is_ok())
            .collect()
    }

    /// The kinds with one of the values that a requirement names, for the requirement that leaves
    /// the fewest.
    fn fewest(&self, selector: &Selector) -> Option<Vec<&[KindId]>> {
        let postings = selector.requirements().iter().filter_map(|one| self.postings(one));
        postings.min_by_key(|postings| postings.iter().map(|kinds| kinds.len()).sum::<usize>())
    }

    fn postings(&self, requirement: &Requirement) -> Option<Vec<&[KindId]>> {
        let Operator::In(values) = &requirement.operator else { return None };
        let Some(known) = self.postings.get(&requirement.key) else { return Some(Vec::new()) };
        Some(values.iter().filter_map(|value| known.get(value)).map(Vec::as_slice).collect())
    }

    /// The name of the namespace of `kind`.
    pub(super) fn namespace_name(&self, kind: KindId) -> &Arc<str> {
        &self.namespaces[self.kinds[kind as usize].namespace].name
    }

    /// The labels of `kind`.
    pub(super) fn labels(&self, kind: KindId) -> &Labels {
        &self.kinds[kind as usize].labels
    }
}

/// An index as a number. Nothing here comes near 2^32 before memory ends.
pub(super) fn index(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}
