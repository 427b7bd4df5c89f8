//! A set of services that contradicts itself nowhere.
//!
//! Invariant: whoever holds a [`Services`] needs to check nothing of what [`ServiceError`] names.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use crate::{
    ServiceError, Uplink,
    model::{
        Backend, BackendId, BackendState, Forwarding, Frontend, HashMode, NextHop, Service,
        ServiceName, SourceRanges,
    },
    server_ids,
    sources::MOST_NETWORKS,
};

/// Backends that a service may have: a slot names one in 14 bits, 0 is nobody, and one number is kept
/// free for whoever takes another's place.
const MOST_BACKENDS: usize = (1 << 14) - 2;

/// The longest affinity, as in Kubernetes.
const LONGEST_AFFINITY: Duration = Duration::from_secs(86_400);

/// Services by name, checked. Cheap to clone; what is the same in two sets is shared.
///
/// ```
/// use flowgate_services::{Services, model::{Backend, BackendState, Service}};
///
/// let web = Service::tcp("web", 80)
///     .address("198.51.100.1".parse()?)
///     .backend(Backend::new("198.18.0.11".parse()?))
///     .backend(Backend::new("198.18.0.12".parse()?));
/// let services = Services::new([web])?;
/// let address: std::net::IpAddr = "198.18.0.11".parse()?;
/// let drained = services.with_state(&"web".into(), address.into(), BackendState::Draining)?;
/// assert_ne!(services, drained);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Services {
    services: BTreeMap<ServiceName, Arc<Service>>,
    nat_sources: Option<Arc<BTreeSet<IpAddr>>>,
}

impl Services {
    /// Checks services.
    ///
    /// # Errors
    /// The first contradiction, in the order of the services' names.
    pub fn new(services: impl IntoIterator<Item = Service>) -> Result<Self, ServiceError> {
        let mut checked = BTreeMap::new();
        for service in services {
            let name = service.name.clone();
            if checked.insert(name.clone(), Arc::new(service)).is_some() {
                return Err(ServiceError::DuplicateName { name });
            }
        }
        Self { services: checked, nat_sources: None }.checked()
    }

    /// With the addresses that packets of services with full NAT come from. Without them, those stay that the
    /// balancer has.
    ///
    /// New flows get ports of these alone. A source that isn't among them any more is retired: flows keep the ports
    /// that they have there, and it is gone with the last of them
    /// ([`SourceStats::retired`](crate::SourceStats::retired)).
    #[must_use]
    pub fn with_nat_sources(&self, sources: impl IntoIterator<Item = IpAddr>) -> Self {
        let nat_sources = Some(Arc::new(sources.into_iter().collect()));
        Self { services: self.services.clone(), nat_sources }
    }

    /// The addresses that packets of services with full NAT come from; `None`: those that the balancer has.
    #[must_use]
    pub fn nat_sources(&self) -> Option<&BTreeSet<IpAddr>> {
        self.nat_sources.as_deref()
    }

    /// The services, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.values()
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.services.len()
    }

    /// There are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.services.is_empty()
    }

    /// A service by its name.
    #[must_use]
    pub fn get(&self, name: &ServiceName) -> Option<&Arc<Service>> {
        self.services.get(name)
    }

    /// With a service more, or with another one in the place of that of its name.
    ///
    /// # Errors
    /// It contradicts itself or another one.
    pub fn with(&self, service: Service) -> Result<Self, ServiceError> {
        let mut services = self.services.clone();
        services.insert(service.name.clone(), Arc::new(service));
        self.replaced(services).checked()
    }

    /// Without a service.
    ///
    /// # Errors
    /// [`ServiceError::UnknownService`].
    pub fn without(&self, name: &ServiceName) -> Result<Self, ServiceError> {
        let mut services = self.services.clone();
        match services.remove(name) {
            Some(_) => Ok(self.replaced(services)),
            None => Err(ServiceError::UnknownService { service: name.clone() }),
        }
    }

    /// With a backend of a service in another state.
    ///
    /// # Errors
    /// [`ServiceError::UnknownService`], [`ServiceError::UnknownBackend`].
    pub fn with_state(
        &self,
        service: &ServiceName,
        backend: BackendId,
        state: BackendState,
    ) -> Result<Self, ServiceError> {
        let mut changed = self.known(service)?.clone();
        let found = changed.backends.iter_mut().find(|known| known.id() == backend);
        let unknown = || ServiceError::UnknownBackend { service: service.clone(), backend };
        found.ok_or_else(unknown)?.state = state;
        self.with(changed)
    }

    /// Without a backend of a service: its flows go to others.
    ///
    /// # Errors
    /// [`ServiceError::UnknownService`], [`ServiceError::UnknownBackend`].
    pub fn without_backend(
        &self,
        service: &ServiceName,
        backend: BackendId,
    ) -> Result<Self, ServiceError> {
        let mut changed = self.known(service)?.clone();
        let before = changed.backends.len();
        changed.backends.retain(|known| known.id() != backend);
        if changed.backends.len() == before {
            return Err(ServiceError::UnknownBackend { service: service.clone(), backend });
        }
        self.with(changed)
    }

    fn replaced(&self, services: BTreeMap<ServiceName, Arc<Service>>) -> Self {
        Self { services, nat_sources: self.nat_sources.clone() }
    }

    fn known(&self, name: &ServiceName) -> Result<&Service, ServiceError> {
        let service = self.services.get(name).map(|service| &**service);
        service.ok_or_else(|| ServiceError::UnknownService { service: name.clone() })
    }

    fn checked(self) -> Result<Self, ServiceError> {
        let mut taken: BTreeMap<Frontend, &ServiceName> = BTreeMap::new();
        for service in self.services.values() {
            check(service)?;
            for frontend in service.frontends() {
                if let Some(first) = taken.insert(frontend, &service.name) {
                    let (first, second) = (first.clone(), service.name.clone());
                    return Err(ServiceError::DuplicateFrontend { frontend, first, second });
                }
            }
        }
        Ok(self)
    }
}

