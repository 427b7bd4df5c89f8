//! A pod more, of a combination that the plan knows or of a new one, and a changed rule: written into
//! running tables.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::{Duration, Instant},
};

use flowgate_datapath::{Backend, Datapath, Options};
use flowgate_identity::{Labels, LocalAllocator, Selector};
use flowgate_policy::{
    compile::Session,
    extension::Extension,
    inventory::{Workload, WorkloadRef},
    model::{NamespaceSelector, Peer, Peers, Policy, Rule, WorkloadSelector},
    plan::Plan,
    roster::Roster,
};

use crate::{
    Result,
    compiling::{compile, milliseconds},
    load::{self, named, options, pod, policy, select, tcp},
    sized,
};

/// Pods of new combinations.
const NEW: usize = 8;

/// Somebody of a known combination, beside ever more pods.
pub(crate) fn joining() -> Result<()> {
    println!("| pods | one more joins in µs, host | kernel |\n|--:|--:|--:|");
    for size in [100, 1000, 10_000] {
        let inventory = load::inventory(size);
        let policies: Vec<Policy> = (0..50).map(|number| policy(number, 80)).collect();
        let (plan, _) = compile(&inventory, &policies, &options())?;
        let mut times = Vec::new();
        for backend in [Backend::Host, Backend::Kernel] {
            let mut datapath = running(backend, sized(&plan), &plan)?;
            let mut roster = Roster::new(&plan);
            let mut samples = Vec::new();
            for number in 0..200 {
                let late = late(number, pod(number % size))?;
                let labels = inventory.namespace_labels(&late.id.namespace);
                let (added, took) =
                    timed(|| -> Result<usize> { Ok(datapath.add(&roster.add(&late, &labels)?)?) });
                added?;
                samples.push(took);
            }
            times.push(microseconds(median(&mut samples)));
        }
        println!("| {size} | {:.1} | {:.1} |", times[0], times[1]);
    }
    println!();
    Ok(())
}

/// Pods of combinations that nobody has met, beside 10,000 others: with ever more endpoints here, each
/// of which has a policy of its own that tells the new ones apart.
pub(crate) fn extending() -> Result<()> {
    println!(
        "| policies of endpoints | entries written | compiled, ms | compared, ms | written, µs, host | \
         kernel |\n|--:|--:|--:|--:|--:|--:|"
    );
    for guards in [10, 50, 100, 250] {
        let mut times = Vec::new();
        let mut line = String::new();
        for backend in [Backend::Host, Backend::Kernel] {
            let Extended { entries, mut compiled, mut compared, mut written } =
                extended(guards, backend)?;
            let [compiled, compared] =
                [&mut compiled, &mut compared].map(|samples| milliseconds(median(samples)));
            times.push(microseconds(median(&mut written)));
            line = format!("{entries} | {compiled:.1} | {compared:.1}");
        }
        println!("| {guards} | {line} | {:.0} | {:.0} |", times[0], times[1]);
    }
    println!();
    Ok(())
}

/// What some extensions of one pod each have taken.
#[derive(Default)]
struct Extended {
    /// The last one's.
    entries: usize,
    compiled: Vec<Duration>,
    compared: Vec<Duration>,
    written: Vec<Duration>,
}

fn extended(guards: usize, backend: Backend) -> Result<Extended> {
    let mut session = Session::new(LocalAllocator::new(), options());
    (0..10_000).for_each(|number| session.set_workload(pod(number)));
    (0..guards).for_each(|number| session.set_policy(guard(number)));
    let mut running = session.plan()?;
    let mut datapath = self::running(backend, roomy(&running), &running)?;
    let mut all = Extended::default();
    for number in 0..NEW {
        let labels = Labels::from_iter([("app", format!("new-{number}"))]);
        session.set_workload(late(number, Workload { labels, ..pod(load::HERE) })?);
        let (next, compiled) = timed(|| session.plan());
        let next = next?;
        let (extension, compared) = timed(|| Extension::of(&running, &next));
        let extension = extension?;
        let (entries, written) = timed(|| datapath.extend(&extension));
        all.entries = entries?;
        running = Arc::clone(extension.plan());
        all.compiled.push(compiled);
        all.compared.push(compared);
        all.written.push(written);
    }
    Ok(all)
}

