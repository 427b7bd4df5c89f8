//! Places of full NAT's sources: where each has its ports, and whose ports new flows get.
//!
//! Sources change while packets pass. One that isn't wanted any more is retired: new flows get none of its ports,
//! those that have one keep it, and answers find their clients. When the last of its flows is over, it is gone, and
//! its place is free.
//!
//! Not here: when a flow is over (`nat.rs`).
//!
//! Invariants: packets meet the sources of new flows as they were or as they will be, all at once; a place gets
//! another source only after a grace period in which it had neither a turn nor a flow. Tested by `tests/nat`, the
//! pipeline itself running, and at the kernel by `flowgate-datapath`.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    ops::Range,
};

use flowgate_abi::{
    Addr6, Shared32,
    lb::{
        Frontend, Target,
        nat::{Active, Source},
    },
};

use crate::{
    balancer::Balancer,
    frontends::{address_target, target_of},
    model::{self, Forwarding, Protocol, Service},
    nat::{SourcesError, narrow},
    room::ApplyError,
    store::Store,
};

/// Sources, by the numbers of their places.
pub(crate) type Placed = BTreeMap<IpAddr, u32>;

/// Frontends of each source: for either protocol, and its address as such.
const FRONTENDS: usize = 3;

/// Who has which place.
#[derive(Debug, Default)]
pub(crate) struct Places {
    /// Sources of new flows.
    active: Placed,
    /// Those whose flows live on, and those that packets can't choose yet.
    retired: Placed,
    /// Packets may be under way that go by the list before.
    under_way: bool,
}

impl Places {
    /// Takes over what an earlier process left: who has no turn is retired, also one that was killed before it had.
    pub(crate) fn adopt<S: Store>(store: &S) -> Self {
        let active = Active(store.head().nat_active.load());
        let list = active.list() as usize;
        let turns =
            [(true, active.v4()), (false, active.v6())].into_iter().flat_map(|(v4, count)| {
                let start = family(store, v4).start;
                (start..start + count).map(|turn| store.nat_source(turn).turns[list])
            });
        let turns: BTreeSet<u32> = turns.collect();
        let mut places = Self::default();
        for (address, number) in occupied(store) {
            let known =
                if turns.contains(&number) { &mut places.active } else { &mut places.retired };
            known.insert(address, number);
        }
        places
    }

    /// Nobody has a place.
    pub(crate) fn is_empty(&self) -> bool {
        self.active.is_empty() && self.retired.is_empty()
    }

    /// Something waits for a grace period.
    pub(crate) fn is_under_way(&self) -> bool {
        self.under_way
    }

    /// No packet under way goes by a list of before.
    pub(crate) fn settled(&mut self) {
        self.under_way = false;
    }

    /// Whose ports new flows get.
    pub(crate) fn active(&self) -> &Placed {
        &self.active
    }

    /// New flows get no port of this source.
    pub(crate) fn is_retired(&self, address: &IpAddr) -> bool {
        self.retired.contains_key(address)
    }

    fn number(&self, address: &IpAddr) -> Option<u32> {
        self.active.get(address).or_else(|| self.retired.get(address)).copied()
    }

    /// Frontends of all sources, once these are active.
    pub(crate) fn frontends(&self, wanted: &Placed) -> usize {
        let fresh = wanted.keys().filter(|address| self.number(address).is_none()).count();
        (self.active.len() + self.retired.len() + fresh) * FRONTENDS
    }

    /// The places that sources are to have: their own, or free ones.
    fn assign<S: Store>(
        &self,
        store: &S,
        wanted: &BTreeSet<IpAddr>,
    ) -> Result<Placed, SourcesError> {
        let taken: BTreeSet<u32> =
            self.active.values().chain(self.retired.values()).copied().collect();
        let mut free =
            [false, true].map(|v4| family(store, v4).filter(|number| !taken.contains(number)));
        let place = |&address: &IpAddr| {
            let free = &mut free[usize::from(address.is_ipv4())];
            let number = self.number(&address).or_else(|| free.next());
            let number = number.ok_or_else(|| self.no_place(store, address, wanted));
            Ok((address, number?))
        };
        wanted.iter().map(place).collect()
    }

    fn no_place<S: Store>(
        &self,
        store: &S,
        address: IpAddr,
        wanted: &BTreeSet<IpAddr>,
    ) -> SourcesError {
        let known = self.active.keys().chain(self.retired.keys());
        let left = known.filter(|one| one.is_ipv4() == address.is_ipv4() && !wanted.contains(*one));
        let (have, retired) = (family(store, address.is_ipv4()).len(), left.count());
        SourcesError::NoPlace { address, have, retired }
    }
}

impl<S: Store> Balancer<S> {
    /// Where these sources are to have their places; `None`: they have them.
    pub(crate) fn plan_sources(
        &self,
        wanted: &BTreeSet<IpAddr>,
    ) -> Result<Option<Placed>, SourcesError> {
        let places = &self.ports.places;
        let wanted = places.assign(&self.store, wanted)?;
        let mut fresh = wanted.keys().filter(|address| places.number(address).is_none());
        let taken = |address: &IpAddr| {
            self.directory.find(&self.store, &address_target(*address)).is_some()
        };
        match fresh.find(|address| taken(address)) {
            Some(&address) => Err(SourcesError::Taken { address }),
            None => Ok((wanted != places.active).then_some(wanted)),
        }
    }