/// What is wrong with a service by itself.
fn check(service: &Service) -> Result<(), ServiceError> {
    let name = || service.name.clone();
    if service.addresses.is_empty() {
        return Err(ServiceError::NoAddress { service: name() });
    }
    if let Some(&address) = service.addresses.iter().find(|address| !is_usable(**address)) {
        return Err(ServiceError::Address { service: name(), address });
    }
    check_families(service)?;
    if service.forwarding == (Forwarding::Gue { port: 0 }) {
        return Err(ServiceError::NoTunnelPort { service: name() });
    }
    if service.options.hash == HashMode::DestinationPort && service.port != 0 {
        return Err(ServiceError::OnePort { service: name(), port: service.port });
    }
    check_sources(service)?;
    check_affinity(service)?;
    server_ids::check(service)?;
    let (backends, slots) = (service.backends.len(), service.slots().slots());
    if backends > MOST_BACKENDS {
        return Err(ServiceError::TooManyBackends {
            service: name(),
            backends,
            most: MOST_BACKENDS,
        });
    }
    if backends > slots as usize {
        return Err(ServiceError::TableTooSmall { service: name(), backends, slots });
    }
    let mut known = BTreeSet::new();
    for backend in &service.backends {
        check_backend(service, backend)?;
        if !known.insert(backend.id()) {
            let backend = backend.id();
            return Err(ServiceError::DuplicateBackend { service: name(), backend });
        }
    }
    Ok(())
}

/// Full NAT stays within a family.
fn check_families(service: &Service) -> Result<(), ServiceError> {
    if service.forwarding != Forwarding::Snat {
        return Ok(());
    }
    let other = service.addresses[0];
    let backends = service.backends.iter().map(|backend| &backend.address);
    match service.addresses.iter().chain(backends).find(|one| one.is_ipv4() != other.is_ipv4()) {
        Some(&address) => {
            Err(ServiceError::Family { service: service.name.clone(), address, other })
        }
        None => Ok(()),
    }
}

fn check_affinity(service: &Service) -> Result<(), ServiceError> {
    let (name, most) = (|| service.name.clone(), LONGEST_AFFINITY);
    match (service.options.affinity, service.options.hash) {
        (Some(time), _) if time < Duration::from_secs(1) || time > most => {
            Err(ServiceError::Affinity { service: name(), time, most })
        }
        (Some(_), HashMode::DestinationPort) => {
            Err(ServiceError::AffinityByPort { service: name() })
        }
        _ => Ok(()),
    }
}

fn check_sources(service: &Service) -> Result<(), ServiceError> {
    let (name, networks) = (|| service.name.clone(), service.sources.networks());
    if service.sources != SourceRanges::Any && networks.is_empty() {
        return Err(ServiceError::NoNetwork { service: name() });
    }
    if let Some(&network) = networks.iter().find(|network| **network != network.trunc()) {
        return Err(ServiceError::Network { service: name(), network, meant: network.trunc() });
    }
    if networks.len() > MOST_NETWORKS {
        let networks = networks.len();
        return Err(ServiceError::TooManyNetworks {
            service: name(),
            networks,
            most: MOST_NETWORKS,
        });
    }
    Ok(())
}

