//! The balancer: services in tables, changed while packets pass.
//!
//! It does no I/O but through its [`Store`], and has no clock: time is a parameter, any monotonic one.
//! [`Balancer::apply`] makes services what they should be, [`Balancer::tick`] lets time do its part.
//!
//! Invariants: a packet meets each service as it was or as it will be; a flow that lives, and isn't silent
//! for longer than its service allows, keeps its backend as long as that is among the service's; what
//! doesn't fit changes nothing. Tested by `tests/consistency.rs`, the pipeline itself running.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
    time::Duration,
};

use flowgate_abi::lb::{Frontend, Target};

use crate::{
    Services, Uplink,
    change::{Allowance, Moved},
    clock::Clock,
    directory::Directory,
    frontends::{address_target, seed_of, target_of},
    header::Inner,
    marks::Marks,
    model::{Service, ServiceName},
    nat,
    ranges::{Range, Ranges},
    room::{ApplyError, Table},
    running::{self, Running},
    server_ids, sources,
    store::Store,
    sweep,
};

/// Services in tables.
#[derive(Debug)]
pub struct Balancer<S: Store> {
    pub(crate) store: S,
    pub(crate) uplink: Uplink,
    pub(crate) seed: u64,
    pub(crate) services: Services,
    pub(crate) running: BTreeMap<ServiceName, Running>,
    pub(crate) directory: Directory,
    pub(crate) slots: Ranges,
    pub(crate) lines: Ranges,
    pub(crate) sources: Ranges,
    pub(crate) numbers: BTreeSet<u32>,
    pub(crate) retired: Retired,
    pub(crate) clock: Clock,
    pub(crate) ports: nat::Ports,
    /// Of flows and of pins.
    pub(crate) marks: [Marks; 2],
    /// Something waits for a sweep.
    pub(crate) unswept: bool,
}

/// What packets under way may still use.
#[derive(Debug, Default)]
pub(crate) struct Retired {
    pub(crate) slots: Vec<Range>,
    pub(crate) lines: Vec<Range>,
    pub(crate) sources: Vec<Range>,
    pub(crate) numbers: Vec<u32>,
}

impl Retired {
    fn is_empty(&self) -> bool {
        let ranges = [&self.slots, &self.lines, &self.sources];
        ranges.iter().all(|ranges| ranges.is_empty()) && self.numbers.is_empty()
    }
}

/// What applying services did. It is visible to packets when it returns, but for what is staged.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Services that are new.
    pub added: usize,
    /// Services that are other than they were.
    pub changed: usize,
    /// Services that are gone.
    pub removed: usize,
    /// What became of slots; those of services that are new or gone aren't counted.
    pub slots: Moved,
}

/// What time did.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ticked {
    /// When to tick again. Later does no harm, but what waits for time waits longer: of the time between
    /// two ticks no more counts than an age of tracked flows.
    pub next: Duration,
    /// Slots that track flows.
    pub tracking: usize,
    /// Slots that wait until there is room for their flows' entries.
    pub staged: usize,
    /// Flows that are tracked.
    pub entries: usize,
    /// Ports of sources that flows have: full NAT.
    pub ports: usize,
}

impl<S: Store> Balancer<S> {
    /// The tables.
    pub const fn store(&self) -> &S {
        &self.store
    }

    /// The tables, for what the balancer doesn't write: whoever changes its own breaks flows.
    pub const fn store_mut(&mut self) -> &mut S {
        &mut self.store
    }

    /// The services as they were applied last; none, if they were adopted and not applied since.
    pub const fn services(&self) -> &Services {
        &self.services
    }

    /// Makes the services what they should be. Those that are the same aren't touched.
    ///
    /// # Errors
    /// See [`ApplyError`]. Only a failing table leaves something half done; applying again goes on.
    pub fn apply(
        &mut self,
        services: &Services,
        time: Duration,
    ) -> Result<Applied, ApplyError<S::Error>> {
        self.claim(services);
        let plan = self.plan(services)?;
        self.clock.tick(time, self.store.head());
        if let Some(sources) = plan.sources {
            self.change_sources(sources)?;
        }
        let mut applied = Applied { removed: plan.removed.len(), ..Applied::default() };
        for name in &plan.removed {
            self.remove(name);
        }
        if plan.needs_what_was_removed {
            self.settle().map_err(ApplyError::Store)?;
        }
        for service in &plan.changed {
            applied.changed += 1;
            applied.slots += self.change(service)?;
        }
        for service in plan.added {
            applied.added += 1;
            self.add(service)?;
        }
        self.services = services.clone();
        self.count_wildcards();
        self.unswept = true;
        Ok(applied)
    }

