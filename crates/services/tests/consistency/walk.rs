//! A random walk of changes and packets.

use std::{
    collections::HashMap,
    fmt,
    net::{IpAddr, Ipv4Addr},
    ops::AddAssign,
    time::Duration,
};

use flowgate_abi::{DropReason, lb::Settings};
use flowgate_conformance::generate::Generator;
use flowgate_services::{
    Balancer, ClientFlow, Services, TableSize, Uplink,
    host::HostTables,
    life::Stage,
    model::{Backend, BackendId, BackendState, HashMode, Protocol, Service},
    store::Room,
};

use crate::flow::{self, Live};

/// In what a walk takes place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct World {
    pub(crate) protocol: Protocol,
    /// Entries that there is room for.
    pub(crate) cells: u32,
    /// Slots are chosen by the client's address alone.
    pub(crate) by_source: bool,
    /// Clients keep their backends.
    pub(crate) affinity: bool,
}

/// What happened.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) opened: u64,
    pub(crate) packets: u64,
    /// Handshakes that tried once more.
    pub(crate) retried: u64,
    /// Flows of the same name as one that was closing.
    pub(crate) reopened: u64,
    pub(crate) changes: u64,
    /// Flows whose backend was taken out.
    pub(crate) lost: u64,
    /// Entries that were made, and that found no room.
    pub(crate) tracked: u64,
    pub(crate) refused: u64,
    /// Times that a slot was asked about, by its stage.
    pub(crate) asked: [u64; 4],
}

impl AddAssign for Seen {
    fn add_assign(&mut self, other: Self) {
        self.opened += other.opened;
        self.packets += other.packets;
        self.retried += other.retried;
        self.reopened += other.reopened;
        self.changes += other.changes;
        self.lost += other.lost;
        self.tracked += other.tracked;
        self.refused += other.refused;
        self.asked.iter_mut().zip(other.asked).for_each(|(sum, more)| *sum += more);
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { opened, packets, retried, reopened, changes, lost, tracked, refused, asked } =
            self;
        write!(
            f,
            "{opened} flows, {packets} packets, {retried} retried handshakes, {reopened} reopened, {changes} changes, {lost} flows lost with their backend, \
             {tracked} entries, {refused} refused, asked in stable/announce/move/settle {asked:?}"
        )
    }
}

/// A walk.
pub(crate) struct Walk {
    generator: Generator,
    world: World,
    balancer: Balancer<HostTables>,
    backends: Vec<Backend>,
    /// Backends that were taken out a moment ago and may come back.
    out: Vec<Backend>,
    flows: Vec<Live>,
    /// Each client's backend, and when it was seen.
    clients: HashMap<IpAddr, (BackendId, u64)>,
    /// Milliseconds.
    now: u64,
    addresses: u32,
    log: Vec<String>,
    pub(crate) seen: Seen,
}

/// Milliseconds of an age, and how long flows may be silent.
const AGE: u32 = 1000;
const IDLE: u64 = 20_000;
const CLOSING: u64 = 20_000;
const AFFINITY: u64 = 60_000;
/// For how long a handshake retries, at the least.
const HANDSHAKE: u64 = 3500;

pub(crate) fn tables(cells: u32, slots: u32) -> HostTables {
    let settings = Settings {
        fragment_seed: 1,
        displacement_mask: 7,
        frontend_shift: 32 - 4,
        tracked_mask: cells / 8 - 1,
        fragment_timeout: 1000,
        hz: 1000,
        errors_per_second: 10,
        age_length: AGE,
        pin_mask: 31,
        ..Settings::default()
    };
    let room = Room {
        frontends: 16,
        slots,
        lines: 4096,
        services: 4,
        tracked: cells,
        pins: 256,
        ..Room::default()
    };
    HostTables::new(settings, room)
}

impl Walk {
    pub(crate) fn new(seed: u64, world: World) -> Self {
        let Ok(balancer) = Balancer::adopt(tables(world.cells, 1024), Uplink::default(), seed);
        let mut walk = Self {
            generator: Generator::new(seed),
            world,
            balancer,
            backends: vec![],
            out: vec![],
            flows: vec![],
            clients: HashMap::new(),
            now: 0,
            addresses: 0,
            log: vec![format!("seed {seed}")],
            seen: Seen::default(),
        };
        let count = 1 + walk.generator.below(6);
        (0..count).for_each(|_| walk.come());
        walk.apply();
        walk
    }

    pub(crate) fn go(&mut self) {
        for _ in 0..400 {
            self.step();
            self.check();
        }
    }

    fn step(&mut self) {
        match self.generator.below(20) {
            0 => self.change(),
            1..=3 => self.pass_time(),
            4..=9 => self.open(),
            10 => self.close(),
            11 => self.open_again(),
            12 => self.reopen(),
            _ => self.go_on(),
        }
    }

    fn note(&mut self, what: String) {
        self.log.push(format!("{:>8} {what}", self.now));
    }

