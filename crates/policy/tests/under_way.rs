//! A packet may be held up between any two of its look-ups while a plan or an extension is installed, but for no
//! longer than a grace period: whatever it has read before, and whatever it reads afterwards, one generation decides,
//! and of an extension one of both plans.
//!
//! After every single write, packets that began after any earlier write since the last grace period go on
//! from each of their look-ups, through the hooks themselves.

use std::{collections::BTreeMap, sync::Arc};

use flowgate_abi::{endpoint::Endpoint, event::Hook};
use flowgate_conformance::{
    attended::{Attendant, Attended, Write},
    frames::{Frame, tcp},
    generate::{Case, Generator},
    links::links,
    room,
    under_way::{Answer, UnderWay},
};
use flowgate_identity::LocalAllocator;
use flowgate_pipeline::{Verdict, hook};
use flowgate_policy::{
    compile::Compiler,
    extension::Extension,
    host::HostTables,
    install::{Installer, Store},
    options::Options,
    outcome::{Flow, FlowProtocol},
    plan::Plan,
    simulate::outcome,
};

/// A packet, where it is met, and how others of its kind began since the last grace period.
struct Packet {
    flow: Flow,
    frame: Vec<u8>,
    place: (u32, Hook),
    begun: BTreeMap<String, Vec<Answer>>,
    /// One of its ends joins or leaves: it may find the endpoint closed.
    changes: bool,
}

/// The plans that a generation may decide by, of which the last one has all names.
type Plans = BTreeMap<u32, Vec<Arc<Plan>>>;

/// Packets that go on after every write.
#[derive(Default)]
struct Traffic {
    packets: Vec<Packet>,
    plans: Plans,
    resumed: usize,
}

impl Attendant<HostTables> for Traffic {
    fn after(&mut self, tables: &HostTables, write: Write) {
        let Self { packets, plans, resumed } = self;
        if plans.is_empty() {
            return;
        }
        for packet in packets {
            if write == Write::Grace {
                packet.begun.clear();
            }
            let present = packet.pass(tables, &[], plans);
            let name = format!("{present:?}");
            // Those that would be answered alike have nothing to tell.
            for (_, answers) in packet.begun.iter().filter(|(other, _)| **other != name) {
                for asked in 1..answers.len() {
                    packet.pass(tables, &answers[..asked], plans);
                    *resumed += 1;
                }
            }
            packet.begun.entry(name).or_insert(present);
        }
    }
}

impl Packet {
    /// Passes the hook, is decided about as its generation's plan says, and returns what it was answered.
    fn pass(&self, now: &HostTables, then: &[Answer], plans: &Plans) -> Vec<Answer> {
        let tables = UnderWay::resumed(now, then);
        let (ifindex, hook) = self.place;
        let verdict = hook::run(&self.frame, ifindex, hook, &tables);
        let passes = !matches!(verdict, Verdict::Drop(_));
        let when = format!("{}: {verdict:?} after {} answers", self.flow, then.len());
        match tables.judged() {
            None => assert!(self.changes && !passes, "{when}"),
            Some((generation, judgement)) => {
                let plans = &plans[&generation];
                let seen = outcome(plans.last().expect("one"), judgement);
                let known = plans.iter().any(|plan| plan.decide(&self.flow) == seen);
                assert!(known || self.changes && !passes, "{when}: {seen:?}");
                assert_eq!(passes, seen.allowed(), "{when}: {seen:?}");
            }
        }
        tables.lookups().answers()
    }
}

/// A flow as a packet at one of its ends. A RST is judged and leaves no trace.
fn packet(flow: Flow, tables: &HostTables) -> Option<Packet> {
    let slots = 0..=Store::settings(tables).endpoint_mask;
    let find = |address: std::net::IpAddr| {
        let mut rows = slots.clone().map(|slot| Store::endpoint(tables, slot));
        rows.find(|row| match address {
            std::net::IpAddr::V4(v4) => row.addr4.get() == u32::from(v4),
            std::net::IpAddr::V6(v6) => row.addr6.octets() == v6.octets(),
        })
    };
    let place = match (find(flow.source), find(flow.destination)) {
        // To what is on the node or elsewhere, which these tables don't tell apart.
        (Some(source), Some(_)) if source.flags & Endpoint::NODE != 0 => return None,
        (Some(source), _) => (source.ifindex, Hook::FromEndpoint),
        (None, Some(destination)) => (destination.ifindex, Hook::ToEndpoint),
        (None, None) => return None,
    };
    let FlowProtocol::Tcp(_) = flow.protocol else { return None };
    let frame = Frame::opening(flow, 40_000).flags(tcp::RST).bytes();
    Some(Packet { flow, frame, place, begun: BTreeMap::new(), changes: false })
}