    /// Lets time do its part: slots move on, entries expire, what was given up is free again.
    ///
    /// # Errors
    /// The kernel refused to wait for packets under way; ticking again goes on.
    pub fn tick(&mut self, time: Duration) -> Result<Ticked, S::Error> {
        let aged = self.clock.tick(time, self.store.head());
        let under_way = self.running.values().any(Running::is_under_way);
        let left = !self.retired.is_empty()
            || self.directory.has_left()
            || self.ports.places.is_under_way();
        let has_pins = self.running.values().any(Running::has_pins);
        let waits = has_pins || self.marks.iter().any(Marks::are_left);
        if left || (under_way && (aged || self.unswept)) || (waits && aged) {
            self.settle()?;
        }
        let now = self.clock.now();
        let mut ticked = Ticked::default();
        for running in self.running.values_mut() {
            let settling = running.moving.len() - running.costly(&self.store);
            running.step(&mut self.store, now);
            self.unswept |= settling != running.moving.len() - running.costly(&self.store);
        }
        self.begin(&mut ticked);
        ticked.ports = self.ports.sweep(&mut self.store, now)?;
        self.release_sources()?;
        ticked.next = self.next();
        Ok(ticked)
    }

    /// Slots that wait begin, as far as there is room for entries.
    fn begin(&mut self, ticked: &mut Ticked) {
        let now = self.clock.now();
        let mut allowance = self.allowance();
        for running in self.running.values_mut() {
            let _ = running.begin(&mut self.store, (now, &mut allowance));
            ticked.tracking += running.moving.len();
            ticked.staged += running.waiting.len();
            ticked.entries += running.entries;
        }
    }

    /// Until when nothing happens by time alone.
    fn next(&self) -> Duration {
        let age = Duration::from_millis(self.clock.age_length());
        if self.unswept
            || !self.ports.places.is_empty()
            || !self.retired.is_empty()
            || self.directory.has_left()
        {
            return age.min(Duration::from_secs(1));
        }
        let due = self.running.values().filter_map(|running| running.next_due(&self.store)).min();
        let wait = due
            .map_or(age, |due| Duration::from_millis(due.saturating_sub(self.clock.now()).max(1)));
        wait.min(age)
    }

    /// Room for entries that moving slots haven't claimed.
    fn allowance(&self) -> Allowance {
        // Above that load insertions begin to fail.
        let room = f64::from(self.store.room().tracked) * 0.75;
        let claimed: f64 = self
            .running
            .values()
            .map(|running| {
                let expected = running.costly(&self.store) as f64 * running.entries_per_slot;
                expected.max(running.entries as f64)
            })
            .sum();
        Allowance(room - claimed)
    }

    /// After a grace period: entries that nobody needs go, and what nothing names any more is free.
    fn settle(&mut self) -> Result<(), S::Error> {
        self.store.wait()?;
        let now = self.clock.now();
        let [flows, pins] = &mut self.marks;
        let mut found = sweep::sweep(&mut self.store, &self.running, &self.clock, flows);
        sweep::pins(&mut self.store, &self.running, (&self.clock, pins), &mut found);
        for running in self.running.values_mut() {
            let nothing = sweep::Found::default();
            let found = found.get(&running.number).unwrap_or(&nothing);
            running.swept(&mut self.store, found, now);
        }
        self.directory.release(&mut self.store);
        self.ports.places.settled();
        let Retired { slots, lines, sources, numbers } = std::mem::take(&mut self.retired);
        slots.into_iter().for_each(|range| self.slots.give(range));
        lines.into_iter().for_each(|range| self.lines.give(range));
        sources.into_iter().for_each(|range| self.sources.give(range));
        self.numbers.extend(numbers);
        self.unswept = false;
        Ok(())
    }

    /// Takes a service out: its packets aren't the balancer's any more.
    fn remove(&mut self, name: &ServiceName) {
        let Some(running) = self.running.remove(name) else { return };
        for frontend in running.service.frontends() {
            self.directory.remove(&mut self.store, &target_of(frontend));
        }
        self.forget_addresses(&running.service);
        self.retired.slots.push(running.slots);
        self.retired.lines.extend(running.lines.values());
        self.retired.sources.extend(running.sources.into_values().map(sources::range));
        self.retired.numbers.push(running.number);
    }

    /// Addresses that no service has any more.
    fn forget_addresses(&mut self, service: &Service) {
        for address in &service.addresses {
            if !self.running.values().any(|running| running.service.addresses.contains(address)) {
                self.directory.remove(&mut self.store, &address_target(*address));
            }
        }
    }

    /// Puts a service in: nobody's flow is there yet.
    fn add(&mut self, service: Arc<Service>) -> Result<(), ApplyError<S::Error>> {
        let lines = running::lines_for(service.backends.len());
        let size = service.slots();
        let taken =
            self.take(&service, server_ids::room(size, server_ids::flags(&service.options)), lines);
        let (number, slots, lines) = taken.ok_or_else(|| self.no_room(Table::Lines, &service))?;
        let mut running = Running::new(Arc::clone(&service), (number, size), slots, lines);
        running.refused = self.store.refused(number);
        running.flags = running::flags(&service, self.clock.age_length());
        running.sources = self.place_sources(&service, &running.sources)?;
        running.expect_flows();
        running.clear(&mut self.store).map_err(ApplyError::Store)?;
        let mut allowance = self.allowance();
        let now = self.clock.now();
        let _ = running.change(&mut self.store, service, &self.uplink, (now, &mut allowance));
        let service = Arc::clone(&running.service);
        self.running.insert(service.name.clone(), running);
        self.publish(&service)
    }

