//! Selectors: which labels match.
//!
//! The semantics are those of `meta/v1` `LabelSelector`. Not here: which key space a selector is
//! applied to; the caller passes the labels. Invariant: requirements are sorted and free of
//! duplicates, so selectors that were written in another order are equal.
//! Tested by a table over the four operators, and by properties of their pairs.

use std::{collections::BTreeSet, fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::Labels;

/// Selects labels: all requirements must hold. Without requirements, everything matches.
///
/// Displays as `app=web,tier in (a,b),!legacy`; the empty one as `*`. Crosses serde as the list of its requirements.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "Vec<Requirement>", into = "Vec<Requirement>")]
pub struct Selector(Vec<Requirement>);

/// What one key has to fulfil.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Requirement {
    /// The label's key.
    pub key: Arc<str>,
    /// What its value has to be.
    pub operator: Operator,
}

/// What a label's value has to be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Operator {
    /// The key is there, with one of these values. With no values, nothing matches.
    In(BTreeSet<Arc<str>>),
    /// The key isn't there, or with none of these values.
    NotIn(BTreeSet<Arc<str>>),
    /// The key is there, with whatever value.
    Exists,
    /// The key isn't there.
    DoesNotExist,
}

impl Selector {
    /// Selects everything.
    #[must_use]
    pub const fn everything() -> Self {
        Self(Vec::new())
    }

    /// Selects what fulfils all of `requirements`.
    #[must_use]
    pub fn new(mut requirements: Vec<Requirement>) -> Self {
        requirements.sort();
        requirements.dedup();
        Self(requirements)
    }

    /// Selects what has `value` for `key`; continue with [`Self::and`].
    #[must_use]
    pub fn match_label(key: impl Into<Arc<str>>, value: impl Into<Arc<str>>) -> Self {
        Self::new(vec![Requirement::equals(key, value)])
    }

    /// The same, with one more requirement.
    #[must_use]
    pub fn and(mut self, requirement: Requirement) -> Self {
        self.0.push(requirement);
        Self::new(self.0)
    }

    /// Whether `labels` fulfil all requirements.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|requirement| requirement.matches(labels))
    }

    /// Whether there are no requirements, so that everything matches.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The requirements, sorted, without duplicates.
    #[must_use]
    pub fn requirements(&self) -> &[Requirement] {
        &self.0
    }
}

impl Requirement {
    /// The key has this very value.
    #[must_use]
    pub fn equals(key: impl Into<Arc<str>>, value: impl Into<Arc<str>>) -> Self {
        Self { key: key.into(), operator: Operator::In(BTreeSet::from([value.into()])) }
    }

    /// Whether `labels` fulfil it.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        match &self.operator {
            Operator::In(values) => value.is_some_and(|value| values.contains(value)),
            Operator::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

impl From<Vec<Requirement>> for Selector {
    fn from(requirements: Vec<Requirement>) -> Self {
        Self::new(requirements)
    }
}

impl From<Selector> for Vec<Requirement> {
    fn from(selector: Selector) -> Self {
        selector.0
    }
}

impl FromIterator<Requirement> for Selector {
    fn from_iter<I: IntoIterator<Item = Requirement>>(requirements: I) -> Self {
        Self::new(requirements.into_iter().collect())
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("*");
        }
        for (index, requirement) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{requirement}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        match &self.operator {
            Operator::In(values) if values.len() == 1 => write!(f, "{key}={}", Listed(values)),
            Operator::In(values) => write!(f, "{key} in ({})", Listed(values)),
            Operator::NotIn(values) => write!(f, "{key} notin ({})", Listed(values)),
            Operator::Exists => f.write_str(key),
            Operator::DoesNotExist => write!(f, "!{key}"),
        }
    }
}

struct Listed<'a>(&'a BTreeSet<Arc<str>>);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, value) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{value}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn values(values: &[&str]) -> BTreeSet<Arc<str>> {
        values.iter().map(|&value| value.into()).collect()
    }

    fn on_app(operator: Operator) -> Selector {
        Selector::new(vec![Requirement { key: "app".into(), operator }])
    }

    #[test]
    fn the_four_operators() {
        let table = [
            (Operator::In(values(&["web", "db"])), true, false, false),
            (Operator::In(values(&[])), false, false, false),
            (Operator::NotIn(values(&["web", "db"])), false, true, true),
            (Operator::NotIn(values(&[])), true, true, true),
            (Operator::Exists, true, true, false),
            (Operator::DoesNotExist, false, false, true),
        ];
        let web = Labels::from_iter([("app", "web")]);
        let other = Labels::from_iter([("app", "")]);
        let lacking = Labels::from_iter([("tier", "web")]);
        for (operator, on_web, on_other, on_lacking) in table {
            let selector = on_app(operator);
            assert_eq!(selector.matches(&web), on_web, "{selector} on {web}");
            assert_eq!(selector.matches(&other), on_other, "{selector} on {other}");
            assert_eq!(selector.matches(&lacking), on_lacking, "{selector} on {lacking}");
        }
    }

    #[test]
    fn the_empty_selector_matches_everything() {
        assert!(Selector::everything().matches(&Labels::new()));
        assert!(Selector::everything().matches(&Labels::from_iter([("app", "web")])));
        assert!(Selector::everything().is_empty());
    }

    #[test]
    fn requirements_are_anded() {
        let both = Selector::match_label("app", "web").and(Requirement::equals("tier", "front"));
        assert!(both.matches(&Labels::from_iter([("app", "web"), ("tier", "front")])));
        assert!(!both.matches(&Labels::from_iter([("app", "web")])));
    }

    #[test]
    fn order_and_repetition_make_no_difference() {
        let one = Selector::match_label("a", "1").and(Requirement::equals("b", "2"));
        let other = Selector::match_label("b", "2")
            .and(Requirement::equals("a", "1"))
            .and(Requirement::equals("b", "2"));
        assert_eq!(one, other);
        assert_eq!(other.requirements().len(), 2);
    }

    #[test]
    fn prints_as_kubectl_writes_it() {
        let key = |key: &str, operator| Requirement { key: key.into(), operator };
        let selector = Selector::match_label("app", "web")
            .and(key("tier", Operator::In(values(&["b", "a"]))))
            .and(key("zone", Operator::NotIn(values(&["x"]))))
            .and(key("legacy", Operator::DoesNotExist))
            .and(key("owner", Operator::Exists));
        let printed = selector.to_string();
        assert_eq!(printed, "app=web,!legacy,owner,tier in (a,b),zone notin (x)");
        assert_eq!(Selector::everything().to_string(), "*");
    }

    proptest! {
        #[test]
        fn opposite_operators_never_agree(
            labels in proptest::collection::btree_map("[ab]", "[xyz]?", 0..3),
            chosen in proptest::collection::btree_set("[xyz]?", 0..3),
            key in "[ab]",
        ) {
            let labels: Labels = labels.into_iter().collect();
            let chosen: BTreeSet<Arc<str>> = chosen.into_iter().map(Into::into).collect();
            let judge = |operator| {
                Requirement { key: key.as_str().into(), operator }.matches(&labels)
            };
            prop_assert_ne!(judge(Operator::Exists), judge(Operator::DoesNotExist));
            prop_assert_ne!(judge(Operator::In(chosen.clone())), judge(Operator::NotIn(chosen)));
        }
    }
}
