//! Host code: reading manifests, compiling, simulating, and single packets through host tables.
#![allow(missing_docs, reason = "criterion_group! makes a public function without any")]

use std::{hint::black_box, sync::Arc};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use flowgate_abi::event::Hook;
use flowgate_benches::{
    manifests,
    packets::{End, Version, syn},
};
use flowgate_conformance::frames::{Frame, tcp};
use flowgate_pipeline::Verdict;
use flowgate_policy::{
    host::HostTables,
    install::{EndpointAddress, Installer},
    outcome::{Flow, FlowProtocol},
    simulate::Simulator,
};

fn reading(criterion: &mut Criterion) {
    let text = manifests::cluster(50);
    let mut group = criterion.benchmark_group("manifests");
    group.throughput(Throughput::Bytes(text.len() as u64));
    group.bench_function("read 50 pods and 50 policies", |bench| {
        bench.iter(|| manifests::read(black_box(&text)));
    });
    group.finish();
}

fn compiling(criterion: &mut Criterion) {
    let read = manifests::read(&manifests::cluster(50));
    criterion.bench_function("compile 50 pods and 50 policies", |bench| {
        bench.iter(|| manifests::compile(black_box(&read)));
    });
}

fn simulating(criterion: &mut Criterion) {
    let plan = manifests::compile(&manifests::read(&manifests::cluster(50)));
    let simulator = Simulator::new(&plan).expect("the plan fits");
    let flow = Flow {
        source: "198.18.0.1".parse().expect("an address"),
        destination: "198.18.0.2".parse().expect("an address"),
        protocol: FlowProtocol::Tcp(8001),
    };
    criterion.bench_function("simulate a flow", |bench| {
        bench.iter(|| simulator.simulate(black_box(&flow)));
    });
}

/// The interface index of the client; the other pods follow.
const CLIENT: u32 = 1;
/// Jiffies after which every flow has expired, so that the next packet opens another.
const EXPIRED: u64 = 1 << 22;

fn tables() -> HostTables {
    let plan = manifests::compile(&manifests::read(manifests::NODE));
    let Ok(mut installer) = Installer::adopt(HostTables::for_plan(&plan));
    let mut endpoints: Vec<_> = plan.endpoints.iter().collect();
    endpoints.sort_by_key(|endpoint| *endpoint.workload.name != *End::Client.name());
    for (number, endpoint) in endpoints.into_iter().enumerate() {
        let [(v4, v6)] = EndpointAddress::pairs(&endpoint.addresses)[..] else { unreachable!() };
        let ifindex = CLIENT + number as u32;
        let address = EndpointAddress { ifindex, v4, v6, ..EndpointAddress::default() };
        installer.attach(endpoint.workload.clone(), address).expect("room");
    }
    let _ = installer.apply(&Arc::clone(&plan)).expect("the plan fits");
    installer.into_store()
}

fn send(tables: &HostTables, frame: &Frame) -> Verdict {
    let hook = if frame.reply { Hook::ToEndpoint } else { Hook::FromEndpoint };
    tables.run(&frame.bytes(), CLIENT, hook).verdict
}

/// With the frame's copy that `HostTables::run` makes, and the event of a flow that is told of.
fn packets(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("packet");
    for version in [Version::V4, Version::V6] {
        let open = tables();
        let frame = syn(version, End::Client, End::World, 40_000);
        for frame in [frame, frame.answer(), frame.flags(tcp::ACK)] {
            assert_eq!(send(&open, &frame), Verdict::Pass);
        }
        let bytes = frame.flags(tcp::ACK).bytes();
        group.bench_function(format!("established {version:?}"), |bench| {
            bench.iter(|| open.run(black_box(&bytes), CLIENT, Hook::FromEndpoint));
        });
        let bytes = frame.bytes();
        group.bench_function(format!("new {version:?}"), |bench| {
            bench.iter(|| {
                open.advance(EXPIRED);
                let passed = open.run(black_box(&bytes), CLIENT, Hook::FromEndpoint);
                open.take_events();
                passed
            });
        });
        let bytes = syn(version, End::Client, End::Closed, 40_000).bytes();
        group.bench_function(format!("denied {version:?}"), |bench| {
            bench.iter(|| {
                let passed = open.run(black_box(&bytes), CLIENT, Hook::FromEndpoint);
                open.take_events();
                passed
            });
        });
    }
    group.finish();
}

criterion_group!(host, reading, compiling, simulating, packets);
criterion_main!(host);