    /// Stretches of the tables for a service.
    fn take(
        &mut self,
        service: &Service,
        slots: u32,
        lines: u32,
    ) -> Option<(u32, Range, BTreeMap<Inner, Range>)> {
        let slots = self.slots.take(slots)?;
        let families = running::families(service);
        let lines = families.into_iter().map(|inner| Some((inner, self.lines.take(lines)?)));
        let lines = lines.collect::<Option<_>>()?;
        Some((self.numbers.pop_first()?, slots, lines))
    }

    /// Makes a service's frontends known, those that aren't yet.
    fn publish(&mut self, service: &Service) -> Result<(), ApplyError<S::Error>> {
        let Some(running) = self.running.get(&service.name) else { return Ok(()) };
        for frontend in service.frontends() {
            let target = target_of(frontend);
            if self.directory.find(&self.store, &target).is_some() {
                continue;
            }
            let entry = Frontend {
                target,
                seed: seed_of(&target, self.seed),
                ..running.frontend(Inner::of(frontend.address))
            };
            let address =
                Frontend { target: address_target(frontend.address), ..Frontend::default() };
            let known = self.directory.find(&self.store, &address.target).is_some();
            let published = self.directory.insert(&mut self.store, entry)
                && (known || self.directory.insert(&mut self.store, address));
            if !published {
                return Err(ApplyError::Collision { frontend });
            }
        }
        Ok(())
    }

    /// Makes a service that runs another one.
    fn change(&mut self, service: &Arc<Service>) -> Result<Moved, ApplyError<S::Error>> {
        self.move_lines(service)?;
        let left = self.move_sources(service)?;
        let (now, mut allowance) = (self.clock.now(), self.allowance());
        let Some(running) = self.running.get_mut(&service.name) else {
            return Ok(Moved::default());
        };
        let before = Arc::clone(&running.service);
        let next = Arc::clone(service);
        let moved = running.change(&mut self.store, next, &self.uplink, (now, &mut allowance));
        running.expect_flows();
        let old =
            std::mem::replace(&mut running.flags, running::flags(service, self.clock.age_length()));
        let flags = running.flags;
        if flags != old || left.is_some() {
            self.refresh_frontends(service);
        }
        if flags != old {
            self.stamp_pins(service).map_err(ApplyError::Store)?;
        }
        self.retired.sources.extend(left.into_iter().flatten());
        let kept: HashSet<Target> = service.frontends().map(target_of).collect();
        for target in before.frontends().map(target_of).filter(|target| !kept.contains(target)) {
            self.directory.remove(&mut self.store, &target);
        }
        self.forget_addresses(&before);
        self.publish(service)?;
        Ok(moved)
    }

    /// Gives a service other lines, if those that it has don't do.
    fn move_lines(&mut self, service: &Arc<Service>) -> Result<(), ApplyError<S::Error>> {
        let Some(running) = self.running.get_mut(&service.name) else { return Ok(()) };
        let Some(room) = running.other_lines(service) else { return Ok(()) };
        let families = running::families(service);
        let lines = families.into_iter().map(|inner| Some((inner, self.lines.take(room)?)));
        let Some(lines) = lines.collect::<Option<BTreeMap<_, _>>>() else {
            return Err(self.no_room(Table::Lines, service));
        };
        let left = running.move_to(&mut self.store, (service, lines), &self.uplink);
        self.retired.lines.extend(left.map_err(ApplyError::Store)?);
        let before = Arc::clone(&running.service);
        self.refresh_frontends(&before);
        Ok(())
    }

    /// Says once more where a service's backends lie, which clients it takes, and its flags.
    fn refresh_frontends(&mut self, service: &Service) {
        let Some(running) = self.running.get(&service.name) else { return };
        for frontend in service.frontends() {
            let Some(lines) = running.lines.get(&Inner::of(frontend.address)) else { continue };
            if let Some(index) = self.directory.find(&self.store, &target_of(frontend)) {
                self.store.set_frontend_words(index, lines.as_lines(), running.flags);
                let sources = running.sources_of(Inner::of(frontend.address));
                self.store.set_frontend_sources(index, sources);
            }
        }
    }

    fn count_wildcards(&mut self) {
        let wildcards = self.services.iter().filter(|service| service.port == 0).count();
        let sources = self.ports.places.frontends(self.ports.places.active());
        self.store.head().wildcards.store((wildcards + sources) as u32);
    }
}
