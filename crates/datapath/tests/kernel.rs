//! The loaded programs against the host pipeline and the oracle, by `BPF_PROG_TEST_RUN`.
//!
//! Privileged: without the capabilities, each test says so in one line and is skipped.
//! `FLOWGATE_CORPUS` is the number of cases (default 100,000), `FLOWGATE_OBJECT` another object.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use flowgate_conformance::{
    envelope,
    frames::{Frame, Frames, Kind, tcp},
    generate::{Case, Generator},
};
use flowgate_datapath::{
    Action, Backend, Datapath, EndpointId, EndpointSpec, Events, FlowEvent, OpenError, Options,
    Stage,
};
use flowgate_identity::LocalAllocator;
use flowgate_policy::{
    compile::Compiler,
    inventory::WorkloadRef,
    options, oracle,
    outcome::{Flow, FlowProtocol, Side},
    plan::Plan,
};

/// Packets of one policy set; sets of one inventory.
const PACKETS: usize = 100;
const SETS: usize = 10;

fn cases() -> usize {
    std::env::var("FLOWGATE_CORPUS").ok().and_then(|text| text.parse().ok()).unwrap_or(100_000)
}

fn options() -> Options {
    Options {
        flows4: 8192,
        flows6: 8192,
        endpoints: 32,
        events_per_second: u32::MAX,
        event_bytes: 1 << 20,
        ..Options::default()
    }
}

