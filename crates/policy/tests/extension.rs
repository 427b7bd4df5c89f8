//! Who joins and leaves by an extension is decided about as in a plan compiled with those who are there; at every
//! write each flow is decided as before or as afterwards; and it costs a cell for each policy of endpoints.

use std::{net::IpAddr, sync::Arc};

use flowgate_abi::DropReason;
use flowgate_conformance::{
    attended::{Attendant, Attended, Write},
    generate::{Case, Generator},
    links::links,
    mortal::Mortal,
    room,
};
use flowgate_identity::{Labels, LocalAllocator, Selector};
use flowgate_policy::{
    compile::Compiler,
    cost::Table,
    extension::{Extension, NotAnExtension},
    host::HostTables,
    install::{InstallError, Installer, Store},
    inventory::{Inventory, Node, Workload, WorkloadRef},
    model::{
        NamespaceSelector, Peer, Peers, Policy, PolicyKind, PolicyRef, Port, PortMatch, Ports,
        Protocol, Rule, Subject, WorkloadSelector,
    },
    options::Options,
    outcome::{Flow, Outcome},
    plan::{Plan, PlannedEndpoint},
    simulate::{SimulateError, simulate},
};

const NOT_READY: SimulateError = SimulateError::Incomplete(DropReason::EndpointNotReady);

/// What is decided about flows, while somebody joins or leaves.
#[derive(Default)]
struct Watch {
    /// The extended plan.
    plan: Option<Arc<Plan>>,
    flows: Vec<Watched>,
    writes: usize,
    closed: usize,
}

/// A flow, and what the plans before and afterwards say of it.
struct Watched {
    flow: Flow,
    known: [Outcome; 2],
    /// One of its ends joins or leaves.
    changes: bool,
}

impl Watched {
    fn new([old, new]: [&Plan; 2], changing: &[IpAddr], flow: Flow) -> Option<Self> {
        let changes = [flow.source, flow.destination].iter().any(|end| changing.contains(end));
        let of_node = |end: &PlannedEndpoint| end.workload.as_node().is_some();
        // Whether it crosses the uplink the plan knows, and not the tables.
        let by_plan = changes && old.endpoint(flow.source).is_some_and(of_node);
        let known = [old.decide(&flow), new.decide(&flow)];
        (!by_plan).then_some(Self { flow, known, changes })
    }
}

impl Attendant<HostTables> for Watch {
    fn after(&mut self, tables: &HostTables, _write: Write) {
        self.writes += 1;
        let Some(plan) = &self.plan else { return };
        for Watched { flow, known, changes } in &self.flows {
            let seen = simulate(tables, plan, flow);
            if seen.as_ref().is_ok_and(|seen| known.iter().all(|one| one == seen)) {
                continue;
            }
            let write = self.writes;
            assert!(changes, "write {write}: {flow}: {seen:?}");
            // While its policies aren't written the endpoint is closed.
            match seen {
                Ok(seen) if known.contains(&seen) => continue,
                Ok(seen) => assert!(!seen.allowed(), "write {write}: {flow}: {seen:?}"),
                Err(error) => assert_eq!(error, NOT_READY, "write {write}: {flow}"),
            }
            self.closed += 1;
        }
    }
}

fn compile(inventory: &Inventory, policies: &[Policy], options: &Options) -> Arc<Plan> {
    let mut compiler = Compiler::new(LocalAllocator::new());
    Arc::new(compiler.compile(inventory, policies, options).expect("a sound case"))
}

/// Attaches everybody at whom either plan has policies.
fn attach<S: Store>(installer: &mut Installer<S>, inventory: &Inventory, plans: [&Plan; 2]) {
    let is_planned = |id: &WorkloadRef| {
        plans.iter().any(|plan| plan.endpoints.iter().any(|end| end.workload == *id))
    };
    for (id, address) in links(inventory).into_iter().filter(|(id, _)| is_planned(id)) {
        installer.attach(id, address).expect("room");
    }
}

