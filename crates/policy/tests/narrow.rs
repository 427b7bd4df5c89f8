//! Many ports on one node take room in proportion to what policies say, and what is narrow is as safe.

mod running;

use std::{net::IpAddr, sync::Arc};

use flowgate_abi::policy::{EndpointPolicy, Generation, PortTable, Scattered};
use flowgate_identity::{Labels, LocalAllocator, Selector};
use flowgate_pipeline::{Tables, policy::scattered};
use flowgate_policy::{
    compile::{CompileError, Compiler, Numbered, Session},
    extension::{Extension, NotAnExtension},
    host::{HostRoom, HostTables},
    install::Installer,
    inventory::{Inventory, Workload, WorkloadRef},
    model::{
        Directions, NamespaceSelector, Peer, Peers, Policy, PolicyKind, PolicyRef, Port, PortMatch,
        Ports, Protocol, Rule, WorkloadSelector,
    },
    options::{EndpointScope, Options},
    outcome::{Flow, FlowProtocol},
    plan::Plan,
    simulate::simulate,
};
use running::running_in;

/// Pods of an app each; so many are on the node.
struct Load {
    pods: usize,
    here: usize,
    policies: usize,
    ports: usize,
}

impl Load {
    /// As many policies and pods as the bars name, all policies about one node.
    const FULL: Self = Self { pods: 10_000, here: 250, policies: 10_000, ports: 1000 };
    const SMALL: Self = Self { pods: 400, here: 20, policies: 800, ports: 200 };

    fn inventory(&self) -> Inventory {
        Inventory {
            workloads: (0..self.pods).map(|n| pod(n, n < self.here)).collect(),
            ..Inventory::default()
        }
    }

    /// One of this node's apps may be reached by two others, at a port each.
    fn policy(&self, number: usize) -> Policy {
        let rule = |salt: usize| {
            let chosen = number * 7919 + salt * 104_729;
            let from = Peers::OneOf(vec![Peer::Workloads(app(chosen % self.pods))]);
            Rule::allow(from, port(1 + u16::try_from(chosen % self.ports).expect("a port")))
        };
        policy(number, number % self.here, vec![rule(1), rule(2)])
    }

    fn policies(&self) -> Vec<Policy> {
        (0..self.policies).map(|number| self.policy(number)).collect()
    }

    fn compile(&self, dense_cells: usize) -> Plan {
        self.compile_with(&Options { dense_cells, ..options() })
    }

    /// In one another's gaps.
    fn scattered(&self) -> Plan {
        self.compile_with(&Options { dense_cells: 0, narrow_cells: 0, ..options() })
    }

    fn compile_with(&self, options: &Options) -> Plan {
        let mut compiler = Compiler::new(LocalAllocator::new());
        compiler.compile(&self.inventory(), &self.policies(), options).expect("a sound load")
    }
}

fn options() -> Options {
    let local_node = Some("this".into());
    Options { local_node, endpoints: EndpointScope::LocalNode, ..Options::default() }
}

fn pod(number: usize, here: bool) -> Workload {
    let [.., b, c, d] = u32::try_from(number).expect("few").to_be_bytes();
    Workload {
        id: WorkloadRef { namespace: "a".into(), name: format!("pod-{number}").into() },
        labels: Labels::from_iter([("app", format!("app-{number}"))]),
        addresses: vec![IpAddr::from([198, 18 + b, c, d])],
        ports: vec![],
        node: Some(if here { "this" } else { "another" }.into()),
        host_network: false,
    }
}

fn app(number: usize) -> WorkloadSelector {
    WorkloadSelector {
        namespaces: NamespaceSelector::Named("a".into()),
        labels: Selector::match_label("app", format!("app-{number}")),
    }
}

fn anybody() -> WorkloadSelector {
    let namespaces = NamespaceSelector::Named("a".into());
    WorkloadSelector { namespaces, labels: Selector::everything() }
}

/// An app may use a port.
fn reached(from: usize, to: usize) -> Rule {
    let from = Peers::OneOf(vec![Peer::Workloads(app(from))]);
    Rule::allow(from, port(u16::try_from(to).expect("a port")))
}

/// A plan of pods of an app each, of which so many are here.
fn compile(here: usize, pods: usize, policies: &[Policy]) -> Result<Plan, CompileError> {
    let load = Load { pods, here, policies: 0, ports: 0 };
    Compiler::new(LocalAllocator::new()).compile(&load.inventory(), policies, &options())
}

fn port(port: u16) -> Ports {
    Ports::of([Port { protocol: Protocol::Tcp, port: PortMatch::Range(port, port) }])
}

fn policy(number: usize, subject: usize, rules: Vec<Rule>) -> Policy {
    let name = format!("policy-{number}").into();
    let id = PolicyRef { kind: PolicyKind::NetworkPolicy, namespace: "a".into(), name };
    Policy { ingress: Some(rules), ..Policy::new(id, app(subject)) }
}

