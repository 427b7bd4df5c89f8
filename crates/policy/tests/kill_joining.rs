//! A process that is killed at any single write while a workload joins or leaves the running generation, or while
//! another takes its place by an extension: what packets see then, and that the next process comes to the same end
//! as if nothing had happened.

use std::{net::IpAddr, sync::Arc};

use flowgate_abi::event::Hook;
use flowgate_conformance::{
    frames::{Frame, tcp},
    mortal::Mortal,
    room,
};
use flowgate_identity::{Labels, LocalAllocator, Selector};
use flowgate_pipeline::Verdict;
use flowgate_policy::{
    compile::Compiler,
    extension::Extension,
    host::HostTables,
    install::{EndpointAddress, Installer},
    inventory::{Inventory, Workload, WorkloadRef},
    model::{
        NamespaceSelector, Peer, Peers, Policy, PolicyKind, PolicyRef, Ports, Rule,
        WorkloadSelector,
    },
    options::Options,
    outcome::{Flow, FlowProtocol},
    plan::Plan,
    roster::Roster,
};

type Process = Installer<Mortal<HostTables>>;

const SERVER: &str = "server";
const CLIENT: &str = "client-0";
/// Who joins and leaves: like the client.
const TWIN: &str = "client-1";
/// Who joins as the first of its kind.
const ADMIN: &str = "admin-0";
const PODS: [&str; 4] = [SERVER, CLIENT, TWIN, ADMIN];
/// Those who are in the widest plan of joins and leaves.
const THREE: [&str; 3] = [SERVER, CLIENT, TWIN];

fn id(name: &str) -> WorkloadRef {
    WorkloadRef { namespace: "default".into(), name: name.into() }
}

fn number(name: &str) -> usize {
    1 + PODS.iter().position(|pod| *pod == name).expect("one of them")
}

fn addresses(name: &str) -> [IpAddr; 2] {
    let number = number(name);
    [format!("198.18.0.{number}"), format!("2001:db8::{number}")]
        .map(|text| text.parse().expect("an address"))
}

fn pod(name: &str) -> Workload {
    let app = name.split('-').next().expect("a name");
    Workload {
        id: id(name),
        labels: Labels::from_iter([("app", app)]),
        addresses: addresses(name).to_vec(),
        ports: vec![],
        node: None,
        host_network: false,
    }
}

/// Only clients and admins reach the server.
fn plan(pods: &[&str]) -> Arc<Plan> {
    let select = |app: &str| WorkloadSelector {
        namespaces: NamespaceSelector::Named("default".into()),
        labels: Selector::match_label("app", app),
    };
    let (kind, namespace) = (PolicyKind::NetworkPolicy, "default".into());
    let policy = PolicyRef { kind, namespace, name: "clients".into() };
    let both = ["client", "admin"].map(|app| Peer::Workloads(select(app)));
    let policy = Policy {
        ingress: Some(vec![Rule::allow(Peers::OneOf(both.into()), Ports::Any)]),
        ..Policy::new(policy, select(SERVER))
    };
    let workloads = pods.iter().map(|name| pod(name)).collect();
    let inventory = Inventory { workloads, ..Inventory::default() };
    let mut compiler = Compiler::new(LocalAllocator::new());
    Arc::new(compiler.compile(&inventory, &[policy], &Options::default()).expect("sound"))
}

fn attach(process: &mut Process, name: &str) {
    let (v4, v6) = EndpointAddress::pairs(&addresses(name))[0];
    let ifindex = 100 + number(name) as u32;
    let address = EndpointAddress { ifindex, v4, v6, ..EndpointAddress::default() };
    process.attach(id(name), address).expect("room");
}

/// A process that runs a plan of server and client, with these links.
fn running(links: &[&str], plan: &Arc<Plan>) -> Process {
    let mut process = Installer::adopt(Mortal::new(room::tables())).expect("host tables");
    links.iter().for_each(|name| attach(&mut process, name));
    let _ = process.apply(plan).expect("fits");
    process
}

/// The next process after one that was killed; it finds the same links.
fn restart(process: Process, links: &[&str]) -> Process {
    let tables = process.into_store().into_tables();
    let mut process = Installer::adopt(Mortal::new(tables)).expect("host tables");
    links.iter().for_each(|name| attach(&mut process, name));
    process
}

/// A packet of the twin's to the server, in a family, where it is met first.
fn passes(process: &Process, local: bool, family: usize, packet: (u16, u8)) -> bool {
    reaches(process, (TWIN, local), family, packet)
}

/// A packet of a pod's, which is on this node or elsewhere, to the server.
fn reaches(
    process: &Process,
    (source, local): (&str, bool),
    family: usize,
    (port, flags): (u16, u8),
) -> bool {
    let flow = Flow {
        source: addresses(source)[family],
        destination: addresses(SERVER)[family],
        protocol: FlowProtocol::Tcp(80),
    };
    let frame = Frame::opening(flow, port).flags(flags).bytes();
    let (name, hook) =
        if local { (source, Hook::FromEndpoint) } else { (SERVER, Hook::ToEndpoint) };
    let passed = process.store().tables().run(&frame, 100 + number(name) as u32, hook);
    !matches!(passed.verdict, Verdict::Drop(_))
}

