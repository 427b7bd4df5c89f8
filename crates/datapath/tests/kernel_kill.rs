//! A process that is killed at any single write of an apply, in the running kernel: packets see the old
//! generation or the new one, and the next process comes to the new one.
//!
//! Privileged: without the capabilities, the test says so in one line and is skipped.

use std::sync::Arc;

use flowgate_conformance::{frames::Frame, mortal::Mortal};
use flowgate_datapath::{Action, Backend, Datapath, KernelTables, OpenError, Options, Stage};
use flowgate_identity::{Labels, LocalAllocator, Selector};
use flowgate_policy::{
    compile::Compiler,
    install::{EndpointAddress, Installer},
    inventory::{Inventory, Workload, WorkloadRef},
    model::{
        NamespaceSelector, Peer, Peers, Policy, PolicyKind, PolicyRef, Ports, Rule,
        WorkloadSelector,
    },
    options,
    outcome::{Flow, FlowProtocol},
    plan::Plan,
};

type Process = Installer<Mortal<KernelTables>>;

/// Small tables: an apply writes every cell of some, and each write is a kill.
fn tables() -> Option<KernelTables> {
    let options = Options {
        flows4: 1 << 12,
        flows6: 1 << 12,
        endpoints: 4,
        peers: 32,
        ipcache_nodes: 64,
        ..Options::default()
    };
    match Datapath::builder().backend(Backend::Kernel).options(options).open_tables() {
        Ok(tables) => Some(tables),
        Err(error @ OpenError::MissingCapability { .. }) => {
            println!("SKIPPED: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn start(tables: KernelTables) -> Process {
    let mut process = Installer::adopt(Mortal::new(tables)).expect("readable");
    for (index, pod) in ["one", "two"].into_iter().enumerate() {
        let [v4, v6] = addresses(index).map(|text| text.parse().expect("an address"));
        let (v4, v6) = match (v4, v6) {
            (std::net::IpAddr::V4(v4), std::net::IpAddr::V6(v6)) => (Some(v4), Some(v6)),
            ends => unreachable!("{ends:?}"),
        };
        let ifindex = (1 << 30) + index as u32;
        let address = EndpointAddress { ifindex, v4, v6, ..EndpointAddress::default() };
        process.attach(name(pod), address).expect("room");
    }
    process
}

fn restart(process: Process) -> Process {
    start(process.into_store().into_tables())
}

fn addresses(index: usize) -> [String; 2] {
    [format!("198.18.0.{}", index + 1), format!("2001:db8::{}", index + 1)]
}

fn name(pod: &str) -> WorkloadRef {
    WorkloadRef { namespace: "default".into(), name: pod.into() }
}

/// Who may reach pod "two": pod "one" or nobody, and one network or another. The networks overlap, so
/// that changing from one plan to the other splits peers and merges them.
fn plan(first: bool) -> Arc<Plan> {
    let (app, networks) = if first {
        ("one", ["203.0.113.0/24", "2001:db8:a::/48"])
    } else {
        ("nobody", ["203.0.113.128/25", "2001:db8:a:8000::/49"])
    };
    let select = |app: &str| WorkloadSelector {
        namespaces: NamespaceSelector::Named("default".into()),
        labels: Selector::match_label("app", app),
    };
    let network =
        |text: &str| Peer::Cidr { cidr: text.parse().expect("a network"), except: vec![] };
    let mut peers = vec![Peer::Workloads(select(app))];
    peers.extend(networks.map(network));
    let id = PolicyRef {
        kind: PolicyKind::NetworkPolicy,
        namespace: "default".into(),
        name: "who-may".into(),
    };
    let policy = Policy {
        ingress: Some(vec![Rule::allow(Peers::OneOf(peers), Ports::Any)]),
        ..Policy::new(id, select("two"))
    };
    let workloads = ["one", "two"].into_iter().enumerate().map(|(index, pod)| Workload {
        id: name(pod),
        labels: Labels::from_iter([("app", pod)]),
        addresses: addresses(index).iter().map(|text| text.parse().expect("one")).collect(),
        ports: vec![],
        node: None,
        host_network: false,
    });
    let inventory = Inventory { workloads: workloads.collect(), ..Inventory::default() };
    let mut compiler = Compiler::new(LocalAllocator::new());
    Arc::new(
        compiler.compile(&inventory, &[policy], &options::Options::default()).expect("compiles"),
    )
}

/// Who asks for pod "two", and at which slot and hook.
const QUESTIONS: [(&str, u32, Stage); 8] = [
    ("198.18.0.1", 0, Stage::FromEndpoint),
    ("203.0.113.1", 1, Stage::ToEndpoint),
    ("203.0.113.129", 1, Stage::ToEndpoint),
    ("198.51.100.1", 1, Stage::ToEndpoint),
    ("2001:db8::1", 0, Stage::FromEndpoint),
    ("2001:db8:a::1", 1, Stage::ToEndpoint),
    ("2001:db8:a:8000::1", 1, Stage::ToEndpoint),
    ("2001:db8:b::1", 1, Stage::ToEndpoint),
];

fn flow(source: &str) -> Flow {
    let source: std::net::IpAddr = source.parse().expect("an address");
    let [v4, v6] = addresses(1);
    let destination = if source.is_ipv4() { v4 } else { v6 }.parse().expect("an address");
    Flow { source, destination, protocol: FlowProtocol::Udp(53) }
}

/// What a plan answers.
fn answers(plan: &Plan) -> Vec<bool> {
    QUESTIONS.iter().map(|(source, ..)| plan.decide(&flow(source)).allowed()).collect()
}

/// Every question, asked of the loaded programs by flows that have never been seen.
fn ask(tables: &mut KernelTables, port: &mut u16) -> Vec<bool> {
    *port = port.wrapping_add(1).max(1024);
    let mut asked = |(source, slot, stage): &(&str, u32, Stage)| {
        let frame = Frame::opening(flow(source), *port).bytes();
        tables.replay(*slot, *stage, &frame).expect("runs").action != Action::Drop
    };
    QUESTIONS.iter().map(&mut asked).collect()
}

#[test]
fn killed_at_every_write_packets_see_one_generation_and_the_next_process_converges() {
    let Some(tables) = tables() else { return };
    let plans = [plan(true), plan(false)];
    let expected = plans.each_ref().map(|plan| answers(plan));
    assert_ne!(expected[0], expected[1]);
    let mut process = start(tables);
    let _ = process.apply(&plans[0]).expect("fits");
    let (mut port, mut running) = (1024, 0);
    for write in 0.. {
        let generation = process.generation();
        let next = 1 - running;
        process.store_mut().die_after(write);
        let _ = process.apply(&plans[next]);
        let died = process.store().died();
        let flipped = process.generation() != generation;
        let runs = if flipped { next } else { running };
        let when = format!("killed after write {write}, flipped {flipped}");
        assert_eq!(ask(process.store_mut().tables_mut(), &mut port), expected[runs], "{when}");
        process = restart(process);
        assert_eq!(ask(process.store_mut().tables_mut(), &mut port), expected[runs], "{when}");
        let applied = process.apply(&plans[next]).expect("fits");
        assert_eq!((applied.ready.len(), applied.closed.len()), (2, 0), "{when}");
        assert_eq!(ask(process.store_mut().tables_mut(), &mut port), expected[next], "{when}");
        running = next;
        if !died {
            println!("killed at each of {write} writes");
            assert!(write > 50, "an apply has more than {write} writes");
            return;
        }
    }
}
