//! Marks of the balancer's buckets hold what they say, however packets and sweeps meet.
//!
//! Two CPUs run packets through the loaded program without pause (`BPF_PROG_TEST_RUN`): flows open, stay for a while and
//! close, in waves, so that buckets fill and empty. A third thread lets time pass: entries expire, cells are freed, marks
//! are left and cleared. All slots move, so every flow that opens has another backend than its slot's default: whoever
//! loses its entry, or gets a second one, shows at the other backend. With nothing under way the table is read: behind
//! whichever bucket an entry lies, that is marked.
//!
//! A flow is of one CPU, as receive queues have it. Time is a number here: the next age begins when both CPUs have met
//! every flow since the last one, so how fast anything is decides nothing.
//!
//! Not here: what every single interleaving of few steps does (`interleavings` in `flowgate-services`).
//!
//! Privileged: without the capabilities, the tests say so in one line and are skipped.

use std::{
    net::IpAddr,
    ops::Range,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};

use aya::{
    maps::{Array, Map, MapData, MapInfo},
    programs::{ProgramFd, loaded_programs},
};
use flowgate_abi::lb::{CELLS, MARK, Tracked};
use flowgate_benches::{
    balancing::{FrameDriver, TRANSMITTED},
    course::Course,
    cpus,
    packets::Packet,
    rig::loaded,
};
use flowgate_conformance::frames::{Frame, tcp};
use flowgate_datapath::lb::{BalancerOptions, LoadBalancer};
use flowgate_ebpf_progs::lb::XDP_BALANCE;
use flowgate_pipeline::lb::tracking::passed;
use flowgate_policy::outcome::{Flow, FlowProtocol};
use flowgate_services::{
    ServiceStats, Services, TableSize, Traffic,
    model::{Backend, BackendState, Service},
};

/// Buckets of the table.
const BUCKETS: usize = 512;
/// How much of the clock an age takes. The longest idle time, a slot's way, is 32 of it; a closing flow's, four.
const AGE: Duration = Duration::from_secs(30);
const IDLE: Duration = Duration::from_secs(32 * 30);
/// Bytes of a tunnel's header.
const GROWN: usize = 20;
/// Times that all slots move to the other backend.
const TURNS: u8 = 4;
/// Times within an age that some flows open, some close, and all are met.
const PIECES: u16 = 8;

fn backend(last: u8) -> Backend {
    Backend::new(IpAddr::from([198, 18, 0, last]))
}

/// A service of two backends, of which one takes new flows.
fn services(active: usize) -> Services {
    let mut service = Service::tcp("web", 80).address(IpAddr::from([198, 51, 100, 1]));
    service = service.table(TableSize::ALL[0]);
    service.options.idle = Some(IDLE);
    for (index, last) in [1, 2].into_iter().enumerate() {
        let state = if index == active { BackendState::Active } else { BackendState::Draining };
        service = service.backend(backend(last).state(state));
    }
    Services::new([service]).expect("a good service")
}

/// A balancer whose time is counted.
struct Balancer {
    lb: LoadBalancer,
    now: Instant,
    program: ProgramFd,
    tracked: Array<MapData, [u64; CELLS]>,
}

impl Balancer {
    fn open() -> Self {
        let options = BalancerOptions {
            slots: 1 << 12,
            lines: 64,
            services: 1,
            tracked: BUCKETS * CELLS * 3 / 4,
            longest_idle: IDLE,
            ..BalancerOptions::default()
        };
        let mut lb = LoadBalancer::builder().options(options).open().expect("opens");
        let now = Instant::now();
        let _ = lb.apply(&services(0), now).expect("it fits");
        let id = lb.report().programs.iter().find(|program| program.name == XDP_BALANCE);
        let id = id.expect("it is loaded").id;
        let program = loaded(id).expect("given out");
        Self { lb, now, program, tracked: tracked(id) }
    }

    fn stats(&self) -> ServiceStats {
        self.lb.stats().expect("readable").services.remove(0)
    }

