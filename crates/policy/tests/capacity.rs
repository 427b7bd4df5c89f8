//! What doesn't fit is refused by name, what runs stays, and how full the tables are is known before.

mod running;

use std::{net::IpAddr, sync::Arc};

use flowgate_abi::Settings;
use flowgate_identity::{AllocateError, Labels, LocalAllocator, Scope, ScopeCapacities, Selector};
use flowgate_policy::{
    compile::{CompileError, Session},
    cost::{Overflow, Table},
    host::{HostRoom, HostTables},
    install::{InstallError, Installer, Store},
    inventory::{Workload, WorkloadRef},
    model::{
        NamespaceSelector, Peer, Peers, Policy, PolicyKind, PolicyRef, Ports, Rule,
        WorkloadSelector,
    },
    options::Options,
    outcome::{Flow, FlowProtocol},
    plan::Plan,
    simulate::simulate,
};
use running::running_in;

fn pod(number: u8) -> Workload {
    Workload {
        id: WorkloadRef { namespace: "a".into(), name: format!("pod-{number}").into() },
        labels: Labels::from_iter([("app", format!("app-{number}"))]),
        addresses: vec![IpAddr::from([198, 18, 0, number])],
        ports: vec![],
        node: None,
        host_network: false,
    }
}

/// Everybody of the namespace may be reached from these networks alone.
fn from_networks(count: u8) -> Policy {
    from_each((0..count).map(|number| format!("203.0.113.{number}/32")))
}

/// Networks that are far from each other, of one family or the other.
fn from_scattered(v6: bool, count: u8) -> Policy {
    let network = |number| match v6 {
        true => format!("2001:db8:{number:x}::/64"),
        false => format!("198.19.{number}.64/26"),
    };
    from_each((0..count).map(network))
}

fn from_each(networks: impl Iterator<Item = String>) -> Policy {
    let id = PolicyRef {
        kind: PolicyKind::NetworkPolicy,
        namespace: "a".into(),
        name: "networks".into(),
    };
    let subject = WorkloadSelector {
        namespaces: NamespaceSelector::Named("a".into()),
        labels: Selector::everything(),
    };
    let network =
        |cidr: String| Peer::Cidr { cidr: cidr.parse().expect("a network"), except: vec![] };
    let rules = networks.map(|cidr| Rule::allow(Peers::OneOf(vec![network(cidr)]), Ports::Any));
    Policy { ingress: Some(rules.collect()), ..Policy::new(id, subject) }
}

fn session(global: u32) -> Session<LocalAllocator> {
    let capacities = ScopeCapacities { global, ..ScopeCapacities::default() };
    let mut session = Session::new(LocalAllocator::with_capacities(capacities), Options::default());
    (1..=3).for_each(|number| session.set_workload(pod(number)));
    session
}

/// Tables with room for this plan alone, which runs.
fn running(plan: &Arc<Plan>) -> Installer<HostTables> {
    running_in(HostTables::for_plan(plan), plan)
}

/// Tables with so many nodes of the ipcache, and room for everything else; a plan runs in them.
fn running_with_nodes(plan: &Arc<Plan>, nodes: usize) -> Installer<HostTables> {
    let cells = 1 << 12;
    let settings = Settings {
        peers: cells,
        row_cells: cells,
        decision_cells: cells,
        decisions: cells,
        ..*HostTables::for_plan(plan).settings()
    };
    let room =
        HostRoom { ipcache_nodes: u32::try_from(nodes).expect("a few nodes"), events: 1 << 4 };
    running_in(HostTables::new(settings, room), plan)
}

/// The tables decide about flows to the pods as the plan says.
fn assert_runs(installer: &Installer<HostTables>, plan: &Plan, sources: &[&str]) {
    for (source, destination) in sources.iter().flat_map(|s| (1..=3).map(move |d| (s, d))) {
        let flow = Flow {
            source: source.parse().expect("an address"),
            destination: IpAddr::from([198, 18, 0, destination]),
            protocol: FlowProtocol::Tcp(80),
        };
        let seen = simulate(installer.store(), plan, &flow).expect("complete tables");
        assert_eq!(seen, plan.decide(&flow), "{flow}");
    }
}

#[test]
fn who_gets_no_identity_is_told_and_the_plan_before_is_still_worth_something() {
    let mut session = session(3);
    let before = session.plan().expect("three identities");
    session.set_workload(pod(4));
    let none = AllocateError::Exhausted { scope: Scope::Global, capacity: 3 };
    assert_eq!(session.plan().unwrap_err(), CompileError::Identity(none.clone()));
    assert_eq!(session.plan().unwrap_err(), CompileError::Identity(none), "no identity was lost");
    assert!(session.remove_workload(&pod(4).id));
    assert_eq!(*session.plan().expect("three again"), *before);
}