/// The kernel's datapath; `None`: it can't be had here, which is said once.
fn kernel() -> Option<Datapath> {
    // Older than what is promised: `cargo xtask kernels` tells how far they go.
    let builder = Datapath::builder().options(options()).minimum_kernel(5, 10);
    let builder = match std::env::var_os("FLOWGATE_OBJECT") {
        Some(path) => builder.object(Cow::Owned(std::fs::read(path).expect("the object is there"))),
        None => builder,
    };
    match builder.open() {
        Ok(datapath) => Some(datapath),
        Err(error @ OpenError::MissingCapability { .. }) => {
            println!("SKIPPED: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn host() -> Datapath {
    Datapath::builder().backend(Backend::Host).options(options()).open().expect("no privileges")
}

/// A datapath with the endpoints of a case.
struct Rig {
    datapath: Datapath,
    events: Events,
    endpoints: BTreeMap<WorkloadRef, EndpointId>,
}

impl Rig {
    fn new(mut datapath: Datapath, case: &Case) -> Self {
        let events = datapath.events().expect("not taken before");
        let mut rig = Self { datapath, events, endpoints: BTreeMap::new() };
        for workload in case.inventory.workloads.iter().filter(|w| !w.host_network) {
            rig.attach(&workload.id, &workload.addresses);
        }
        rig
    }

    fn attach(&mut self, workload: &WorkloadRef, addresses: &[IpAddr]) {
        let first = |v4: bool| addresses.iter().find(|a| a.is_ipv4() == v4);
        let mut spec = EndpointSpec::unlinked(workload.clone());
        for address in [first(true), first(false)].into_iter().flatten() {
            spec = spec.address(*address);
        }
        if first(true).is_some() || first(false).is_some() {
            let attached = self.datapath.attach(&spec).expect("room");
            self.endpoints.insert(workload.clone(), attached.id);
        }
    }

    fn apply(&mut self, plan: &Arc<Plan>) {
        let applied = self.datapath.apply(plan).expect("fits");
        assert!(applied.closed.is_empty(), "{:?}", applied.closed);
    }

    fn replay(&mut self, workload: &WorkloadRef, stage: Stage, frame: &[u8]) -> (Action, Vec<u8>) {
        let id = self.endpoints[workload];
        let replayed = self.datapath.replay(id, stage, frame).expect("the program runs");
        (replayed.action, replayed.frame)
    }

    fn take_events(&mut self) -> Vec<FlowEvent> {
        let mut events: Vec<FlowEvent> = std::iter::from_fn(|| self.events.try_next()).collect();
        events.iter_mut().for_each(|event| event.at = std::time::Duration::ZERO);
        // Where a made-up link lies isn't where the kernel runs the program.
        events.iter_mut().for_each(|event| event.ifindex = 0);
        events
    }
}

fn compile(compiler: &mut Compiler<LocalAllocator>, case: &Case) -> Arc<Plan> {
    let plan = compiler.compile(&case.inventory, &case.policies, &options::Options::default());
    Arc::new(plan.expect("a generated case compiles"))
}

/// The endpoint that a flow's source or destination address belongs to.
fn owner(rig: &Rig, case: &Case, address: IpAddr) -> Option<WorkloadRef> {
    let workload = case.inventory.workloads.iter().find(|workload| {
        let first = workload.addresses.iter().find(|a| a.is_ipv4() == address.is_ipv4());
        !workload.host_network && first == Some(&address)
    })?;
    rig.endpoints.contains_key(&workload.id).then(|| workload.id.clone())
}

#[derive(Default)]
struct Shares {
    cases: usize,
    by_action: BTreeMap<&'static str, usize>,
    judged: usize,
    without_ports: BTreeSet<(IpAddr, IpAddr, u8)>,
}

/// One packet: kernel and host agree on action and bytes; the oracle on what opens a flow.
fn step(
    kernel: &mut Rig,
    host: &mut Rig,
    case: &Case,
    (kind, frame): (Kind, Vec<u8>),
    at: (WorkloadRef, Stage),
    shares: &mut Shares,
) {
    let (workload, stage) = at;
    let seen = kernel.replay(&workload, stage, &frame);
    let wanted = host.replay(&workload, stage, &frame);
    assert_eq!(seen.0, wanted.0, "{kind:?} at {workload} {stage:?}: {frame:02x?}");
    assert_eq!(seen.1, wanted.1, "bytes of {kind:?} at {workload} {stage:?}");
    shares.cases += 1;
    let name = match seen.0 {
        Action::Pass => "pass",
        Action::Redirect => "redirect",
        Action::Drop => "drop",
    };
    *shares.by_action.entry(name).or_default() += 1;
    let Kind::Opening(opening) = kind else { return };
    // Without ports, two ends have one flow, which the other one may have opened before.
    if let FlowProtocol::Other(protocol) = opening.flow.protocol {
        let (source, destination) = (opening.flow.source, opening.flow.destination);
        let ends = (source.min(destination), source.max(destination), protocol);
        if !shares.without_ports.insert(ends) {
            return;
        }
    }
    // ICMP other than queries is no opening.
    if let FlowProtocol::Icmp { icmp_type } | FlowProtocol::Icmp6 { icmp_type } =
        opening.flow.protocol
        && !matches!(icmp_type, 8 | 13 | 15 | 17 | 128)
    {
        return;
    }
    let outcome = oracle::decide(
        &case.inventory,
        &case.policies,
        &options::Options::default(),
        &opening.flow,
    );
    // The oracle knows each end's answer; here only attached ends are asked.
    let asked = |address, side: &Side| owner(kernel, case, address).is_none() || side.allowed();
    let wanted = asked(opening.flow.source, &outcome.egress)
        && asked(opening.flow.destination, &outcome.ingress);
    assert_eq!(seen.0.passes(), wanted, "{:?} {outcome:?}", opening.flow);
    shares.judged += 1;
}

/// Where a packet is met: at its sender if that is an endpoint, else at its receiver.
fn place(rig: &Rig, case: &Case, kind: &Kind, flow: Flow) -> Option<(WorkloadRef, Stage)> {
    let (sender, receiver) = match kind {
        Kind::Opening(frame) | Kind::Later(frame) => (frame.sender(), frame.receiver()),
        Kind::Error | Kind::Odd => (flow.source, flow.destination),
    };
    if let Some(workload) = owner(rig, case, sender) {
        return Some((workload, Stage::FromEndpoint));
    }
    owner(rig, case, receiver).map(|workload| (workload, Stage::ToEndpoint))
}

fn compare(kernel: &mut Rig, host: &mut Rig) {
    let (seen, wanted) = (kernel.take_events(), host.take_events());
    assert_eq!(seen.len(), wanted.len(), "events");
    for (seen, wanted) in seen.iter().zip(&wanted) {
        assert_eq!(seen, wanted);
    }
    let counters = |rig: &Rig| rig.datapath.counters().expect("readable");
    assert_eq!(counters(kernel), counters(host));
    let flows = |rig: &Rig| {
        let mut flows = rig.datapath.flows().expect("readable");
        flows.sort();
        flows
    };
    assert_eq!(flows(kernel), flows(host));
}

#[test]
fn every_program_loads() {
    let Some(datapath) = kernel() else { return };
    let report = datapath.report();
    assert_eq!(report.programs.len(), 4, "{report}");
    for program in &report.programs {
        let verified = program.verified_instructions.unwrap_or_default();
        println!(
            "{}: {verified} instructions verified, {} bytes",
            program.name, program.jited_bytes
        );
        assert!(verified < 1_000_000);
    }
}

#[test]
fn oracle_host_and_kernel_agree() {
    if kernel().is_none() {
        return;
    }
    let mut generator = Generator::new(0xf10a);
    let mut shares = Shares::default();
    while shares.cases < cases() {
        let mut case = generator.case();
        shares.without_ports.clear();
        let mut compiler = Compiler::new(LocalAllocator::new());
        let mut host = Rig::new(host(), &case);
        let mut kernel = Rig::new(kernel().expect("could be had before"), &case);
        let mut frames = Frames::default();
        for _ in 0..SETS {
            let plan = compile(&mut compiler, &case);
            host.apply(&plan);
            kernel.apply(&plan);
            for _ in 0..PACKETS {
                let flow = generator.flow(&case);
                let (kind, frame) = frames.next(&mut generator, flow);
                if let Some(at) = place(&kernel, &case, &kind, flow) {
                    step(&mut kernel, &mut host, &case, (kind, frame), at, &mut shares);
                }
            }
            case.policies = generator.case().policies;
        }
        compare(&mut kernel, &mut host);
    }
    println!(
        "{} cases, {} judged by the oracle, {:?}",
        shares.cases, shares.judged, shares.by_action
    );
    for (action, count) in shares.by_action {
        assert!(count * 10 >= shares.cases, "{action} is only {count} of {}", shares.cases);
    }
}

/// Two workloads that may talk, and one that may not, on both backends.
fn pair() -> (Case, Vec<WorkloadRef>) {
    let mut generator = Generator::new(1);
    let mut case = generator.case();
    case.policies.clear();
    case.inventory.workloads.truncate(0);
    let names = ["client", "server"]
        .map(|name| WorkloadRef { namespace: "default".into(), name: name.into() });
    for (index, id) in names.iter().enumerate() {
        case.inventory.workloads.push(flowgate_policy::inventory::Workload {
            id: id.clone(),
            labels: flowgate_identity::Labels::from_iter([("app", &*id.name)]),
            addresses: vec![
                format!("198.18.0.{}", index + 1).parse().expect("an address"),
                format!("2001:db8::{}", index + 1).parse().expect("an address"),
            ],
            ports: vec![],
            node: None,
            host_network: false,
        });
    }
    (case, names.to_vec())
}

/// Only pods labelled `app=client` reach the server.
fn only_clients() -> flowgate_policy::model::Policy {
    use flowgate_policy::model::{
        NamespaceSelector, Peer, Peers, Policy, PolicyKind, PolicyRef, Ports, Rule,
        WorkloadSelector,
    };
    let select = |app: &str| WorkloadSelector {
        namespaces: NamespaceSelector::Named("default".into()),
        labels: flowgate_identity::Selector::match_label("app", app),
    };
    Policy {
        id: PolicyRef {
            kind: PolicyKind::NetworkPolicy,
            namespace: "default".into(),
            name: "only-clients".into(),
        },
        subject: select("server"),
        ingress: Some(vec![Rule {
            peers: Peers::OneOf(vec![Peer::Workloads(select("client"))]),
            ports: Ports::Any,
        }]),
        egress: None,
    }
}

fn talk(source: &str, destination: &str) -> Frame {
    let flow = Flow {
        source: source.parse().expect("an address"),
        destination: destination.parse().expect("an address"),
        protocol: FlowProtocol::Tcp(80),
    };
    Frame::opening(flow, 40_000)
}

/// Runs a scene on the host, and on the kernel where it can be had.
fn on_both(scene: impl Fn(Rig, Case, Vec<WorkloadRef>)) {
    let (mut case, names) = pair();
    case.policies = vec![only_clients()];
    scene(Rig::new(host(), &case), case.clone(), names.clone());
    if let Some(kernel) = kernel() {
        scene(Rig::new(kernel, &case), case, names);
    }
}

/// Opens a connection from client to server, and checks that it goes on both ways.
fn connect(rig: &mut Rig, names: &[WorkloadRef], frame: Frame) {
    for (who, frame) in [
        (0, frame),
        (1, frame.answer()),
        (0, frame.flags(tcp::ACK)),
        (1, frame.answer().flags(tcp::ACK)),
    ] {
        let (action, _) = rig.replay(&names[who], Stage::FromEndpoint, &frame.bytes());
        assert_eq!(action, Action::Redirect, "{frame:?}");
    }
}

fn passes(rig: &mut Rig, who: &WorkloadRef, frame: Frame) -> bool {
    rig.replay(who, Stage::FromEndpoint, &frame.bytes()).0.passes()
}

#[test]
fn an_endpoint_is_closed_until_its_first_plan() {
    on_both(|mut rig, case, names| {
        let frame = talk("198.18.0.1", "198.18.0.2");
        assert!(!passes(&mut rig, &names[0], frame));
        let reason = flowgate_abi::DropReason::EndpointNotReady;
        assert_eq!(rig.datapath.counters().expect("readable").dropped(reason), 1);
        rig.apply(&compile(&mut Compiler::new(LocalAllocator::new()), &case));
        assert!(passes(&mut rig, &names[0], frame));
    });
}

#[test]
fn a_relabelled_pod_does_not_inherit_its_connections() {
    on_both(|mut rig, mut case, names| {
        let mut compiler = Compiler::new(LocalAllocator::new());
        rig.apply(&compile(&mut compiler, &case));
        for (client, server) in [("198.18.0.1", "198.18.0.2"), ("2001:db8::1", "2001:db8::2")] {
            connect(&mut rig, &names, talk(client, server));
        }
        case.inventory.workloads[0].labels =
            flowgate_identity::Labels::from_iter([("app", "stranger")]);
        rig.apply(&compile(&mut compiler, &case));
        for (client, server) in [("198.18.0.1", "198.18.0.2"), ("2001:db8::1", "2001:db8::2")] {
            let frame = talk(client, server).flags(tcp::ACK);
            // The reply direction first: it must not keep the flow alive.
            assert!(!passes(&mut rig, &names[1], Frame { reply: true, ..frame }));
            assert!(!passes(&mut rig, &names[0], frame));
        }
        let revoked = rig.datapath.counters().expect("readable");
        assert_eq!(revoked.get(flowgate_abi::event::Counter::FlowsRevoked), 2);
        assert!(rig.datapath.flows().expect("readable").iter().all(|flow| flow.revoked));
    });
}

#[test]
fn a_reused_address_does_not_inherit_connections() {
    on_both(|mut rig, mut case, names| {
        let mut compiler = Compiler::new(LocalAllocator::new());
        rig.apply(&compile(&mut compiler, &case));
        let frame = talk("198.18.0.1", "198.18.0.2");
        connect(&mut rig, &names, frame);
        let id = rig.endpoints.remove(&names[0]).expect("attached");
        assert_eq!(rig.datapath.detach(&[id]).expect("detaches"), 1);
        // Someone else gets the address before any plan knows: closed, also for the old connection.
        let stranger = WorkloadRef { namespace: "default".into(), name: "stranger".into() };
        rig.attach(&stranger, &case.inventory.workloads[0].addresses);
        assert!(!passes(&mut rig, &stranger, frame.flags(tcp::ACK)));
        // The server's packets go to world as far as it knows; they end at the stranger's own link.
        let answer = frame.answer().flags(tcp::ACK).bytes();
        assert_eq!(rig.replay(&stranger, Stage::ToEndpoint, &answer).0, Action::Drop);
        // And when a plan knows: denied, since it isn't labelled as a client.
        case.inventory.workloads[0].id = stranger.clone();
        case.inventory.workloads[0].labels = flowgate_identity::Labels::new();
        rig.apply(&compile(&mut compiler, &case));
        assert!(!passes(&mut rig, &stranger, frame.flags(tcp::ACK)));
        assert!(!passes(&mut rig, &stranger, frame));
    });
}

#[test]
fn an_allowed_connection_lives_through_generations() {
    on_both(|mut rig, case, names| {
        let mut compiler = Compiler::new(LocalAllocator::new());
        let plan = compile(&mut compiler, &case);
        rig.apply(&plan);
        let frame = talk("198.18.0.1", "198.18.0.2");
        connect(&mut rig, &names, frame);
        for _ in 0..3 {
            rig.apply(&plan);
            assert!(passes(&mut rig, &names[0], frame.flags(tcp::ACK)));
            assert!(passes(&mut rig, &names[1], frame.answer().flags(tcp::ACK)));
        }
        let counters = rig.datapath.counters().expect("readable");
        assert_eq!(counters.get(flowgate_abi::event::Counter::FlowsRejudged), 3);
        assert_eq!(counters.get(flowgate_abi::event::Counter::FlowsNew), 1);
    });
}

#[test]
fn a_closed_connection_is_told_with_its_counts_and_may_be_opened_again() {
    on_both(|mut rig, case, names| {
        rig.apply(&compile(&mut Compiler::new(LocalAllocator::new()), &case));
        let frame = talk("198.18.0.1", "198.18.0.2");
        connect(&mut rig, &names, frame);
        rig.take_events();
        assert!(passes(&mut rig, &names[0], frame.flags(tcp::FIN | tcp::ACK)));
        assert!(passes(&mut rig, &names[1], frame.answer().flags(tcp::FIN | tcp::ACK)));
        rig.datapath.sweep().expect("runs");
        rig.datapath.sweep().expect("runs");
        let events = rig.take_events();
        assert_eq!(events.len(), 1, "told once: {events:?}");
        assert_eq!(events[0].kind, flowgate_abi::event::Kind::Closed);
        assert_eq!((events[0].source.packets, events[0].destination.packets), (3, 3));
        // The other end may open the same tuple: that is another flow, and denied.
        let opposite = Frame { reply: true, ..frame }.flags(tcp::SYN);
        assert!(passes(&mut rig, &names[1], opposite));
        let flows = rig.datapath.flows().expect("readable");
        assert_eq!(flows[0].source, frame.flow.destination, "its own orientation: {flows:?}");
    });
}

#[test]
fn a_spoofed_source_is_dropped() {
    on_both(|mut rig, case, names| {
        rig.apply(&compile(&mut Compiler::new(LocalAllocator::new()), &case));
        for spoofed in ["198.18.0.2", "198.18.0.9"] {
            assert!(!passes(&mut rig, &names[0], talk(spoofed, "203.0.113.1")));
        }
        let reason = flowgate_abi::DropReason::InvalidSourceAddress;
        assert_eq!(rig.datapath.counters().expect("readable").dropped(reason), 2);
    });
}

#[test]
fn a_policy_that_changes_cuts_what_it_no_longer_allows() {
    on_both(|mut rig, mut case, names| {
        let mut compiler = Compiler::new(LocalAllocator::new());
        rig.apply(&compile(&mut compiler, &case));
        let frame = talk("198.18.0.1", "198.18.0.2");
        connect(&mut rig, &names, frame);
        let Some(rules) = case.policies[0].ingress.as_mut() else { unreachable!() };
        rules.clear();
        rig.apply(&compile(&mut compiler, &case));
        rig.take_events();
        assert!(!passes(&mut rig, &names[0], frame.flags(tcp::ACK)));
        let events = rig.take_events();
        assert_eq!(events[0].kind, flowgate_abi::event::Kind::Revoked);
        let text = events[0].to_string();
        assert!(text.contains("NetworkPolicy/default/only-clients"), "{text}");
        // The other end must not bring it back from the middle, nor must it be told of twice.
        assert!(!passes(&mut rig, &names[1], frame.answer().flags(tcp::ACK)));
        assert!(!passes(&mut rig, &names[0], frame.flags(tcp::ACK)));
        assert!(rig.take_events().is_empty());
        // A SYN opens another flow, which is judged by itself.
        let opposite = Frame { reply: true, ..frame }.flags(tcp::SYN);
        assert!(passes(&mut rig, &names[1], opposite));
    });
}

/// A rig with other options for events than the rest.
fn with_events(backend: Backend, per_second: u32, bytes: usize) -> Option<(Rig, Vec<WorkloadRef>)> {
    let (case, names) = pair();
    let options = Options { events_per_second: per_second, event_bytes: bytes, ..options() };
    match Datapath::builder().backend(backend).options(options).open() {
        Ok(datapath) => {
            let mut rig = Rig::new(datapath, &case);
            rig.apply(&compile(&mut Compiler::new(LocalAllocator::new()), &case));
            Some((rig, names))
        }
        Err(error @ OpenError::MissingCapability { .. }) => {
            println!("SKIPPED: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn many_new_flows(rig: &mut Rig, names: &[WorkloadRef], count: u16) {
    for port in 0..count {
        let frame = Frame { source_port: 2000 + port, ..talk("198.18.0.1", "198.18.0.2") };
        assert!(passes(rig, &names[0], frame), "events never hold a packet up");
    }
}

#[test]
fn events_beyond_the_budget_are_counted_as_suppressed() {
    for backend in [Backend::Host, Backend::Kernel] {
        let Some((mut rig, names)) = with_events(backend, 5, 1 << 16) else { continue };
        many_new_flows(&mut rig, &names, 2000);
        let told = rig.take_events().len() as u64;
        let counters = rig.datapath.counters().expect("readable");
        let suppressed = counters.get(flowgate_abi::event::Counter::EventsSuppressed);
        assert_eq!(told + suppressed, 2000);
        // Five a second on each CPU; the test doesn't say how long it takes.
        assert!(told >= 5 && suppressed > 0, "{told} told, {suppressed} suppressed");
    }
}

#[test]
fn events_that_nobody_reads_in_time_are_counted_as_lost() {
    for backend in [Backend::Kernel] {
        let Some((mut rig, names)) = with_events(backend, u32::MAX, 4096) else { continue };
        many_new_flows(&mut rig, &names, 500);
        let told = rig.take_events().len() as u64;
        let counters = rig.datapath.counters().expect("readable");
        let lost = counters.get(flowgate_abi::event::Counter::EventsLost);
        assert_eq!(told + lost, 500);
        assert!(told > 0 && lost > 0, "{told} told, {lost} lost");
    }
}

#[test]
fn events_come_as_a_stream_too() {
    use futures_core::Stream;
    for backend in [Backend::Host, Backend::Kernel] {
        let Some((mut rig, names)) = with_events(backend, u32::MAX, 1 << 16) else { continue };
        many_new_flows(&mut rig, &names, 3);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let events = &mut rig.events;
        let ports = runtime.expect("a runtime").block_on(async {
            let mut ports = Vec::new();
            while ports.len() < 3 {
                let next = std::future::poll_fn(|context| {
                    std::pin::Pin::new(&mut *events).poll_next(context)
                });
                ports.push(next.await.expect("it never ends").source.port);
            }
            ports
        });
        assert_eq!(ports, [2000, 2001, 2002]);
    }
}

fn to_endpoint(rig: &mut Rig, who: &WorkloadRef, frame: Frame) -> bool {
    rig.replay(who, Stage::ToEndpoint, &frame.bytes()).0.passes()
}

#[test]
fn a_flow_that_was_judged_before_its_end_was_attached_does_not_open_it() {
    on_both(|mut rig, mut case, names| {
        case.policies.clear();
        let mut compiler = Compiler::new(LocalAllocator::new());
        let server = case.inventory.workloads.pop().expect("two workloads");
        let id = rig.endpoints.remove(&names[1]).expect("attached");
        assert_eq!(rig.datapath.detach(&[id]).expect("writable"), 1);
        rig.apply(&compile(&mut compiler, &case));
        // The server's address is world's: the client may send there, and the flow is tracked.
        rig.attach(&names[1], &server.addresses);
        let frame = talk("198.18.0.1", "198.18.0.2");
        assert!(passes(&mut rig, &names[0], frame));
        assert!(!to_endpoint(&mut rig, &names[1], frame));
        assert!(!passes(&mut rig, &names[1], frame.answer()));
    });
}

#[test]
fn an_address_has_one_endpoint() {
    on_both(|mut rig, case, names| {
        let thief = WorkloadRef { namespace: "default".into(), name: "thief".into() };
        let address = case.inventory.workloads[0].addresses[0];
        let spec = EndpointSpec::unlinked(thief).address(address);
        let error = rig.datapath.attach(&spec).expect_err("it has an owner").to_string();
        assert!(error.contains("198.18.0.1") && error.contains(&names[0].to_string()), "{error}");
    });
}

#[test]
fn a_query_is_no_reply_to_the_other_ends_query() {
    on_both(|mut rig, mut case, names| {
        // Nobody may open anything to the server; the server may ping the client.
        case.policies[0].ingress = Some(vec![]);
        rig.apply(&compile(&mut Compiler::new(LocalAllocator::new()), &case));
        let ping = |source: &str, destination: &str| {
            let flow = Flow {
                source: source.parse().expect("an address"),
                destination: destination.parse().expect("an address"),
                protocol: FlowProtocol::Icmp { icmp_type: 8 },
            };
            Frame::opening(flow, 77)
        };
        assert!(!passes(&mut rig, &names[0], ping("198.18.0.1", "198.18.0.2")));
        let allowed = ping("198.18.0.2", "198.18.0.1");
        assert!(passes(&mut rig, &names[1], allowed));
        assert!(!passes(&mut rig, &names[0], ping("198.18.0.1", "198.18.0.2")));
        assert!(passes(&mut rig, &names[0], allowed.answer()));
        // And a reply in the direction of the query is none.
        let backwards = Frame { flow: ping("198.18.0.1", "198.18.0.2").flow, ..allowed }.answer();
        assert!(!passes(&mut rig, &names[1], backwards));
    });
}

#[test]
fn neighbour_discovery_that_has_crossed_a_router_is_none() {
    on_both(|mut rig, case, names| {
        rig.apply(&compile(&mut Compiler::new(LocalAllocator::new()), &case));
        let advertise = |source: &str, target: &str, hops: u8| {
            let flow = Flow {
                source: source.parse().expect("an address"),
                destination: "2001:db8::1".parse().expect("an address"),
                protocol: FlowProtocol::Icmp6 { icmp_type: 136 },
            };
            let frame = Frame { hops, ..Frame::opening(flow, 0) };
            envelope::with_target(frame.bytes(), target.parse().expect("an address"))
        };
        let mut sends = |source, target, hops| {
            let frame = advertise(source, target, hops);
            rig.replay(&names[1], Stage::FromEndpoint, &frame).0.passes()
        };
        assert!(sends("2001:db8::2", "2001:db8::2", 255));
        assert!(sends("fe80::2", "fe80::2", 255));
        assert!(sends("fe80::2", "2001:db8::2", 255));
        assert!(!sends("2001:db8::2", "2001:db8::2", 64));
        assert!(!sends("2001:db8::77", "2001:db8::2", 255), "not its own");
        assert!(!sends("fe80::2", "2001:db8::1", 255), "another's");
        let crossed = advertise("2001:db8::2", "2001:db8::2", 254);
        assert!(!rig.replay(&names[0], Stage::ToEndpoint, &crossed).0.passes());
    });
}

#[test]
fn a_local_address_from_elsewhere_is_spoofed() {
    on_both(|mut rig, case, names| {
        rig.apply(&compile(&mut Compiler::new(LocalAllocator::new()), &case));
        let frame = talk("198.18.0.1", "198.18.0.2");
        assert!(!to_endpoint(&mut rig, &names[1], frame));
        connect(&mut rig, &names, frame);
        assert!(!to_endpoint(&mut rig, &names[1], frame.flags(tcp::ACK)));
        let reason = flowgate_abi::DropReason::InvalidSourceAddress;
        assert_eq!(rig.datapath.counters().expect("readable").dropped(reason), 2);
    });
}
