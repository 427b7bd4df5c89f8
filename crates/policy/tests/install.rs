//! Installing: what a packet sees at every single write, and afterwards.
//!
//! The store below looks, after each write that the installer makes, at a set of flows: before the
//! flip each must be decided as the old generation does, after it as the new one does.

use std::{net::Ipv4Addr, sync::Arc};

use flowgate_conformance::{
    attended::{Attendant, Attended, Write},
    generate::{Case, Generator},
    links::links,
    room,
};
use flowgate_identity::{Labels, LocalAllocator, Selector};
use flowgate_policy::{
    compile::Compiler,
    cost::Table,
    host::HostTables,
    install::{Applied, Installer, Store},
    inventory::{Inventory, Workload, WorkloadRef},
    model::{
        NamespaceSelector, Peer, Peers, Policy, PolicyKind, PolicyRef, Port, PortMatch, Ports,
        Protocol, Rule, WorkloadSelector,
    },
    options::Options,
    oracle,
    outcome::{Flow, FlowProtocol, Outcome},
    plan::Plan,
    simulate::{Simulator, simulate},
};
use ipnet::{IpNet, Ipv4Net};

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

/// Networks that the policy of [`sorting`] names.
const NETWORKS: u32 = 200;
const PORT: u16 = 80;

fn network(number: u32) -> IpNet {
    let address = u32::from(Ipv4Addr::new(203, 0, 113, 0)) + number;
    Ipv4Net::new(address.into(), 32).expect("a whole address").into()
}

/// A pod that may open connections to each of the networks, at the port of the rule that it is in.
fn sorting(rules: u32, rule_of: impl Fn(u32) -> u32) -> (Inventory, Policy) {
    let client = Workload {
        id: WorkloadRef { namespace: "a".into(), name: "client".into() },
        labels: Labels::new(),
        addresses: vec!["198.18.0.1".parse().expect("an address")],
        ports: vec![],
        node: None,
        host_network: false,
    };
    let id =
        PolicyRef { kind: PolicyKind::NetworkPolicy, namespace: "a".into(), name: "sorted".into() };
    let subject = WorkloadSelector {
        namespaces: NamespaceSelector::Named("a".into()),
        labels: Selector::everything(),
    };
    let rule = |rule: u32| {
        let mine = (0..NETWORKS).filter(|number| rule_of(*number) == rule);
        let peers = mine.map(|number| Peer::Cidr { cidr: network(number), except: vec![] });
        let port = PORT + rule as u16;
        let ports = [Port { protocol: Protocol::Tcp, port: PortMatch::Range(port, port) }];
        Rule::allow(Peers::OneOf(peers.collect()), Ports::of(ports))
    };
    let policy =
        Policy { egress: Some((0..rules).map(rule).collect()), ..Policy::new(id, subject) };
    (Inventory { workloads: vec![client], ..Inventory::default() }, policy)
}

/// Plans are applied one after the other; at each write every network is decided about as the old
/// plan does or as the new one does.
struct Sorter {
    compiler: Compiler<LocalAllocator>,
    installer: Installer<Attended<HostTables, Watch>>,
    plan: Option<Arc<Plan>>,
}

impl Sorter {
    fn new() -> Self {
        let tables = Attended::with(room::tables(), Watch::default());
        let installer = Installer::adopt(tables).expect("empty tables");
        Self { compiler: Compiler::new(LocalAllocator::new()), installer, plan: None }
    }

    fn apply(&mut self, rules: u32, rule_of: impl Fn(u32) -> u32) -> Applied {
        let (inventory, policy) = sorting(rules, rule_of);
        let plan = self.compiler.compile(&inventory, &[policy], &Options::default());
        let plan = Arc::new(plan.expect("it compiles"));
        // The first time, and after a restart.
        if self.installer.bindings().all(|(_, binding)| binding.workload.is_none()) {
            for (workload, address) in links(&inventory) {
                self.installer.attach(workload, address).expect("room");
            }
        }
        let flow = |number, port| Flow {
            source: inventory.workloads[0].addresses[0],
            destination: network(number).addr(),
            protocol: FlowProtocol::Tcp(port),
        };
        let ports = PORT..PORT + 3;
        let some = (0..NETWORKS).step_by(7);
        let flows = some.flat_map(|number| ports.clone().map(move |port| flow(number, port)));
        self.installer.store_mut().attendant = Watch {
            old: self.plan.clone(),
            new: Some(Arc::clone(&plan)),
            generation: self.installer.generation(),
            flows: flows.collect(),
            writes: 0,
        };
        let applied = self.installer.apply(&plan).expect("fits");
        let ended = std::mem::take(&mut self.installer.store_mut().attendant);
        assert!(ended.writes > 0);
        self.plan = Some(plan);
        applied
    }

    fn peers(&self) -> usize {
        let peers = self.installer.pressure().into_iter().find(|one| one.table == Table::Peers);
        peers.expect("peers are a table").used
    }
}

#[test]
fn networks_that_a_plan_does_not_tell_apart_share_a_peer() {
    let mut sorter = Sorter::new();
    let halves = |number| number % 2;
    let _ = sorter.apply(2, halves);
    // The client, both default routes, and the networks of each rule.
    assert_eq!(sorter.peers(), 5);
    assert_eq!(sorter.plan.as_ref().map(|plan| plan.cost().peers), Some(5));
    assert_eq!(sorter.apply(2, halves).moved, 0, "the same again");
    assert_eq!(sorter.apply(2, |number| 1 - halves(number)).moved, 0, "the rules change places");
    // Every tenth is told apart, and moves; the others stay where they are.
    let tenths = |number| if number % 10 == 0 { 2 } else { 1 - halves(number) };
    assert_eq!(sorter.apply(3, tenths).moved, NETWORKS as usize / 10);
    assert_eq!(sorter.peers(), 6);
    let _ = sorter.apply(1, |_| 0);
    // Numbers that are given back count as used for a grace period, the next apply's.
    assert_eq!(sorter.apply(1, |_| 0).moved, 0);
    assert_eq!(sorter.peers(), 4, "nothing tells them apart");
    let _ = sorter.apply(3, |number| number % 3);
    assert_eq!(sorter.peers(), 6);
}

#[test]
fn networks_share_their_peers_after_a_restart_too() {
    let mut sorter = Sorter::new();
    let _ = sorter.apply(3, |number| number % 3);
    let Sorter { compiler, installer, plan } = sorter;
    let installer = Installer::adopt(installer.into_store()).expect("tables");
    let mut sorter = Sorter { compiler, installer, plan };
    assert_eq!(sorter.apply(3, |number| number % 3).moved, 0);
    assert_eq!(sorter.peers(), 6);
}