/// The case without one of its workloads that have addresses of their own, and that workload.
fn without_one(generator: &mut Generator, case: &Case) -> Option<(Inventory, Workload)> {
    let mut before = case.inventory.clone();
    let own = |w: &Workload| !w.host_network && !w.addresses.is_empty();
    let at: Vec<usize> =
        (0..before.workloads.len()).filter(|at| own(&before.workloads[*at])).collect();
    let chosen = usize::try_from(generator.below(at.len().max(1) as u64)).ok()?;
    let one = before.workloads.remove(*at.get(chosen)?);
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

/// What became of extensions.
#[derive(Default)]
struct Tally {
    extended: usize,
    columns: usize,
    groups: usize,
    refused: usize,
    looks: usize,
    closed: usize,
}

/// Brings a running plan to another by an extension, and looks at flows after each write.
fn extend(
    generator: &mut Generator,
    case: &Case,
    step: [&Arc<Plan>; 2],
    changing: &[IpAddr],
) -> Tally {
    let [old, new] = step;
    let Ok(extension) = Extension::of(old, new) else {
        return Tally { refused: 1, ..Tally::default() };
    };
    let extended = extension.plan();
    assert_contains(extended, old);
    if generator.below(4) == 0 {
        assert!(new.diff(extended).is_empty(), "{case:#?}");
    }
    let store = Attended::with(room::tables(), Watch::default());
    let mut installer = Installer::adopt(store).expect("empty");
    attach(&mut installer, &case.inventory, [old, new]);
    let _ = installer.apply(old).expect("it fits");
    let generation = installer.generation();
    let flows = (0..20).map(|_| generator.flow(case));
    installer.store_mut().attendant = Watch {
        plan: Some(Arc::clone(extended)),
        flows: flows.filter_map(|flow| Watched::new([old, new], changing, flow)).collect(),
        ..Watch::default()
    };
    installer.extend(&extension).expect("it fits");
    installer.settle().expect("host tables");
    assert_eq!(installer.generation(), generation, "no flip");
    let watch = std::mem::take(&mut installer.store_mut().attendant);
    let flows: Vec<Flow> = (0..60).map(|_| generator.flow(case)).collect();
    for plan in [extended, new] {
        for flow in &flows {
            let seen = simulate(installer.store().tables(), plan, flow);
            let ends = [flow.source, flow.destination];
            // Who has left and is still attached is closed.
            let is_closed = |end: &IpAddr| changing.contains(end) && new.endpoint(*end).is_none();
            match seen {
                Ok(seen) if seen == new.decide(flow) => {}
                Ok(seen) if ends.iter().any(is_closed) => assert!(!seen.allowed(), "{flow}"),
                Err(NOT_READY) if ends.iter().any(is_closed) => {}
                seen => panic!("{flow}: {seen:?}\n{case:#?}"),
            }
        }
        // The next generation follows it as it follows any other.
        let _ = installer.apply(new).expect("it fits");
    }
    Tally {
        extended: 1,
        columns: usize::from(extended.peer_classes > old.peer_classes),
        groups: usize::from(extended.cost().endpoint_policies > old.cost().endpoint_policies),
        looks: watch.writes * watch.flows.len(),
        closed: watch.closed,
        refused: 0,
    }
}

/// Cases with and without one of their workloads.
fn tally(seed: u64, joins: bool) -> Tally {
    let mut generator = Generator::new(seed);
    let mut all = Tally::default();
    for _ in 0..200 {
        let case = generator.case();
        let options = generator.options(&case);
        let Some((before, one)) = without_one(&mut generator, &case) else { continue };
        let without = compile(&before, &case.policies, &options);
        let with = compile(&case.inventory, &case.policies, &options);
        let step = if joins { [&without, &with] } else { [&with, &without] };
        let Tally { extended, columns, groups, refused, looks, closed } =
            extend(&mut generator, &case, step, &one.addresses);
        all.extended += extended;
        all.columns += columns;
        all.groups += groups;
        all.refused += refused;
        all.looks += looks;
        all.closed += closed;
    }
    let Tally { extended, columns, groups, refused, looks, closed } = all;
    println!("{extended}: {columns} with a column, {groups} with a group; {refused} refused");
    println!("{looks} looks at flows, {closed} at an endpoint that was closed");
    all
}

#[test]
fn who_joins_by_an_extension_is_decided_about_as_if_compiled_with_the_others() {
    let Tally { extended, columns, groups, refused, looks, closed } = tally(4242, true);
    assert!(extended > 100 && columns > 30 && groups > 15 && refused > 10);
    assert!(closed * 10 < looks);
}

#[test]
fn who_leaves_by_an_extension_is_nobody_any_more() {
    let Tally { extended, looks, closed, .. } = tally(4243, false);
    assert!(extended > 100 && closed * 4 < looks);
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
    assert_eq!(of(&shop(13), &policies), None, "who leaves is in nobody's way");
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
    let local_node = Some("node-1".into());
    let elsewhere = Options { local_node, ..Options::default() };
    let elsewhere = Extension::of(&old, &compile(&two, &policies, &elsewhere)).err();
    assert_eq!(elsewhere, Some(NotAnExtension::LocalNode));
    let keeping = Options { keep_established: true, ..Options::default() };
    let keeping = Extension::of(&old, &compile(&two, &policies, &keeping)).err();
    assert_eq!(keeping, Some(NotAnExtension::KeepEstablished));
}

#[test]
fn what_a_node_let_through_is_judged_again_by_a_generation_alone() {
    let node = Node {
        name: "node-1".into(),
        labels: Labels::default(),
        addresses: vec![IpAddr::from([198, 51, 100, 1])],
    };
    let inventory = Inventory { nodes: vec![node], ..shop(3) };
    let id = PolicyRef {
        kind: PolicyKind::FlowgateNodePolicy,
        namespace: "".into(),
        name: "nodes".into(),
    };
    let subject = Subject::Nodes(Selector::everything());
    let selects = Policy { ingress: Some(vec![]), ..Policy::new(id, subject) };
    let without = compile(&inventory, &[], &Options::default());
    let with = compile(&inventory, &[selects], &Options::default());
    let refused = Some(NotAnExtension::Node { node: "node-1".into() });
    assert_eq!(Extension::of(&without, &with).err(), refused);
    assert_eq!(Extension::of(&with, &without).err(), refused);
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
    assert!(matches!(tight.extend(&extension), Err(InstallError::NotRunning)), "nothing runs");
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
    attach(&mut installer, &after, [&old, &new]);
    installer.extend(&extension).expect("it is there");
    let flow = Flow {
        source: IpAddr::from([203, 0, 113, 1]),
        destination: IpAddr::from([198, 18, 0, 4]),
        protocol: flowgate_policy::outcome::FlowProtocol::Tcp(80),
    };
    let seen = simulate(installer.store(), extension.plan(), &flow).expect("it is open");
    assert_eq!(seen, new.decide(&flow));
}
