//! A process that is killed at any single write: what packets see then, and that the next process
//! comes to the same end as if nothing had happened.

use std::sync::Arc;

use flowgate_abi::{Settings, event::Hook};
use flowgate_conformance::{
    frames::{Frame, tcp},
    generate::{Case, Generator},
    links::links,
    mortal::Mortal,
};
use flowgate_identity::{Labels, LocalAllocator};
use flowgate_pipeline::Verdict;
use flowgate_policy::{
    compile::Compiler,
    host::{HostRoom, HostTables},
    install::{EndpointAddress, Installer, Store},
    inventory::{Inventory, Workload, WorkloadRef},
    options::Options,
    outcome::{Flow, FlowProtocol},
    plan::Plan,
    simulate::simulate,
};

type Process = Installer<Mortal<HostTables>>;

/// Room for a plan and for whatever follows it.
fn roomy(plan: &Plan) -> HostTables {
    let settings = Settings {
        endpoint_mask: 15,
        peers: 128,
        row_cells: 1 << 13,
        decision_cells: 1 << 13,
        decisions: 1 << 9,
        ..*Store::settings(&HostTables::for_plan(plan))
    };
    let room = HostRoom { ipcache_nodes: 512, events: 1 };
    HostTables::new(settings, room)
}

fn start(tables: HostTables) -> Process {
    let Ok(process) = Installer::adopt(Mortal::new(tables));
    process
}

/// The next process after one that was killed.
fn restart(process: Process) -> Process {
    start(process.into_store().into_tables())
}

fn attach(process: &mut Process, links: &Links) {
    for (workload, address) in links {
        process.attach(workload.clone(), *address).expect("room");
    }
}

fn compile(compiler: &mut Compiler<LocalAllocator>, case: &Case) -> Arc<Plan> {
    let plan = compiler.compile(&case.inventory, &case.policies, &Options::default());
    Arc::new(plan.expect("a generated case compiles"))
}

/// Every flow is decided as a plan says.
fn check(process: &Process, plan: &Plan, flows: &[Flow], when: &str) {
    for flow in flows {
        let seen = simulate(process.store().tables(), plan, flow).expect("complete tables");
        assert_eq!(seen, plan.decide(flow), "{when}: {flow}");
    }
}

/// Who is attached, and where.
type Links = Vec<(WorkloadRef, EndpointAddress)>;

/// Two plans about the same endpoints, and flows that they tell apart.
struct Change {
    links: Links,
    from: Arc<Plan>,
    to: Arc<Plan>,
    flows: Vec<Flow>,
}

impl Change {
    fn generate(generator: &mut Generator) -> Self {
        let case = generator.case();
        let mut compiler = Compiler::new(LocalAllocator::new());
        let from = compile(&mut compiler, &case);
        let mut next = case.clone();
        next.policies = generator.case().policies;
        let count = next.inventory.workloads.len();
        for (index, workload) in next.inventory.workloads.iter_mut().enumerate() {
            workload.labels = case.inventory.workloads[(index + 1) % count].labels.clone();
        }
        let to = compile(&mut compiler, &next);
        let links = links(&case.inventory);
        Self { links, from, to, flows: (0..20).map(|_| generator.flow(&case)).collect() }
    }

    /// A process that runs the first plan.
    fn running(&self) -> Process {
        let mut process = start(roomy(&self.from));
        attach(&mut process, &self.links);
        let _ = process.apply(&self.from).expect("fits");
        process
    }

    /// The second plan's writes.
    fn writes(&self) -> usize {
        let mut process = self.running();
        let before = process.store().writes();
        let _ = process.apply(&self.to).expect("fits");
        process.store().writes() - before
    }

    /// Killed after so many of them.
    fn killed_after(&self, writes: usize) {
        let mut process = self.running();
        let generation = process.generation();
        process.store_mut().die_after(writes);
        let _ = process.apply(&self.to);
        let mut process = restart(process);
        let flipped = process.generation() != generation;
        let runs = if flipped { &self.to } else { &self.from };
        let when = format!("killed after write {writes}, flipped {flipped}");
        check(&process, runs, &self.flows, &when);
        attach(&mut process, &self.links);
        check(&process, runs, &self.flows, &when);
        let applied = process.apply(&self.to).expect("fits");
        assert!(applied.closed.is_empty() && applied.generation > generation, "{when}");
        check(&process, &self.to, &self.flows, &format!("{when}, applied again"));
    }
}

#[test]
fn a_restart_needs_no_numbers_besides_those_of_the_plan() {
    let mut generator = Generator::new(43);
    for _ in 0..20 {
        let Change { from: plan, links, .. } = Change::generate(&mut generator);
        // Exactly the plan's peers, and number 0, which is nobody's.
        let peers = plan.peers.len() as u32 + 1;
        let settings = Settings { peers, ..*Store::settings(&roomy(&plan)) };
        let room = HostRoom { ipcache_nodes: 512, events: 1 };
        let mut process = start(HostTables::new(settings, room));
        attach(&mut process, &links);
        let _ = process.apply(&plan).expect("fits");
        for _ in 0..3 {
            process = restart(process);
            attach(&mut process, &links);
            let applied = process.apply(&plan).expect("fits as it did before");
            assert!(applied.closed.is_empty());
        }
    }
}

#[test]
fn whenever_it_is_killed_the_next_one_converges() {
    let mut generator = Generator::new(41);
    let mut kills = 0;
    for _ in 0..3 {
        let change = Change::generate(&mut generator);
        let writes = change.writes();
        (0..=writes).for_each(|write| change.killed_after(write));
        kills += writes + 1;
    }
    assert!(kills > 300, "{kills} kills");
}

