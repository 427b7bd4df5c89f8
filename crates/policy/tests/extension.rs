//! Who joins by an extension is decided about as in a plan compiled with them; at every write each flow
//! is decided as before or as afterwards; and it costs a cell for each policy of endpoints.

use std::{net::IpAddr, sync::Arc};

use flowgate_abi::DropReason;
use flowgate_conformance::{
    attended::{Attendant, Attended, Write},
    generate::{Case, Generator},
    mortal::Mortal,
    room,
};
use flowgate_identity::{Labels, LocalAllocator, Selector};
use flowgate_policy::{
    compile::Compiler,
    cost::Table,
    extension::{Extension, NotAnExtension},
    host::HostTables,
    install::{EndpointAddress, InstallError, Installer, Store},
    inventory::{Inventory, Workload, WorkloadRef},
    model::{
        NamespaceSelector, Peer, Peers, Policy, PolicyKind, PolicyRef, Port, PortMatch, Ports,
        Protocol, Rule, WorkloadSelector,
    },
    options::Options,
    outcome::Flow,
    plan::Plan,
    simulate::{SimulateError, simulate},
};

/// What is decided about flows, while somebody joins.
#[derive(Default)]
struct Watch {
    /// Both plans, and the extended one.
    plans: Option<[Arc<Plan>; 3]>,
    joining: Vec<IpAddr>,
    flows: Vec<Flow>,
    writes: usize,
    closed: usize,
}

impl Attendant<HostTables> for Watch {
    fn after(&mut self, tables: &HostTables, _write: Write) {
        self.writes += 1;
        let Some([old, new, extended]) = &self.plans else { return };
        for flow in &self.flows {
            let joins =
                [flow.source, flow.destination].iter().any(|end| self.joining.contains(end));
            let seen = match simulate(tables, extended, flow) {
                Ok(seen) => seen,
                Err(SimulateError::Incomplete(DropReason::EndpointNotReady)) if joins => {
                    self.closed += 1;
                    continue;
                }
                Err(error) => panic!("write {}: {flow}: {error}", self.writes),
            };
            let known = [old.decide(flow), new.decide(flow)];
            if !joins {
                assert!(known.iter().all(|one| *one == seen), "write {}: {flow}", self.writes);
            } else if !known.contains(&seen) {
                // Until its policies are written the endpoint is closed.
                assert!(!seen.allowed(), "write {}: {flow}: {seen:?}", self.writes);
                self.closed += 1;
            }
        }
    }
}

fn compile(inventory: &Inventory, policies: &[Policy], options: &Options) -> Arc<Plan> {
    let mut compiler = Compiler::new(LocalAllocator::new());
    Arc::new(compiler.compile(inventory, policies, options).expect("a sound case"))
}

fn attach<S: Store>(installer: &mut Installer<S>, plan: &Plan) {
    let mut ifindex = 100;
    for endpoint in &plan.endpoints {
        for (v4, v6) in EndpointAddress::pairs(&endpoint.addresses) {
            ifindex += 1;
            let address = EndpointAddress { ifindex, v4, v6, ..EndpointAddress::default() };
            installer.attach(endpoint.workload.clone(), address).expect("room");
        }
    }
}

/// The case without its last workload that has an address of its own, and that workload.
fn without_one(case: &Case) -> Option<(Inventory, Workload)> {
    let mut before = case.inventory.clone();
    let at = before.workloads.iter().rposition(|w| !w.host_network && !w.addresses.is_empty())?;
    let one = before.workloads.remove(at);
    Some((before, one))
}

/// The tables of the running plan are in the extended one, unchanged.
fn assert_contains(extended: &Plan, running: &Plan) {
    let widths = (extended.peer_classes as usize, running.peer_classes as usize);
    let groups = extended.row.chunks(widths.0).zip(running.row.chunks(widths.1));
    groups.for_each(|(group, before)| assert_eq!(group[..widths.1], *before));
    assert_eq!(extended.decision[..running.decision.len()], running.decision);
    assert_eq!(extended.decisions[..running.decisions.len()], running.decisions);
    assert_eq!(extended.cookies[..running.cookies.len()], running.cookies);
    assert_eq!(extended.port_class, running.port_class);
}

