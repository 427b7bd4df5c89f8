//! What services and their backends got, and what of them is under way.

use std::ops::AddAssign;

use flowgate_abi::lb::Load;

use crate::{
    balancer::Balancer,
    model::{BackendId, ServiceName},
    store::Store,
};

/// What a service got.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceStats {
    /// The service.
    pub name: ServiceName,
    /// Its backends, each with what it got; those that are gone aren't among them.
    pub backends: Vec<(BackendId, Traffic)>,
    /// Slots of its table.
    pub slots: usize,
    /// Slots that are announced, that move, that settle.
    pub moving: [usize; 3],
    /// Slots that wait until there is room for their flows' entries.
    pub staged: usize,
    /// Flows that were tracked when a sweep looked last.
    pub tracked: usize,
    /// Clients that had a backend by affinity when a sweep looked last.
    pub pinned: usize,
    /// Entries that found no room so far.
    pub refused: u64,
}

impl ServiceStats {
    /// What all of its backends got together.
    #[must_use]
    pub fn total(&self) -> Traffic {
        let mut total = Traffic::default();
        self.backends.iter().for_each(|(_, traffic)| total += *traffic);
        total
    }
}

/// What a backend got.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Packets.
    pub packets: u64,
    /// Bytes, from the clients' IP headers on.
    pub bytes: u64,
    /// Packets among them that open a flow.
    pub opened: u64,
    /// Entries that were made for its flows.
    pub tracked: u64,
}

impl From<Load> for Traffic {
    fn from(load: Load) -> Self {
        let Load { packets, bytes, opened, tracked } = load;
        Self { packets, bytes, opened, tracked }
    }
}

impl AddAssign for Traffic {
    fn add_assign(&mut self, other: Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
        self.opened += other.opened;
        self.tracked += other.tracked;
    }
}

impl<S: Store> Balancer<S> {
    /// What each service got, by name.
    ///
    /// # Errors
    /// The tables couldn't be read.
    pub fn stats(&self) -> Result<Vec<ServiceStats>, S::Error> {
        self.running
            .values()
            .map(|running| {
                let mut backends = Vec::new();
                for (id, number) in running.members.iter() {
                    let mut traffic = Traffic::default();
                    for range in running.lines.values() {
                        traffic += self.store.load(range.start + number)?.into();
                    }
                    backends.push((id, traffic));
                }
                Ok(ServiceStats {
                    name: running.service.name.clone(),
                    backends,
                    slots: running.size.slots() as usize,
                    moving: running.stages(&self.store),
                    staged: running.waiting.len(),
                    tracked: running.entries,
                    pinned: running.pinned,
                    refused: self.store.refused(running.number),
                })
            })
            .collect()
    }
}