fn workload(name: &str, address: &str) -> Workload {
    Workload {
        id: WorkloadRef { namespace: "default".into(), name: name.into() },
        labels: Labels::from_iter([("app", name)]),
        addresses: vec![address.parse().expect("an address")],
        ports: vec![],
        node: None,
        host_network: false,
    }
}

/// A plan without policies: everything may talk to everything.
fn open_to_all(workloads: &[Workload]) -> Arc<Plan> {
    let inventory = Inventory { workloads: workloads.to_vec(), ..Inventory::default() };
    let mut compiler = Compiler::new(LocalAllocator::new());
    Arc::new(compiler.compile(&inventory, &[], &Options::default()).expect("compiles"))
}

fn bind(process: &mut Process, workload: &Workload, ifindex: u32) -> u32 {
    let [(v4, v6)] = EndpointAddress::pairs(&workload.addresses)[..] else { unreachable!() };
    let address = EndpointAddress { ifindex, v4, v6, ..Default::default() };
    process.attach(workload.id.clone(), address).expect("room")
}

/// A packet passes a link.
fn passes(process: &Process, frame: Frame, (ifindex, hook): (u32, Hook)) -> bool {
    let passed = process.store().tables().run(&frame.bytes(), ifindex, hook);
    !matches!(passed.verdict, Verdict::Drop(_))
}

/// Where packets come from the client, where they arrive at the server, and where it answers.
const FROM_CLIENT: (u32, Hook) = (CLIENT, Hook::FromEndpoint);
const TO_SERVER: (u32, Hook) = (SERVER, Hook::ToEndpoint);
const FROM_SERVER: (u32, Hook) = (SERVER, Hook::FromEndpoint);
const CLIENT: u32 = 101;
const SERVER: u32 = 102;

/// From the client, or from outside of the node.
fn connection(source: &str) -> Frame {
    let flow = Flow {
        source: source.parse().expect("an address"),
        destination: "198.18.0.2".parse().expect("an address"),
        protocol: FlowProtocol::Tcp(80),
    };
    Frame::opening(flow, 40_000)
}

/// Client and, if it is local, server, with a connection that is allowed.
fn connected(source: &str, server_is_local: bool) -> (Process, u32) {
    let workloads = [workload("client", "198.18.0.1"), workload("server", "198.18.0.2")];
    let plan = open_to_all(&workloads[..1 + usize::from(server_is_local)]);
    let mut process = start(roomy(&plan));
    bind(&mut process, &workloads[0], CLIENT);
    let slot = if server_is_local { bind(&mut process, &workloads[1], SERVER) } else { 0 };
    let _ = process.apply(&plan).expect("fits");
    let begins = if source == "198.18.0.1" { FROM_CLIENT } else { TO_SERVER };
    assert!(passes(&process, connection(source), begins));
    (process, slot)
}

/// Neither end may go on with a connection to which the server's address belonged.
fn is_cut(process: &Process, source: &str, when: &str) {
    let answer = connection(source).answer();
    assert!(!passes(process, answer, FROM_SERVER), "{source}: {when}");
    let packet = connection(source).flags(tcp::ACK);
    assert!(!passes(process, packet, TO_SERVER), "{source}: {when}");
}

/// Kills a process at each of its writes, as long as there are any.
fn at_every_write(mut scene: impl FnMut(usize) -> bool) {
    let writes = (0..).find(|write| !scene(*write)).expect("it ends");
    assert!(writes > 2, "only {writes} writes");
}

#[test]
fn a_detach_that_was_killed_leaves_no_connection_to_who_gets_the_address() {
    for source in ["198.18.0.1", "203.0.113.7"] {
        at_every_write(|write| {
            let (mut process, slot) = connected(source, true);
            process.store_mut().die_after(write);
            let _ = process.detach(&[slot]);
            let died = process.store().died();
            let mut process = restart(process);
            // What is left of the endpoint is detached again; someone else gets its address.
            let left = process.bindings().map(|(slot, _)| slot);
            let left: Vec<u32> = left.filter(|other| *other == slot).collect();
            process.detach(&left).expect("host tables");
            bind(&mut process, &workload("stranger", "198.18.0.2"), SERVER);
            is_cut(&process, source, &format!("killed after write {write}"));
            died
        });
    }
}

#[test]
fn an_attach_that_was_killed_leaves_no_connection_to_the_new_endpoint() {
    at_every_write(|write| {
        let (mut process, _) = connected("198.18.0.1", false);
        process.store_mut().die_after(write);
        bind(&mut process, &workload("server", "198.18.0.2"), SERVER);
        let died = process.store().died();
        let mut process = restart(process);
        bind(&mut process, &workload("server", "198.18.0.2"), SERVER);
        is_cut(&process, "198.18.0.1", &format!("killed after write {write}"));
        died
    });
}

#[test]
fn a_renumbering_that_was_killed_is_completed() {
    let (mut process, _) = connected("198.18.0.1", true);
    let generation = process.generation();
    // As an epoch that wraps begins it: the head first.
    process.store_mut().renumber(generation & 1, generation + 2);
    let process = restart(process);
    assert_eq!(process.generation(), generation);
    let opens = Frame { source_port: 40_001, ..connection("198.18.0.1") };
    assert!(passes(&process, opens, FROM_CLIENT), "the generation is complete");
}
