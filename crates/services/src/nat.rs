//! Full NAT's sources and ports: which addresses packets to backends come from, and when a flow's port is
//! free again.
//!
//! Not here: which port a flow gets, and what its packets become (`flowgate-pipeline`'s `lb::nat`).
//!
//! Invariant: a port is freed only after a grace period in which its flow was over, so no packet under way
//! can still take it for that flow's. Tested by `tests/nat.rs`, the pipeline itself running.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use flowgate_abi::{
    Addr6, Shared32,
    flow::Class,
    lb::{
        Frontend,
        nat::{GROUP, Life, Mapping, Source},
    },
};
use flowgate_pipeline::{conntrack, lb::nat::table::Place};
use thiserror::Error;

use crate::{
    balancer::Balancer,
    clock::{Millis, millis},
    frontends::{address_target, target_of},
    model::{self, Protocol, Service},
    room::ApplyError,
    store::Store,
};

/// How long a flow with a port of a source may be silent. After that its port is free, and its packets are
/// those of no flow.
///
/// While nobody ticks, no flow grows old ([`Balancer::tick`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NatTimeouts {
    /// A connection or datagrams that nobody has answered: 30 s.
    pub opening: Duration,
    /// A connection: 8000 s, a little more than keep-alives of two hours need (RFC 5382, REQ-5).
    pub established: Duration,
    /// Datagrams that were answered: 120 s (RFC 4787, REQ-5).
    pub answered: Duration,
    /// A connection that both ends have closed, or one has reset: 60 s, for as long as a Linux host keeps
    /// an old connection in mind (TIME-WAIT). Shorter: more connections a second for each port, and now and
    /// then one that takes a second longer to open.
    pub closing: Duration,
}

impl Default for NatTimeouts {
    fn default() -> Self {
        Self {
            opening: Duration::from_secs(30),
            established: Duration::from_secs(8000),
            answered: Duration::from_secs(120),
            closing: Duration::from_secs(60),
        }
    }
}

impl NatTimeouts {
    fn is_over(&self, life: Life, now: Millis) -> bool {
        let protocol = if life.is_tcp() { Protocol::Tcp } else { Protocol::Udp };
        let timeout = match conntrack::class(life.state(), protocol.number()) {
            Class::Opening => self.opening,
            Class::Established => self.established,
            Class::Answered => self.answered,
            Class::Closing => self.closing,
        };
        let silent = u64::from(Life::moment(now).wrapping_sub(life.seen())) * Life::UNIT;
        // Both moments were rounded down.
        silent > millis(timeout) + Life::UNIT
    }
}

/// Why addresses can't be sources.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SourcesError {
    /// The tables were made for other ones, and flows have their ports.
    #[error(
        "the balancer's NAT runs with other sources ({was:?}): open it with those, or afresh, which ends its flows"
    )]
    Changed {
        /// The sources that it has.
        was: Vec<IpAddr>,
    },
    /// An address is listed twice.
    #[error("source {address} is listed twice")]
    Duplicate {
        /// The address.
        address: IpAddr,
    },
    /// There are more than the tables were made for.
    #[error("{sources} sources, room for {have}")]
    TooMany {
        /// How many.
        sources: usize,
        /// Room for so many.
        have: usize,
    },
    /// It can't be hashed beside the frontends that are there.
    #[error("source {address} can't be hashed beside the frontends: use another one")]
    Collision {
        /// The address.
        address: IpAddr,
    },
}

/// What the balancer knows of sources and ports.
#[derive(Debug, Default)]
pub(crate) struct Ports {
    sources: BTreeSet<IpAddr>,
    pub(crate) timeouts: NatTimeouts,
}

impl Ports {
    /// Full NAT has no source.
    pub(crate) fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    /// Frontends that sources take: for either protocol, and the address as such.
    pub(crate) fn frontends(&self) -> usize {
        self.sources.len() * 3
    }

    /// Ends flows that are over, and frees the ports of those that ended; how many are taken.
    pub(crate) fn sweep<S: Store>(&self, store: &mut S, now: Millis) -> Result<usize, S::Error> {
        let mut taken = 0;
        let mut over = Vec::new();
        let [v4, v6] = store.settings().nat_groups;
        for group in 0..v4 + v6 {
            let word = store.taken(group);
            taken += word.count_ones() as usize;
            over.extend(bits(word).map(|bit| group * GROUP + bit).filter(|&port| {
                let life = store.life(port);
                !life.lives() || (self.timeouts.is_over(life, now) && store.end(port, life))
            }));
        }
        if over.is_empty() {
            return Ok(taken);
        }
        over.iter().for_each(|&port| forget(store, port));
        store.wait()?;
        // Who has taken one just now has given it life by now.
        over.retain(|&port| !store.life(port).lives());
        for &port in &over {
            forget(store, port);
            store.free(port / GROUP, 1 << (port % GROUP));
        }
        Ok(taken - over.len())
    }
}

