//! Whether services fit: known before anything is written.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use thiserror::Error;

use crate::{
    ServiceError, Services,
    balancer::Balancer,
    clock::{Clock, millis},
    model::{Forwarding, Frontend, Service, ServiceName},
    nat::SourcesError,
    places::Placed,
    ranges::Ranges,
    running::{self, Running},
    server_ids,
    services::check_mtu,
    sources,
    store::{Room, Store},
};

/// A table that services fill.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// Frontends, and an entry for each address; half of the cells can be used.
    Frontends,
    /// Slots of all services' tables.
    Slots,
    /// Lines of all backends, for each family of a service's addresses.
    Lines,
    /// Nodes of services' source ranges: n networks take up to 5/4 n.
    Sources,
    /// Services.
    Services,
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Frontends => "frontends",
            Self::Slots => "slots",
            Self::Lines => "lines",
            Self::Sources => "nodes of source ranges",
            Self::Services => "services",
        })
    }
}

/// Services need more than there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overflow {
    /// What is full.
    pub table: Table,
    /// How much all services need.
    pub needed: usize,
    /// How much there is; if that is enough, it lies in too many pieces.
    pub have: usize,
    /// The services that need most of it, those that need more first.
    pub most: Vec<(ServiceName, usize)>,
}

impl fmt::Display for Overflow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} needed, {} there are", self.needed, self.have)?;
        if self.needed <= self.have {
            f.write_str(" in too many pieces")?;
        }
        f.write_str("; most are needed by")?;
        for (index, (name, count)) in self.most.iter().enumerate() {
            write!(f, "{} {name} ({count})", if index == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// Why services couldn't be applied.
#[non_exhaustive]
#[derive(Debug, Error)]
pub enum ApplyError<E: std::error::Error + 'static> {
    /// A service can't be balanced over this uplink.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// They don't fit. Nothing was changed.
    #[error("{}: {overflow}: open the balancer with more of them", overflow.table)]
    Overflow {
        /// What is full, and by whom.
        overflow: Overflow,
    },
    /// A table can't change its size while flows go by it. Nothing was changed.
    #[error(
        "service {service} runs with {from} slots and can't get {to} while it runs: remove it, apply, and add it again; its flows will break"
    )]
    Resized {
        /// The service.
        service: ServiceName,
        /// Slots that it has.
        from: u32,
        /// Slots that it should have.
        to: u32,
    },
    /// Server ids have their room from the beginning. Nothing was changed.
    #[error(
        "service {service} can't get another number of server ids while it runs: remove it, apply, and add it again; its flows will break"
    )]
    ServerIds {
        /// The service.
        service: ServiceName,
    },
    /// The balancer's ages don't reach as far. Nothing was changed.
    #[error(
        "service {service}: {idle:?} of silence can't be told, {longest:?} is the longest: open the balancer for longer"
    )]
    Idle {
        /// The service.
        service: ServiceName,
        /// How long its flows may be silent.
        idle: Duration,
        /// The longest that can be told.
        longest: Duration,
    },
    /// Full NAT can't have these sources. Nothing was changed.
    #[error(transparent)]
    Sources(#[from] SourcesError),
    /// Full NAT needs addresses for packets to come from. Nothing was changed.
    #[error(
        "service {service} has full NAT, and the balancer has no source address of its family: give it one"
    )]
    NoSource {
        /// The service.
        service: ServiceName,
    },
    /// What comes to a source is an answer. Nothing was changed.
    #[error(
        "service {service}: {address} is a source of the balancer's NAT, or was and has flows still: give the service another one"
    )]
    SourceAddress {
        /// The service.
        service: ServiceName,
        /// The address.
        address: IpAddr,
    },
    /// The hash of a frontend collides with another's. What was applied before it stays.
    #[error(
        "{frontend} can't be hashed beside the others: give the service another address or port"
    )]
    Collision {
        /// The frontend.
        frontend: Frontend,
    },
    /// A table couldn't be written.
    #[error(transparent)]
    Store(E),
}