fn check_backend(service: &Service, backend: &Backend) -> Result<(), ServiceError> {
    let (name, id) = (service.name.clone(), backend.id());
    if !is_usable(backend.address) {
        return Err(ServiceError::Address { service: name, address: backend.address });
    }
    if backend.weight == 0 {
        return Err(ServiceError::NoWeight { service: name, backend: id });
    }
    if backend.port != 0 && service.forwarding != Forwarding::Snat {
        return Err(ServiceError::Port { service: name, backend: id });
    }
    if service.forwarding == Forwarding::Layer2 && backend.next_hop == NextHop::Gateway {
        return Err(ServiceError::NoMac { service: name, backend: id });
    }
    match backend.mtu {
        Some(mtu) => check_path(service, backend, mtu),
        None => Ok(()),
    }
}

/// The paths of an uplink are wide enough for a service's packets.
pub(crate) fn check_mtu(service: &Service, uplink: &Uplink) -> Result<(), ServiceError> {
    let mut backends = service.backends.iter();
    backends.try_for_each(|backend| check_path(service, backend, uplink.mtu_to(backend)))
}

fn check_path(service: &Service, backend: &Backend, mtu: u16) -> Result<(), ServiceError> {
    let least = least_mtu(service, backend);
    if mtu >= least {
        return Ok(());
    }
    Err(ServiceError::Mtu { service: service.name.clone(), backend: backend.id(), mtu, least })
}

/// What a path must carry so that the smallest MTU of the inner family is left.
fn least_mtu(service: &Service, backend: &Backend) -> u16 {
    let inner = if service.addresses.iter().any(IpAddr::is_ipv6) { 1280 } else { 576 };
    inner + service.forwarding.overhead(backend.address)
}

impl Forwarding {
    /// Bytes that the outer headers of a packet to a backend take.
    #[must_use]
    pub const fn overhead(self, backend: IpAddr) -> u16 {
        let outer = if backend.is_ipv4() { 20 } else { 40 };
        match self {
            Self::Tunnel => outer,
            Self::Gue { .. } => outer + 8,
            Self::Layer2 | Self::Snat => 0,
        }
    }
}