/// A pod of this node may be reached by somebody who is there, and by some of those who are new: each of
/// them by others of these pods.
fn guard(number: usize) -> Policy {
    let new = (0..NEW).filter(|who| number.is_multiple_of(who + 2)).map(|who| WorkloadSelector {
        namespaces: NamespaceSelector::Matching(Selector::everything()),
        labels: Selector::match_label("app", format!("new-{who}")),
    });
    let from = new.chain([select(99, 0)]).map(Peer::Workloads).collect();
    let (namespace, app) = (number % load::NAMESPACES, number / load::NAMESPACES);
    Policy {
        ingress: Some(vec![Rule::allow(Peers::OneOf(from), tcp(80, 80))]),
        ..Policy::new(named(namespace, number), select(namespace, app))
    }
}

/// A changed rule: compiled, and applied as a generation.
pub(crate) fn applying() -> Result<()> {
    println!(
        "| pods and policies | policies about | one changed rule applied in ms, host | kernel | most |"
    );
    println!("|--:|---|--:|--:|--:|");
    for size in [1000, 10_000] {
        for (about, name) in
            [(load::About::TheCluster, "the cluster"), (load::About::ThisNode, "this node")]
        {
            let [mut host, mut kernel] =
                [applied(size, about, Backend::Host)?, applied(size, about, Backend::Kernel)?];
            let most = kernel.iter().max().copied().unwrap_or_default();
            let times = [median(&mut host), median(&mut kernel), most].map(milliseconds);
            println!("| {size} | {name} | {:.1} | {:.1} | {:.1} |", times[0], times[1], times[2]);
        }
    }
    println!();
    Ok(())
}

fn applied(size: usize, about: load::About, backend: Backend) -> Result<Vec<Duration>> {
    let mut session = Session::new(LocalAllocator::new(), options());
    (0..size).for_each(|number| session.set_workload(pod(number)));
    (0..size).for_each(|number| session.set_policy(about.policy(number, size)));
    let plan = session.plan()?;
    let mut datapath = running(backend, roomy(&plan), &plan)?;
    let mut samples = Vec::new();
    for change in 0..11 {
        session.set_policy(about.changed(change * 11 % 100, size));
        let plan = session.plan()?;
        let (applied, took) = timed(|| datapath.apply(&plan));
        let _ = applied?;
        samples.push(took);
    }
    Ok(samples)
}

fn running(backend: Backend, options: Options, plan: &Arc<Plan>) -> Result<Datapath> {
    let mut datapath = Datapath::builder().backend(backend).options(options).open()?;
    let _ = datapath.apply(plan)?;
    Ok(datapath)
}

/// Options in which a plan has room for others beside it and columns to spare.
fn roomy(plan: &Plan) -> Options {
    let Options { row_cells, decision_cells, decisions, peers, .. } = sized(plan);
    Options {
        row_cells: row_cells * 2 + 300 * 512,
        decision_cells: decision_cells * 2,
        decisions: decisions * 2,
        peers: peers * 2,
        ..sized(plan)
    }
}

/// A pod that comes later, under a name and at an address of its own.
fn late(number: usize, model: Workload) -> Result<Workload> {
    let id = WorkloadRef { name: format!("late-{number}").into(), ..model.id };
    let [.., c, d] = (60_000 + u32::try_from(number)?).to_be_bytes();
    Ok(Workload { id, addresses: vec![IpAddr::from(Ipv4Addr::new(198, 19, c, d))], ..model })
}

fn median(samples: &mut [Duration]) -> Duration {
    samples.sort_unstable();
    samples[samples.len() / 2]
}

fn microseconds(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1e3
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let begun = Instant::now();
    let done = work();
    (done, begun.elapsed())
}
