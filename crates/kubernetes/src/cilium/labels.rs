//! Cilium's selectors: labels with a source in front, and namespaces among the labels.
//!
//! A key is `source:key`. Pods have labels of the source `k8s`, nodes of the source `node`, and `any`
//! or no source means whichever. Of a pod, `io.kubernetes.pod.namespace` is its namespace's name and
//! what follows `io.cilium.k8s.namespace.labels.` is a label of its namespace.

use std::sync::Arc;

use flowgate_identity::{Operator, Requirement, Selector};
use flowgate_policy::model::{NamespaceSelector, WorkloadSelector};

use super::Scope;
use crate::{
    NameRule, Reason,
    field::{Field, Read},
    node::NAME_LABEL,
    selector,
};

const NAMESPACE: &str = "io.kubernetes.pod.namespace";
const NAMESPACE_LABELS: &str = "io.cilium.k8s.namespace.labels.";

/// What else Cilium itself says of pods.
const OTHER: &str = "io.cilium.k8s.";

/// What a selector says of pods, and what it says of their namespaces.
#[derive(Debug, Default)]
pub(super) struct Selected {
    labels: Vec<Requirement>,
    namespaces: Vec<Requirement>,
}

impl Selected {
    /// Whether something in the namespace can be meant, as far as its name goes.
    pub(super) fn admits(&self, namespace: &str) -> bool {
        self.namespaces.iter().filter(|requirement| &*requirement.key == NAME_LABEL).all(
            |requirement| match &requirement.operator {
                Operator::In(names) => names.contains(namespace),
                Operator::NotIn(names) => !names.contains(namespace),
                Operator::Exists => true,
                Operator::DoesNotExist => false,
            },
        )
    }

    /// What is selected of one namespace.
    pub(super) fn in_namespace(mut self, namespace: &Arc<str>) -> WorkloadSelector {
        if self.namespaces.iter().all(|requirement| &*requirement.key == NAME_LABEL) {
            return self.workloads(|_| NamespaceSelector::Named(Arc::clone(namespace)));
        }
        self.namespaces.push(Requirement::equals(NAME_LABEL, Arc::clone(namespace)));
        self.workloads(NamespaceSelector::Matching)
    }

    pub(super) fn workloads(
        self,
        namespaces: impl FnOnce(Selector) -> NamespaceSelector,
    ) -> WorkloadSelector {
        WorkloadSelector {
            namespaces: namespaces(Selector::new(self.namespaces)),
            labels: Selector::new(self.labels),
        }
    }
}

/// A peer's selector.
pub(super) fn peers(field: &Field<'_>, scope: &Scope) -> Read<WorkloadSelector> {
    let selected = endpoints(field)?;
    Ok(match scope {
        Scope::Namespace(own) if selected.namespaces.is_empty() => selected.in_namespace(own),
        _ => selected.workloads(NamespaceSelector::Matching),
    })
}

/// A selector of pods.
pub(super) fn endpoints(field: &Field<'_>) -> Read<Selected> {
    let mut selected = Selected::default();
    for (field, key, operator) in requirements(field)? {
        let key = key_of_source(&field, &key, &["k8s", "any"])?;
        if key == NAMESPACE {
            selected.namespaces.push(Requirement { key: NAME_LABEL.into(), operator });
        } else if let Some(label) = key.strip_prefix(NAMESPACE_LABELS) {
            let key = label_key(&field, label)?;
            selected.namespaces.push(Requirement { key, operator });
        } else {
            let key = label_key(&field, key)?;
            selected.labels.push(Requirement { key, operator });
        }
    }
    Ok(selected)
}

/// A selector of nodes.
pub(super) fn nodes(field: &Field<'_>) -> Read<Selector> {
    let requirement = |(field, key, operator): Found<'_>| {
        let key = label_key(&field, key_of_source(&field, &key, &["node", "any"])?)?;
        Ok(Requirement { key, operator })
    };
    requirements(field)?.into_iter().map(requirement).collect()
}

/// A requirement, with the field that names the key.
type Found<'a> = (Field<'a>, Arc<str>, Operator);

fn requirements<'a>(field: &Field<'a>) -> Read<Vec<Found<'a>>> {
    field.deny_unknown(&selector::SELECTOR)?;
    let mut found = Vec::new();
    if let Some(labels) = field.get("matchLabels")? {
        for (key, value) in labels.entries()? {
            let text = Arc::clone(value.name(NameRule::LabelValue)?);
            found.push((value, Arc::clone(key), Operator::In([text].into())));
        }
    }
    for expression in field.list("matchExpressions")? {
        expression.deny_unknown(&selector::REQUIREMENT)?;
        let key = expression.require("key")?;
        let text = Arc::clone(key.string()?);
        found.push((key, text, selector::operator(&expression)?));
    }
    Ok(found)
}

/// The key behind its source, which must be one of `sources`.
fn key_of_source<'a>(field: &Field<'_>, label: &'a str, sources: &[&str]) -> Read<&'a str> {
    match label.split_once(':') {
        Some((source, key)) if sources.contains(&source) => Ok(key),
        Some(_) => Err(unsupported(field, label)),
        None => Ok(label),
    }
}

fn label_key(field: &Field<'_>, key: &str) -> Read<Arc<str>> {
    if key.starts_with(OTHER) || key == NAMESPACE {
        return Err(unsupported(field, key));
    }
    if !NameRule::LabelKey.admits(key) {
        let (rule, value) = (NameRule::LabelKey, key.into());
        return Err(field.error(Reason::InvalidName { rule, value }));
    }
    Ok(key.into())
}

fn unsupported(field: &Field<'_>, label: &str) -> Box<crate::field::FieldError> {
    field.error(Reason::UnsupportedLabel { label: label.into() })
}