    /// Makes sources those of new flows, all at once, and the others' flows the last of theirs.
    pub(crate) fn change_sources(&mut self, wanted: Placed) -> Result<(), ApplyError<S::Error>> {
        if self.ports.places.under_way {
            self.store.wait().map_err(ApplyError::Store)?;
            self.ports.places.settled();
        }
        for (&address, &number) in &wanted {
            self.add_source(number, address)?;
        }
        // Services with port 0 that were adopted are counted there, and not known here yet.
        let wildcards = &self.store.head().wildcards;
        wildcards.store(wildcards.load().max(self.ports.places.frontends(&wanted) as u32));
        self.turn_to(wanted).map_err(ApplyError::Store)
    }

    /// Makes a source known to packets: its answers, of either protocol. Nobody has a port of it yet.
    fn add_source(&mut self, number: u32, address: IpAddr) -> Result<(), SourcesError> {
        if self.ports.places.number(&address).is_none() {
            self.name_place(number, Addr6::wide(address));
            // Until its turn comes: if that fails, it goes as one does that was retired.
            self.ports.places.retired.insert(address, number);
        }
        let slots = number * self.store.settings().nat_groups_each;
        for target in targets(address) {
            let flags = Shared32::new(Frontend::SOURCE);
            let frontend = Frontend { target, slots, flags, ..Frontend::default() };
            let known = self.directory.find(&self.store, &target).is_some();
            if !known && !self.directory.insert(&mut self.store, frontend) {
                return Err(SourcesError::Collision { address });
            }
        }
        Ok(())
    }

    fn name_place(&mut self, number: u32, address: Addr6) {
        let place = self.store.nat_source(number);
        self.store.set_nat_source(number, Source { address, ..place });
    }

    /// Writes the list by which no packet goes, and has packets go by it.
    fn turn_to(&mut self, wanted: Placed) -> Result<(), S::Error> {
        let list = Active(self.store.head().nat_active.load()).list() ^ 1;
        let mut counts = [0; 2];
        for (address, &number) in &wanted {
            let count = &mut counts[usize::from(address.is_ipv6())];
            let turn = family(&self.store, address.is_ipv4()).start + *count;
            let mut place = self.store.nat_source(turn);
            place.turns[list as usize] = number;
            self.store.set_nat_source(turn, place);
            *count += 1;
        }
        // Where loads are reordered, a packet may read the list before it knows which.
        self.store.wait()?;
        self.store.head().nat_active.store(Active::new(list, counts).0);
        let places = &mut self.ports.places;
        let before = std::mem::replace(&mut places.active, wanted);
        places.retired.extend(before);
        places.retired.retain(|address, _| !places.active.contains_key(address));
        places.under_way = true;
        Ok(())
    }

    /// Gives the places of retired sources back that have no flow any more.
    pub(crate) fn release_sources(&mut self) -> Result<(), S::Error> {
        let places = &self.ports.places;
        let each = self.store.settings().nat_groups_each;
        let is_idle = |&(_, &number): &(&IpAddr, &u32)| {
            (number * each..(number + 1) * each).all(|group| self.store.taken(group) == 0)
        };
        let idle: Placed = match places.under_way {
            true => return Ok(()),
            false => places.retired.iter().filter(is_idle).map(|(one, at)| (*one, *at)).collect(),
        };
        if idle.is_empty() {
            return Ok(());
        }
        for target in idle.keys().copied().flat_map(targets) {
            self.directory.remove(&mut self.store, &target);
        }
        self.store.wait()?;
        for (address, number) in idle {
            self.name_place(number, Addr6::default());
            self.ports.places.retired.remove(&address);
        }
        Ok(())
    }

    /// A service with full NAT has sources, and none is a source.
    pub(crate) fn check_sources(
        &self,
        service: &Service,
        sources: &Placed,
    ) -> Result<(), ApplyError<S::Error>> {
        let known = |address: &&IpAddr| {
            sources.contains_key(*address) || self.ports.places.number(address).is_some()
        };
        if let Some(&address) = service.addresses.iter().find(known) {
            return Err(ApplyError::SourceAddress { service: service.name.clone(), address });
        }
        let is_v4 = service.addresses[0].is_ipv4();
        let has = sources.keys().any(|source| source.is_ipv4() == is_v4);
        if service.forwarding == Forwarding::Snat && !has {
            return Err(ApplyError::NoSource { service: service.name.clone() });
        }
        Ok(())
    }
}

/// What leads packets to a source.
fn targets(address: IpAddr) -> [Target; FRONTENDS] {
    let of = |protocol| target_of(model::Frontend { address, protocol, port: 0 });
    [of(Protocol::Tcp), of(Protocol::Udp), address_target(address)]
}

/// The places of a family: IPv4's come first.
pub(crate) fn family<S: Store>(store: &S, is_v4: bool) -> Range<u32> {
    let (settings, all) = (store.settings(), store.room().nat_sources);
    let v4 = settings.nat_groups[0] / settings.nat_groups_each.max(1);
    if is_v4 { 0..v4.min(all) } else { v4.min(all)..all }
}

/// Every source, and its place.
pub(crate) fn occupied<S: Store>(store: &S) -> impl Iterator<Item = (IpAddr, u32)> + '_ {
    let of = move |is_v4| {
        family(store, is_v4).filter_map(move |number| {
            let place = store.nat_source(number);
            let known = place.address != Addr6::default();
            known.then(|| (narrow(place, is_v4), number))
        })
    };
    of(true).chain(of(false))
}
