//! What changes from one configuration to another, in words.

use std::{collections::BTreeMap, net::IpAddr};

use crate::{
    config::model::{Backend, Service},
    desired::Desired,
};

/// A line for time-outs that change, and for each source, service and backend that comes, goes or changes.
pub(crate) fn between(old: &Desired, new: &Desired) -> Vec<String> {
    let (before, after) = (&old.file().nat.sources, &new.file().nat.sources);
    let only = |of: &[IpAddr], other: &[IpAddr], what: &str| -> Vec<String> {
        let some = of.iter().filter(|source| !other.contains(source));
        some.map(|source| format!("source {source} {what}")).collect()
    };
    let mut said = only(before, after, "retired");
    said.extend(only(after, before, "added"));
    if old.file().nat.timeouts != new.file().nat.timeouts {
        said.push("time-outs of `snat` changed".to_owned());
    }
    let by_name = |desired: &Desired| -> BTreeMap<String, Service> {
        desired.written().map(|service| (service.name.clone(), service)).collect()
    };
    let (old, new) = (by_name(old), by_name(new));
    let gone = old.keys().filter(|name| !new.contains_key(*name));
    said.extend(gone.map(|name| format!("service {name} removed")));
    for (name, service) in &new {
        match old.get(name) {
            None => said.push(format!("service {name} added")),
            Some(before) => of_service(before, service, &mut said),
        }
    }
    said
}

fn of_service(old: &Service, new: &Service, said: &mut Vec<String>) {
    let name = &new.name;
    let find = |service: &Service, wanted: &Backend| {
        service.backends.iter().find(|one| one.address == wanted.address).cloned()
    };
    for gone in old.backends.iter().filter(|one| find(new, one).is_none()) {
        said.push(format!("{name}: {} removed", gone.address));
    }
    for backend in &new.backends {
        match find(old, backend) {
            None => said.push(format!("{name}: {} added", backend.address)),
            Some(before) if before != *backend => {
                said.push(format!("{name}: {} changed", backend.address));
            }
            Some(_) => {}
        }
    }
    let without = |service: &Service| Service { backends: Vec::new(), ..service.clone() };
    if without(old) != without(new) {
        said.push(format!("service {name} changed"));
    }
}
