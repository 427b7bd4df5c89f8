//! No packet meets a mixture of two policy sets, however fast they are exchanged.
//!
//! The sets are those of [`Pair`]: whatever a packet reads from the wrong one, its event tells a verdict, a
//! cookie or a reason that its generation's set doesn't give; a host test shows that of every mixture. Two
//! CPUs run packets through the loaded program without pause (`BPF_PROG_TEST_RUN`), each packet another
//! flow's, while generations are published as fast as grace periods allow. Every event is read and
//! compared. Between rounds, with nothing under way, no flow may have kept the verdict of one set under
//! the generation of the other.
//!
//! Privileged: without the capabilities, the test says so in one line and is skipped.
//! `FLOWGATE_PACKETS` is the number of packets (default 200,000).

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    thread,
};

use aya::programs::ProgramFd;
use flowgate_abi::{
    DropReason,
    event::{Counter, Kind},
};
use flowgate_benches::{
    course::{Course, Driver},
    cpus,
    packets::Packet,
    rig::programs,
};
use flowgate_conformance::{
    frames::Frame,
    mixture::{Pair, Probe},
};
use flowgate_datapath::{
    Datapath, Delivery, EndpointSpec, Events, FlowEvent, HookKind, Options, ProgramReport,
};
use flowgate_ebpf_progs::TC_FROM_ENDPOINT;
use flowgate_identity::LocalAllocator;
use flowgate_policy::{
    compile::Compiler,
    options,
    outcome::{FlowProtocol, Outcome},
    plan::Plan,
};

/// Flows of a probe, which differ in their source ports and take turns.
const FLOWS: u32 = 2048;
/// Packets of one call. The ring has room for the events of both CPUs' calls.
const PACKETS: u32 = 4 * FLOWS;
const ROUNDS: usize = 4;

fn packets() -> u64 {
    std::env::var("FLOWGATE_PACKETS").ok().and_then(|text| text.parse().ok()).unwrap_or(200_000)
}

fn plans(pair: &Pair) -> [Arc<Plan>; 2] {
    let mut compiler = Compiler::new(LocalAllocator::new());
    [0, 1].map(|set| {
        let (inventory, policies) = (&pair.inventories[set], &pair.policies[set]);
        let plan = compiler.compile(inventory, policies, &options::Options::default());
        Arc::new(plan.expect("a sound set"))
    })
}

/// A datapath over the pair's endpoints. The client is bound to loopback, where the kernel runs test
/// packets.
fn open(pair: &Pair) -> Datapath {
    let options = Options {
        flows4: 1 << 16,
        flows6: 1 << 16,
        events_per_second: u32::MAX,
        event_bytes: 1 << 22,
        ..Options::default()
    };
    let mut datapath = Datapath::builder().options(options).open().expect("opens");
    for workload in &pair.inventories[0].workloads {
        let id = workload.id.clone();
        let spec = match id == Pair::client() {
            true => EndpointSpec::new(id, "lo").hook(HookKind::Clsact),
            false => EndpointSpec::unlinked(id),
        };
        // Nothing is rewritten, so that every packet has its whole life before it.
        let spec = spec.delivery(Delivery::Stack);
        let own = workload.addresses[..2].iter();
        let spec = own.fold(spec, |spec, address| spec.address(*address));
        let _ = datapath.attach(&spec).expect("attaches");
    }
    datapath
}

/// What tells probes apart: destination, protocol and port.
type Key = (IpAddr, u8, u16);

/// What each generation says of each probe.
struct Expected(HashMap<Key, [Outcome; 2]>);

impl Expected {
    fn new(probes: &[Probe], plans: &[Arc<Plan>; 2]) -> Self {
        let expected = |probe: &Probe| {
            let (FlowProtocol::Tcp(port) | FlowProtocol::Udp(port)) = probe.flow.protocol else {
                unreachable!("{}", probe.flow)
            };
            let key = (probe.flow.destination, probe.flow.protocol.number(), port);
            (key, plans.each_ref().map(|plan| plan.decide(&probe.flow)))
        };
        Self(probes.iter().map(expected).collect())
    }