    /// An age passes.
    fn tick(&mut self) {
        self.now += AGE;
        let _ = self.lb.tick(self.now).expect("it ticks");
    }

    /// Has new flows go to one of both backends; returns when all slots move.
    fn turn_to(&mut self, active: usize) {
        let _ = self.lb.apply(&services(active), self.now).expect("it fits");
        while self.stats().moving != [0, self.stats().slots, 0] {
            self.tick();
        }
    }

    fn is_stable(&self) -> bool {
        self.stats().moving == [0; 3] && self.stats().staged == 0
    }

    /// The table, with nothing under way.
    fn table(&self) -> Table {
        let buckets = self.tracked.iter().map(|bucket| bucket.expect("readable"));
        let table = Table(buckets.collect());
        assert_eq!(table.0.len(), BUCKETS);
        table
    }

    /// Ages pass until nothing is left of what was. Two sweeps running take what an earlier one has left.
    fn empties(&mut self) {
        while !self.is_stable() {
            self.tick();
        }
        (0..3).for_each(|_| self.tick());
        let left: Vec<_> = self.table().words().filter(|word| word.0 != 0).collect();
        assert_eq!(left, [], "neither entries nor marks");
    }
}

/// The table of a loaded program.
fn tracked(program: u32) -> Array<MapData, [u64; CELLS]> {
    let mut all = loaded_programs().filter_map(Result::ok);
    let info = all.find(|info| info.id() == program).expect("it is loaded");
    let maps = info.map_ids().expect("readable").expect("the kernel tells");
    let is_tracked = |id: &u32| {
        let info = MapInfo::from_id(*id).expect("readable");
        info.name_as_str() == Some("TRACKED")
    };
    let id = maps.into_iter().find(is_tracked).expect("it has one");
    let map = MapData::from_id(id).expect("given out");
    Array::try_from(Map::Array(map)).expect("buckets")
}

/// The tracked flows as they lie.
struct Table(Vec<[u64; CELLS]>);

impl Table {
    fn words(&self) -> impl Iterator<Item = Tracked> {
        self.0.iter().flatten().copied().map(Tracked)
    }

    fn entries(&self) -> usize {
        self.words().filter(|word| word.is_taken()).count()
    }

    fn marks(&self) -> usize {
        self.0.iter().filter(|bucket| bucket[MARK] != 0).count()
    }

    /// All of an entry's buckets before the one in which it lies are marked; returns how many lie behind their first.
    fn check(&self) -> usize {
        let mut elsewhere = 0;
        for (index, bucket) in (0..).zip(&self.0) {
            let entries = bucket.iter().copied().map(Tracked);
            for entry in entries.filter(|entry| entry.is_taken() && !entry.is_in_first()) {
                elsewhere += 1;
                // Its first bucket, if it lies in its second; its first and its second, if it lies in its third.
                let marks = passed(entry, index, BUCKETS as u32 - 1);
                let [one, other, third] = marks.map(|bucket| self.0[bucket as usize][MARK] != 0);
                assert!(one || other && third, "{entry:x?} in {index} is behind no mark");
            }
        }
        elsewhere
    }
}

/// A CPU's clients: their flows, by the number that is their port.
struct Clients {
    cpu: usize,
    driver: FrameDriver,
    program: ProgramFd,
    /// What tells their flows from others'.
    address: [u8; 4],
    /// Those that live.
    live: Range<u16>,
}

impl Clients {
    fn new(cpu: usize, balancer: &Balancer, address: [u8; 4]) -> Self {
        let program = balancer.program.try_clone().expect("there is room for a descriptor");
        let driver = FrameDriver::load().expect("loads");
        Self { cpu, driver, program, address, live: 0..0 }
    }

