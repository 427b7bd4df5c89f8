//! Established connections that a new plan denies: with `Options::keep_established` they live on until one
//! of their addresses belongs to somebody else. Random walks beside the reference model are in
//! `tests/connections.rs`.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use flowgate_abi::{
    DropReason, Settings,
    event::{Counter, Event, Hook, Kind},
};
use flowgate_conformance::{
    frames::{Frame, tcp},
    room,
};
use flowgate_identity::{Labels, LocalAllocator, Selector};
use flowgate_pipeline::Verdict;
use flowgate_policy::{
    compile::Compiler,
    fate::Fate,
    host::{HostRoom, HostTables},
    install::{EndpointAddress, Installer, Store},
    inventory::{Inventory, Workload, WorkloadRef},
    model::{
        NamespaceSelector, Peer, Peers, Policy, PolicyKind, PolicyRef, Ports, Rule,
        WorkloadSelector,
    },
    options::Options,
    outcome::{Flow, FlowProtocol},
    plan::Plan,
};

const SERVER: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);
/// A pod on another node.
const FAR: Ipv4Addr = Ipv4Addr::new(198, 18, 7, 1);
const WORLD: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);
const OTHERS: [Ipv4Addr; 3] = [CLIENT, FAR, WORLD];

/// A node with two pods, and what else there is.
struct Cluster {
    installer: Installer<HostTables>,
    compiler: Compiler<LocalAllocator>,
    workloads: Vec<Workload>,
    keep: bool,
    /// The server opens to the others, and not they to it.
    egress: bool,
}

impl Cluster {
    /// Everybody may open anything to the server.
    fn new() -> Self {
        let Ok(mut installer) = Installer::adopt(tables());
        for address in [SERVER, CLIENT] {
            installer.attach(name(address), place(address)).unwrap();
        }
        let workloads = vec![pod(SERVER, "server"), pod(CLIENT, "client"), pod(FAR, "far")];
        let compiler = Compiler::new(LocalAllocator::new());
        let mut cluster = Self { installer, compiler, workloads, keep: true, egress: false };
        cluster.admit(Peers::Any);
        cluster
    }

    /// A plan that lets these open anything to the server (or it to these), and nobody else.
    fn plan(&mut self, peers: Peers) -> Arc<Plan> {
        let rule = Rule::allow(peers, Ports::Any);
        let (policy, rules) = (Policy::new(id(), select("server")), Some(vec![rule]));
        let policy = match self.egress {
            true => Policy { egress: rules, ..policy },
            false => Policy { ingress: rules, ..policy },
        };
        let inventory = Inventory { workloads: self.workloads.clone(), ..Inventory::default() };
        let options = Options { keep_established: self.keep, ..Options::default() };
        Arc::new(self.compiler.compile(&inventory, &[policy], &options).unwrap())
    }

    fn admit(&mut self, peers: Peers) {
        let plan = self.plan(peers);
        let _ = self.installer.apply(&plan).unwrap();
    }

    fn admit_nobody(&mut self) {
        self.admit(Peers::OneOf(vec![]));
    }

    /// What becomes of a packet between somebody and the server.
    fn send(&self, other: Ipv4Addr, reply: bool, flags: u8) -> Result<(), DropReason> {
        let (ifindex, hook) = match (reply != self.egress, other) {
            (true, _) => (index(SERVER), Hook::FromEndpoint),
            (false, CLIENT) => (index(CLIENT), Hook::FromEndpoint),
            (false, _) => (index(SERVER), Hook::ToEndpoint),
        };
        let ends = if self.egress { (SERVER, other) } else { (other, SERVER) };
        let frame = frame(ends, reply, flags);
        match self.installer.store().run(&frame.bytes(), ifindex, hook).verdict {
            Verdict::Drop(reason) => Err(reason),
            _ => Ok(()),
        }
    }

    fn establish(&self, openers: &[Ipv4Addr]) {
        let handshake = [(false, tcp::SYN), (true, tcp::SYN | tcp::ACK), (false, tcp::ACK)];
        for from in openers {
            for (reply, flags) in handshake {
                assert_eq!(self.send(*from, reply, flags), Ok(()), "{from}");
            }
        }
    }

    /// The connection passes in both directions.
    fn lives(&self, from: Ipv4Addr) -> bool {
        [false, true].map(|reply| self.send(from, reply, tcp::ACK).is_ok()) == [true; 2]
    }