#[test]
fn an_identity_is_free_after_the_plan_that_follows_the_first_without_it() {
    let mut session = session(4);
    session.plan().expect("three identities");
    assert!(session.remove_workload(&pod(1).id));
    session.set_workload(pod(4));
    session.plan().expect("four, since the plan before may still run");
    assert!(session.remove_workload(&pod(2).id));
    session.set_workload(pod(5));
    assert!(session.plan().is_err(), "pods 1 and 2 both hold theirs");
    assert!(session.remove_workload(&pod(5).id));
    session.plan().expect("without the fifth");
    session.set_workload(pod(5));
    session.plan().expect("pod 1's is free");
}

#[test]
fn what_overflows_is_named_and_the_running_generation_stays() {
    let mut session = session(100);
    session.set_policy(from_networks(1));
    let before = session.plan().expect("it compiles");
    let mut installer = running(&before);
    let generation = installer.generation();
    session.set_policy(from_networks(40));
    let after = session.plan().expect("it compiles");
    let Err(InstallError::Overflow(Overflow { table, needed, have, top })) =
        installer.apply(&after)
    else {
        panic!("39 networks more fit into tables that were full");
    };
    assert_eq!((table, needed, have), (Table::Peers, after.peers.len(), before.peers.len()));
    assert_eq!(top, [(from_networks(0).id, 40)]);
    assert_eq!(installer.generation(), generation);
    assert_runs(&installer, &before, &["203.0.113.0", "203.0.113.7", "198.18.0.1"]);
}

#[test]
fn networks_for_which_there_are_no_nodes_are_named_in_both_families() {
    for (v6, source) in [(false, "198.19.7.70"), (true, "198.19.0.70")] {
        let mut session = session(100);
        session.set_policy(from_scattered(v6, 4));
        let before = session.plan().expect("it compiles");
        let mut installer = running_with_nodes(&before, before.cost().ipcache_nodes);
        let generation = installer.generation();
        session.set_policy(from_scattered(v6, 200));
        let after = session.plan().expect("it compiles");
        let Err(InstallError::Overflow(overflow)) = installer.apply(&after) else {
            panic!("196 networks more fit into nodes that were all taken");
        };
        let Overflow { table, needed, have, top } = overflow;
        let costs = (after.cost().ipcache_nodes, before.cost().ipcache_nodes);
        assert_eq!((table, (needed, have)), (Table::IpcacheNodes, costs));
        assert_eq!(top.first().map(|(policy, _)| policy), Some(&from_networks(0).id));
        assert_eq!(installer.generation(), generation);
        assert_runs(&installer, &before, &["198.18.0.2", "203.0.113.1", source]);
    }
}

#[test]
fn networks_that_fit_alone_but_not_beside_the_running_ones_come_after_these_have_gone() {
    let mut session = session(100);
    let empty = session.plan().expect("it compiles");
    session.set_policy(from_scattered(false, 100));
    let before = session.plan().expect("it compiles");
    session.set_policy(from_scattered(true, 100));
    let after = session.plan().expect("it compiles");
    let nodes = before.cost().ipcache_nodes.max(after.cost().ipcache_nodes);
    let mut installer = running_with_nodes(&before, nodes);
    let generation = installer.generation();
    let Err(InstallError::TrieInTransition { needed, have }) = installer.apply(&after) else {
        panic!("two plans fit into the nodes of one");
    };
    assert!(needed > nodes && have == nodes, "{needed} of {have}, there are {nodes}");
    assert_eq!(installer.generation(), generation);
    let sources = ["198.18.0.2", "198.19.7.70", "198.19.7.1"];
    assert_runs(&installer, &before, &sources);
    for plan in [&empty, &after] {
        let _ = installer.apply(plan).expect("it fits now");
        assert_runs(&installer, plan, &sources);
    }
}

#[test]
fn pressure_is_what_the_running_plan_costs() {
    let mut session = session(100);
    session.set_policy(from_networks(5));
    let plan = session.plan().expect("it compiles");
    let (cost, installer) = (plan.cost(), running(&plan));
    let pressure = installer.pressure();
    let used: Vec<(Table, usize)> = pressure.iter().map(|one| (one.table, one.used)).collect();
    let costs = [
        (Table::Endpoints, cost.endpoints),
        (Table::Peers, cost.peers),
        (Table::RowCells, cost.row_cells),
        (Table::DecisionCells, cost.decision_cells),
        (Table::Decisions, cost.decisions),
        (Table::IpcacheNodes, cost.ipcache_nodes),
    ];
    assert_eq!(used, costs);
    assert!(pressure.iter().all(|one| one.used <= one.capacity), "{pressure:?}");
}