impl<E: std::error::Error + 'static> ApplyError<E> {
    /// The same, with another reason for a failing table.
    pub fn map_store<T: std::error::Error + 'static>(
        self,
        map: impl FnOnce(E) -> T,
    ) -> ApplyError<T> {
        match self {
            Self::Service(error) => ApplyError::Service(error),
            Self::Overflow { overflow } => ApplyError::Overflow { overflow },
            Self::Resized { service, from, to } => ApplyError::Resized { service, from, to },
            Self::ServerIds { service } => ApplyError::ServerIds { service },
            Self::Idle { service, idle, longest } => ApplyError::Idle { service, idle, longest },
            Self::Sources(error) => ApplyError::Sources(error),
            Self::NoSource { service } => ApplyError::NoSource { service },
            Self::SourceAddress { service, address } => {
                ApplyError::SourceAddress { service, address }
            }
            Self::Collision { frontend } => ApplyError::Collision { frontend },
            Self::Store(error) => ApplyError::Store(map(error)),
        }
    }
}

/// What applying services has to do.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) removed: Vec<ServiceName>,
    pub(crate) changed: Vec<Arc<Service>>,
    pub(crate) added: Vec<Arc<Service>>,
    /// Sources of full NAT, if they are other ones.
    pub(crate) sources: Option<Placed>,
    /// What is added fits only where something else was.
    pub(crate) needs_what_was_removed: bool,
}

/// How much services need.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Frontends, and an entry for each address.
    pub frontends: usize,
    /// Slots, rounded up to whole elements.
    pub slots: usize,
    /// Lines of backends.
    pub lines: usize,
    /// Nodes of source ranges. While ranges change, those that a service had are taken as well.
    pub sources: usize,
    /// Bytes of slots, lines, source ranges, and frontends at half load, without what is counted per CPU.
    pub bytes: usize,
    /// Entries that the change would need, if that is known.
    pub entries: usize,
    /// Slots whose backend is another one afterwards.
    pub moved: usize,
}

impl<S: Store> Balancer<S> {
    /// Compares services with those that run, and checks that they fit.
    pub(crate) fn plan(&self, services: &Services) -> Result<Plan, ApplyError<S::Error>> {
        let sources = services.nat_sources().map(|wanted| self.plan_sources(wanted));
        let mut plan = Plan { sources: sources.transpose()?.flatten(), ..Plan::default() };
        let sources = plan.sources.as_ref().unwrap_or(self.ports.places.active());
        for service in services.iter() {
            self.check(service)?;
            self.check_sources(service, sources)?;
            match self.running.get(&service.name) {
                None => plan.added.push(Arc::clone(service)),
                Some(running) if running.service == *service => {}
                Some(running) if is_another(&running.service, service) => {
                    plan.removed.push(service.name.clone());
                    plan.added.push(Arc::clone(service));
                }
                Some(_) => plan.changed.push(Arc::clone(service)),
            }
        }
        let gone = self.running.keys().filter(|name| services.get(name).is_none());
        plan.removed.extend(gone.cloned());
        self.check_frontends(services, self.ports.places.frontends(sources))?;
        if self.fits(&plan, false).is_err() {
            self.fits(&plan, true).map_err(|table| self.overflow(table, services))?;
            plan.needs_what_was_removed = true;
        }
        Ok(plan)
    }

