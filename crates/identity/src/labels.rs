//! Labels: an ordered map from key to value, in one key space.
//!
//! Not here: the rules for what a key or value may contain; they belong to the API that the labels
//! came from. Invariant: iteration is sorted by key, so equal labels compare, hash and print alike.

use std::{collections::BTreeMap, fmt, sync::Arc};

use serde::{Deserialize, Serialize};

/// The labels of one object: an ordered map from key to value, cheap to clone.
///
/// Displays as `a=b,c=d`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Labels(Arc<BTreeMap<Arc<str>, Arc<str>>>);

impl Labels {
    /// No labels.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets `key` to `value`, and returns the value that it had before.
    ///
    /// Other clones of these labels keep what they had.
    pub fn insert(
        &mut self,
        key: impl Into<Arc<str>>,
        value: impl Into<Arc<str>>,
    ) -> Option<Arc<str>> {
        Arc::make_mut(&mut self.0).insert(key.into(), value.into())
    }

    /// The value of `key`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(AsRef::as_ref)
    }

    /// Whether there is a value for `key`, be it the empty one.
    #[must_use]
    pub fn contains_key(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// The labels, sorted by key.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_ref(), value.as_ref()))
    }

    /// How many labels there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<K: Into<Arc<str>>, V: Into<Arc<str>>> FromIterator<(K, V)> for Labels {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        Self(Arc::new(pairs.into_iter().map(|(key, value)| (key.into(), value.into())).collect()))
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (key, value)) in self.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{key}={value}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_sorted_by_key() {
        let labels: Labels = [("tier", "db"), ("app", "web")].into_iter().collect();
        assert_eq!(labels.to_string(), "app=web,tier=db");
        assert_eq!(Labels::new().to_string(), "");
    }

    #[test]
    fn the_last_value_of_a_key_wins() {
        let labels: Labels = [("app", "a"), ("app", "b")].into_iter().collect();
        assert_eq!(labels.get("app"), Some("b"));
        assert_eq!(labels.len(), 1);
    }

    #[test]
    fn an_insert_leaves_clones_alone() {
        let mut labels: Labels = [("app", "a")].into_iter().collect();
        let before = labels.clone();
        assert_eq!(labels.insert("app", "b").as_deref(), Some("a"));
        assert_eq!(labels.insert("empty", ""), None);
        assert_eq!(before.get("app"), Some("a"));
        assert!(labels.contains_key("empty") && !before.contains_key("empty"));
    }

    #[test]
    fn crosses_serde_as_a_plain_map() {
        let labels: Labels = [("app", "web")].into_iter().collect();
        let json = serde_json::to_string(&labels).unwrap();
        assert_eq!(json, r#"{"app":"web"}"#);
        assert_eq!(serde_json::from_str::<Labels>(&json).unwrap(), labels);
    }
}