    /// A packet of each of some flows.
    fn send(&mut self, flows: Range<u16>, flags: u8) {
        if flows.is_empty() {
            return;
        }
        let flow = Flow {
            source: IpAddr::from(self.address),
            destination: IpAddr::from([198, 51, 100, 1]),
            protocol: FlowProtocol::Tcp(80),
        };
        let frame = Frame::opening(flow, flows.start + 1).flags(flags);
        let course = Course::of(&Packet::new(&Frame { payload: 64, ..frame }), flows.len());
        let course = Course { grown: GROWN, ..course };
        let fates = self.driver.run_each(&self.program, &course, flows.len() as u32);
        assert!(fates.expect("it runs").iter().all(|fate| *fate == TRANSMITTED));
    }

    /// Some flows open.
    fn open(&mut self, count: u16) {
        let opened = self.live.end..self.live.end + count;
        self.live.end = opened.end;
        self.send(opened, tcp::SYN);
    }

    /// All that live are met.
    fn hold(&mut self) {
        self.send(self.live.clone(), tcp::ACK);
    }

    /// The oldest of them close.
    fn close(&mut self, count: u16) {
        let closed = self.live.start..self.live.start + count.min(self.live.len() as u16);
        self.live.start = closed.end;
        self.send(closed, tcp::FIN | tcp::ACK);
    }

    /// An age of a wave that comes and goes: what is done during one, and again until it is over.
    fn live_through(&mut self, age: u64) {
        let rises = age % 16 < 8;
        for _ in 0..PIECES {
            self.open(if rises { 20 } else { 2 });
            self.close(if rises { 4 } else { 25 });
            self.hold();
        }
    }
}

/// Two CPUs in namespaces of their own; `None`: they can't be had here, which is said once.
fn cpus() -> Option<([usize; 2], flowgate_lab::Node)> {
    if let Err(missing) = flowgate_lab::available() {
        println!("SKIPPED: {missing}");
        return None;
    }
    let cpus = cpus::two();
    if cpus.is_none() {
        println!("SKIPPED: two CPUs are needed");
    }
    Some((cpus?, flowgate_lab::Node::enter().expect("namespaces of its own")))
}

/// How far the threads are, in ages.
#[derive(Default)]
struct Ages {
    now: AtomicU64,
    lived: [AtomicU64; 2],
    over: AtomicBool,
}

/// Lets the others end, whatever happens.
struct Over<'a>(&'a Ages);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, SeqCst);
    }
}

impl Ages {
    /// What a CPU does until all is over: flows come and go once in an age, and all are met the whole time.
    fn run(&self, clients: &mut Clients, lived: &AtomicU64) {
        cpus::pin_to(clients.cpu);
        while !self.over.load(SeqCst) {
            let age = lived.load(SeqCst);
            if age < self.now.load(SeqCst) {
                clients.live_through(age);
                lived.store(age + 1, SeqCst);
            }
            clients.hold();
        }
    }

    /// The next age begins while packets run, and has been lived through on both CPUs.
    fn next(&self, balancer: &mut Balancer, is_running: impl Fn() -> bool) {
        let age = self.now.fetch_add(1, SeqCst) + 1;
        balancer.tick();
        while self.lived.iter().any(|lived| lived.load(SeqCst) < age) {
            assert!(is_running(), "a CPU found something");
            thread::yield_now();
        }
    }
}

/// Three ages, while packets run on both CPUs.
fn three_ages(balancer: &mut Balancer, clients: &mut [Clients; 2], ages: &mut Ages) {
    ages.over = AtomicBool::new(false);
    let ages = &*ages;
    thread::scope(|scope| {
        let _over = Over(ages);
        let both = clients.iter_mut().zip(&ages.lived);
        let running: Vec<_> =
            both.map(|(clients, lived)| scope.spawn(|| ages.run(clients, lived))).collect();
        let is_running = || !running.iter().any(thread::ScopedJoinHandle::is_finished);
        (0..3).for_each(|_| ages.next(balancer, is_running));
    });
}

/// Clients of both CPUs, of whom nobody has heard.
fn clients(balancer: &Balancer, cpus: [usize; 2], turn: u8) -> [Clients; 2] {
    [0, 1].map(|n| Clients::new(cpus[usize::from(n)], balancer, [203, 0, 113, 2 * turn + n]))
}