    fn check(&self, service: &Service) -> Result<(), ApplyError<S::Error>> {
        check_mtu(service, &self.uplink)?;
        let longest = Clock::longest_idle(self.clock.age_length());
        if millis(service.idle()) > longest {
            let longest = Duration::from_millis(longest);
            let (service, idle) = (service.name.clone(), service.idle());
            return Err(ApplyError::Idle { service, idle, longest });
        }
        let runs = self.running.get(&service.name);
        let ids = |service: &Service| server_ids::count(server_ids::flags(&service.options));
        if runs.is_some_and(|runs| ids(&runs.service) != ids(service)) {
            return Err(ApplyError::ServerIds { service: service.name.clone() });
        }
        let runs = runs.map(|running| running.size);
        match (runs, service.table) {
            (Some(from), Some(to)) if from != to => Err(ApplyError::Resized {
                service: service.name.clone(),
                from: from.slots(),
                to: to.slots(),
            }),
            _ => Ok(()),
        }
    }

    /// Those of sources are so many.
    fn check_frontends(
        &self,
        services: &Services,
        of_sources: usize,
    ) -> Result<(), ApplyError<S::Error>> {
        let addresses: BTreeSet<_> = services.iter().flat_map(|s| s.addresses.iter()).collect();
        let frontends: usize = services.iter().map(|service| service.addresses.len()).sum();
        let have = self.store.room().frontends as usize / 2;
        if addresses.len() + frontends + of_sources > have {
            return Err(self.overflow(Table::Frontends, services));
        }
        Ok(())
    }

    /// Tries what applying will do to the free stretches; what is full, if they don't suffice.
    fn fits(&self, plan: &Plan, after_removal: bool) -> Result<(), Table> {
        let (mut slots, mut lines) = (self.slots.clone(), self.lines.clone());
        let mut sources = self.sources.clone();
        let mut numbers = self.numbers.len();
        if after_removal {
            let gone = plan.removed.iter().filter_map(|name| self.running.get(name));
            gone.clone().for_each(|running| slots.give(running.slots));
            gone.clone().flat_map(|running| running.lines.values()).for_each(|r| lines.give(*r));
            let left = gone.clone().flat_map(|running| running.sources.values());
            left.for_each(|word| sources.give(sources::range(*word)));
            self.retired.sources.iter().for_each(|range| sources.give(*range));
            self.retired.slots.iter().for_each(|range| slots.give(*range));
            self.retired.lines.iter().for_each(|range| lines.give(*range));
            numbers += gone.count() + self.retired.numbers.len();
        }
        for service in &plan.changed {
            let Some(running) = self.running.get(&service.name) else { continue };
            if let Some(room) = running.other_lines(service) {
                take(&mut lines, room, running::families(service).len()).ok_or(Table::Lines)?;
            }
            let lacks = sources::lacking(&self.store, service, &running.sources);
            take_each(&mut sources, lacks).ok_or(Table::Sources)?;
        }
        for service in &plan.added {
            let room = running::lines_for(service.backends.len());
            slots
                .take(server_ids::room(service.slots(), server_ids::flags(&service.options)))
                .ok_or(Table::Slots)?;
            take(&mut lines, room, running::families(service).len()).ok_or(Table::Lines)?;
            let lacks = sources::lacking(&self.store, service, &sources::Placed::new());
            take_each(&mut sources, lacks).ok_or(Table::Sources)?;
            numbers = numbers.checked_sub(1).ok_or(Table::Services)?;
        }
        Ok(())
    }

    pub(crate) fn no_room(&self, table: Table, service: &Service) -> ApplyError<S::Error> {
        // The plan has tried all of it: only a balancer whose tables somebody else writes comes here.
        let (needed, have) = match table {
            Table::Sources => (sources::need(service), self.sources.left()),
            _ => (running::lines_for(service.backends.len()), self.lines.left()),
        };
        let (needed, have) = (needed as usize, have as usize);
        let most = vec![(service.name.clone(), needed)];
        let overflow = Overflow { table, needed, have, most };
        ApplyError::Overflow { overflow }
    }