/// Tables with room for the plan's rows, and so many cells beside.
fn running(plan: &Arc<Plan>, spare: usize) -> Installer<HostTables> {
    let mut settings = *HostTables::for_plan(plan).settings();
    settings.row_cells += u32::try_from(spare).expect("few");
    settings.decision_cells *= 2;
    settings.decisions *= 2;
    settings.peers *= 2;
    let nodes = u32::try_from(2 * plan.cost().ipcache_nodes).expect("few");
    running_in(HostTables::new(settings, HostRoom { ipcache_nodes: nodes, events: 16 }), plan)
}

fn flow(from: usize, to: usize, port: u16) -> Flow {
    let address = |number: usize| pod(number, true).addresses[0];
    Flow { source: address(from), destination: address(to), protocol: FlowProtocol::Tcp(port) }
}

fn assert_runs(installer: &Installer<HostTables>, plan: &Plan, load: &Load) {
    let to = |at: usize| 1 + u16::try_from(at * 31 % (load.ports + 1)).expect("a port");
    for flow in (0..2000).map(|at| flow(at * 17 % load.pods, at % load.here, to(at))) {
        let seen = simulate(installer.store(), plan, &flow).expect("complete tables");
        assert_eq!(seen, plan.decide(&flow), "{flow}");
    }
}

#[test]
fn a_narrow_plan_decides_as_the_dense_one_and_takes_a_fraction() {
    let [narrow, dense] = [0, usize::MAX].map(|cells| Load::SMALL.compile(cells));
    assert!(narrow.diff(&dense).is_empty());
    let [few, many] = [&narrow, &dense].map(Plan::cost);
    assert_eq!((few.rows, few.port_classes), (many.rows, many.port_classes));
    assert!(few.decision_cells < many.decision_cells / 2, "{few:?}\n{many:?}");
    let plan = Arc::new(narrow);
    assert_runs(&running(&plan, 0), &plan, &Load::SMALL);
}

#[test]
#[ignore = "takes half a minute without optimisation"]
fn ten_thousand_policies_about_one_node_fit_into_64_mib() {
    let cost = Load::FULL.compile(Options::default().dense_cells).cost();
    assert_eq!(cost.endpoints, 250);
    assert!(2 * cost.bytes < 64 << 20, "{cost:?}");
}

/// Endpoints that share nearly all their rows, and don't tell the same ports apart: narrow, each would have
/// these rows once more.
#[test]
fn what_takes_more_room_if_narrow_stays_dense() {
    for here in [60, 100] {
        let everybody = (100..800).map(|number| reached(number, number)).collect();
        let all = Policy { subject: anybody().into(), ..policy(0, 0, everybody) };
        // Isolated by one policy alone, they share what denies.
        let own = (0..here).map(|number| Policy {
            default_deny: Directions::empty(),
            ..policy(1 + number, number, vec![reached(1, 900 + number)])
        });
        let policies: Vec<Policy> = own.chain([all]).collect();
        let plan = compile(here, 800, &policies).expect("dense, it fits");
        assert!(plan.columns.is_empty(), "{here} endpoints");
        assert!(plan.cost().decision_cells < 1 << 20, "{:?}", plan.cost());
    }
}

/// With 261 peers each that may use a port of their own endpoints have as many rows as there are numbers for
/// side by side.
#[test]
fn rows_that_nobody_shares_are_as_many_as_there_are_numbers_or_scattered() {
    let each = |peers: usize, narrow_cells: usize| {
        let rules = |here: usize| (0..peers).map(move |at| reached(250 + at, 250 * at + here));
        let policies = (0..250).map(|here| policy(here, here, rules(here).collect()));
        let load = Load { pods: 520, here: 250, policies: 0, ports: 0 };
        let options = Options { narrow_cells, ..options() };
        let policies: Vec<Policy> = policies.collect();
        Compiler::new(LocalAllocator::new()).compile(&load.inventory(), &policies, &options)
    };
    let plan = each(261, usize::MAX).expect("a number for each");
    // One more is that of what isn't isolated.
    assert_eq!(plan.cost().rows, 250 * 262 + 2);
    assert!(plan.scattered.is_empty());
    let refused = each(262, usize::MAX).expect_err("too many");
    assert!(matches!(refused, CompileError::TooMany { what: Numbered::Rows, .. }), "{refused}");
    let plan = each(262, Options::default().narrow_cells).expect("scattered, it fits");
    assert!(!plan.scattered.is_empty());
    // What isn't isolated has its row twice: in either direction.
    assert!(
        plan.cost().rows > 250 * 263 && plan.cost().decision_cells < 1 << 19,
        "{:?}",
        plan.cost()
    );
}

#[test]
fn a_scattered_plan_runs_as_it_decides_and_is_never_extended() {
    let load = Load::SMALL;
    let plan = Arc::new(load.scattered());
    assert!(!plan.scattered.is_empty() && plan.diff(&load.compile(usize::MAX)).is_empty());
    assert!(plan.cost().decision_cells < load.compile(usize::MAX).cost().decision_cells / 2);
    for spare in [0, 1, 30_000] {
        assert_runs(&running(&plan, spare), &plan, &load);
    }
    let narrow = Arc::new(load.compile(0));
    for (running, next) in [(&plan, &plan), (&plan, &narrow), (&narrow, &plan)] {
        let refused = Extension::of(running, next).expect_err("its rows have their places");
        assert_eq!(refused, NotAnExtension::Scattered);
    }
}

