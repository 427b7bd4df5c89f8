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
    options::Options,
    plan::Plan,
};

use crate::Failure;

/// Reads, and says on stderr what was noticed.
pub(crate) fn manifests(paths: &[PathBuf]) -> Result<Manifests, Failure> {
    let mut manifests = Manifests::from_paths(paths)?;
    complete(&mut manifests)?;
    Ok(manifests)
}

/// Reads two sets of manifests. A pod or node that has addresses in one of them alone has the same
/// in the other, and what has none in either gets the same in both.
pub(crate) fn both(
    before: &[PathBuf],
    after: &[PathBuf],
) -> Result<(Manifests, Manifests), Failure> {
    let (mut before, mut after) = (Manifests::from_paths(before)?, Manifests::from_paths(after)?);
    take_addresses(&mut before, &after);
    complete(&mut before)?;
    take_addresses(&mut after, &before);
    complete(&mut after)?;
    Ok((before, after))
}

/// Compiles.
pub(crate) fn compile(manifests: &Manifests) -> Result<Plan, CompileError> {
    compile_with(manifests, &Options::default())
}

/// Compiles a plan that keeps what is established, or doesn't.
pub(crate) fn compile_keeping(manifests: &Manifests, keep: bool) -> Result<Plan, CompileError> {
    compile_with(manifests, &Options { keep_established: keep, ..Options::default() })
}

fn compile_with(manifests: &Manifests, options: &Options) -> Result<Plan, CompileError> {
    let mut compiler = Compiler::new(LocalAllocator::new());
    compiler.compile(&manifests.inventory, &manifests.policies, options)
}

fn complete(manifests: &mut Manifests) -> Result<(), Failure> {
    manifests.assign_addresses(&AddressRanges::default())?;
    for warning in &manifests.warnings {
        eprintln!("warning: {warning}");
    }
    Ok(())
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