    fn come(&mut self) {
        self.addresses += 1;
        let address = Ipv4Addr::from(0xc612_0000 + self.addresses);
        let weight = 1 + self.generator.below(3) as u16;
        self.backends.push(Backend::new(address.into()).weight(weight));
    }

    fn change(&mut self) {
        let which = self.generator.below(self.backends.len().max(1) as u64) as usize;
        match self.generator.below(8) {
            0 | 1 => self.come(),
            2 if !self.backends.is_empty() => self.out.push(self.backends.remove(which)),
            // The same address, another backend: nothing of what it had is there any more.
            3 if !self.out.is_empty() => self.backends.extend(self.out.pop()),
            4 if !self.backends.is_empty() => {
                let weight = 1 + self.generator.below(4) as u16;
                self.backends[which].weight = weight;
            }
            _ if !self.backends.is_empty() => {
                let states = [
                    BackendState::Active,
                    BackendState::Active,
                    BackendState::Draining,
                    BackendState::Quarantined,
                    BackendState::Terminating,
                ];
                self.backends[which].state = states[self.generator.below(5) as usize];
            }
            _ => self.come(),
        }
        self.apply();
    }

    fn apply(&mut self) {
        self.seen.changes += 1;
        let mut service = Service::new("service", self.world.protocol, flow::PORT)
            .address(flow::SERVICE)
            .table(TableSize::ALL[0]);
        service.backends.clone_from(&self.backends);
        service.options.idle = Some(Duration::from_millis(IDLE));
        if self.world.by_source {
            service.options.hash = HashMode::Source;
        }
        service.options.affinity = self.world.affinity.then(|| Duration::from_millis(AFFINITY));
        let services = Services::new([service]).expect("a good service");
        let time = Duration::from_millis(self.now);
        let applied = self.balancer.apply(&services, time).expect("it fits");
        let backends: Vec<String> = self
            .backends
            .iter()
            .map(|b| format!("{} {} {:?}", b.address, b.weight, b.state))
            .collect();
        self.note(format!("apply [{}]: {:?}", backends.join(", "), applied.slots));
        let is_there = |id: BackendId| self.backends.iter().any(|backend| backend.id() == id);
        let before = self.flows.len();
        self.flows.retain(|live| is_there(live.backend));
        self.seen.lost += (before - self.flows.len()) as u64;
        self.clients.retain(|_, (backend, _)| is_there(*backend));
    }

    /// Time passes, mostly as an embedder lets it: a tick a second. Now and then nobody ticks for a while.
    fn pass_time(&mut self) {
        let passes = [10, 500, 1000, 4000, 9000][self.generator.below(5) as usize];
        let each = if self.generator.below(8) == 0 { passes } else { passes.min(1000) };
        for _ in 0..passes / each {
            self.now += each;
            let Ok(ticked) = self.balancer.tick(Duration::from_millis(self.now));
            self.note(format!("tick: {ticked:?}"));
        }
        let now = self.now;
        self.flows.retain(|live| {
            let patience = if live.closing { CLOSING } else { IDLE };
            now - live.seen < patience
        });
    }

    /// A flow opens, of a client that may have had another one of the same name.
    fn open(&mut self) {
        let flow = flow::client(self.generator.below(300) as u32, self.world.protocol);
        if self.flows.iter().any(|live| live.flow == flow) {
            return;
        }
        self.open_flow(flow);
    }

    fn open_flow(&mut self, flow: ClientFlow) {
        let sent = flow::send(self.balancer.store(), &flow, flow::OPEN);
        self.note(format!("open {}:{} -> {sent:?}", flow.client, flow.port));
        self.stays(&flow, (sent, true));
        match sent {
            Ok(backend) => {
                self.seen.opened += 1;
                let now = self.now;
                self.flows.push(Live {
                    flow,
                    backend,
                    opened: now,
                    opening: true,
                    seen: now,
                    closing: false,
                });
            }
            Err(reason) => {
                assert_eq!(reason, DropReason::NoBackend);
                let takes = |state| self.backends.iter().any(|backend| backend.state == state);
                let nobody = !takes(BackendState::Active) && !takes(BackendState::Terminating);
                // Whoever still waits for its announcement is nobody's yet.
                assert!(nobody || self.is_under_way(&flow), "{}", self.log());
            }
        }
    }

    /// A SYN is sent once more, since its answer was lost. One for whose entry there was no room may get
    /// another backend then: nobody has answered it yet.
    fn open_again(&mut self) {
        let remembered = |live: &Live| {
            let explained = self.balancer.explain(&live.flow).expect("a flow of the service");
            explained.entry.is_some() || explained.stage != Stage::Move
        };
        let fresh =
            |live: &Live| live.opening && self.now - live.opened < HANDSHAKE && remembered(live);
        let fresh: Vec<usize> = (0..self.flows.len()).filter(|n| fresh(&self.flows[*n])).collect();
        if !fresh.is_empty() {
            let index = fresh[self.generator.below(fresh.len() as u64) as usize];
            self.seen.retried += 1;
            if self.says_that_it_opens() && self.fails(self.flows[index].backend) {
                self.open_anew(index);
            } else {
                self.send(index, flow::OPEN);
            }
        }
    }