    /// An event tells what the set of its generation says; generation 1 is the first set's.
    fn check(&self, event: &FlowEvent) {
        let key = (event.destination.address, event.protocol, event.destination.port);
        let set = (event.generation as usize + 1) % 2;
        let expected = &self.0[&key][set];
        assert_eq!(event.outcome.as_ref(), Some(expected), "{event}");
        let told = match event.kind {
            Kind::New | Kind::Rejudged => expected.allowed() && event.reason.is_none(),
            Kind::Denied | Kind::Revoked => {
                !expected.allowed() && event.reason == Some(DropReason::PolicyDeny)
            }
            Kind::Closed | Kind::Kept => false,
        };
        assert!(told, "{event}");
    }
}

/// Reads events, and lets the runners wait until all of theirs are read.
#[derive(Default)]
struct Reader {
    passes: AtomicUsize,
    done: AtomicBool,
    failed: AtomicBool,
}

impl Reader {
    /// Compares every event; returns how many there were, by kind.
    fn read(&self, events: &mut Events, expected: &Expected) -> BTreeMap<&'static str, u64> {
        let _failure = Failure(&self.failed);
        let mut seen = BTreeMap::new();
        while !self.done.load(SeqCst) {
            while let Some(event) = events.try_next() {
                expected.check(&event);
                *seen.entry(name(event.kind)).or_default() += 1;
            }
            self.passes.fetch_add(1, SeqCst);
            thread::yield_now();
        }
        seen
    }

    /// Waits until what was told before is read: the ring never overflows.
    fn catch_up(&self) {
        let begun = self.passes.load(SeqCst);
        while self.passes.load(SeqCst) < begun + 2 {
            assert!(!self.failed.load(SeqCst), "the reader found something");
            thread::yield_now();
        }
    }
}

/// Says so if its thread panics.
struct Failure<'a>(&'a AtomicBool);

impl Drop for Failure<'_> {
    fn drop(&mut self) {
        self.0.store(thread::panicking(), SeqCst);
    }
}

const fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::New => "new",
        Kind::Denied => "denied",
        Kind::Rejudged => "rejudged",
        Kind::Revoked => "revoked",
        Kind::Kept => "kept",
        Kind::Closed => "closed",
    }
}

/// What the threads of a round share.
struct Round<'a> {
    courses: &'a [Course],
    reader: &'a Reader,
    /// The generation that was published last.
    published: &'a AtomicU32,
    /// Packets that have run.
    ran: &'a AtomicU64,
    /// Calls during which a generation was published.
    met: &'a AtomicU64,
}

impl Round<'_> {
    /// Runs packets on a CPU until both CPUs have run so many, and a generation was published meanwhile.
    fn run(&self, cpu: usize, program: &ProgramFd, packets: u64) {
        cpus::pin_to(cpu);
        let mut driver = Driver::load().expect("loads");
        let (last, met) = (self.ran.load(SeqCst) + packets, self.met.load(SeqCst));
        // Each CPU begins elsewhere.
        let courses = self.courses.iter().cycle().skip(cpu * self.courses.len() / 2);
        for course in courses {
            let before = self.published.load(SeqCst);
            let ran = driver.run(program, course, PACKETS).expect("runs");
            assert!([-1, 2].contains(&ran.action), "{ran:?}");
            let meets = self.published.load(SeqCst) != before;
            self.met.fetch_add(u64::from(meets), SeqCst);
            self.ran.fetch_add(u64::from(PACKETS), SeqCst);
            self.reader.catch_up();
            if self.ran.load(SeqCst) >= last && self.met.load(SeqCst) > met {
                return;
            }
        }
    }
}

fn course(probe: &Probe) -> Course {
    Course::of(&Packet::new(&Frame::opening(probe.flow, 20_000)), FLOWS as usize)
}

