//! Oracle, host pipeline and loaded programs agree on a generated corpus.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use flowgate_conformance::{
    frames::{Frames, Kind},
    generate::{Case, Generator},
};
use flowgate_datapath::{Action, Stage};
use flowgate_identity::LocalAllocator;
use flowgate_policy::{
    compile::Compiler,
    inventory::WorkloadRef,
    options, oracle,
    outcome::{Flow, FlowProtocol, Side},
};

use crate::rig::{Rig, compile, host, kernel};

/// Packets of one policy set; sets of one inventory.
const PACKETS: usize = 100;
const SETS: usize = 10;

fn cases() -> usize {
    std::env::var("FLOWGATE_CORPUS").ok().and_then(|text| text.parse().ok()).unwrap_or(100_000)
}

/// The endpoint that a flow's source or destination address belongs to.
fn owner(rig: &Rig, case: &Case, address: IpAddr) -> Option<WorkloadRef> {
    let is_first = |addresses: &[IpAddr]| {
        addresses.iter().find(|a| a.is_ipv4() == address.is_ipv4()) == Some(&address)
    };
    let workloads = case.inventory.workloads.iter().filter(|workload| !workload.host_network);
    let mut own = workloads.filter(|workload| is_first(&workload.addresses));
    let mut nodes = case.inventory.nodes.iter().filter(|node| is_first(&node.addresses));
    let node = || Some(WorkloadRef::node(nodes.next()?.name.clone()));
    let id = own.next().map(|workload| workload.id.clone()).or_else(node)?;
    rig.endpoints.contains_key(&id).then_some(id)
}

/// The node that an address is, or that its workload runs on.
fn home(case: &Case, address: IpAddr) -> Option<&str> {
    let mut nodes = case.inventory.nodes.iter();
    let node = nodes.find(|node| node.addresses.contains(&address)).map(|node| &*node.name);
    let mut workloads = case.inventory.workloads.iter();
    let on = || workloads.find(|one| one.addresses.contains(&address))?.node.as_deref();
    node.or_else(on)
}

#[derive(Default)]
struct Shares {
    cases: usize,
    by_action: BTreeMap<&'static str, usize>,
    judged: usize,
    without_ports: BTreeSet<(IpAddr, IpAddr, u8)>,
}

/// One packet: kernel and host agree on action and bytes; the oracle on what opens a flow.
fn step(
    kernel: &mut Rig,
    host: &mut Rig,
    case: &Case,
    (kind, frame): (Kind, Vec<u8>),
    at: (WorkloadRef, Stage),
    shares: &mut Shares,
) {
    let (workload, stage) = at;
    let seen = kernel.replay(&workload, stage, &frame);
    let wanted = host.replay(&workload, stage, &frame);
    assert_eq!(seen.0, wanted.0, "{kind:?} at {workload} {stage:?}: {frame:02x?}");
    assert_eq!(seen.1, wanted.1, "bytes of {kind:?} at {workload} {stage:?}");
    shares.cases += 1;
    let name = match seen.0 {
        Action::Pass => "pass",
        Action::Redirect => "redirect",
        Action::Drop => "drop",
        Action::Answer => "answer",
    };
    *shares.by_action.entry(name).or_default() += 1;
    let Kind::Opening(opening) = kind else { return };
    // Without ports, two ends have one flow, which the other one may have opened before.
    if let FlowProtocol::Other(protocol) = opening.flow.protocol {
        let (source, destination) = (opening.flow.source, opening.flow.destination);
        let ends = (source.min(destination), source.max(destination), protocol);
        if !shares.without_ports.insert(ends) {
            return;
        }
    }
    // ICMP other than queries is no opening.
    if let FlowProtocol::Icmp { icmp_type } | FlowProtocol::Icmp6 { icmp_type } =
        opening.flow.protocol
        && !matches!(icmp_type, 8 | 13 | 15 | 17 | 128)
    {
        return;
    }
    let outcome = oracle::decide(
        &case.inventory,
        &case.policies,
        &options::Options::default(),
        &opening.flow,
    );
    // The oracle knows each end's answer; here only attached ends are asked.
    let asked = |address, side: &Side| owner(kernel, case, address).is_none() || side.allowed();
    let wanted = asked(opening.flow.source, &outcome.egress)
        && asked(opening.flow.destination, &outcome.ingress);
    assert_eq!(seen.0.passes(), wanted, "{:?} {outcome:?}", opening.flow);
    shares.judged += 1;
}