    fn counted(&self, counter: Counter) -> u64 {
        self.installer.store().counters()[counter as usize]
    }

    /// The process ends, and another one takes over what it leaves.
    fn restart(self) -> Self {
        let Ok(mut installer) = Installer::adopt(self.installer.into_store());
        for address in [SERVER, CLIENT] {
            installer.attach(name(address), place(address)).unwrap();
        }
        let compiler = Compiler::new(LocalAllocator::new());
        Self { installer, compiler, ..self }
    }
}

fn tables() -> HostTables {
    let settings = Settings { events_per_second: u32::MAX, ..*room::tables().settings() };
    HostTables::new(settings, HostRoom { ipcache_nodes: 1024, events: 64 })
}

fn index(address: Ipv4Addr) -> u32 {
    u32::from(address.octets()[3])
}

fn frame((from, to): (Ipv4Addr, Ipv4Addr), reply: bool, flags: u8) -> Frame {
    let flow =
        Flow { source: from.into(), destination: to.into(), protocol: FlowProtocol::Tcp(80) };
    Frame { reply, ..Frame::opening(flow, 40_000).flags(flags) }
}

fn id() -> PolicyRef {
    let kind = PolicyKind::NetworkPolicy;
    PolicyRef { kind, namespace: "default".into(), name: "server".into() }
}

fn name(address: Ipv4Addr) -> WorkloadRef {
    WorkloadRef { namespace: "default".into(), name: address.to_string().into() }
}

fn place(address: Ipv4Addr) -> EndpointAddress {
    EndpointAddress { ifindex: index(address), v4: Some(address), ..EndpointAddress::default() }
}

fn pod(address: Ipv4Addr, app: &str) -> Workload {
    Workload {
        id: name(address),
        labels: Labels::from_iter([("app", app)]),
        addresses: vec![address.into()],
        ports: vec![],
        node: None,
        host_network: false,
    }
}

fn select(app: &str) -> WorkloadSelector {
    let namespaces = NamespaceSelector::Named("default".into());
    WorkloadSelector { namespaces, labels: Selector::match_label("app", app) }
}

fn network(text: &str) -> Peers {
    Peers::OneOf(vec![Peer::Cidr { cidr: text.parse().unwrap(), except: vec![] }])
}

#[test]
fn what_is_established_outlives_a_plan_that_denies_it() {
    let mut cluster = Cluster::new();
    cluster.establish(&OTHERS);
    cluster.installer.store().take_events();
    for round in 1..=3 {
        cluster.admit_nobody();
        assert!(OTHERS.iter().all(|from| cluster.lives(*from)));
        assert_eq!(cluster.counted(Counter::FlowsKept), 3 * round, "once for each generation");
    }
    assert_eq!(cluster.counted(Counter::FlowsRevoked), 0);
    let told = cluster.installer.store().take_events();
    assert_eq!(told.len(), 9);
    for event in &told {
        let Event { kind, reason, packets, .. } = event;
        assert_eq!((*kind, *reason), (Kind::Kept as u8, DropReason::PolicyDefaultDeny as u8));
        assert!(packets[0] >= 2 && packets[1] >= 1, "{packets:?}");
    }
}

#[test]
fn without_the_option_it_ends() {
    let mut cluster = Cluster::new();
    cluster.establish(&OTHERS);
    cluster.keep = false;
    cluster.admit_nobody();
    assert!(!OTHERS.iter().any(|from| cluster.lives(*from)));
    assert_eq!(
        (cluster.counted(Counter::FlowsKept), cluster.counted(Counter::FlowsRevoked)),
        (0, 3)
    );
}

/// What was kept ends with the option; what has ended stays so.
#[test]
fn the_option_is_the_generations() {
    let mut cluster = Cluster::new();
    cluster.establish(&[WORLD]);
    cluster.admit_nobody();
    assert!(cluster.lives(WORLD));
    cluster.keep = false;
    cluster.admit_nobody();
    assert!(!cluster.lives(WORLD));
    cluster.keep = true;
    cluster.admit_nobody();
    assert!(!cluster.lives(WORLD));
}

