//! Installing: what a packet sees at every single write, and afterwards.
//!
//! The store below looks, after each write that the installer makes, at a set of flows: before the
//! flip each must be decided as the old generation does, after it as the new one does.

use std::sync::Arc;

use flowgate_conformance::{
    attended::{Attendant, Attended, Write},
    generate::{Case, Generator},
    links::links,
    room,
};
use flowgate_identity::LocalAllocator;
use flowgate_policy::{
    compile::Compiler,
    host::HostTables,
    install::{Installer, Store},
    options::Options,
    oracle,
    outcome::{Flow, Outcome},
    plan::Plan,
    simulate::{Simulator, simulate},
};

/// What flows must be decided as, while the installer writes.
#[derive(Default)]
struct Watch {
    old: Option<Arc<Plan>>,
    new: Option<Arc<Plan>>,
    generation: u32,
    flows: Vec<Flow>,
    writes: usize,
}

impl Attendant<HostTables> for Watch {
    fn after(&mut self, tables: &HostTables, _write: Write) {
        self.writes += 1;
        let (Some(old), Some(new)) = (&self.old, &self.new) else { return };
        let flipped = tables.active() != self.generation;
        let plan = if flipped { new } else { old };
        for flow in &self.flows {
            let seen = simulate(tables, plan, flow).expect("complete tables");
            let wanted = plan.decide(flow);
            assert_eq!(seen, wanted, "write {}: {flow}, flipped {flipped}", self.writes);
        }
    }
}

fn attach<S: Store>(installer: &mut Installer<S>, case: &Case) {
    for (workload, address) in links(&case.inventory) {
        installer.attach(workload, address).expect("room");
    }
}

fn compile(compiler: &mut Compiler<LocalAllocator>, case: &Case) -> Plan {
    compiler
        .compile(&case.inventory, &case.policies, &Options::default())
        .expect("a generated case compiles")
}

#[test]
fn the_simulator_agrees_with_the_oracle() {
    let mut generator = Generator::new(11);
    let (mut flows, mut allowed) = (0, 0);
    for _ in 0..200 {
        let case = generator.case();
        let mut compiler = Compiler::new(LocalAllocator::new());
        let plan = compile(&mut compiler, &case);
        let simulator = Simulator::new(&plan).expect("fits");
        let options = Options::default();
        for _ in 0..50 {
            let flow = generator.flow(&case);
            let wanted: Outcome = oracle::decide(&case.inventory, &case.policies, &options, &flow);
            assert_eq!(simulator.simulate(&flow).expect("one family"), wanted, "{flow}");
            flows += 1;
            allowed += usize::from(wanted.allowed());
        }
    }
    assert!(allowed * 10 > flows && allowed * 10 < flows * 9, "{allowed} of {flows} allowed");
}

#[test]
fn every_write_shows_the_old_or_the_new_generation() {
    let mut generator = Generator::new(23);
    let mut writes = 0;
    for _ in 0..25 {
        // One inventory, so that endpoints stay; policies and labels change.
        let case = generator.case();
        let mut compiler = Compiler::new(LocalAllocator::new());
        let first = Arc::new(compile(&mut compiler, &case));
        let tables = Attended::with(room::tables(), Watch::default());
        let mut installer = Installer::adopt(tables).expect("empty tables");
        attach(&mut installer, &case);
        let _ = installer.apply(&first).expect("fits");
        let mut running = first;
        for step in 0..4 {
            let other = generator.case();
            let mut next = case.clone();
            next.policies.clone_from(&other.policies);
            if step % 2 == 1 {
                relabel(&mut next);
            }
            let plan = Arc::new(compile(&mut compiler, &next));
            let mut flows: Vec<Flow> = (0..10).map(|_| generator.flow(&case)).collect();
            flows.extend((0..10).map(|_| generator.flow(&other)));
            let watch = Watch {
                old: Some(Arc::clone(&running)),
                new: Some(Arc::clone(&plan)),
                generation: installer.generation(),
                flows,
                writes: 0,
            };
            installer.store_mut().attendant = watch;
            let applied = installer.apply(&plan).expect("fits");
            assert!(applied.closed.is_empty());
            writes += installer.store().attendant.writes;
            installer.store_mut().attendant = Watch::default();
            running = plan;
        }
    }
    assert!(writes > 10_000, "{writes} writes were watched");
}

/// The pods swap their labels.
fn relabel(case: &mut Case) {
    let labels: Vec<_> = case.inventory.workloads.iter().map(|w| w.labels.clone()).collect();
    let count = labels.len();
    for (index, workload) in case.inventory.workloads.iter_mut().enumerate() {
        workload.labels = labels[(index + 1) % count].clone();
    }
}

#[test]
fn a_restart_adopts_and_converges() {
    let mut generator = Generator::new(31);
    for _ in 0..50 {
        let case = generator.case();
        let mut compiler = Compiler::new(LocalAllocator::new());
        let plan = Arc::new(compile(&mut compiler, &case));
        let mut installer = Installer::adopt(room::tables()).expect("empty tables");
        attach(&mut installer, &case);
        let _ = installer.apply(&plan).expect("fits");
        let before = installer.generation();
        let mut installer = Installer::adopt(installer.into_store()).expect("tables");
        let flows: Vec<Flow> = (0..30).map(|_| generator.flow(&case)).collect();
        let check = |tables: &HostTables| {
            for flow in &flows {
                let seen = simulate(tables, &plan, flow).expect("complete tables");
                assert_eq!(seen, plan.decide(flow), "{flow}");
            }
        };
        check(installer.store());
        // The same endpoints are claimed, not made again.
        let slots = installer.bindings().count();
        attach(&mut installer, &case);
        assert_eq!(installer.bindings().count(), slots);
        check(installer.store());
        let applied = installer.apply(&plan).expect("fits");
        assert!(applied.generation > before);
        check(installer.store());
    }
}

#[test]
fn a_plan_that_does_not_fit_changes_nothing() {
    let mut generator = Generator::new(5);
    let case = generator.case();
    let mut compiler = Compiler::new(LocalAllocator::new());
    let plan = Arc::new(compile(&mut compiler, &case));
    let mut small = *Store::settings(&room::tables());
    small.peers = 2;
    let room = flowgate_policy::host::HostRoom { ipcache_nodes: 1024, events: 1 };
    let mut installer = Installer::adopt(HostTables::new(small, room)).expect("empty tables");
    let error = installer.apply(&plan).expect_err("two peers are too few");
    assert!(error.to_string().contains("peers"), "{error}");
    assert_eq!(installer.generation(), 0);
}
