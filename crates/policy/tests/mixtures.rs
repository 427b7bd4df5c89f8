//! Two policy sets of which every mixture shows: whatever part of the tables is read from the wrong set,
//! the flow is decided about as in neither.
//!
//! So a packet that met a mixture would be noticed; that none does, while both sets are exchanged in the
//! running kernel, is `kernel_mixtures` of the benches.

use std::sync::Arc;

use flowgate_conformance::{
    mixture::{Mixed, Pair, Part, Parts, Probe},
    room,
};
use flowgate_identity::LocalAllocator;
use flowgate_policy::{
    compile::Compiler,
    host::HostTables,
    install::{EndpointAddress, Installer},
    options::Options,
    outcome::Outcome,
    plan::Plan,
    simulate::simulate,
};

fn plans(pair: &Pair) -> [Arc<Plan>; 2] {
    let mut compiler = Compiler::new(LocalAllocator::new());
    [0, 1].map(|set| {
        let (inventory, policies) = (&pair.inventories[set], &pair.policies[set]);
        let plan = compiler.compile(inventory, policies, &Options::default());
        Arc::new(plan.expect("a sound set"))
    })
}

/// Tables in which plans were applied one after the other.
fn tables(applied: &[&Arc<Plan>]) -> HostTables {
    let mut installer = Installer::adopt(room::tables()).expect("empty tables");
    for (ifindex, endpoint) in (1..).zip(&applied[0].endpoints) {
        let (v4, v6) = EndpointAddress::pairs(&endpoint.addresses)[0];
        let address = EndpointAddress { ifindex, v4, v6, ..EndpointAddress::default() };
        installer.attach(endpoint.workload.clone(), address).expect("room");
    }
    for plan in applied {
        let applied = installer.apply(plan).expect("fits");
        assert!(applied.closed.is_empty());
    }
    installer.into_store()
}

/// What becomes of a probe in a mixture; `None`: the tables have no answer, and it is dropped.
fn decided(
    plans: &[Arc<Plan>; 2],
    tables: (&HostTables, &HostTables),
    parts: Parts,
    probe: &Probe,
) -> Option<Outcome> {
    let mixed = Mixed::tables(tables.0, tables.1, parts, &probe.flow);
    let plan = &plans[usize::from(parts.contains(Part::Generation))];
    simulate(&mixed, plan, &probe.flow).ok()
}

/// Checks every mixture of two tables, of which the first runs one plan and the second the other.
fn every_mixture_shows(plans: &[Arc<Plan>; 2], tables: (&HostTables, &HostTables)) {
    let pair = Pair::new();
    assert!(Parts::mixtures().count() * pair.probes.len() > 10_000);
    for probe in &pair.probes {
        let pure = plans.each_ref().map(|plan| plan.decide(&probe.flow));
        assert_eq!(pure.each_ref().map(Outcome::allowed), probe.allowed, "{}", probe.flow);
        for (parts, outcome) in [(Parts::NONE, &pure[0]), (Parts::ALL, &pure[1])] {
            assert_eq!(decided(plans, tables, parts, probe).as_ref(), Some(outcome));
        }
        for parts in Parts::mixtures() {
            let seen = decided(plans, tables, parts, probe);
            let told = seen.as_ref().is_none_or(|seen| !pure.contains(seen));
            assert!(told, "{parts:?} of {} isn't noticed: {seen:?}", probe.flow);
        }
    }
}

#[test]
fn every_mixture_of_the_two_sets_shows() {
    let plans = plans(&Pair::new());
    let [first, second] = plans.each_ref();
    // Each with its own numbers of peers, as if the sets had nothing to do with each other. Twice, so
    // that it lies in the other slot.
    every_mixture_shows(&plans, (&tables(&[first]), &tables(&[second, second])));
    // With the numbers that peers keep from the first set to the second.
    every_mixture_shows(&plans, (&tables(&[first]), &tables(&[first, second])));
}
