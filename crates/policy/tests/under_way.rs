//! A packet may be held up between any two of its look-ups while a plan is installed, but for no longer than a
//! grace period: whatever it has read before, and whatever it reads afterwards, one generation decides.
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
}

/// Packets that go on after every write.
#[derive(Default)]
struct Traffic {
    packets: Vec<Packet>,
    /// By generation.
    plans: BTreeMap<u32, Arc<Plan>>,
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
    fn pass(
        &self,
        now: &HostTables,
        then: &[Answer],
        plans: &BTreeMap<u32, Arc<Plan>>,
    ) -> Vec<Answer> {
        let tables = UnderWay::resumed(now, then);
        let (ifindex, hook) = self.place;
        let verdict = hook::run(&self.frame, ifindex, hook, &tables);
        let Some((generation, judgement)) = tables.judged() else {
            panic!("{}: {verdict:?} after {} answers", self.flow, then.len());
        };
        let plan = &plans[&generation];
        let (seen, wanted) = (outcome(plan, judgement), plan.decide(&self.flow));
        assert_eq!(seen, wanted, "{} after {} answers", self.flow, then.len());
        assert_eq!(!matches!(verdict, Verdict::Drop(_)), wanted.allowed(), "{}", self.flow);
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
    Some(Packet { flow, frame, place, begun: BTreeMap::new() })
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
            let plans = [(generation, Arc::clone(&plan)), (generation + 1, Arc::clone(&new))];
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
