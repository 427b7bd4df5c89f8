//! What is to be balanced: the file, what operators changed since, and what health checks say.
//!
//! An operator's change is kept as the backend that it leads to, beside the file's; one that leads back to
//! the file's is forgotten. Reading the file anew replaces all changes: whoever wants to keep one writes it
//! into the file.
//!
//! Not here: how packets get there (the library), and how health is found out ([`crate::health`]).
//!
//! Invariant: a change that would contradict something changes nothing.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};

use flowgate_services::{
    ServiceError, Services, Uplink,
    model::{self, BackendState},
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    config::{
        Checked,
        model::{Backend, Check, CheckPath, Config, Forwarding, Service, State},
    },
    health::{Health, Plan, Target, Tunnel},
};

/// Why a change is refused.
#[non_exhaustive]
#[derive(Debug, Error)]
pub enum ChangeError {
    /// No service has this name.
    #[error("there is no service {0}")]
    UnknownService(String),
    /// The service has no such backend.
    #[error("service {service} has no backend {backend}")]
    UnknownBackend {
        /// The service.
        service: String,
        /// The backend.
        backend: IpAddr,
    },
    /// It is there already.
    #[error("service {service} has backend {backend} already")]
    Known {
        /// The service.
        service: String,
        /// The backend.
        backend: IpAddr,
    },
    /// It can't be checked as its service is to be.
    #[error(
        "service {service} is checked through tunnels (`check.path`), and has no address of the family of {backend}: give it one, or write `direct`"
    )]
    Unasked {
        /// The service.
        service: String,
        /// The backend.
        backend: IpAddr,
    },
    /// The services would contradict themselves.
    #[error(transparent)]
    Services(#[from] ServiceError),
}

/// What operators changed since the file was read: by service and address, the backend as it is now, or
/// `None` if it was removed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Changes(BTreeMap<String, BTreeMap<IpAddr, Option<Backend>>>);

impl Changes {
    /// Nothing was changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each in words.
    pub fn describe(&self) -> impl Iterator<Item = String> + '_ {
        let one = |service: &str, address: &IpAddr, to: &Option<Backend>| match to {
            None => format!("{service}: {address} removed"),
            Some(Backend { state: State::Drain, .. }) => format!("{service}: {address} draining"),
            Some(backend) => format!("{service}: {address} active, weight {}", backend.weight),
        };
        self.0.iter().flat_map(move |(service, backends)| {
            backends.iter().map(move |(address, to)| one(service, address, to))
        })
    }
}

/// The file and the changes to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Desired {
    file: Config,
    changes: Changes,
    services: Services,
}

impl Desired {
    /// What a file says, without any change.
    #[must_use]
    pub fn new(checked: Checked) -> Self {
        Self { file: checked.config, changes: Changes::default(), services: checked.services }
    }

    /// With changes that were made to the same file earlier.
    ///
    /// # Errors
    ///
    /// They contradict it.
    pub fn with_changes(&self, changes: Changes) -> Result<Self, ChangeError> {
        let written = self.file.services.iter().map(|service| overlaid(service, &changes));
        let services = written.map(|service| match service.unasked() {
            Some(backend) => Err(ChangeError::Unasked { service: service.name, backend }),
            None => Ok(service.typed()),
        });
        let services = services.collect::<Result<Vec<_>, _>>()?;
        let services = self.file.balanced(services)?;
        Ok(Self { file: self.file.clone(), changes, services })
    }

    /// The file as it was read.
    #[must_use]
    pub fn file(&self) -> &Config {
        &self.file
    }

    /// What was changed since.
    #[must_use]
    pub fn changes(&self) -> &Changes {
        &self.changes
    }

