//! A datapath with the endpoints of a case, on either backend; two pods to talk about.

use std::{borrow::Cow, collections::BTreeMap, net::IpAddr, sync::Arc};

use flowgate_conformance::{
    frames::{Frame, tcp},
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
    model::{
        NamespaceSelector, Peer, Peers, Policy, PolicyKind, PolicyRef, Ports, Rule,
        WorkloadSelector,
    },
    options,
    outcome::{Flow, FlowProtocol},
    plan::Plan,
};

pub(crate) fn options() -> Options {
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
pub(crate) fn kernel() -> Option<Datapath> {
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

pub(crate) fn host() -> Datapath {
    Datapath::builder().backend(Backend::Host).options(options()).open().expect("no privileges")
}

/// A datapath with the endpoints of a case.
pub(crate) struct Rig {
    pub(crate) datapath: Datapath,
    pub(crate) events: Events,
    pub(crate) endpoints: BTreeMap<WorkloadRef, EndpointId>,
}

impl Rig {
    pub(crate) fn new(mut datapath: Datapath, case: &Case) -> Self {
        let events = datapath.events().expect("not taken before");
        let mut rig = Self { datapath, events, endpoints: BTreeMap::new() };
        for workload in case.inventory.workloads.iter().filter(|w| !w.host_network) {
            rig.attach(&workload.id, &workload.addresses);
        }
        for node in &case.inventory.nodes {
            rig.attach(&WorkloadRef::node(node.name.clone()), &node.addresses);
        }
        rig
    }

    pub(crate) fn attach(&mut self, workload: &WorkloadRef, addresses: &[IpAddr]) {
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

    pub(crate) fn apply(&mut self, plan: &Arc<Plan>) {
        let applied = self.datapath.apply(plan).expect("fits");
        assert!(applied.closed.is_empty(), "{:?}", applied.closed);
    }

    pub(crate) fn replay(
        &mut self,
        workload: &WorkloadRef,
        stage: Stage,
        frame: &[u8],
    ) -> (Action, Vec<u8>) {
        let id = self.endpoints[workload];
        let replayed = self.datapath.replay(id, stage, frame).expect("the program runs");
        (replayed.action, replayed.frame)
    }

    pub(crate) fn take_events(&mut self) -> Vec<FlowEvent> {
        let mut events: Vec<FlowEvent> = std::iter::from_fn(|| self.events.try_next()).collect();
        events.iter_mut().for_each(|event| event.at = std::time::Duration::ZERO);
        // Where a made-up link lies isn't where the kernel runs the program.
        events.iter_mut().for_each(|event| event.ifindex = 0);
        events
    }
}

pub(crate) fn compile(compiler: &mut Compiler<LocalAllocator>, case: &Case) -> Arc<Plan> {
    compile_with(compiler, case, false)
}

/// A plan that says whether it keeps what is established.
pub(crate) fn compile_with(
    compiler: &mut Compiler<LocalAllocator>,
    case: &Case,
    keep_established: bool,
) -> Arc<Plan> {
    let options = options::Options { keep_established, ..options::Options::default() };
    let plan = compiler.compile(&case.inventory, &case.policies, &options);
    Arc::new(plan.expect("a generated case compiles"))
}

/// Two workloads that may talk, and one that may not, on both backends.
pub(crate) fn pair() -> (Case, Vec<WorkloadRef>) {
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

/// Pods labelled `app=...`.
pub(crate) fn select(app: &str) -> WorkloadSelector {
    WorkloadSelector {
        namespaces: NamespaceSelector::Named("default".into()),
        labels: flowgate_identity::Selector::match_label("app", app),
    }
}

/// Only pods labelled `app=client` reach the server.
pub(crate) fn only_clients() -> Policy {
    let id = PolicyRef {
        kind: PolicyKind::NetworkPolicy,
        namespace: "default".into(),
        name: "only-clients".into(),
    };
    let clients = Peers::OneOf(vec![Peer::Workloads(select("client"))]);
    Policy {
        ingress: Some(vec![Rule::allow(clients, Ports::Any)]),
        ..Policy::new(id, select("server"))
    }
}

pub(crate) fn talk(source: &str, destination: &str) -> Frame {
    let flow = Flow {
        source: source.parse().expect("an address"),
        destination: destination.parse().expect("an address"),
        protocol: FlowProtocol::Tcp(80),
    };
    Frame::opening(flow, 40_000)
}

/// Runs a scene on the host, and on the kernel where it can be had.
pub(crate) fn on_both(scene: impl Fn(Rig, Case, Vec<WorkloadRef>)) {
    let (mut case, names) = pair();
    case.policies = vec![only_clients()];
    scene(Rig::new(host(), &case), case.clone(), names.clone());
    if let Some(kernel) = kernel() {
        scene(Rig::new(kernel, &case), case, names);
    }
}

/// Opens a connection from client to server, and checks that it goes on both ways.
pub(crate) fn connect(rig: &mut Rig, names: &[WorkloadRef], frame: Frame) {
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

pub(crate) fn passes(rig: &mut Rig, who: &WorkloadRef, frame: Frame) -> bool {
    rig.replay(who, Stage::FromEndpoint, &frame.bytes()).0.passes()
}

pub(crate) fn to_endpoint(rig: &mut Rig, who: &WorkloadRef, frame: Frame) -> bool {
    rig.replay(who, Stage::ToEndpoint, &frame.bytes()).0.passes()
}