    fn overflow(&self, table: Table, services: &Services) -> ApplyError<S::Error> {
        let mut most: Vec<(ServiceName, usize)> = services
            .iter()
            .map(|service| (service.name.clone(), self.need(table, service)))
            .collect();
        let needed = most.iter().map(|(_, need)| need).sum();
        most.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        most.truncate(3);
        let Room { frontends, services, .. } = self.store.room();
        let have = match table {
            Table::Frontends => frontends as usize / 2,
            Table::Slots => self.slots.total() as usize,
            Table::Lines => self.lines.total() as usize,
            Table::Sources => self.sources.total() as usize,
            Table::Services => services as usize,
        };
        ApplyError::Overflow { overflow: Overflow { table, needed, have, most } }
    }

    fn need(&self, table: Table, service: &Service) -> usize {
        let running = self.running.get(&service.name);
        match table {
            Table::Frontends => 2 * service.addresses.len(),
            Table::Slots => {
                let size = running.map_or_else(|| service.slots(), |running| running.size);
                server_ids::room(size, server_ids::flags(&service.options)) as usize
            }
            Table::Lines => {
                let families = running::families(service).len();
                let room = running.and_then(|running| match running.other_lines(service) {
                    None => running.lines.values().next().map(|range| range.length),
                    other => other,
                });
                families
                    * room.unwrap_or_else(|| running::lines_for(service.backends.len())) as usize
            }
            Table::Sources => sources::need(service) as usize,
            Table::Services => 1,
        }
    }

    /// What services need, and what applying them would move.
    #[must_use]
    pub fn cost(&self, services: &Services) -> Cost {
        let sum = |table| services.iter().map(|service| self.need(table, service)).sum();
        let mut cost = Cost {
            frontends: sum(Table::Frontends),
            slots: sum(Table::Slots),
            lines: sum(Table::Lines),
            sources: sum(Table::Sources),
            ..Cost::default()
        };
        cost.bytes = cost.slots * 4 + (cost.lines + cost.sources + 2 * cost.frontends) * 64;
        for service in services.iter() {
            let Some(running) = self.running.get(&service.name) else { continue };
            let moved = running.would_move(service);
            cost.moved += moved;
            cost.entries += (moved as f64 * running.entries_per_slot).ceil() as usize;
        }
        cost
    }
}

/// A service that can't become the other one while packets pass: what they are found by differs, or what
/// becomes of them.
fn is_another(runs: &Service, service: &Service) -> bool {
    let snat = |service: &Service| service.forwarding == Forwarding::Snat;
    runs.protocol != service.protocol || snat(runs) != snat(service)
}

fn take(ranges: &mut Ranges, length: u32, times: usize) -> Option<()> {
    (0..times).try_for_each(|_| ranges.take(length).map(drop))
}

fn take_each(ranges: &mut Ranges, lengths: Vec<u32>) -> Option<()> {
    lengths.into_iter().try_for_each(|length| ranges.take(length).map(drop))
}

impl Running {
    /// Lines that the service would need, if those that it has don't do.
    pub(crate) fn other_lines(&self, service: &Service) -> Option<u32> {
        let comes = service.backends.iter().filter(|b| self.members.number(b.id()).is_none());
        let families = running::families(service);
        let has: BTreeSet<_> = self.lines.keys().copied().collect();
        let short = comes.count() > self.members.vacancies();
        if !short && families.is_subset(&has) && service.forwarding == self.service.forwarding {
            return None;
        }
        let wanted = running::lines_for(service.backends.len()).max(self.members.room());
        Some(if short { wanted.max(self.members.room() + wanted) } else { wanted })
    }

    /// Slots whose backend would be another one.
    pub(crate) fn would_move(&self, service: &Service) -> usize {
        let names: BTreeMap<_, _> = self.members.iter().map(|(id, number)| (number, id)).collect();
        let wanted = crate::change::wanted_table(service, self.size);
        let same = |(slot, wanted): (usize, &Option<crate::model::BackendId>)| {
            names.get(&u32::from(self.target[slot])) == wanted.as_ref()
        };
        wanted.iter().enumerate().filter(|pair| !same((pair.0, pair.1))).count()
    }
}
