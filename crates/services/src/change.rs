//! How a service that runs changes: backends come, go, and share otherwise.
//!
//! Invariant, for every change: lines are written before slots name them, and slots before a line says that
//! its backend is gone. So a process may be killed at any write: a packet finds what was, or what will be.

use std::{collections::BTreeSet, sync::Arc};

use flowgate_abi::lb::{NOBODY, Slot, Tail};

use crate::{
    TableSize, Uplink,
    clock::Millis,
    header,
    life::{self, Stage, Wanted},
    maglev::{self, Member},
    model::{BackendId, BackendState, Protocol, Service},
    running::Running,
    store::Store,
};

/// What a change did to slots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Slots that took their target at once: their backend is gone, or never had a live flow.
    pub at_once: usize,
    /// Slots that are on their way: what opens goes by the new table within seconds, and live flows stay
    /// where they are.
    pub moving: usize,
    /// Slots that wait until there is room for their flows' entries.
    pub staged: usize,
}

impl std::ops::AddAssign for Moved {
    fn add_assign(&mut self, other: Self) {
        self.at_once += other.at_once;
        self.moving += other.moving;
        self.staged += other.staged;
    }
}

/// Room for entries that nobody has claimed yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allowance(pub(crate) f64);

impl Allowance {
    /// There is room for one slot more.
    pub(crate) fn covers(self, running: &Running) -> bool {
        running.entries_per_slot == 0.0 || self.0 >= running.entries_per_slot
    }
}

impl Running {
    /// Becomes another service of the same frontends' protocol and table. Its numbers have room for the
    /// backends that come.
    pub(crate) fn change<S: Store>(
        &mut self,
        store: &mut S,
        service: Arc<Service>,
        uplink: &Uplink,
        (now, allowance): (Millis, &mut Allowance),
    ) -> Moved {
        self.service = service;
        self.welcome(store, uplink);
        self.failing = self.failing();
        let leaving = self.part();
        self.name_servers(store);
        let aimed = self.aim();
        let mut moved = Moved::default();
        if aimed || !leaving.is_empty() {
            for slot in 0..self.size.slots() {
                moved += self.turn(store, slot, (now, allowance));
            }
        }
        for number in leaving {
            self.lines.values().for_each(|range| {
                let line = range.start + number;
                let tail = Tail(store.backend(line).tail.load());
                store.set_tail(line, tail.with(Tail::GONE));
            });
        }
        moved
    }

    /// Gives numbers to those who come, and writes the lines of all that changed.
    fn welcome<S: Store>(&mut self, store: &mut S, uplink: &Uplink) {
        let service = Arc::clone(&self.service);
        for backend in &service.backends {
            let id = backend.id();
            let number = self.members.number(id).or_else(|| self.members.admit(id));
            // There is room, or the service would have moved to where there is.
            let Some(number) = number else { continue };
            for (&inner, range) in &self.lines {
                let line = header::line(&service, backend, inner, uplink);
                let known = store.backend(range.start + number);
                if known.header != line.header || known.tail.load() != line.tail.load() {
                    store.set_backend(range.start + number, line);
                }
            }
        }
    }

    fn failing(&self) -> BTreeSet<u32> {
        let backends = self.service.backends.iter();
        let failing = backends.filter(|backend| backend.state == BackendState::Quarantined);
        failing.filter_map(|backend| self.members.number(backend.id())).collect()
    }

    /// The numbers of those who leave.
    fn part(&mut self) -> Vec<u32> {
        let leaving = |(id, _): &(_, u32)| self.service.find(*id).is_none();
        let leaving: Vec<_> = self.members.iter().filter(leaving).collect();
        for (id, _) in &leaving {
            self.members.dismiss(*id);
        }
        leaving.into_iter().map(|(_, number)| number).collect()
    }

    /// Fills the table of targets; `false`: it is what it was.
    fn aim(&mut self) -> bool {
        let takers = takers(&self.service);
        let number = |taker: &Member| self.members.number(taker.id).unwrap_or(NOBODY);
        let mut aimed: Vec<_> = takers.iter().map(|taker| (*taker, number(taker))).collect();
        aimed.sort_unstable();
        if aimed == self.aimed {
            return false;
        }
        let numbers: Vec<u16> = takers.iter().map(|taker| number(taker) as u16).collect();
        self.target = match takers.as_slice() {
            [] => vec![NOBODY as u16; self.size.slots() as usize],
            some => {
                let table = maglev::fill(some, self.size);
                table.into_iter().map(|index| numbers[usize::from(index)]).collect()
            }
        };
        self.aimed = aimed;
        true
    }