/// Takes the mapping of a port's flow out.
fn forget<S: Store>(store: &mut S, port: u32) {
    let hash = store.hash(port);
    let place = Place::of(hash, store.settings().nat_mask);
    let mapping = Mapping::new(hash, port);
    store.forget(place.first, mapping);
    store.forget(place.second, mapping);
}

/// The numbers of a word's bits that are set.
fn bits(word: u64) -> impl Iterator<Item = u32> {
    (0..GROUP).filter(move |bit| word >> bit & 1 != 0)
}

/// An address as tables have it.
fn wide(address: IpAddr) -> Source {
    Source { address: Addr6::wide(address) }
}

impl<S: Store> Balancer<S> {
    /// Gives full NAT the addresses that its packets to backends come from, in place of none. The tables must
    /// have been made for so many of each family. An address may be the balancer's own interface's: then the
    /// host's own packets come from other ports.
    ///
    /// # Errors
    /// See [`SourcesError`]; state that was adopted keeps its sources.
    pub fn set_sources(&mut self, sources: &[IpAddr]) -> Result<(), SourcesError> {
        let mut known = BTreeSet::new();
        if let Some(&address) = sources.iter().find(|address| !known.insert(**address)) {
            return Err(SourcesError::Duplicate { address });
        }
        let have = self.store.room().nat_sources as usize;
        if sources.len() > have {
            return Err(SourcesError::TooMany { sources: sources.len(), have });
        }
        // IPv4 first, as their groups of ports are.
        let (v4, v6): (Vec<IpAddr>, Vec<IpAddr>) = sources.iter().partition(|one| one.is_ipv4());
        let wanted: Vec<Source> = v4.iter().chain(&v6).copied().map(wide).collect();
        self.agree(&wanted)?;
        for (number, (&address, source)) in v4.iter().chain(&v6).zip(wanted).enumerate() {
            self.store.set_nat_source(number as u32, source);
            self.add_source(number as u32, address)?;
        }
        // Services with port 0 that were adopted are counted there, and not known here yet.
        let wildcards = &self.store.head().wildcards;
        wildcards.store(wildcards.load().max(self.ports.frontends() as u32));
        Ok(())
    }

    /// How long flows with a port of a source may be silent; those that live as well.
    pub const fn set_nat_timeouts(&mut self, timeouts: NatTimeouts) {
        self.ports.timeouts = timeouts;
    }

    /// An earlier process had no other sources.
    fn agree(&self, wanted: &[Source]) -> Result<(), SourcesError> {
        let was: Vec<Source> = (0..self.store.room().nat_sources)
            .map(|number| self.store.nat_source(number))
            .collect();
        // One that was killed while it wrote them has written the first ones.
        let mut written = was.iter().enumerate().filter(|(_, was)| **was != Source::default());
        if written.all(|(number, was)| wanted.get(number) == Some(was)) {
            return Ok(());
        }
        let groups = self.store.settings().nat_groups[0];
        let each = self.store.settings().nat_groups_each.max(1);
        let v4 = (groups / each) as usize;
        let was = was.into_iter().enumerate().map(|(n, source)| narrow(source, n < v4)).collect();
        Err(SourcesError::Changed { was })
    }

    /// Makes a source known to packets: its answers, of either protocol.
    fn add_source(&mut self, number: u32, address: IpAddr) -> Result<(), SourcesError> {
        let slots = number * self.store.settings().nat_groups_each;
        let with = |target| Frontend {
            target,
            slots,
            flags: Shared32::new(Frontend::SOURCE),
            ..Frontend::default()
        };
        let each = [Protocol::Tcp, Protocol::Udp];
        let targets =
            each.map(|protocol| target_of(model::Frontend { address, protocol, port: 0 }));
        for target in targets.into_iter().chain([address_target(address)]) {
            let known = self.directory.find(&self.store, &target).is_some();
            if !known && !self.directory.insert(&mut self.store, with(target)) {
                return Err(SourcesError::Collision { address });
            }
        }
        self.ports.sources.insert(address);
        Ok(())
    }

    /// A service with full NAT has sources, and none is a source.
    pub(crate) fn check_sources(&self, service: &Service) -> Result<(), ApplyError<S::Error>> {
        let sources = &self.ports.sources;
        if let Some(&address) = service.addresses.iter().find(|one| sources.contains(one)) {
            return Err(ApplyError::SourceAddress { service: service.name.clone(), address });
        }
        let is_v4 = service.addresses[0].is_ipv4();
        let has = sources.iter().any(|source| source.is_ipv4() == is_v4);
        if service.forwarding == model::Forwarding::Snat && !has {
            return Err(ApplyError::NoSource { service: service.name.clone() });
        }
        Ok(())
    }
}

/// An address of the tables.
pub(crate) fn narrow(source: Source, is_v4: bool) -> IpAddr {
    match source.address.octets() {
        [a, b, c, d, ..] if is_v4 => IpAddr::from([a, b, c, d]),
        octets => IpAddr::from(octets),
    }
}