fn compile(compiler: &mut Compiler<LocalAllocator>, case: &Case) -> Arc<Plan> {
    let plan = compiler.compile(&case.inventory, &case.policies, &Options::default());
    Arc::new(plan.expect("a generated case compiles"))
}

type Watched = Installer<Attended<HostTables, Traffic>>;

/// The first plan runs, and all workloads and nodes are attached.
fn running(case: &Case, plan: &Arc<Plan>) -> Watched {
    let store = Attended::with(room::tables(), Traffic::default());
    let mut installer = Installer::adopt(store).expect("empty tables");
    for (workload, address) in links(&case.inventory) {
        installer.attach(workload, address).expect("room");
    }
    let _ = installer.apply(plan).expect("fits");
    installer
}

/// Other policies, and every second time the pods hand on their labels in a circle.
fn next(generator: &mut Generator, case: &Case, step: usize) -> Case {
    let mut next = case.clone();
    next.policies = generator.case().policies;
    let labels = case.inventory.workloads.iter().map(|workload| workload.labels.clone());
    let mut labels: Vec<_> = labels.collect();
    labels.rotate_left(step % 2);
    for (workload, labels) in next.inventory.workloads.iter_mut().zip(labels) {
        workload.labels = labels;
    }
    next
}

#[test]
fn a_packet_under_way_sees_one_generation() {
    let mut generator = Generator::new(61);
    let mut resumed = 0;
    for _ in 0..4 {
        let case = generator.case();
        let mut compiler = Compiler::new(LocalAllocator::new());
        let mut plan = compile(&mut compiler, &case);
        let mut installer = running(&case, &plan);
        for step in 1..4 {
            let after = next(&mut generator, &case, step);
            let new = compile(&mut compiler, &after);
            let flows: Vec<Flow> = (0..12).map(|_| generator.flow(&after)).collect();
            let tables = installer.store().tables();
            let packets = flows.into_iter().filter_map(|flow| packet(flow, tables)).collect();
            let generation = installer.generation();
            let plans =
                [(generation, vec![Arc::clone(&plan)]), (generation + 1, vec![Arc::clone(&new)])];
            let traffic = Traffic { packets, plans: plans.into(), ..Traffic::default() };
            installer.store_mut().attendant = traffic;
            let _ = installer.apply(&new).expect("fits");
            resumed += std::mem::take(&mut installer.store_mut().attendant).resumed;
            plan = new;
        }
    }
    println!("{resumed} packets went on after a change");
    assert!(resumed > 100_000);
}

/// The workload that leaves or joins: one of those that have addresses of their own.
fn one_of(generator: &mut Generator, case: &Case) -> Option<usize> {
    let own = |at: &usize| {
        let one = &case.inventory.workloads[*at];
        !one.host_network && !one.addresses.is_empty()
    };
    let own: Vec<usize> = (0..case.inventory.workloads.len()).filter(own).collect();
    let chosen = generator.below(own.len().max(1) as u64);
    own.get(usize::try_from(chosen).ok()?).copied()
}

#[test]
fn a_packet_under_way_sees_a_plan_or_its_extension() {
    let mut generator = Generator::new(67);
    let (mut resumed, mut extended) = (0, 0);
    for round in 0..60 {
        let case = generator.case();
        let Some(at) = one_of(&mut generator, &case) else { continue };
        let mut fewer = case.clone();
        let one = fewer.inventory.workloads.remove(at);
        let mut compiler = Compiler::new(LocalAllocator::new());
        let mut plans = [compile(&mut compiler, &fewer), compile(&mut compiler, &case)];
        plans.rotate_left(round % 2);
        let [before, after] = plans;
        let Ok(extension) = Extension::of(&before, &after) else { continue };
        let mut installer = running(&case, &before);
        let tables = installer.store().tables();
        let flows = (0..8).filter_map(|_| packet(generator.flow(&case), tables));
        let touches = |flow: &Flow| {
            [flow.source, flow.destination].iter().any(|end| one.addresses.contains(end))
        };
        let packets = flows.map(|packet| Packet { changes: touches(&packet.flow), ..packet });
        let plans = vec![before, Arc::clone(extension.plan())];
        let traffic = Traffic {
            packets: packets.collect(),
            plans: [(installer.generation(), plans)].into(),
            ..Traffic::default()
        };
        installer.store_mut().attendant = traffic;
        installer.extend(&extension).expect("fits");
        installer.settle().expect("host tables");
        resumed += std::mem::take(&mut installer.store_mut().attendant).resumed;
        extended += 1;
    }
    println!("{extended} extensions, {resumed} packets went on after a change");
    assert!(extended > 20 && resumed > 5_000);
}
