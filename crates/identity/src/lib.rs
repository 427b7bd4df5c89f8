//! flowgate-identity: labels, selectors, numeric identities.
/// In the making.
pub type Labels = std::collections::BTreeMap<std::sync::Arc<str>, std::sync::Arc<str>>;
/// In the making.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Selector;