#[test]
fn who_joins_by_an_extension_is_decided_about_as_if_compiled_with_the_others() {
    let mut generator = Generator::new(4242);
    let (mut joined, mut columns, mut groups, mut refused) = (0, 0, 0, 0);
    let (mut looks, mut closed) = (0, 0);
    for _ in 0..600 {
        let case = generator.case();
        let options = generator.options(&case);
        let Some((before, one)) = without_one(&case) else { continue };
        let old = compile(&before, &case.policies, &options);
        let new = compile(&case.inventory, &case.policies, &options);
        let Ok(extension) = Extension::of(&old, &new) else {
            refused += 1;
            continue;
        };
        let extended = extension.plan();
        joined += 1;
        columns += usize::from(extended.peer_classes > old.peer_classes);
        groups += usize::from(extended.cost().endpoint_policies > old.cost().endpoint_policies);
        assert_contains(extended, &old);
        assert!(new.diff(extended).is_empty(), "{case:#?}");
        let mut installer =
            Installer::adopt(Attended::with(room::tables(), Watch::default())).expect("empty");
        attach(&mut installer, &new);
        let _ = installer.apply(&old).expect("it fits");
        let generation = installer.generation();
        installer.store_mut().attendant = Watch {
            plans: Some([Arc::clone(&old), Arc::clone(&new), Arc::clone(extended)]),
            joining: one.addresses.clone(),
            flows: (0..30).map(|_| generator.flow(&case)).collect(),
            ..Watch::default()
        };
        installer.extend(&extension).expect("it fits");
        installer.settle().expect("host tables");
        assert_eq!(installer.generation(), generation, "no flip");
        let watch = std::mem::take(&mut installer.store_mut().attendant);
        (looks, closed) = (looks + watch.writes * watch.flows.len(), closed + watch.closed);
        let flows: Vec<Flow> = (0..60).map(|_| generator.flow(&case)).collect();
        for flow in &flows {
            let seen = simulate(installer.store().tables(), extended, flow).expect("complete");
            assert_eq!(seen, new.decide(flow), "{flow}\n{case:#?}");
        }
        // The next generation follows it as it follows any other.
        let _ = installer.apply(&new).expect("it fits");
        for flow in &flows {
            let seen = simulate(installer.store().tables(), &new, flow).expect("complete");
            assert_eq!(seen, new.decide(flow), "{flow}\n{case:#?}");
        }
    }
    println!("{joined} joined: {columns} with a column, {groups} with a group; {refused} refused");
    println!("{looks} looks at flows, {closed} at an endpoint that was still closed");
    assert!(joined > 100 && columns > 50 && groups > 20 && refused > 10);
    assert!(closed * 10 < looks);
}

const NAMESPACE: &str = "shop";

fn pod(number: usize, app: usize) -> Workload {
    let [.., high, low] = u32::try_from(number).expect("few").to_be_bytes();
    Workload {
        id: WorkloadRef { namespace: NAMESPACE.into(), name: format!("pod-{number:05}").into() },
        labels: Labels::from_iter([("app", format!("app-{app}"))]),
        addresses: vec![IpAddr::from([198, 18, high, low])],
        ports: vec![],
        node: None,
        host_network: false,
    }
}

fn select(app: usize) -> WorkloadSelector {
    WorkloadSelector {
        namespaces: NamespaceSelector::Named(NAMESPACE.into()),
        labels: Selector::match_label("app", format!("app-{app}")),
    }
}

/// Each app may be reached by the next one, and by app 99, on a port.
fn policy(app: usize, port: u16) -> Policy {
    let id = PolicyRef {
        kind: PolicyKind::NetworkPolicy,
        namespace: NAMESPACE.into(),
        name: format!("policy-{app}").into(),
    };
    let port = Port { protocol: Protocol::Tcp, port: PortMatch::Range(port, port) };
    let peers = [app + 1, 99].map(|app| Peer::Workloads(select(app)));
    let rule = Rule::allow(Peers::OneOf(peers.into()), Ports::of([port]));
    Policy { ingress: Some(vec![rule]), ..Policy::new(id, select(app)) }
}

/// Pods of seven apps.
fn shop(pods: usize) -> Inventory {
    Inventory { workloads: (1..=pods).map(|n| pod(n, n % 7)).collect(), ..Inventory::default() }
}

/// Tables in which rows have room for more columns.
fn roomy(plan: &Plan) -> HostTables {
    let cost = plan.cost();
    let exact = HostTables::for_plan(plan);
    let mut settings = *exact.settings();
    settings.peers = 64;
    settings.row_cells = 1 << 14;
    settings.decision_cells *= 4;
    settings.decisions *= 4;
    let nodes = u32::try_from(cost.ipcache_nodes + 64).expect("few");
    HostTables::new(settings, flowgate_policy::host::HostRoom { ipcache_nodes: nodes, events: 1 })
}

