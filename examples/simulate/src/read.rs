//! Manifests from files, with addresses for whom they give none; and their plan.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    path::PathBuf,
};

use flowgate_identity::LocalAllocator;
use flowgate_kubernetes::{AddressRanges, Manifests};
use flowgate_policy::{
    compile::{CompileError, Compiler},
    model::{Entity, Peer, Peers, Policy},
    options::Options,
    plan::Plan,
};
use thiserror::Error;

use crate::{Failure, cli::Place};

/// `--node` names nobody.
#[derive(Debug, Error)]
#[error("--node: unknown node {name:?}")]
pub(crate) struct UnknownNode {
    name: String,
}

/// Reads, and says on stderr what was noticed.
pub(crate) fn manifests(paths: &[PathBuf], place: &Place) -> Result<Manifests, Failure> {
    let mut manifests = Manifests::from_paths(paths)?;
    complete(&mut manifests, place)?;
    check(place, &[&manifests])?;
    Ok(manifests)
}

/// Reads two sets of manifests. A pod or node that has addresses in one of them alone has the same
/// in the other, and what has none in either gets the same in both.
pub(crate) fn both(
    before: &[PathBuf],
    after: &[PathBuf],
    place: &Place,
) -> Result<(Manifests, Manifests), Failure> {
    let (mut before, mut after) = (Manifests::from_paths(before)?, Manifests::from_paths(after)?);
    take_addresses(&mut before, &after);
    complete(&mut before, place)?;
    take_addresses(&mut after, &before);
    complete(&mut after, place)?;
    check(place, &[&before, &after])?;
    Ok((before, after))
}

/// Compiles.
pub(crate) fn compile(manifests: &Manifests, options: &Options) -> Result<Plan, CompileError> {
    let mut compiler = Compiler::new(LocalAllocator::new());
    compiler.compile(&manifests.inventory, &manifests.policies, options)
}

fn complete(manifests: &mut Manifests, place: &Place) -> Result<(), Failure> {
    manifests.assign_addresses(&AddressRanges::default())?;
    for warning in &manifests.warnings {
        eprintln!("warning: {warning}");
    }
    let depends = |policy: &&Policy| place.node.is_none() && names_nodes_by_place(policy);
    for policy in manifests.policies.iter().filter(depends) {
        eprintln!(
            "warning: {} speaks of host or remote-node: without --node no node is the host",
            policy.id
        );
    }
    Ok(())
}

/// What it says is another thing on each node.
fn names_nodes_by_place(policy: &Policy) -> bool {
    let rules = policy.ingress.iter().chain(&policy.egress).flatten();
    let by_place = |peer: &Peer| matches!(peer, Peer::Entity(Entity::Host | Entity::RemoteNode));
    rules.into_iter().any(|rule| match &rule.peers {
        Peers::Any => false,
        Peers::OneOf(peers) => peers.iter().any(by_place),
    })
}

/// Somebody knows the node.
fn check(place: &Place, known: &[&Manifests]) -> Result<(), UnknownNode> {
    let mut nodes = known.iter().flat_map(|manifests| &manifests.inventory.nodes);
    match &place.node {
        Some(name) if !nodes.any(|node| &*node.name == name.as_str()) => {
            Err(UnknownNode { name: name.clone() })
        }
        _ => Ok(()),
    }
}

/// Gives addresses to what has none, if another set of manifests knows them and they are free.
fn take_addresses(manifests: &mut Manifests, other: &Manifests) {
    let inventory = &mut manifests.inventory;
    let of_pods = inventory.workloads.iter().flat_map(|pod| &pod.addresses);
    let of_nodes = inventory.nodes.iter().flat_map(|node| &node.addresses);
    let mut taken: BTreeSet<IpAddr> = of_pods.chain(of_nodes).copied().collect();
    let pods: HashMap<_, _> =
        other.inventory.workloads.iter().map(|pod| (&pod.id, &pod.addresses)).collect();
    let nodes: HashMap<_, _> =
        other.inventory.nodes.iter().map(|node| (&node.name, &node.addresses)).collect();
    let mut take = |own: &mut Vec<IpAddr>, known: Option<&&Vec<IpAddr>>| {
        if own.is_empty() {
            own.extend(known.into_iter().copied().flatten().filter(|a| taken.insert(**a)));
        }
    };
    for pod in inventory.workloads.iter_mut().filter(|pod| !pod.host_network) {
        take(&mut pod.addresses, pods.get(&pod.id));
    }
    for node in &mut inventory.nodes {
        take(&mut node.addresses, nodes.get(&node.name));
    }
}