/// What ended, and was allowed again: its own end is told too. Of UDP, whose packets say nothing of an end.
#[test]
fn the_end_of_what_was_allowed_again_is_told() {
    let mut cluster = Cluster::new();
    cluster.keep = false;
    cluster.admit(Peers::Any);
    let protocol = FlowProtocol::Udp(53);
    let flow = Flow { source: WORLD.into(), destination: SERVER.into(), protocol };
    let packet = Frame::opening(flow, 40_000).bytes();
    let passes = |cluster: &Cluster| {
        let store = cluster.installer.store();
        !matches!(store.run(&packet, index(SERVER), Hook::ToEndpoint).verdict, Verdict::Drop(_))
    };
    assert!(passes(&cluster));
    cluster.admit_nobody();
    assert!(!passes(&cluster));
    cluster.admit(Peers::Any);
    assert!(passes(&cluster));
    cluster.installer.store().take_events();
    // Longer than any flow of UDP may be silent.
    cluster.installer.store().advance(1 << 20);
    cluster.installer.store().sweep();
    let told = cluster.installer.store().take_events();
    assert_eq!(told.iter().map(|event| event.kind).collect::<Vec<_>>(), [Kind::Closed as u8]);
}

/// What a plan says becomes of them is what becomes of them.
#[test]
fn the_fate_of_a_connection_is_known_before() {
    let mut seen = BTreeSet::new();
    for keep in [false, true] {
        for peers in [Peers::Any, Peers::OneOf(vec![]), network("203.0.113.0/24")] {
            let mut cluster = Cluster::new();
            cluster.establish(&OTHERS);
            cluster.keep = keep;
            let plan = cluster.plan(peers);
            let _ = cluster.installer.apply(&plan).unwrap();
            for from in OTHERS {
                let protocol = FlowProtocol::Tcp(80);
                let flow = Flow { source: from.into(), destination: SERVER.into(), protocol };
                let fate = plan.fate(plan.decide(&flow).allowed());
                assert_eq!(cluster.lives(from), fate != Fate::Ends, "{from}: {fate}");
                seen.insert(fate);
            }
            cluster.installer.store().take_events();
        }
    }
    assert_eq!(seen, BTreeSet::from([Fate::Passes, Fate::Kept, Fate::Ends]));
}

#[test]
fn what_is_not_established_yet_ends() {
    let steps = [(false, tcp::SYN), (true, tcp::SYN | tcp::ACK)];
    for count in 1..=2 {
        let mut cluster = Cluster::new();
        for (reply, flags) in &steps[..count] {
            assert_eq!(cluster.send(WORLD, *reply, *flags), Ok(()));
        }
        cluster.admit_nobody();
        assert!(!cluster.lives(WORLD));
        assert_eq!(cluster.counted(Counter::FlowsRevoked), 1);
    }
}

#[test]
fn nobody_opens_what_is_denied() {
    let mut cluster = Cluster::new();
    cluster.establish(&[WORLD]);
    cluster.admit_nobody();
    for (from, flags) in [(FAR, tcp::SYN), (FAR, tcp::ACK), (CLIENT, tcp::SYN)] {
        assert_eq!(cluster.send(from, false, flags), Err(DropReason::PolicyDefaultDeny));
    }
    // Nor anew what is over.
    assert!(cluster.lives(WORLD));
    assert_eq!(cluster.send(WORLD, false, tcp::RST), Ok(()));
    assert_eq!(cluster.send(WORLD, false, tcp::SYN), Err(DropReason::PolicyDefaultDeny));
}

/// Which networks policies name makes peers of the world and of pods, and unmakes them.
#[test]
fn networks_that_policies_name_change_nobodys_hands() {
    for (before, after) in [
        (Peers::Any, network("198.18.0.0/16")),
        (Peers::Any, network("203.0.113.128/25")),
        (network("203.0.113.0/24"), Peers::OneOf(vec![])),
        (network("203.0.113.0/24"), network("198.18.0.1/32")),
        (network("203.0.113.0/24"), network("203.0.113.128/25")),
    ] {
        let mut cluster = Cluster::new();
        cluster.admit(before);
        cluster.establish(&[WORLD]);
        cluster.admit(after);
        assert!(cluster.lives(WORLD));
        assert_eq!(cluster.counted(Counter::FlowsKept), 1);
    }
    for (before, after) in [
        (Peers::Any, network("203.0.113.0/24")),
        (network("198.18.0.0/16"), Peers::OneOf(vec![])),
        (network("198.18.0.0/16"), network("198.18.7.128/25")),
    ] {
        let mut cluster = Cluster::new();
        cluster.admit(before);
        cluster.establish(&[CLIENT, FAR]);
        cluster.admit(after);
        assert!(cluster.lives(CLIENT) && cluster.lives(FAR));
        assert_eq!(cluster.counted(Counter::FlowsKept), 2);
    }
}