/// Kills a process at each of its writes, as long as there are any. Returns how many there were.
fn at_every_write(mut scene: impl FnMut(usize) -> bool) -> usize {
    (0..).find(|write| !scene(*write)).expect("it ends")
}

const FAMILIES: [usize; 2] = [0, 1];

#[test]
fn a_join_that_was_killed_is_whole_after_the_next_plan() {
    for local in [false, true] {
        let links: &[&str] = if local { &THREE } else { &THREE[..2] };
        let without = plan(&THREE[..2]);
        let labels = Inventory::default().namespace_labels(&"default".into());
        let writes = at_every_write(|write| {
            let mut process = running(links, &without);
            let placed = Roster::new(&without).add(&pod(TWIN), &labels).expect("known");
            assert!(FAMILIES.iter().all(|family| !passes(&process, local, *family, (1, tcp::SYN))));
            process.store_mut().die_after(write);
            let _ = process.add(&placed);
            let _ = process.settle();
            let died = process.store().died();
            let mut process = restart(process, links);
            let applied = process.apply(&plan(&THREE)).expect("fits");
            assert!(applied.closed.is_empty(), "killed after write {write}");
            for family in FAMILIES {
                assert!(passes(&process, local, family, (2, tcp::SYN)), "write {write}");
            }
            died
        });
        println!("local {local}: killed at each of {writes} writes");
        assert!(writes > 4);
    }
}

#[test]
fn a_leave_that_was_killed_is_whole_after_the_next_plan() {
    for local in [false, true] {
        let links: &[&str] = if local { &THREE } else { &THREE[..2] };
        let with = plan(&THREE);
        let writes = at_every_write(|write| {
            let mut process = running(links, &with);
            for family in FAMILIES {
                assert!(passes(&process, local, family, (1, tcp::SYN)));
            }
            process.store_mut().die_after(write);
            let _ = process.remove(&id(TWIN), &addresses(TWIN));
            let _ = process.settle();
            let died = process.store().died();
            let mut process = restart(process, links);
            // Where an address has gone and its peer's epoch hasn't moved yet, a connection goes on until then.
            let applied = process.apply(&plan(&THREE[..2])).expect("fits");
            assert_eq!(applied.closed.len(), usize::from(local));
            for family in FAMILIES {
                let when = format!("local {local}, killed after write {write}");
                assert!(!passes(&process, local, family, (1, tcp::ACK)), "goes on: {when}");
                assert!(!passes(&process, local, family, (2, tcp::SYN)), "begins: {when}");
            }
            died
        });
        println!("local {local}: killed at each of {writes} writes");
        assert!(writes > 4);
    }
}

#[test]
fn an_extension_that_was_killed_is_whole_after_the_next_plan() {
    for local in [false, true] {
        let links: &[&str] = if local { &PODS } else { &PODS[..1] };
        let (before, after) = (plan(&[SERVER, CLIENT, TWIN]), plan(&[SERVER, CLIENT, ADMIN]));
        let extension = Extension::of(&before, &after).expect("one comes, one goes");
        let mut joined = 0;
        let writes = at_every_write(|write| {
            let mut process = running(links, &before);
            let all = |process: &Process, who, packet| {
                FAMILIES.iter().all(|family| reaches(process, (who, local), *family, packet))
            };
            let none = |process: &Process, who, packet| {
                FAMILIES.iter().all(|family| !reaches(process, (who, local), *family, packet))
            };
            assert!(all(&process, CLIENT, (1, tcp::SYN)) && all(&process, TWIN, (1, tcp::SYN)));
            let generation = process.generation();
            process.store_mut().die_after(write);
            let _ = process.extend(&extension);
            let _ = process.settle();
            let died = process.store().died();
            let when = format!("local {local}, killed after write {write}");
            let mut process = restart(process, links);
            assert_eq!(process.generation(), generation, "{when}");
            assert!(all(&process, CLIENT, (1, tcp::ACK)), "stays: {when}");
            assert!(all(&process, CLIENT, (2, tcp::SYN)), "as before: {when}");
            joined += usize::from(all(&process, ADMIN, (2, tcp::SYN)));
            let applied = process.apply(&after).expect("fits");
            assert_eq!(applied.closed.len(), usize::from(local), "{when}");
            assert!(all(&process, ADMIN, (3, tcp::SYN)), "has joined: {when}");
            assert!(all(&process, CLIENT, (1, tcp::ACK)), "goes on: {when}");
            assert!(none(&process, TWIN, (1, tcp::ACK)), "goes on: {when}");
            assert!(none(&process, TWIN, (3, tcp::SYN)), "begins: {when}");
            died
        });
        println!(
            "local {local}: killed at each of {writes} writes, {joined} times when all was written"
        );
        assert!(writes > 8 && joined > 0 && joined < writes);
    }
}
