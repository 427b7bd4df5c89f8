//! Full NAT's ports: how long flows have them, and when they are free again.
//!
//! Not here: which port a flow gets, and what its packets become (`flowgate-pipeline`'s `lb::nat`); where sources
//! have their ports, and how they change (`places.rs`).
//!
//! Invariant: a port is freed only after a grace period in which its flow was over, so no packet under way
//! can still take it for that flow's. Tested by `tests/nat`, the pipeline itself running.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use flowgate_abi::{
    flow::Class,
    lb::nat::{GROUP, Life, Mapping, Source},
};
use flowgate_pipeline::{conntrack, lb::nat::table::Place};
use thiserror::Error;

use crate::{
    balancer::Balancer,
    clock::{Millis, millis},
    model::Protocol,
    places::Places,
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

/// Why addresses can't be sources. Nothing was changed.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SourcesError {
    /// An address is listed twice.
    #[error("source {address} is listed twice")]
    Duplicate {
        /// The address.
        address: IpAddr,
    },
    /// Every place for a source of its family is taken; tables get no more of them.
    #[error(
        "source {address} finds no place: there are {have} for its family, and {retired} of them have sources that aren't listed any more and keep their flows: list fewer, wait until those flows are over, or open the balancer afresh with more places"
    )]
    NoPlace {
        /// The address.
        address: IpAddr,
        /// Places for its family.
        have: usize,
        /// Those among them whose sources aren't listed.
        retired: usize,
    },
    /// It is a service's address.
    #[error("source {address} is a service's address: take it from the service first, and apply")]
    Taken {
        /// The address.
        address: IpAddr,
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
    pub(crate) places: Places,
    pub(crate) timeouts: NatTimeouts,
}

impl Ports {
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

impl<S: Store> Balancer<S> {
    /// Gives full NAT the addresses that its packets to backends come from, as [`Balancer::apply`] does by
    /// [`Services::with_nat_sources`](crate::Services::with_nat_sources): for a balancer that was just made. The tables
    /// must have places for so many of each family. An address may be the balancer's own interface's: then the
    /// host's own packets come from other ports.
    ///
    /// # Errors
    /// [`ApplyError::Sources`], and what a failing table says.
    pub fn set_sources(&mut self, sources: &[IpAddr]) -> Result<(), ApplyError<S::Error>> {
        let mut wanted = BTreeSet::new();
        if let Some(&address) = sources.iter().find(|address| !wanted.insert(**address)) {
            return Err(SourcesError::Duplicate { address }.into());
        }
        match self.plan_sources(&wanted)? {
            Some(places) => self.change_sources(places),
            None => Ok(()),
        }
    }

    /// How long flows with a port of a source may be silent; those that live as well.
    pub const fn set_nat_timeouts(&mut self, timeouts: NatTimeouts) {
        self.ports.timeouts = timeouts;
    }
}

/// An address of the tables.
pub(crate) fn narrow(source: Source, is_v4: bool) -> IpAddr {
    match source.address.octets() {
        [a, b, c, d, ..] if is_v4 => IpAddr::from([a, b, c, d]),
        octets => IpAddr::from(octets),
    }
}
