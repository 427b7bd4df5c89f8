//! How long it takes to attach an endpoint and to detach it, by either hook, on an empty node and on
//! one with 200 endpoints.
//!
//! Needs root: the endpoints are real links, veth pairs into network namespaces of their own.

use std::{error::Error, process::ExitCode, time::Instant};

use flowgate_benches::{ending, spread::Spread};
use flowgate_datapath::{Datapath, EndpointId, EndpointSpec, HookKind, Options};
use flowgate_lab::{Node, Pod, available};
use flowgate_policy::inventory::WorkloadRef;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Endpoints that are there already.
const PRESENT: [usize; 2] = [0, 200];
/// Odd, so that the median is one of them.
const ROUNDS: usize = 21;

fn main() -> ExitCode {
    if let Err(missing) = available() {
        return ending::skipped(&missing);
    }
    ending::status(run())
}

fn run() -> Result<()> {
    let mut node = Node::enter()?;
    let most = PRESENT[PRESENT.len() - 1];
    let pods = (0..=most).map(|number| {
        let address = format!("198.18.{}.{}", number / 250, number % 250 + 1).parse()?;
        Ok(node.add_pod(&format!("pod-{number}"), &[address])?)
    });
    let pods = pods.collect::<Result<Vec<_>>>()?;
    println!("milliseconds; median of {ROUNDS} rounds\n");
    println!("| hook | endpoints present | attach | least | most | detach | least | most |");
    println!("|---|--:|--:|--:|--:|--:|--:|--:|");
    for hook in [HookKind::Tcx, HookKind::Clsact] {
        for present in PRESENT {
            measure(&pods, present, hook)?;
        }
    }
    Ok(())
}

/// One row: the first pod comes and goes, others are there.
fn measure(pods: &[Pod], present: usize, hook: HookKind) -> Result<()> {
    let mut datapath = Datapath::builder().options(Options::default()).open()?;
    let (measured, others) = pods.split_first().expect("there is one");
    for other in &others[..present] {
        attach(&mut datapath, other, hook)?;
    }
    let (mut attached, mut detached) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let id = attach(&mut datapath, measured, hook)?;
        attached.push(milliseconds(start));
        let start = Instant::now();
        datapath.detach(&[id])?;
        detached.push(milliseconds(start));
    }
    let [attached, detached] = [attached, detached].map(|times| Spread::of(times.into_iter()));
    println!("| {hook} | {present} | {attached:.2} | {detached:.2} |");
    Ok(())
}

fn attach(datapath: &mut Datapath, pod: &Pod, hook: HookKind) -> Result<EndpointId> {
    let workload = WorkloadRef { namespace: "default".into(), name: pod.name().into() };
    let spec = EndpointSpec::new(workload, pod.host_interface()).mac(pod.mac().0).hook(hook);
    let spec = pod.addresses().iter().fold(spec, |spec, at| spec.address(*at));
    let attached = datapath.attach(&spec)?;
    match attached.hook == hook {
        true => Ok(attached.id),
        false => Err(format!("{hook} was asked for, {} it is", attached.hook).into()),
    }
}

fn milliseconds(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1000.0
}