/// Calls of the store, and entries written, when an app that nobody has met joins.
fn writes(pods: usize, policies: usize) -> (usize, usize) {
    let before = shop(pods);
    let policies: Vec<Policy> = (0..policies).map(|app| policy(app, 80)).collect();
    let old = compile(&before, &policies, &Options::default());
    let mut after = before;
    after.workloads.push(pod(pods + 1, 99));
    let new = compile(&after, &policies, &Options::default());
    let extension = Extension::of(&old, &new).expect("an app more");
    let mut installer = Installer::adopt(Mortal::new(roomy(&new))).expect("empty tables");
    let _ = installer.apply(&old).expect("it fits");
    let before = installer.store().writes();
    let entries = installer.extend(&extension).expect("it fits");
    (installer.store().writes() - before, entries)
}

#[test]
fn a_new_combination_costs_a_cell_for_each_policy_of_endpoints() {
    let (few, many) = (writes(20, 6), writes(2000, 6));
    println!("{few:?} beside 20 pods, {many:?} beside 2000");
    assert_eq!(few.1, many.1, "whatever the number of pods");
    // Six apps that are isolated, all others, and what is open; a peer, its class, its address.
    assert!(few.1 <= 8 + 2 + 2, "{few:?}");
    let fewer = writes(20, 3);
    assert_eq!(few.1 - fewer.1, 3, "three policies of endpoints less: {fewer:?}");
}

#[test]
fn what_isnt_an_extension_is_told_why() {
    let (one, two) = (shop(14), shop(15));
    let policies = [policy(1, 80), policy(2, 80)];
    let old = compile(&one, &policies, &Options::default());
    let of = |inventory: &Inventory, policies: &[Policy]| {
        Extension::of(&old, &compile(inventory, policies, &Options::default())).err()
    };
    assert_eq!(of(&two, &policies), None);
    let fewer = shop(13);
    let left = "198.18.0.14/32".parse().expect("a network");
    assert_eq!(of(&fewer, &policies), Some(NotAnExtension::Left { network: left }));
    let mut relabelled = shop(14);
    relabelled.workloads[13].labels = Labels::from_iter([("app", "other")]);
    assert_eq!(of(&relabelled, &policies), Some(NotAnExtension::Moved { network: left }));
    let other = [policy(1, 80), policy(2, 81)];
    assert!(matches!(of(&two, &other), Some(NotAnExtension::Service { port: 81, .. })));
    let fewer = of(&two, &policies[..1]);
    assert!(matches!(fewer, Some(NotAnExtension::Policies { .. } | NotAnExtension::Peers { .. })));
    let mut network = policy(1, 80);
    let peer = Peer::Cidr { cidr: "203.0.113.0/24".parse().expect("a network"), except: vec![] };
    network.ingress.iter_mut().flatten().for_each(|rule| {
        rule.peers = Peers::OneOf(vec![peer.clone()]);
    });
    let named = of(&two, &[network, policy(2, 80)]);
    assert!(matches!(named, Some(NotAnExtension::Network { .. })), "{named:?}");
}

#[test]
fn an_extension_without_room_or_of_another_plan_writes_nothing() {
    let policies = [policy(1, 80), policy(2, 80)];
    let old = compile(&shop(14), &policies, &Options::default());
    let mut after = shop(14);
    after.workloads.push(pod(15, 99));
    let new = compile(&after, &policies, &Options::default());
    let extension = Extension::of(&old, &new).expect("an app more");
    let mut tight = Installer::adopt(Mortal::new(HostTables::for_plan(&old))).expect("empty");
    assert!(matches!(tight.extend(&extension), Err(InstallError::OtherPlan)), "nothing runs");
    let _ = tight.apply(&old).expect("it fits");
    let writes = tight.store().writes();
    let refused = tight.extend(&extension);
    assert!(
        matches!(&refused, Err(InstallError::Overflow(over)) if over.table == Table::Peers
            || over.table == Table::RowCells),
        "{refused:?}"
    );
    assert_eq!(tight.store().writes(), writes);
}

#[test]
fn an_endpoint_that_is_attached_later_is_opened_by_the_same_extension() {
    let policies = [policy(1, 80)];
    let old = compile(&shop(3), &policies, &Options::default());
    let mut after = shop(3);
    after.workloads.push(pod(4, 99));
    let new = compile(&after, &policies, &Options::default());
    let extension = Extension::of(&old, &new).expect("an app more");
    let mut installer = Installer::adopt(roomy(&new)).expect("empty tables");
    let _ = installer.apply(&old).expect("it fits");
    installer.extend(&extension).expect("it fits");
    attach(&mut installer, extension.plan());
    installer.extend(&extension).expect("it is there");
    let flow = Flow {
        source: IpAddr::from([203, 0, 113, 1]),
        destination: IpAddr::from([198, 18, 0, 4]),
        protocol: flowgate_policy::outcome::FlowProtocol::Tcp(80),
    };
    let seen = simulate(installer.store(), extension.plan(), &flow).expect("it is open");
    assert_eq!(seen, new.decide(&flow));
}