/// Where a packet is met: at its sender if that is an endpoint, else at its receiver. What a node sends
/// to those on it doesn't come by its uplink.
fn place(rig: &Rig, case: &Case, kind: &Kind, flow: Flow) -> Option<(WorkloadRef, Stage)> {
    let (sender, receiver) = match kind {
        Kind::Opening(frame) | Kind::Later(frame) => (frame.sender(), frame.receiver()),
        Kind::Error | Kind::Odd => (flow.source, flow.destination),
    };
    if let Some(workload) = owner(rig, case, sender)
        && !(workload.as_node().is_some() && home(case, sender) == home(case, receiver))
    {
        return Some((workload, Stage::FromEndpoint));
    }
    owner(rig, case, receiver).map(|workload| (workload, Stage::ToEndpoint))
}

fn compare(kernel: &mut Rig, host: &mut Rig) {
    let (seen, wanted) = (kernel.take_events(), host.take_events());
    assert_eq!(seen.len(), wanted.len(), "events");
    for (seen, wanted) in seen.iter().zip(&wanted) {
        assert_eq!(seen, wanted);
    }
    let counters = |rig: &Rig| rig.datapath.counters().expect("readable");
    assert_eq!(counters(kernel), counters(host));
    let flows = |rig: &Rig| {
        let mut flows = rig.datapath.flows().expect("readable");
        flows.sort();
        flows
    };
    assert_eq!(flows(kernel), flows(host));
}

#[test]
fn every_program_loads() {
    let Some(datapath) = kernel() else { return };
    let report = datapath.report();
    assert_eq!(report.programs.len(), 4, "{report}");
    for program in &report.programs {
        let verified = program.verified_instructions.unwrap_or_default();
        println!(
            "{}: {verified} instructions verified, {} bytes",
            program.name, program.jited_bytes
        );
        assert!(verified < 1_000_000);
    }
}

#[test]
fn oracle_host_and_kernel_agree() {
    if kernel().is_none() {
        return;
    }
    let mut generator = Generator::new(0xf10a);
    let mut shares = Shares::default();
    while shares.cases < cases() {
        let mut case = generator.case();
        shares.without_ports.clear();
        let mut compiler = Compiler::new(LocalAllocator::new());
        let mut host = Rig::new(host(), &case);
        let mut kernel = Rig::new(kernel().expect("could be had before"), &case);
        let mut frames = Frames::default();
        for _ in 0..SETS {
            let plan = compile(&mut compiler, &case);
            host.apply(&plan);
            kernel.apply(&plan);
            for _ in 0..PACKETS {
                let flow = generator.flow(&case);
                let (kind, frame) = frames.next(&mut generator, flow);
                if let Some(at) = place(&kernel, &case, &kind, flow) {
                    step(&mut kernel, &mut host, &case, (kind, frame), at, &mut shares);
                }
            }
            case.policies = generator.case().policies;
        }
        compare(&mut kernel, &mut host);
    }
    println!(
        "{} cases, {} judged by the oracle, {:?}",
        shares.cases, shares.judged, shares.by_action
    );
    for (action, count) in shares.by_action {
        // What is answered is denied as well.
        let least = if action == "answer" { 20 } else { 10 };
        assert!(count * least >= shares.cases, "{action} is only {count} of {}", shares.cases);
    }
}
