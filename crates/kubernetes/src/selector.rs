//! `meta/v1` labels and label selectors.

use std::{collections::BTreeSet, sync::Arc};

use flowgate_identity::{Labels, Operator, Requirement, Selector};

use crate::{
    NameRule, Reason,
    field::{Field, Read},
};

/// The labels in `key` of `owner`; none if it is missing.
pub(crate) fn labels(owner: &Field<'_>, key: &str) -> Read<Labels> {
    Ok(pairs(owner, key)?.into_iter().collect())
}

fn pairs(owner: &Field<'_>, key: &str) -> Read<Vec<(Arc<str>, Arc<str>)>> {
    let Some(map) = owner.get(key)? else { return Ok(Vec::new()) };
    let pair = |(key, value): (&Arc<str>, Field<'_>)| {
        if !NameRule::LabelKey.admits(key) {
            let (rule, text) = (NameRule::LabelKey, key.as_ref().into());
            return Err(value.error(Reason::InvalidName { rule, value: text }));
        }
        Ok((Arc::clone(key), Arc::clone(value.name(NameRule::LabelValue)?)))
    };
    map.entries()?.into_iter().map(pair).collect()
}

/// The fields of a `LabelSelector`.
pub(crate) const SELECTOR: [&str; 2] = ["matchLabels", "matchExpressions"];

/// The fields of a `LabelSelectorRequirement`.
pub(crate) const REQUIREMENT: [&str; 3] = ["key", "operator", "values"];

/// A `LabelSelector`; without requirements it selects everything.
pub(crate) fn selector(field: &Field<'_>) -> Read<Selector> {
    field.deny_unknown(&SELECTOR)?;
    let mut requirements: Vec<Requirement> = pairs(field, "matchLabels")?
        .into_iter()
        .map(|(key, value)| Requirement::equals(key, value))
        .collect();
    for expression in field.list("matchExpressions")? {
        requirements.push(requirement(&expression)?);
    }
    Ok(Selector::new(requirements))
}

fn requirement(field: &Field<'_>) -> Read<Requirement> {
    field.deny_unknown(&REQUIREMENT)?;
    let key = Arc::clone(field.require("key")?.name(NameRule::LabelKey)?);
    Ok(Requirement { key, operator: operator(field)? })
}

/// The fields `operator` and `values` of a requirement.
pub(crate) fn operator(field: &Field<'_>) -> Read<Operator> {
    let name = field.require("operator")?;
    match name.string()?.as_ref() {
        "In" => Ok(Operator::In(required_values(field, "In")?)),
        "NotIn" => Ok(Operator::NotIn(required_values(field, "NotIn")?)),
        "Exists" => no_values(field, "Exists").map(|()| Operator::Exists),
        "DoesNotExist" => no_values(field, "DoesNotExist").map(|()| Operator::DoesNotExist),
        other => {
            let allowed = "In, NotIn, Exists and DoesNotExist";
            Err(name.error(Reason::NotOneOf { value: other.into(), allowed }))
        }
    }
}

fn required_values(field: &Field<'_>, operator: &'static str) -> Read<BTreeSet<Arc<str>>> {
    let values = field.list("values")?;
    if values.is_empty() {
        return Err(field.error(Reason::ValuesRequired { operator }));
    }
    values.iter().map(|value| value.name(NameRule::LabelValue).cloned()).collect()
}

fn no_values(field: &Field<'_>, operator: &'static str) -> Read<()> {
    match field.get("values")? {
        Some(values) if !values.items()?.is_empty() => {
            Err(values.error(Reason::ValuesForbidden { operator }))
        }
        _ => Ok(()),
    }
}
