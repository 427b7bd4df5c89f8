//! Taking over what an earlier process left in the tables.
//!
//! Everything that packets need is there; names, weights and states aren't. So a service is known by its
//! frontends until it is applied again, and its slots' fresh backends stand for its target until then.
//!
//! Invariant: nothing that packets see is changed by being adopted.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use flowgate_abi::{
    Addr6, Be16,
    lb::{Backend as Line, Frontend as Entry, Kind, Lines, SLOTS, Sources, Tail, Target},
};
use zerocopy::IntoBytes;

use crate::{
    Services, TableSize, Uplink,
    balancer::{Balancer, Retired},
    clock::Clock,
    directory::Directory,
    header::Inner,
    model::{
        Backend, BackendId, Forwarding, Fragments, Frontend, HashMode, Protocol, QuicServers,
        Service, ServiceName, TcpServers,
    },
    nat,
    places::Places,
    ranges::{Range, Ranges},
    running::Running,
    server_ids,
    sources::{self, Placed},
    store::Store,
};

impl<S: Store> Balancer<S> {
    /// Over tables: empty ones, or those that an earlier process left. `seed` decides which of equal
    /// backends a flow gets; balancers that share traffic have the same.
    ///
    /// # Errors
    /// The kernel refused to wait for packets under way.
    pub fn adopt(mut store: S, uplink: Uplink, seed: u64) -> Result<Self, S::Error> {
        // Packets may be under way that go by what the earlier process wrote last.
        store.wait()?;
        let room = store.room();
        let directory = Directory::adopt(&mut store);
        let mut balancer = Self {
            clock: Clock::adopt(store.head(), store.settings()),
            ports: nat::Ports { places: Places::adopt(&store), ..nat::Ports::default() },
            uplink,
            seed,
            services: Services::default(),
            running: BTreeMap::new(),
            slots: Ranges::new(room.slots, SLOTS as u32),
            lines: Ranges::new(room.lines, 1),
            sources: Ranges::new(room.sources, 1),
            numbers: (0..room.services).collect(),
            retired: Retired::default(),
            marks: Default::default(),
            unswept: true,
            directory,
            store,
        };
        balancer.find_services();
        Ok(balancer)
    }

    /// Services that were adopted and not applied since.
    pub fn adopted(&self) -> usize {
        self.running.keys().filter(|name| is_adopted(name)).count()
    }

    fn find_services(&mut self) {
        let mut by_service: BTreeMap<u32, Vec<Entry>> = BTreeMap::new();
        for (_, index) in self.directory.iter() {
            let entry = self.store.frontend(index);
            if entry.size != 0 {
                by_service.entry(entry.service).or_default().push(entry);
            }
        }
        for (number, entries) in by_service {
            if let Some(running) = self.take_over(number, &entries) {
                self.running.insert(running.service.name.clone(), running);
            }
        }
    }

    /// A service by its frontends; `None`: they contradict each other, which no process has written.
    fn take_over(&mut self, number: u32, entries: &[Entry]) -> Option<Running> {
        let first = entries.first()?;
        let size = TableSize::new(first.size)?;
        let length = server_ids::room(size, first.flags.load());
        let slots = Range { start: first.slots, length };
        let (lines, sources) = (self.find_lines(entries)?, self.find_sources(entries)?);
        if !self.slots.claim(slots) || !self.numbers.remove(&number) {
            return None;
        }
        let service = self.reconstruct(number, entries, &lines);
        let mut running = Running::new(Arc::new(service), (number, size), slots, lines);
        running.refused = self.store.refused(number);
        running.flags = entries[0].flags.load();
        running.sources = sources;
        self.find_members(&mut running);
        running.find_slots(&self.store, self.clock.now());
        Some(running)
    }

    /// Where a service's lines lie. A process that was killed while it moved them has told some frontends
    /// and others not: both places are good, and from now on one is enough.
    fn find_lines(&mut self, entries: &[Entry]) -> Option<BTreeMap<Inner, Range>> {
        let mut found: BTreeMap<Inner, Range> = BTreeMap::new();
        for entry in entries {
            let inner = Inner::of(address(&entry.target));
            let lines = Lines(entry.lines.load());
            let range = Range { start: lines.start(), length: lines.count() };
            let known = *found.entry(inner).or_insert(range);
            if known != range && self.lines.claim(range) {
                self.retired.lines.push(range);
            }
            let index = self.directory.find(&self.store, &entry.target)?;
            self.store.set_frontend_words(index, known.as_lines(), entry.flags.load());
        }
        found.values().all(|range| self.lines.claim(*range)).then_some(found)
    }

    /// Where a service's source ranges lie, likewise. One that has told some frontends of the first ranges
    /// of all has told them all.
    fn find_sources(&mut self, entries: &[Entry]) -> Option<Placed> {
        let mut found = Placed::new();
        for entry in entries {
            let word = Sources(entry.sources.load());
            if word != Sources::default() {
                let known = *found.entry(Inner::of(address(&entry.target))).or_insert(word);
                if known != word && self.sources.claim(sources::range(word)) {
                    self.retired.sources.push(sources::range(word));
                }
            }
        }
        for entry in entries {
            let known = found.get(&Inner::of(address(&entry.target))).copied();
            let index = self.directory.find(&self.store, &entry.target)?;
            self.store.set_frontend_sources(index, known.unwrap_or_default());
        }
        found.values().all(|word| self.sources.claim(sources::range(*word))).then_some(found)
    }

