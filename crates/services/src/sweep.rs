//! The sweep: entries that nobody needs go, and of the rest it is known what they hold back.
//!
//! An entry goes if its flow was silent for too long, if its backend or its slot is gone, or if it says what
//! its slot says without it. Whoever takes it out loses to whoever changes it meanwhile.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use flowgate_abi::lb::{Frontend, Slot, Tracked};

use crate::{
    balancer::Balancer,
    clock::{Clock, Millis},
    life::Stage,
    marks::{Look, Marks},
    model::{Service, ServiceName},
    running::{self, Running},
    store::Store,
};

/// How long a flow may be silent of which one half was closed.
pub(crate) const CLOSING: Millis = 30_000;

/// What there is of a service's flows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Found {
    pub(crate) entries: usize,
    /// Slots with an entry that names another backend than the default.
    pub(crate) deviating: HashSet<u32>,
    /// Clients that have pins.
    pub(crate) pinned: usize,
    /// Numbers that entries and pins name.
    pub(crate) named: BTreeSet<u32>,
}

/// Goes through all entries; what is left, by the services' numbers.
pub(crate) fn sweep<S: Store>(
    store: &mut S,
    running: &BTreeMap<ServiceName, Running>,
    clock: &Clock,
    marks: &mut Marks,
) -> BTreeMap<u32, Found> {
    let owners = owners(running);
    let mut found: BTreeMap<u32, Found> = BTreeMap::new();
    let mut look = marks.look(store.room().tracked);
    for cell in 0..store.room().tracked {
        let visited = visit(store, &owners, (cell, clock), &mut look);
        let Some((running, entry)) = visited else { continue };
        let slot = entry.slot() - running.slots.start;
        let found = found.entry(running.number).or_default();
        found.entries += 1;
        found.named.insert(entry.backend());
        if entry.backend() != running.slot(store, slot).default_backend() {
            found.deviating.insert(slot);
        }
    }
    marks.looked(look, |cell| store.exchange_tracked(cell, Tracked::LEFT, Tracked(0)));
    found
}

/// Services by their first slots.
type Owners<'r> = BTreeMap<u32, &'r Running>;

fn owners(running: &BTreeMap<ServiceName, Running>) -> Owners<'_> {
    running.values().map(|running| (running.slots.start, running)).collect()
}

/// Whose slot an entry names.
fn owner_of<'r>(owners: &Owners<'r>, entry: Tracked) -> Option<&'r Running> {
    let (_, running) = owners.range(..=entry.slot()).next_back()?;
    (entry.slot() - running.slots.start < running.size.slots()).then_some(*running)
}

/// Goes through all pins: those go whose client was silent for too long, or whose backend is gone.
pub(crate) fn pins<S: Store>(
    store: &mut S,
    running: &BTreeMap<ServiceName, Running>,
    (clock, marks): (&Clock, &mut Marks),
    found: &mut BTreeMap<u32, Found>,
) {
    let owners = owners(running);
    let mut look = marks.look(store.room().pins);
    for cell in 0..store.room().pins {
        loop {
            let pin = store.pin(cell);
            if !pin.is_taken() {
                look.free(cell, pin);
                break;
            }
            if let Some(running) = owner_of(&owners, pin)
                && is_pinned(running, pin, clock)
            {
                let found = found.entry(running.number).or_default();
                look.stays(cell, pin);
                found.pinned += 1;
                found.named.insert(pin.backend());
                break;
            }
            // Whether it was taken out or somebody has changed it: what is there now is judged again.
            store.exchange_pin(cell, pin, look.leaves(cell));
        }
    }
    marks.looked(look, |cell| store.exchange_pin(cell, Tracked::LEFT, Tracked(0)));
}

fn is_pinned(running: &Running, pin: Tracked, clock: &Clock) -> bool {
    let is_over = |time| clock.is_pin_over(pin.age(), (running.flags, time));
    running::pinned_for(&running.service).is_some_and(|time| !is_over(time))
        && running.members.named(pin.backend()).is_some()
}

impl<S: Store> Balancer<S> {
    /// Gives all pins of a service the age of now: by other flags their ages mean something else.
    pub(crate) fn stamp_pins(&mut self, service: &Service) -> Result<(), S::Error> {
        let Some(running) = self.running.get(&service.name) else { return Ok(()) };
        let age = Frontend::pin_age(running.flags, self.clock.now());
        self.store.wait()?;
        let slots = running.slots.elements();
        for cell in 0..self.store.room().pins {
            let mut pin = self.store.pin(cell);
            while pin.is_taken() && slots.contains(&pin.slot()) {
                if self.store.exchange_pin(cell, pin, pin.seen(age, false)) {
                    break;
                }
                pin = self.store.pin(cell);
            }
        }
        Ok(())
    }
}

/// The entry in a cell, if it stays, and whose it is.
fn visit<'r, S: Store>(
    store: &mut S,
    owners: &Owners<'r>,
    (cell, clock): (u32, &Clock),
    look: &mut Look,
) -> Option<(&'r Running, Tracked)> {
    loop {
        let entry = store.tracked(cell);
        if !entry.is_taken() {
            look.free(cell, entry);
            return None;
        }
        if let Some(running) = owner_of(owners, entry)
            && is_needed(running, entry, store.slot(entry.slot()), clock)
        {
            look.stays(cell, entry);
            return Some((running, entry));
        }
        // Whether it was taken out or somebody has changed it: what is there now is judged again.
        store.exchange_tracked(cell, entry, look.leaves(cell));
    }
}

fn is_needed(running: &Running, entry: Tracked, slot: Slot, clock: &Clock) -> bool {
    let idle = if entry.closing() { CLOSING.min(running.idle()) } else { running.idle() };
    let says_nothing = matches!(Stage::of(slot), Stage::Stable | Stage::Settle)
        && entry.backend() == slot.default_backend();
    !clock.is_over(entry.age(), idle)
        && running.members.named(entry.backend()).is_some()
        && !says_nothing
}