    /// A client uses the name of a flow that it has closed for another one.
    fn reopen(&mut self) {
        let closing = |index: &usize| self.flows[*index].closing && self.says_that_it_opens();
        let closing: Vec<usize> = (0..self.flows.len()).filter(closing).collect();
        if !closing.is_empty() {
            let index = closing[self.generator.below(closing.len() as u64) as usize];
            self.open_anew(index);
            self.seen.reopened += 1;
        }
    }

    /// A SYN that need not go where earlier packets of this name went. If its entry knows that, it goes where
    /// that of any other flow of the slot goes; an entry that was made after the end doesn't.
    fn open_anew(&mut self, index: usize) {
        let old = self.flows.remove(index);
        let explained = self.balancer.explain(&old.flow).expect("a flow of the service");
        self.open_flow(old.flow);
        let Some(live) = self.flows.last().filter(|live| live.flow == old.flow) else { return };
        let goes = Some(live.backend);
        let is_right = explained.entry.is_none()
            || self.world.affinity
            || goes == explained.fresh
            || (old.closing && goes == explained.entry);
        assert!(is_right, "{explained:?}, {goes:?}\n{}", self.log());
    }

    fn says_that_it_opens(&self) -> bool {
        self.world.protocol == Protocol::Tcp
    }

    fn fails(&self, id: BackendId) -> bool {
        let fails = |backend: &&Backend| backend.state == BackendState::Quarantined;
        self.backends.iter().filter(fails).any(|backend| backend.id() == id)
    }

    fn is_under_way(&self, flow: &ClientFlow) -> bool {
        let explained = self.balancer.explain(flow).expect("a flow of the service");
        explained.stage != Stage::Stable || explained.target != explained.default
    }

    fn go_on(&mut self) {
        self.packet(flow::GO_ON);
    }

    fn close(&mut self) {
        if let Some(index) = self.packet(flow::CLOSE) {
            self.flows[index].closing = true;
        }
    }

    /// A packet of some live flow.
    fn packet(&mut self, flags: u8) -> Option<usize> {
        if self.flows.is_empty() {
            return None;
        }
        let index = self.generator.below(self.flows.len() as u64) as usize;
        self.send(index, flags);
        self.seen.packets += 1;
        self.flows[index].seen = self.now;
        self.flows[index].opening = false;
        Some(index)
    }

    fn send(&mut self, index: usize, flags: u8) {
        let live = self.flows[index];
        let sent = flow::send(self.balancer.store(), &live.flow, flags);
        self.note(format!("packet {}:{} -> {sent:?}", live.flow.client, live.flow.port));
        assert_eq!(sent, Ok(live.backend), "{:?} is broken\n{}", live.flow, self.log());
        self.stays(&live.flow, (sent, flags == flow::OPEN));
    }

    /// With affinity: a client that wasn't silent for too long keeps its backend, unless that fails and the
    /// client opens another flow. Then all of its flows go along.
    fn stays(&mut self, flow: &ClientFlow, (sent, opens): (Result<BackendId, DropReason>, bool)) {
        if !self.world.affinity {
            return;
        }
        let known = self.clients.get(&flow.client).filter(|(_, seen)| self.now - seen < AFFINITY);
        let opens = opens && self.says_that_it_opens();
        let known = known.map(|(backend, _)| *backend).filter(|id| !(opens && self.fails(*id)));
        let stays = known.is_none_or(|backend| sent == Ok(backend));
        assert!(stays, "{} had {known:?}\n{}", flow.client, self.log());
        let Ok(backend) = sent else { return };
        self.clients.insert(flow.client, (backend, self.now));
        let of_client = self.flows.iter_mut().filter(|live| live.flow.client == flow.client);
        of_client.for_each(|live| live.backend = backend);
    }

    /// Both invariants, for every live flow.
    fn check(&mut self) {
        for live in &self.flows {
            let explained = self.balancer.explain(&live.flow).expect("a flow of the service");
            self.seen.asked[explained.stage as usize] += 1;
            let backend = Some(live.backend);
            let holds = match (explained.pin, explained.entry) {
                _ if self.world.affinity => explained.pin == backend,
                (None, Some(_)) => explained.entry == backend,
                (None, None) => explained.default == backend,
                (Some(_), _) => false,
            };
            assert!(holds, "{:?}: {explained:?}, not {backend:?}\n{}", live.flow, self.log());
        }
        let stats = self.balancer.stats().expect("host tables");
        self.seen.tracked = stats[0].total().tracked.max(self.seen.tracked);
        self.seen.refused = stats[0].refused;
    }

    fn log(&self) -> String {
        self.log.join("\n")
    }
}