    /// The services as they are now, as they are written.
    pub fn written(&self) -> impl Iterator<Item = Service> + '_ {
        self.file.services.iter().map(|service| overlaid(service, &self.changes))
    }

    /// With a backend in another state.
    ///
    /// # Errors
    ///
    /// There is no such backend.
    pub fn with_state(
        &self,
        service: &str,
        backend: IpAddr,
        state: State,
    ) -> Result<Self, ChangeError> {
        let known = self.find(service, backend)?.ok_or_else(|| unknown(service, backend))?;
        self.with(service, backend, Some(Backend { state, ..known }))
    }

    /// With a backend more.
    ///
    /// # Errors
    ///
    /// It is there already, or contradicts its service.
    pub fn with_backend(&self, service: &str, backend: Backend) -> Result<Self, ChangeError> {
        let address = backend.address;
        match self.find(service, address)? {
            Some(_) => Err(ChangeError::Known { service: service.into(), backend: address }),
            None => self.with(service, address, Some(backend)),
        }
    }

    /// Without a backend.
    ///
    /// # Errors
    ///
    /// There is no such backend.
    pub fn without_backend(&self, service: &str, backend: IpAddr) -> Result<Self, ChangeError> {
        self.find(service, backend)?.ok_or_else(|| unknown(service, backend))?;
        self.with(service, backend, None)
    }

    /// The services as they are to be balanced, if backends are in this health.
    ///
    /// # Panics
    ///
    /// Never: states contradict nothing.
    #[must_use]
    pub fn services(&self, health: impl Fn(&Target) -> Health) -> Services {
        let written = self.by_name();
        let services = self.services.iter().map(|service| {
            let mut service = (**service).clone();
            let fail_open = written.get(service.name.as_str()).is_some_and(|one| one.fail_open);
            let name = service.name.clone();
            let fails =
                |backend| health(&Target { service: name.clone(), backend }) == Health::Down;
            quarantine(&mut service, fail_open, fails);
            service
        });
        self.file.balanced(services).expect("states contradict nothing")
    }

    /// What is to be checked.
    pub fn plans(&self) -> impl Iterator<Item = (Target, Plan)> + '_ {
        let (written, uplink) = (self.by_name(), self.file.uplink.typed());
        self.services.iter().flat_map(move |service| {
            let written = written.get(service.name.as_str()).copied();
            let checked = written.and_then(|one| Some((one, one.check.as_ref()?)));
            checked.into_iter().flat_map(move |(written, check)| {
                let backends = service.backends.iter();
                backends.map(move |backend| plan(written, backend, (check, uplink)))
            })
        })
    }

    fn by_name(&self) -> HashMap<&str, &Service> {
        self.file.services.iter().map(|service| (service.name.as_str(), service)).collect()
    }

    fn find(&self, service: &str, backend: IpAddr) -> Result<Option<Backend>, ChangeError> {
        let found = self.file.services.iter().find(|one| one.name == service);
        let found = found.ok_or_else(|| ChangeError::UnknownService(service.into()))?;
        let backends = overlaid(found, &self.changes).backends;
        Ok(backends.into_iter().find(|one| one.address == backend))
    }

    fn with(
        &self,
        service: &str,
        address: IpAddr,
        to: Option<Backend>,
    ) -> Result<Self, ChangeError> {
        let written = self.file.services.iter().find(|one| one.name == service);
        let of_file = written.and_then(|one| one.backends.iter().find(|b| b.address == address));
        let mut changes = self.changes.clone();
        let of_service = changes.0.entry(service.to_owned()).or_default();
        match of_file == to.as_ref() {
            true => of_service.remove(&address),
            false => of_service.insert(address, to),
        };
        if of_service.is_empty() {
            changes.0.remove(service);
        }
        self.with_changes(changes)
    }
}

fn unknown(service: &str, backend: IpAddr) -> ChangeError {
    ChangeError::UnknownBackend { service: service.into(), backend }
}

/// A service of the file with the changes to its backends; what was added comes last.
fn overlaid(service: &Service, changes: &Changes) -> Service {
    let Some(changed) = changes.0.get(&service.name) else { return service.clone() };
    let mut overlaid = service.clone();
    overlaid.backends.retain(|backend| !changed.contains_key(&backend.address));
    overlaid.backends.extend(changed.values().flatten().cloned());
    overlaid
}