fn dropped(datapath: &Datapath) -> u64 {
    let counters = datapath.counters().expect("readable");
    let mut dropped = 0;
    for (key, tally) in counters.drops {
        let allowed = [DropReason::PolicyDeny, DropReason::Revoked].contains(&key.reason);
        assert!(allowed, "{} packets: {}", tally.packets, key.reason);
        dropped += tally.packets;
    }
    for counter in [Counter::EventsLost, Counter::EventsSuppressed, Counter::FlowsEvicted] {
        assert_eq!(counters.others[&counter], 0, "{counter:?}");
    }
    dropped
}

/// With nothing under way, every flow of every probe fares as the running generation says.
fn settled(datapath: &Datapath, program: &ProgramFd, probes: &[Probe], reader: &Reader) {
    let mut driver = Driver::load().expect("loads");
    let set = (datapath.generation() as usize + 1) % 2;
    for probe in probes {
        let before = dropped(datapath);
        driver.run(program, &course(probe), FLOWS).expect("runs");
        reader.catch_up();
        let denied = if probe.allowed[set] { 0 } else { u64::from(FLOWS) };
        assert_eq!(dropped(datapath) - before, denied, "{} under set {set}", probe.flow);
    }
}

/// Publishes generations while packets run on two CPUs; returns how many.
fn round(
    datapath: &mut Datapath,
    plans: &[Arc<Plan>; 2],
    round: &Round<'_>,
    runners: [(usize, &ProgramFd); 2],
) -> u32 {
    let first = datapath.generation();
    thread::scope(|scope| {
        let packets = packets() / ROUNDS as u64;
        let running =
            runners.map(|(cpu, program)| scope.spawn(move || round.run(cpu, program, packets)));
        while !running.iter().all(thread::ScopedJoinHandle::is_finished) {
            let next = datapath.generation() as usize % 2;
            let applied = datapath.apply(&plans[next]).expect("fits");
            round.published.store(applied.generation, SeqCst);
        }
    });
    datapath.generation() - first
}

#[test]
fn no_packet_meets_a_mixture() {
    if let Err(missing) = flowgate_lab::available() {
        println!("SKIPPED: {missing}");
        return;
    }
    let Some(cpus) = cpus::two() else {
        println!("SKIPPED: two CPUs are needed");
        return;
    };
    let _node = flowgate_lab::Node::enter().expect("namespaces of its own");
    let pair = Pair::new();
    let plans = plans(&pair);
    let mut datapath = open(&pair);
    let mut events = datapath.events().expect("not taken before");
    let _ = datapath.apply(&plans[0]).expect("fits");
    let program = program(&datapath.report().programs);
    let courses: Vec<Course> = pair.probes.iter().map(course).collect();
    let expected = Expected::new(&pair.probes, &plans);
    let (reader, published) = (Reader::default(), AtomicU32::new(1));
    let (ran, met) = (AtomicU64::new(0), AtomicU64::new(0));
    let shared =
        Round { courses: &courses, reader: &reader, published: &published, ran: &ran, met: &met };
    let mut flips = 0;
    let told = thread::scope(|scope| {
        let reading = scope.spawn(|| reader.read(&mut events, &expected));
        for _ in 0..ROUNDS {
            let runners = cpus.map(|cpu| (cpu, &program));
            flips += round(&mut datapath, &plans, &shared, runners);
            settled(&datapath, &program, &pair.probes, &reader);
        }
        reader.done.store(true, SeqCst);
        reading.join().expect("no event tells of a mixture")
    });
    let [ran, met] = [ran, met].map(AtomicU64::into_inner);
    println!("{ran} packets on two CPUs, {flips} generations, {met} calls met one");
    println!("events: {told:?}");
    assert!(["new", "denied", "rejudged", "revoked"].iter().all(|kind| told[kind] > 0));
}

fn program(reports: &[ProgramReport]) -> ProgramFd {
    let mut programs = programs(reports).expect("given out");
    programs.remove(TC_FROM_ENDPOINT).expect("loaded")
}