/// Spare classes of peers lead there, and what lies in front of a group's records is another's.
#[test]
fn a_scattered_cell_without_a_row_denies() {
    let plan = Arc::new(Load::SMALL.scattered());
    let installer = running(&plan, 0);
    let slot = installer.generation() & 1;
    let line = installer.store().generation_head(slot).expect("a slot").line.load();
    for group in 1..u32::try_from(plan.cost().endpoint_policies).expect("few") {
        for column in 0..plan.port_classes {
            let end = (group + 1) * line;
            assert_eq!(scattered(installer.store(), slot, end, (0, column)), 0);
        }
    }
}

/// They take [`EndpointPolicy::NARROW`] for a part of a number, or [`EndpointPolicy::SCATTERED`].
#[test]
fn programs_that_know_no_columns_or_no_gaps_deny() {
    for (plan, flags, known) in [
        (Load::SMALL.compile(0), EndpointPolicy::NARROW, 0),
        (
            Load::SMALL.scattered(),
            EndpointPolicy::NARROW | EndpointPolicy::SCATTERED,
            EndpointPolicy::NARROW,
        ),
    ] {
        let plan = Arc::new(plan);
        for spare in [0, 1, 40, 41, 2000, 30_001] {
            assert_denied_without(&plan, flags, known, spare);
        }
    }
}

/// Who takes flags but for `known` for a part of the number finds no row.
fn assert_denied_without(plan: &Arc<Plan>, flags: u32, known: u32, spare: usize) {
    let (groups, classes) = (plan.cost().endpoint_policies, plan.peer_classes);
    let installer = running(plan, spare * groups / 8);
    let slot = installer.generation() & 1;
    let head = installer.store().generation_head(slot).expect("a slot");
    let beside = if plan.scattered.is_empty() { 0 } else { u32::from(Scattered::CELLS) };
    assert_eq!(Generation::columns(head.flags.load()), plan.port_classes + beside);
    let endpoints = 0..=installer.store().settings().endpoint_mask;
    let policies = endpoints.filter_map(|at| installer.store().endpoint_policy(slot, at));
    let policies = policies.flat_map(|both| [both.egress.load(), both.ingress.load()]);
    let policies: Vec<u32> = policies.filter(|policy| *policy != 0).collect();
    assert_eq!(policies.len(), 2 * Load::SMALL.here);
    for policy in policies {
        assert_eq!(policy & !EndpointPolicy::GROUP, flags);
        for class in [1, classes - 1] {
            let cell = (policy & !known).wrapping_mul(head.line.load()).wrapping_add(class);
            assert_eq!(installer.store().row(slot, cell), None, "{spare} spare cells");
        }
    }
}

#[test]
fn who_may_use_known_ports_joins_a_narrow_plan_and_who_may_use_others_is_refused() {
    let load = Load::SMALL;
    let mut session = Session::new(LocalAllocator::new(), Options { dense_cells: 0, ..options() });
    load.inventory().workloads.into_iter().for_each(|one| session.set_workload(one));
    load.policies().into_iter().for_each(|one| session.set_policy(one));
    // Both ports are known to the node, and the second one not to pod 0.
    let known = 1 + u16::try_from((7919 * load.here + 104_729) % load.ports).expect("a port");
    let from = |number: usize| Peers::OneOf(vec![Peer::Workloads(app(number))]);
    let unknown = |plan: &Plan| -> u16 {
        let columns = &plan.columns[plan.endpoints[0].ingress as usize];
        let class = |port: u16| plan.port_class[PortTable::Tcp as usize][usize::from(port)];
        (1..200)
            .find(|&port| class(port) != 0 && columns[usize::from(class(port))] == 0)
            .expect("one")
    };
    let other = unknown(&session.plan().expect("it compiles"));
    let rules = vec![Rule::allow(from(9001), port(known)), Rule::allow(from(9002), port(other))];
    session.set_policy(policy(9000, 0, rules));
    let before = session.plan().expect("it compiles");
    let mut installer = running(&before, 8 << 12);
    let generation = installer.generation();
    session.set_workload(pod(9001, false));
    let after = session.plan().expect("it compiles");
    let extension = Extension::of(&before, &after).expect("its port is known");
    installer.extend(&extension).expect("there is room");
    assert_eq!(installer.generation(), generation);
    for port in [known, other] {
        let flow = flow(9001, 0, port);
        let seen = simulate(installer.store(), extension.plan(), &flow).expect("complete tables");
        assert_eq!(seen, after.decide(&flow));
        assert_eq!(seen.allowed(), port == known);
    }
    assert_runs(&installer, extension.plan(), &load);
    session.set_workload(pod(9002, false));
    let last = session.plan().expect("it compiles");
    let refused = Extension::of(extension.plan(), &last).expect_err("its port is new to pod 0");
    assert!(matches!(refused, NotAnExtension::Service { .. }), "{refused}");
}
