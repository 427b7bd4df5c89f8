//! `v1` Namespace and Node to the inventory.

use std::sync::Arc;

use flowgate_identity::Labels;
use flowgate_policy::inventory::Node;

use crate::{
    Reason,
    field::{Field, Read},
    index::Claim,
    location::ObjectName,
    object::Metadata,
};

/// The label that every namespace has, with its own name.
pub(crate) const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// The labels of a namespace without a manifest.
pub(crate) fn implied_labels(namespace: &Arc<str>) -> Labels {
    Labels::from_iter([(Arc::from(NAME_LABEL), Arc::clone(namespace))])
}

/// The labels of a namespace with a manifest.
pub(crate) fn namespace_labels(object: &Field<'_>, metadata: &Metadata) -> Read<Labels> {
    let mut labels = metadata.labels.clone();
    let name = &metadata.name;
    let old = labels.insert(NAME_LABEL, Arc::clone(name));
    match old.filter(|old| old != name) {
        Some(old) => {
            let label = object.require("metadata")?.require("labels")?.require(NAME_LABEL)?;
            let name = Arc::clone(name);
            Err(label.error(Reason::ForeignNameLabel { value: old.as_ref().into(), name }))
        }
        None => Ok(labels),
    }
}

/// The name under which a node's addresses are claimed.
pub(crate) fn owner(name: &Arc<str>) -> ObjectName {
    ObjectName { kind: "Node".into(), namespace: None, name: Some(Arc::clone(name)) }
}

pub(crate) fn read(object: &Field<'_>, metadata: &Metadata) -> Read<(Node, Vec<Claim>)> {
    let mut claims = Vec::new();
    if let Some(status) = object.get("status")? {
        for entry in status.list("addresses")? {
            if ["InternalIP", "ExternalIP"].contains(&entry.require("type")?.string()?.as_ref()) {
                let field = entry.require("address")?;
                Claim::add(&mut claims, &field, owner(&metadata.name))?;
            }
        }
    }
    let node = Node {
        name: Arc::clone(&metadata.name),
        labels: metadata.labels.clone(),
        addresses: claims.iter().map(|claim| claim.address).collect(),
    };
    Ok((node, claims))
}