/// Silent while generations come and go; the numbers of peers that are gone aren't used again meanwhile.
#[test]
fn what_was_silent_for_long_lives_too() {
    let mut cluster = Cluster::new();
    cluster.admit(network("203.0.113.0/24"));
    cluster.establish(&[WORLD]);
    for number in 1..40 {
        cluster.admit(network(&format!("198.51.{number}.0/24")));
    }
    assert!(cluster.lives(WORLD));
}

/// A pod of this node is its endpoint, whatever its labels. One elsewhere is known by them alone.
#[test]
fn a_relabelled_pod_is_another_one_only_elsewhere() {
    for address in [SERVER, CLIENT, FAR] {
        let mut cluster = Cluster::new();
        cluster.establish(&OTHERS);
        let pod = cluster.workloads.iter_mut().find(|pod| pod.addresses[0] == IpAddr::V4(address));
        pod.unwrap().labels.insert("release", "2");
        cluster.admit_nobody();
        for from in OTHERS {
            assert_eq!(cluster.lives(from), address != FAR || from != FAR, "{from}, {address}");
        }
    }
}

/// In one plan, so that nothing tells of it but whose the address is.
#[test]
fn an_address_that_changes_hands_ends_its_connections() {
    type Change = fn(&mut Vec<Workload>);
    let changes: [(Ipv4Addr, Change); 3] = [
        (FAR, |pods| pods.retain(|pod| pod.id != name(FAR))),
        (FAR, |pods| {
            pods.retain(|pod| pod.id != name(FAR));
            pods.push(Workload { id: name(WORLD), ..pod(FAR, "another") });
        }),
        (WORLD, |pods| pods.push(pod(WORLD, "new"))),
    ];
    for (address, change) in changes {
        let mut cluster = Cluster::new();
        cluster.establish(&OTHERS);
        change(&mut cluster.workloads);
        cluster.admit_nobody();
        for from in OTHERS {
            assert_eq!(cluster.lives(from), from != address, "{from}, {address}");
        }
    }
}

#[test]
fn what_a_pod_has_opened_ends_with_those_whom_it_was_opened_to() {
    let mut cluster = Cluster { egress: true, ..Cluster::new() };
    cluster.admit(Peers::Any);
    cluster.establish(&OTHERS);
    cluster.admit_nobody();
    assert!(OTHERS.iter().all(|other| cluster.lives(*other)));
    cluster.workloads.retain(|pod| pod.id != name(FAR));
    cluster.admit_nobody();
    assert_eq!(OTHERS.map(|other| cluster.lives(other)), [true, false, true]);
}

#[test]
fn a_pod_that_comes_to_an_address_inherits_nothing() {
    for address in [SERVER, CLIENT] {
        let mut cluster = Cluster::new();
        cluster.establish(&OTHERS);
        cluster.admit_nobody();
        assert!(OTHERS.iter().all(|from| cluster.lives(*from)));
        cluster.installer.detach(&[index(address)]).unwrap();
        cluster.installer.attach(name(address), place(address)).unwrap();
        for _ in 0..2 {
            cluster.admit_nobody();
            for from in OTHERS {
                let concerned = [SERVER, from].contains(&address);
                assert_eq!(cluster.lives(from), !concerned, "{from}, {address}");
            }
        }
    }
}

#[test]
fn an_incremental_change_of_hands_ends_them() {
    let mut cluster = Cluster::new();
    cluster.establish(&[FAR, WORLD]);
    cluster.admit_nobody();
    assert!(cluster.lives(FAR) && cluster.lives(WORLD));
    cluster.installer.remove(&name(FAR), &[FAR.into()]).unwrap();
    assert!(!cluster.lives(FAR) && cluster.lives(WORLD));
}

#[test]
fn a_restart_keeps_them_and_knows_who_has_changed() {
    let mut cluster = Cluster::new();
    cluster.establish(&OTHERS);
    cluster.admit_nobody();
    assert!(OTHERS.iter().all(|from| cluster.lives(*from)));
    let mut cluster = cluster.restart();
    cluster.admit_nobody();
    assert!(OTHERS.iter().all(|from| cluster.lives(*from)));
    let mut cluster = cluster.restart();
    cluster.workloads[2].labels.insert("app", "another");
    cluster.admit_nobody();
    assert_eq!(OTHERS.map(|from| cluster.lives(from)), [true, false, true]);
}