    /// What is known of a service.
    fn reconstruct(
        &self,
        number: u32,
        entries: &[Entry],
        lines: &BTreeMap<Inner, Range>,
    ) -> Service {
        let first = &entries[0].target;
        let protocol = if first.kind >> 16 & 0xff == 6 { Protocol::Tcp } else { Protocol::Udp };
        let port = Be16::from_raw(first.kind as u16).get();
        let mut service = Service::new(format!("{ADOPTED}{number}"), protocol, port);
        service.addresses = entries.iter().map(|entry| address(&entry.target)).collect();
        let flags = entries[0].flags.load();
        if flags & Entry::HASH_SOURCE != 0 {
            service.options.hash = HashMode::Source;
        }
        if flags & Entry::HASH_PORT != 0 {
            service.options.hash = HashMode::DestinationPort;
        }
        if flags & Entry::FRAGMENTS != 0 {
            service.options.fragments = Fragments::Track;
        }
        if flags & Entry::SNAT != 0 {
            service.forwarding = Forwarding::Snat;
        }
        if flags & Entry::AFFINITY != 0 {
            // The longest of those whose pins have ages of this length.
            service.options.affinity = Some(Duration::from_millis(31 << Entry::pin_shift(flags)));
        }
        service.options.quic = QuicServers::of(flags);
        service.options.tcp_option = TcpServers::of(flags);
        let mut known = BTreeSet::new();
        for line in lines.values().flat_map(Range::elements) {
            let line = self.store.backend(line);
            let Some((id, forwarding)) = identity(&line) else { continue };
            service.forwarding = forwarding;
            if !is_gone(&line) && known.insert(id) {
                service.backends.push(Backend::new(id.address).port(id.port));
            }
        }
        service
    }

    fn find_members(&self, running: &mut Running) {
        let Some(range) = running.lines.values().next().copied() else { return };
        for number in 1..range.length {
            let line = self.store.backend(range.start + number);
            match identity(&line) {
                _ if is_gone(&line) => running.members.set_gone(number),
                Some((id, _)) => running.members.place(id, number),
                None => {}
            }
        }
    }

    /// Gives services that were adopted the names of those that have their frontends now.
    pub(crate) fn claim(&mut self, services: &Services) {
        let by_frontend: BTreeMap<Frontend, &ServiceName> = services
            .iter()
            .flat_map(|service| service.frontends().map(move |frontend| (frontend, &service.name)))
            .collect();
        let adopted: Vec<ServiceName> =
            self.running.keys().filter(|name| is_adopted(name)).cloned().collect();
        for name in adopted {
            let Some(running) = self.running.get(&name) else { continue };
            let owner = running.service.frontends().find_map(|frontend| by_frontend.get(&frontend));
            let Some(&owner) = owner.filter(|owner| !self.running.contains_key(owner)) else {
                continue;
            };
            if let Some(running) = self.running.remove(&name) {
                self.running.insert(owner.clone(), running);
            }
        }
    }
}

impl Running {
    /// Slots whose way was under way, from the beginning of their stage.
    fn find_slots<S: Store>(&mut self, store: &S, now: u64) {
        for slot in 0..self.size.slots() {
            let word = self.slot(store, slot);
            self.target[slot as usize] = word.fresh_backend() as u16;
            if word.bits() != 0 {
                self.moving.insert(slot, now);
            }
        }
    }
}

/// No user's service has such a name.
const ADOPTED: &str = "\0";

fn is_adopted(name: &ServiceName) -> bool {
    name.as_str().starts_with(ADOPTED)
}

fn is_gone(line: &Line) -> bool {
    Tail(line.tail.load()).has(Tail::GONE)
}

fn address(target: &Target) -> IpAddr {
    address_of(target.address, target.kind >> 24 == 4)
}

fn address_of(address: Addr6, is_v4: bool) -> IpAddr {
    let octets = address.octets();
    match octets {
        [a, b, c, d, ..] if is_v4 => IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
        octets => IpAddr::V6(Ipv6Addr::from(octets)),
    }
}

/// Whose line it is.
fn identity(line: &Line) -> Option<(BackendId, Forwarding)> {
    let tail = Tail(line.tail.load());
    let bytes = line.header.as_bytes();
    let v4 = |at: usize| <[u8; 4]>::try_from(&bytes[at..at + 4]).ok().map(IpAddr::from);
    let v6 = |at: usize| <[u8; 16]>::try_from(&bytes[at..at + 16]).ok().map(IpAddr::from);
    let gue = Forwarding::Gue { port: u16::from_be(tail.port()) };
    let (address, forwarding) = match Kind::from_number(tail.kind())? {
        Kind::Nobody => return None,
        Kind::Tunnel4 => (v4(30)?, Forwarding::Tunnel),
        Kind::Tunnel6 => (v6(38)?, Forwarding::Tunnel),
        Kind::Gue4 => (v4(30)?, gue),
        Kind::Gue6 => (v6(38)?, gue),
        Kind::Layer2 if bytes[LAYER2_FAMILY] == 4 => (v4(LAYER2_ADDRESS)?, Forwarding::Layer2),
        Kind::Layer2 => (v6(LAYER2_ADDRESS)?, Forwarding::Layer2),
        Kind::Snat if bytes[LAYER2_FAMILY] == 4 => (v4(LAYER2_ADDRESS)?, Forwarding::Snat),
        Kind::Snat => (v6(LAYER2_ADDRESS)?, Forwarding::Snat),
    };
    let port = if forwarding == Forwarding::Snat { u16::from_be(tail.port()) } else { 0 };
    Some((BackendId { address, port }, forwarding))
}

/// Where a line without an IP header (layer-2 forwarding, full NAT) keeps its backend's address.
///
/// ABI: full NAT reads it there, as two words.
pub(crate) const LAYER2_ADDRESS: usize = 16;
/// And its family.
pub(crate) const LAYER2_FAMILY: usize = 32;