    /// Turns a slot towards its target.
    pub(crate) fn turn<S: Store>(
        &mut self,
        store: &mut S,
        slot: u32,
        (now, allowance): (Millis, &mut Allowance),
    ) -> Moved {
        let before = self.slot(store, slot);
        let target = u32::from(self.target[slot as usize]);
        // Who doesn't answer has no handshakes under way that an announcement could save, and whatever else
        // opens there meanwhile would be lost.
        let fails = self.failing.contains(&before.default_backend());
        let wanted = Wanted {
            target,
            opens: self.service.protocol == Protocol::Tcp && !fails,
            may_begin: allowance.covers(self) || fails,
        };
        let next = life::changed(before, wanted, |number| self.members.is_gone(number));
        let began = is_costly(next) && !is_costly(before);
        if began {
            allowance.0 -= self.entries_per_slot;
        }
        self.put(store, slot, (before, next), now);
        let waits = next.fresh_backend() != target && !is_costly(next);
        if waits {
            self.waiting.insert(slot);
        } else {
            self.waiting.remove(&slot);
        }
        Moved {
            at_once: usize::from(next != before && Stage::of(next) == Stage::Stable),
            moving: usize::from(next != before && Stage::of(next) != Stage::Stable),
            staged: usize::from(waits),
        }
    }

    /// Writes a slot's next word; its clock begins anew with a stage.
    pub(crate) fn put<S: Store>(
        &mut self,
        store: &mut S,
        slot: u32,
        (before, next): (Slot, Slot),
        now: Millis,
    ) {
        if next == before {
            return;
        }
        store.set_slot(self.slots.start + slot, next);
        match Stage::of(next) {
            Stage::Stable => drop(self.moving.remove(&slot)),
            stage if stage != Stage::of(before) => drop(self.moving.insert(slot, now)),
            _ => {}
        }
    }
}

/// Who takes new flows: the active backends; if there are none, those that are terminating.
fn takers(service: &Service) -> Vec<Member> {
    let of = |state| {
        let some = service.backends.iter().filter(move |backend| backend.state == state);
        some.map(|backend| Member { id: backend.id(), weight: backend.weight }).collect()
    };
    let active: Vec<Member> = of(BackendState::Active);
    if active.is_empty() { of(BackendState::Terminating) } else { active }
}

/// For each slot who should have it.
pub(crate) fn wanted_table(service: &Service, size: TableSize) -> Vec<Option<BackendId>> {
    match takers(service).as_slice() {
        [] => vec![None; size.slots() as usize],
        some => {
            let table = maglev::fill(some, size);
            table.into_iter().map(|index| Some(some[usize::from(index)].id)).collect()
        }
    }
}

/// Its flows get entries, all of them.
fn is_costly(slot: Slot) -> bool {
    matches!(Stage::of(slot), Stage::Announce | Stage::Move)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use flowgate_abi::lb::Settings;

    use super::*;
    use crate::{Balancer, Services, host::HostTables, model::Backend, store::Room};

    fn balancer() -> Balancer<HostTables> {
        let settings = Settings {
            fragment_seed: 1,
            displacement_mask: 7,
            frontend_shift: 32 - 4,
            tracked_mask: 7,
            fragment_timeout: 1000,
            hz: 1000,
            errors_per_second: 10,
            age_length: 10_000,
            ..Settings::default()
        };
        let room = Room {
            frontends: 16,
            slots: 512,
            lines: 64,
            services: 1,
            tracked: 64,
            ..Room::default()
        };
        let Ok(balancer) = Balancer::adopt(HostTables::new(settings, room), Uplink::default(), 0);
        balancer
    }

    /// Slots that are announced, and that move, once the first of two backends is in a state.
    fn under_way(state: BackendState) -> [usize; 2] {
        let backend = |last: u8| Backend::new([198, 18, 0, last].into());
        let service = Service::tcp("web", 80).address([198, 51, 100, 1].into());
        let services = Services::new([service.backend(backend(1)).backend(backend(2))]).unwrap();
        let mut balancer = balancer();
        let _ = balancer.apply(&services, Duration::ZERO).unwrap();
        let changed = services.with_state(&"web".into(), backend(1).id(), state).unwrap();
        let _ = balancer.apply(&changed, Duration::ZERO).unwrap();
        let [announced, moving, _] = balancer.stats().unwrap()[0].moving;
        [announced, moving]
    }

    #[test]
    fn slots_of_who_fails_move_without_announcement() {
        let [announced, moving] = under_way(BackendState::Draining);
        assert!(announced > 0 && moving == 0, "{announced} {moving}");
        assert_eq!(under_way(BackendState::Quarantined), [0, announced]);
    }
}