/// What was seen of the table while all slots moved once.
#[derive(Debug, Default)]
struct Seen {
    entries: usize,
    elsewhere: usize,
    /// Of the fewest and of the most buckets.
    marks: Option<[usize; 2]>,
}

impl Seen {
    fn look(&mut self, table: &Table) {
        let marks = table.marks();
        let [fewest, most] = self.marks.unwrap_or([marks; 2]);
        self.marks = Some([fewest.min(marks), most.max(marks)]);
        self.entries = self.entries.max(table.entries());
        self.elsewhere = self.elsewhere.max(table.check());
    }

    /// Buckets were passed by, and marks came and went.
    fn is_enough(&self) -> bool {
        self.elsewhere > 100 && self.marks.is_some_and(|[fewest, most]| fewest + 100 < most)
    }
}

/// What both backends got and how many entries found no room, between two moments.
#[derive(Debug)]
struct Got {
    default: Traffic,
    fresh: Traffic,
    refused: u64,
}

impl Got {
    fn between(before: &ServiceStats, after: &ServiceStats, fresh: usize) -> Self {
        let [default, fresh] = [1 - fresh, fresh].map(|index| {
            let (before, after) = (before.backends[index].1, after.backends[index].1);
            let mut got = after;
            got.packets -= before.packets;
            got.opened -= before.opened;
            got.tracked -= before.tracked;
            got
        });
        Self { default, fresh, refused: after.refused - before.refused }
    }
}

#[test]
fn flows_keep_their_entries_while_marks_come_and_go() {
    let Some((cpus, _node)) = cpus() else { return };
    let mut balancer = Balancer::open();
    let mut whole = 0;
    for turn in 1..=TURNS {
        let fresh = usize::from(turn % 2);
        balancer.turn_to(fresh);
        let before = balancer.stats();
        let (mut clients, mut ages) = (clients(&balancer, cpus, turn), Ages::default());
        let mut seen = Seen::default();
        while !balancer.is_stable() {
            three_ages(&mut balancer, &mut clients, &mut ages);
            seen.look(&balancer.table());
        }
        let got = Got::between(&before, &balancer.stats(), fresh);
        println!("{seen:?}, {got:?}");
        assert!(seen.is_enough(), "{seen:?}");
        assert!(got.fresh.tracked <= got.fresh.opened, "a flow has a second entry: {got:?}");
        // Two packets may want the last cell of a bucket at once; slots go back then, and the default is nobody's fault.
        if got.refused == 0 {
            assert_eq!(got.default.packets, 0, "a flow has lost its entry: {got:?}");
            whole += 1;
        }
        balancer.empties();
    }
    assert!(whole * 2 >= TURNS, "there is room, and entries are refused");
}

#[test]
fn what_finds_no_room_is_counted_and_nothing_is_lost() {
    let Some((cpus, _node)) = cpus() else { return };
    let mut balancer = Balancer::open();
    balancer.turn_to(1);
    let before = balancer.stats();
    let flows = (BUCKETS * CELLS * 3 / 4) as u16;
    thread::scope(|scope| {
        for mut clients in clients(&balancer, cpus, 0) {
            scope.spawn(move || {
                cpus::pin_to(clients.cpu);
                clients.open(flows);
            });
        }
    });
    let (table, got) = (balancer.table(), Got::between(&before, &balancer.stats(), 1));
    println!("{} entries, {} elsewhere, {got:?}", table.entries(), table.check());
    assert_eq!(got.fresh.packets + got.default.packets, 2 * u64::from(flows));
    assert_eq!(got.fresh.packets, got.fresh.tracked, "who has the fresh backend has an entry");
    assert_eq!(got.default.packets, got.refused, "and all others were refused");
    assert_eq!(table.entries() as u64, got.fresh.tracked, "no entry took another one's cell");
    assert!(table.entries() * 10 > BUCKETS * CELLS * 9, "the table is full");
    balancer.empties();
}
