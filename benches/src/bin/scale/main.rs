//! What size costs: compiling, tables, a pod more, and the verdict of the loaded programs.
//!
//! Needs root for the last two. Everything but compiling is printed beside its smallest case.

mod compiling;
mod growing;
mod load;

use std::{
    error::Error,
    net::{IpAddr, Ipv4Addr},
    process::ExitCode,
    sync::Arc,
};

use flowgate_benches::ending;
use flowgate_conformance::frames::{Frame, tcp};
use flowgate_datapath::{Datapath, EndpointId, EndpointSpec, Options};
use flowgate_ebpf_progs::{TC_EMPTY, TC_FROM_ENDPOINT};
use flowgate_policy::{
    inventory::Inventory,
    model::{Peer, Peers, Policy, Rule},
    options::Options as Plans,
    outcome::{Flow, FlowProtocol},
    plan::Plan,
};

use crate::{
    compiling::compile,
    load::{named, pod, select, tcp as ports},
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let compiled = compiling::run();
    if compiled.is_err() {
        return ending::status(compiled);
    }
    if let Err(missing) = ending::own_network() {
        return ending::skipped(&missing);
    }
    let grown = growing::joining().and_then(|()| growing::extending());
    ending::status(grown.and_then(|()| growing::applying()).and_then(|()| verdicts()))
}

/// Options in which a plan fits, with room for a few more.
fn sized(plan: &Plan) -> Options {
    let cost = plan.cost();
    Options {
        endpoints: cost.endpoints.next_power_of_two().max(512),
        peers: cost.peers + 512,
        row_cells: cost.row_cells.max(1 << 12),
        decision_cells: cost.decision_cells.max(1 << 12),
        decisions: cost.decisions.max(64),
        ipcache_nodes: cost.ipcache_nodes + 4096,
        events_per_second: 0,
        ..Options::default()
    }
}

/// A pod with ever more rules, none of which names the packet; then as many, with rows as in larger plans.
fn verdicts() -> Result<()> {
    println!("| rules | rows | denied packet, ns net of an empty program |\n|--:|---|--:|");
    let dense = load::options();
    let narrow = Plans { dense_cells: 0, ..dense.clone() };
    let scattered = Plans { narrow_cells: 0, ..narrow.clone() };
    for (rules, rows, options) in [
        (10, "dense", &dense),
        (1000, "dense", &dense),
        (100_000, "dense", &dense),
        (100_000, "narrow", &narrow),
        (100_000, "scattered", &scattered),
    ] {
        let plan = guarded(rules, options)?;
        let mut datapath = Datapath::builder().options(sized(&plan)).open()?;
        let owner = plan.endpoints[0].clone();
        let spec = EndpointSpec::unlinked(owner.workload).address(owner.addresses[0]);
        let id = datapath.attach(&spec)?.id;
        let _ = datapath.apply(&plan)?;
        println!("| {rules} | {rows} | {:.0} |", denied(&mut datapath, id)?);
    }
    Ok(())
}

fn guarded(rules: usize, options: &Plans) -> Result<Arc<Plan>> {
    let rule = |number: usize| {
        let [.., low] = u32::try_from(number % 100).unwrap_or_default().to_be_bytes();
        let cidr = IpAddr::from(Ipv4Addr::new(203, 0, 113, low)).into();
        let port = 1000 + u16::try_from(number / 100).unwrap_or_default();
        Rule::allow(Peers::OneOf(vec![Peer::Cidr { cidr, except: vec![] }]), ports(port, port))
    };
    let inventory = Inventory { workloads: vec![pod(0)], ..Default::default() };
    let guard = Policy {
        egress: Some((0..rules).map(rule).collect()),
        ..Policy::new(named(0, 0), select(0, 0))
    };
    Ok(compile(&inventory, &[guard], options)?.0)
}

/// The least of 15 rounds.
fn denied(datapath: &mut Datapath, id: EndpointId) -> Result<f64> {
    let flow = Flow {
        source: pod(0).addresses[0],
        destination: "203.0.113.200".parse()?,
        protocol: FlowProtocol::Tcp(80),
    };
    let bytes = Frame::opening(flow, 40_000).flags(tcp::SYN).bytes();
    let mut best = f64::MAX;
    for _ in 0..15 {
        let empty = datapath.time(id, TC_EMPTY, &bytes, 100_000)?;
        let full = datapath.time(id, TC_FROM_ENDPOINT, &bytes, 100_000)?;
        best = best.min(full.as_nanos() as f64 - empty.as_nanos() as f64);
    }
    Ok(best)
}