/// Backends that fail get no new flows, unless no other is left and the service fails open: then it is as if
/// none failed.
fn quarantine(service: &mut model::Service, fail_open: bool, fails: impl Fn(IpAddr) -> bool) {
    let is_active = |backend: &model::Backend| backend.state == BackendState::Active;
    let mut active = service.backends.iter().filter(|backend| is_active(backend));
    if fail_open && active.all(|backend| fails(backend.address)) {
        return;
    }
    for backend in &mut service.backends {
        if is_active(backend) && fails(backend.address) {
            backend.state = BackendState::Quarantined;
        }
    }
}

fn plan(
    service: &Service,
    backend: &model::Backend,
    (check, uplink): (&Check, Uplink),
) -> (Target, Plan) {
    let target = Target { service: service.name.as_str().into(), backend: backend.address };
    let own = if backend.port == 0 { service.port } else { backend.port };
    let port = check.port.unwrap_or(own);
    let tunnel = tunnel(service, backend, (check, uplink)).map(Arc::new);
    (target, Plan { address: (backend.address, port).into(), tunnel, check: check.clone() })
}

/// Where a backend is asked as a client of the service would be; `None`: directly.
fn tunnel(
    service: &Service,
    backend: &model::Backend,
    (check, uplink): (&Check, Uplink),
) -> Option<Tunnel> {
    let tunnelled = matches!(service.forwarding, Forwarding::Tunnel | Forwarding::Gue(_));
    if check.path == Some(CheckPath::Direct) || !tunnelled {
        return None;
    }
    let port = check.port.unwrap_or(service.port);
    Some(Tunnel {
        destination: (service.asked(backend.address)?, port).into(),
        service: service.without_backends(),
        backend: *backend,
        uplink,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    const FILE: &str = "\
interfaces: [{name: eth0}]
services:
  - name: web
    addresses: [198.51.100.1]
    protocol: tcp
    port: 80
    check: {probe: tcp, port: 8080}
    backends: [{address: 198.18.0.1}, {address: 198.18.0.2, state: drain}]
  - name: open
    addresses: [198.51.100.2]
    protocol: tcp
    port: 80
    fail_open: true
    check: {probe: tcp}
    backends: [{address: 198.18.0.1}, {address: 198.18.0.2}, {address: 198.18.0.3, state: drain}]
";

    fn desired() -> Desired {
        Desired::new(config::parse("lb.yaml", FILE).unwrap())
    }

    fn address(last: u8) -> IpAddr {
        [198, 18, 0, last].into()
    }

    fn states(desired: &Desired, service: &str, health: Health) -> Vec<(IpAddr, BackendState)> {
        let services = desired.services(|_| health);
        let backends = &services.get(&service.into()).unwrap().backends;
        backends.iter().map(|backend| (backend.address, backend.state)).collect()
    }

    fn backend(last: u8) -> Backend {
        let text = format!("{{\"address\": \"198.18.0.{last}\"}}");
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn failed_backends_get_no_new_flows() {
        use BackendState::{Active, Draining, Quarantined};
        let desired = desired();
        for healthy in [Health::Up, Health::Unknown] {
            let web = states(&desired, "web", healthy);
            assert_eq!(web, [(address(1), Active), (address(2), Draining)]);
        }
        let web = states(&desired, "web", Health::Down);
        assert_eq!(web, [(address(1), Quarantined), (address(2), Draining)]);
    }

    #[test]
    fn a_service_fails_open_only_if_all_of_its_active_backends_fail() {
        use BackendState::{Active, Draining, Quarantined};
        let states = |failing: &[u8]| {
            let is_down =
                |target: &Target| failing.iter().any(|last| target.backend == address(*last));
            let services = desired()
                .services(|target| if is_down(target) { Health::Down } else { Health::Up });
            let backends = &services.get(&"open".into()).unwrap().backends;
            backends.iter().map(|backend| backend.state).collect::<Vec<_>>()
        };
        assert_eq!(states(&[1]), [Quarantined, Active, Draining]);
        assert_eq!(states(&[1, 3]), [Quarantined, Active, Draining]);
        assert_eq!(states(&[1, 2]), [Active, Active, Draining]);
    }

    #[test]
    fn changes_lie_over_the_file_until_they_lead_back() {
        let file = desired();
        let drained = file.with_state("web", address(1), State::Drain).unwrap();
        assert_eq!(drained.changes().describe().collect::<Vec<_>>(), ["web: 198.18.0.1 draining"]);
        assert_eq!(drained.with_state("web", address(1), State::Active).unwrap(), file);
        let removed = drained.without_backend("web", address(1)).unwrap();
        assert_eq!(states(&removed, "web", Health::Up).len(), 1);
        let added = removed.with_backend("web", backend(3)).unwrap();
        let words: Vec<String> = added.changes().describe().collect();
        assert_eq!(words, ["web: 198.18.0.1 removed", "web: 198.18.0.3 active, weight 1"]);
        let back = added.without_backend("web", address(3)).unwrap();
        assert_eq!(back.with_backend("web", backend(1)).unwrap(), file);
    }

    #[test]
    fn what_contradicts_is_refused() {
        let file = desired();
        let nobody = file.with_state("web", address(9), State::Drain).unwrap_err();
        assert_eq!(nobody.to_string(), "service web has no backend 198.18.0.9");
        let nothing = file.without_backend("mail", address(1)).unwrap_err();
        assert_eq!(nothing.to_string(), "there is no service mail");
        let known = file.with_backend("web", backend(1)).unwrap_err();
        assert_eq!(known.to_string(), "service web has backend 198.18.0.1 already");
        let weightless = Backend { weight: 0, ..backend(3) };
        assert!(matches!(file.with_backend("web", weightless), Err(ChangeError::Services(_))));
    }

    #[test]
    fn who_cant_be_asked_through_a_tunnel_is_refused_where_that_is_written() {
        let other = serde_json::from_str::<Backend>("{\"address\": \"2001:db8::1\"}").unwrap();
        let written = FILE.replace("port: 8080", "path: tunnel");
        let tunnelled = Desired::new(config::parse("lb.yaml", &written).unwrap());
        let refused = tunnelled.with_backend("web", other.clone()).unwrap_err();
        let said = "service web is checked through tunnels (`check.path`), and has no address of the family of 2001:db8::1";
        assert!(refused.to_string().starts_with(said), "{refused}");
        assert!(tunnelled.with_backend("web", backend(3)).is_ok());
        assert!(desired().with_backend("web", other).is_ok(), "it's asked directly");
    }

    #[test]
    fn everybody_of_a_checked_service_is_checked() {
        let added = desired().with_backend("web", backend(3)).unwrap();
        let plans: Vec<String> = added
            .plans()
            .map(|(target, plan)| format!("{} {}", target.service, plan.address))
            .collect();
        let expected = [
            "open 198.18.0.1:80",
            "open 198.18.0.2:80",
            "open 198.18.0.3:80",
            "web 198.18.0.1:8080",
            "web 198.18.0.2:8080",
            "web 198.18.0.3:8080",
        ];
        assert_eq!(plans, expected);
    }

    #[test]
    fn who_is_reached_by_a_tunnel_is_asked_through_it() {
        let asked = |from: &str, to: &str| {
            let file = FILE.replace(from, to);
            let desired = Desired::new(config::parse("lb.yaml", &file).unwrap());
            let web =
                desired.plans().find(|(target, _)| target.service.to_string() == "web").unwrap();
            web.1.tunnel.map(|one| one.destination.to_string())
        };
        assert_eq!(asked("", ""), Some("198.51.100.1:8080".into()));
        assert_eq!(asked("port: 8080", "path: direct"), None);
        assert_eq!(asked("[198.51.100.1]", "['2001:db8:1::1']"), None, "a packet has one family");
        let both = asked("[198.51.100.1]", "['2001:db8:1::1', 198.51.100.1]");
        assert_eq!(both, Some("198.51.100.1:8080".into()));
    }
}
