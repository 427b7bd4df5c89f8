//! The 50 scenarios of the Kubernetes end-to-end suite and the 35 of tiers, asked of the host pipeline
//! and of the loaded programs: every ordered pair of pods, every port and protocol, both families, at
//! each step.
//!
//! The kernel's half is privileged; without the capabilities it says so in one line and is skipped.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use flowgate_conformance::{
    frames::Frame,
    scenarios::{self, Scenario, Step},
};
use flowgate_datapath::{Backend, Datapath, EndpointId, EndpointSpec, OpenError, Options, Stage};
use flowgate_identity::LocalAllocator;
use flowgate_kubernetes::{AddressRanges, Manifests};
use flowgate_policy::{compile::Compiler, options};

fn open(backend: Backend) -> Result<Datapath, OpenError> {
    // Room for every flow of a step, so that none of an earlier step is met.
    let options = Options { flows4: 4096, flows6: 4096, endpoints: 16, ..Options::default() };
    Datapath::builder().backend(backend).options(options).open()
}

fn read(step: &Step) -> Manifests {
    let mut manifests = Manifests::default();
    manifests.read("scenario.yaml", &step.manifests).expect("sound manifests");
    manifests.assign_addresses(&AddressRanges::default()).expect("room");
    manifests
}

/// Attaches what the manifests name and isn't attached yet.
fn attach(
    datapath: &mut Datapath,
    manifests: &Manifests,
    known: &mut BTreeMap<IpAddr, EndpointId>,
) {
    for workload in &manifests.inventory.workloads {
        let mut spec = EndpointSpec::unlinked(workload.id.clone());
        for address in &workload.addresses {
            spec = spec.address(*address);
        }
        if workload.addresses.iter().all(|address| known.contains_key(address)) {
            continue;
        }
        let attached = datapath.attach(&spec).expect("room");
        known.extend(workload.addresses.iter().map(|address| (*address, attached.id)));
    }
}

fn run(scenario: &Scenario, backend: Backend) -> usize {
    let mut datapath = open(backend).expect("could be opened before");
    let mut compiler = Compiler::new(LocalAllocator::new());
    let mut endpoints = BTreeMap::new();
    let mut port = 1024u16;
    let mut asked = 0;
    for step in &scenario.steps {
        let manifests = read(step);
        attach(&mut datapath, &manifests, &mut endpoints);
        let options = options::Options::default();
        let plan = compiler.compile(&manifests.inventory, &manifests.policies, &options);
        let _ = datapath.apply(&Arc::new(plan.expect("compiles"))).expect("fits");
        for expectation in &step.probes {
            let Some(flow) = expectation.flow(&manifests.inventory) else { continue };
            port = port.checked_add(1).unwrap_or(1024);
            let frame = Frame::opening(flow, port).bytes();
            let from = endpoints[&flow.source];
            let replayed = datapath.replay(from, Stage::FromEndpoint, &frame).expect("runs");
            let (name, allowed) = (&scenario.name, expectation.allowed);
            assert_eq!(replayed.action.passes(), allowed, "{name}: {expectation}");
            asked += 1;
        }
    }
    asked
}

fn all(backend: Backend) {
    let scenarios = scenarios::all();
    assert_eq!(scenarios.len(), 85);
    let asked: usize = scenarios.iter().map(|scenario| run(scenario, backend)).sum();
    assert!(asked > 40_000, "only {asked} were asked");
    println!("{} scenarios, {asked} flows", scenarios.len());
}

#[test]
fn the_host_pipeline_does_as_expected() {
    all(Backend::Host);
}

#[test]
fn the_loaded_programs_do_as_expected() {
    match open(Backend::Kernel) {
        Ok(_) => all(Backend::Kernel),
        Err(error @ OpenError::MissingCapability { .. }) => println!("SKIPPED: {error}"),
        Err(error) => panic!("{error}"),
    }
}