/// A packet on a wire may have it for its destination, and one host owns it.
fn is_usable(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.octets()[0] != 0 && v4.octets()[0] < 224 && !v4.is_loopback(),
        IpAddr::V6(v6) => {
            let other = v6.is_unspecified() || v6.is_loopback() || v6.is_multicast();
            !other && v6.to_ipv4_mapped().is_none()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{TableSize, model::Protocol};

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn backend(last: u8) -> Backend {
        Backend::new(IpAddr::from([198, 18, 0, last]))
    }

    fn web() -> Service {
        Service::tcp("web", 80).address(address("198.51.100.1")).backend(backend(1))
    }

    fn refused(service: Service) -> ServiceError {
        Services::new([service]).expect_err("it is refused")
    }

    #[test]
    fn names_and_frontends_are_taken_once() {
        let twice = Services::new([web(), web()]).unwrap_err();
        assert_eq!(twice, ServiceError::DuplicateName { name: "web".into() });
        let other = Service { name: "other".into(), ..web() };
        let both = Services::new([web(), other.clone()]).unwrap_err();
        assert!(both.to_string().contains("services other and web both have 198.51.100.1 TCP/80"));
        let apart = Service { protocol: Protocol::Udp, ..other.clone() };
        assert!(Services::new([web(), apart]).is_ok());
        assert!(Services::new([web(), Service { port: 81, ..other }]).is_ok());
        let twice = refused(web().address(address("198.51.100.1")));
        assert!(matches!(twice, ServiceError::DuplicateFrontend { .. }));
    }

    #[test]
    fn affinity_lasts_up_to_a_day_and_is_the_clients() {
        let with = |seconds, hash| {
            let mut service = Service { port: 0, ..web() };
            service.options.affinity = Some(Duration::from_secs(seconds));
            service.options.hash = hash;
            Services::new([service])
        };
        assert!(with(86_400, HashMode::Source).is_ok() && with(1, HashMode::Connection).is_ok());
        for seconds in [0, 86_401] {
            let refused = with(seconds, HashMode::Source);
            assert!(matches!(refused, Err(ServiceError::Affinity { .. })), "{seconds}");
        }
        let by_port = with(60, HashMode::DestinationPort);
        assert!(matches!(by_port, Err(ServiceError::AffinityByPort { .. })));
    }

    #[test]
    fn source_ranges_are_networks() {
        let network = |text: &str| text.parse().expect("a network");
        let none = web().sources(SourceRanges::Allow(vec![]));
        assert!(matches!(refused(none), ServiceError::NoNetwork { .. }));
        let odd = refused(web().sources(SourceRanges::Deny(vec![network("203.0.113.7/24")])));
        assert!(
            odd.to_string()
                .contains("203.0.113.7/24 has bits beyond its prefix: is 203.0.113.0/24")
        );
        let many = refused(web().sources(SourceRanges::Deny(vec![network("::/0"); 1 << 18])));
        assert!(matches!(many, ServiceError::TooManyNetworks { most: 156_249, .. }));
    }

    #[test]
    fn what_has_one_port_is_not_spread_by_it() {
        let mut service = web();
        service.options.hash = HashMode::DestinationPort;
        assert!(matches!(refused(service.clone()), ServiceError::OnePort { port: 80, .. }));
        assert!(Services::new([Service { port: 0, ..service }]).is_ok());
    }

    #[test]
    fn addresses_are_those_of_a_wire() {
        let none = Service { addresses: vec![], ..web() };
        assert!(matches!(refused(none), ServiceError::NoAddress { .. }));
        for text in ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255"] {
            assert!(matches!(refused(web().address(address(text))), ServiceError::Address { .. }));
        }
        for text in ["::", "::1", "ff02::1", "::ffff:198.51.100.1"] {
            let service = web().backend(Backend::new(address(text)));
            assert!(matches!(refused(service), ServiceError::Address { .. }), "{text}");
        }
    }

    #[test]
    fn backends_are_told_apart_and_can_be_reached() {
        let twice = refused(web().backend(backend(1)));
        assert!(matches!(twice, ServiceError::DuplicateBackend { .. }));
        let none = refused(web().backend(backend(2).weight(0)));
        assert!(none.to_string().contains("backend 198.18.0.2 has weight 0"));
        let port = Backend { port: 8080, ..backend(2) };
        assert!(refused(web().backend(port)).to_string().contains("198.18.0.2:8080"));
        let layer2 = web().forwarding(Forwarding::Layer2);
        assert!(matches!(refused(layer2.clone()), ServiceError::NoMac { .. }));
        let mac = backend(1).next_hop(NextHop::Mac([2, 0, 0, 0, 0, 1]));
        assert!(Services::new([Service { backends: vec![mac], ..layer2 }]).is_ok());
    }

    #[test]
    fn full_nat_translates_ports_but_no_families() {
        let snat = web().forwarding(Forwarding::Snat).backend(backend(2).port(8080));
        assert!(Services::new([snat.clone()]).is_ok());
        let mixed = snat.clone().backend(Backend::new(address("2001:db8:2::1")));
        assert!(matches!(refused(mixed), ServiceError::Family { .. }));
        let mixed = snat.address(address("2001:db8:1::1"));
        assert!(matches!(refused(mixed), ServiceError::Family { .. }));
    }

    #[test]
    fn a_path_carries_the_smallest_mtu_of_the_inner_family() {
        let with = |mtu| Service { backends: vec![backend(1).mtu(mtu)], ..web() };
        assert!(Services::new([with(596)]).is_ok());
        assert!(matches!(refused(with(595)), ServiceError::Mtu { least: 596, .. }));
        let gue =
            with(1307).address(address("2001:db8::1")).forwarding(Forwarding::Gue { port: 1 });
        assert!(matches!(refused(gue), ServiceError::Mtu { least: 1308, .. }));
    }

    #[test]
    fn every_backend_has_room_in_the_table() {
        let many = |count: u32| Service {
            backends: (1..=count)
                .map(|n| Backend::new(IpAddr::V4(n.wrapping_add(0xc612_0000).into())))
                .collect(),
            ..web()
        };
        let small = many(252).table(TableSize::new(251).unwrap());
        assert!(matches!(refused(small), ServiceError::TableTooSmall { backends: 252, .. }));
        assert!(Services::new([many(16_382)]).is_ok());
        assert!(matches!(refused(many(16_383)), ServiceError::TooManyBackends { .. }));
    }

    #[test]
    fn changes_make_another_set() {
        let services = Services::new([web().backend(backend(2))]).unwrap();
        let (web, two) = (ServiceName::from("web"), backend(2).id());
        let draining = services.with_state(&web, two, BackendState::Draining).unwrap();
        let state = |set: &Services| set.get(&web).unwrap().find(two).map(|backend| backend.state);
        assert_eq!(state(&services), Some(BackendState::Active));
        assert_eq!(state(&draining), Some(BackendState::Draining));
        assert_eq!(state(&draining.without_backend(&web, two).unwrap()), None);
        assert!(services.without_backend(&web, backend(9).id()).is_err());
        assert!(services.without(&web).unwrap().is_empty());
        assert!(services.without(&"other".into()).is_err());
    }
}
