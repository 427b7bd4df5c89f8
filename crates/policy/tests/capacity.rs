//! What doesn't fit is refused by name, what runs stays, and how full the tables are is known before.

use std::{net::IpAddr, sync::Arc};

use flowgate_identity::{AllocateError, Labels, LocalAllocator, Scope, ScopeCapacities, Selector};
use flowgate_policy::{
    compile::{CompileError, Session},
    cost::{Overflow, Table},
    host::HostTables,
    install::{EndpointAddress, InstallError, Installer},
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
    let network = |number: u8| Peer::Cidr {
        cidr: format!("203.0.113.{number}/32").parse().expect("a network"),
        except: vec![],
    };
    let id = PolicyRef {
        kind: PolicyKind::NetworkPolicy,
        namespace: "a".into(),
        name: "networks".into(),
    };
    let subject = WorkloadSelector {
        namespaces: NamespaceSelector::Named("a".into()),
        labels: Selector::everything(),
    };
    let rules =
        (0..count).map(|number| Rule::allow(Peers::OneOf(vec![network(number)]), Ports::Any));
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
    let mut installer = Installer::adopt(HostTables::for_plan(plan)).expect("host tables");
    for (ifindex, endpoint) in (1..).zip(&plan.endpoints) {
        let (v4, v6) = EndpointAddress::pairs(&endpoint.addresses)[0];
        let address = EndpointAddress { ifindex, v4, v6, ..EndpointAddress::default() };
        installer.attach(endpoint.workload.clone(), address).expect("a free slot");
    }
    let _ = installer.apply(plan).expect("it fits");
    installer
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
    for (source, destination) in [("203.0.113.0", 1), ("203.0.113.7", 2), ("198.18.0.1", 3)] {
        let flow = Flow {
            source: source.parse().expect("an address"),
            destination: IpAddr::from([198, 18, 0, destination]),
            protocol: FlowProtocol::Tcp(80),
        };
        let seen = simulate(installer.store(), &before, &flow).expect("complete tables");
        assert_eq!(seen, before.decide(&flow), "{flow}");
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
