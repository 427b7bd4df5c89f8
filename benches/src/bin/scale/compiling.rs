//! Compiling: from nothing, and after one rule has changed.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use flowgate_identity::LocalAllocator;
use flowgate_policy::{
    compile::{Compiler, Session},
    inventory::Inventory,
    model::Policy,
    options::Options,
    plan::Plan,
};

use crate::{
    Result,
    load::{About, inventory, options},
};

/// Rules that are changed, one after the other.
const CHANGES: usize = 21;

pub(crate) fn compile(
    inventory: &Inventory,
    policies: &[Policy],
    options: &Options,
) -> Result<(Arc<Plan>, Duration)> {
    let mut compiler = Compiler::new(LocalAllocator::new());
    let begun = Instant::now();
    let plan = compiler.compile(inventory, policies, options)?;
    Ok((Arc::new(plan), begun.elapsed()))
}

pub(crate) fn run() -> Result<()> {
    println!(
        "| pods and policies | policies about | from nothing, ms | one changed rule, ms | most | \
         tables of both generations, MiB |\n|--:|---|--:|--:|--:|--:|"
    );
    for size in [100, 1000, 10_000] {
        for (about, name) in [(About::TheCluster, "the cluster"), (About::ThisNode, "this node")] {
            let line = line(size, about)?;
            println!("| {size} | {name} | {line} |");
        }
    }
    println!();
    Ok(())
}

fn line(size: usize, about: About) -> Result<String> {
    let inventory = inventory(size);
    let policies: Vec<Policy> = (0..size).map(|number| about.policy(number, size)).collect();
    let (plan, took) = compile(&inventory, &policies, &options())?;
    let mut session = Session::new(LocalAllocator::new(), options());
    inventory.workloads.into_iter().for_each(|workload| session.set_workload(workload));
    policies.into_iter().for_each(|policy| session.set_policy(policy));
    session.plan()?;
    let mut times = Vec::new();
    for change in 0..CHANGES {
        // About an app of this node.
        session.set_policy(about.changed(change * 11 % 100, size));
        let begun = Instant::now();
        session.plan()?;
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    let [median, most] = [times[CHANGES / 2], times[CHANGES - 1]].map(milliseconds);
    let mebibytes = 2.0 * plan.cost().bytes as f64 / f64::from(1 << 20);
    Ok(format!("{:.0} | {median:.1} | {most:.1} | {mebibytes:.1}", milliseconds(took)))
}

pub(crate) fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
