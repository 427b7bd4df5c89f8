//! What types can't say: contradictions, each at the field that is wrong.

use std::{collections::HashSet, fmt::Display, net::IpAddr, time::Duration};

use flowgate_datapath::{OpenError, lb::NatOptions};
use flowgate_services::{
    ServiceError, Services, TableSize,
    model::{BackendId, ServiceName},
};

use ipnet::IpNet;

use super::{
    Reason,
    duration::print,
    model::{
        Check, CheckPath, Config, Forwarding, Http, Https, Nat, Probe, Service, Sources, Timeouts,
    },
};

/// Intervals of checks: shorter ones are a load, longer ones no check.
const INTERVALS: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(3600)];
/// The longest silence that services may ask for: what TCP has where nothing is said fits, and a day is a day.
const LONGEST_IDLE: [Duration; 2] = [Duration::from_secs(300), Duration::from_secs(24 * 3600)];
const SHORTEST_IDLE: Duration = Duration::from_secs(1);
/// Time-outs of full NAT: no shorter than a segment takes to be sent again, no longer than a week.
const NAT_TIMEOUTS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(168 * 3600)];
const LONGEST_NAME: usize = 63;
/// What every path of IPv4 carries (RFC 791).
const LEAST_MTU: u16 = 576;
/// What fits into one datagram of any path.
const LONGEST_PROBE: usize = 1200;

/// A contradiction, at a field such as `services[0].name`.
#[derive(Debug)]
pub(super) struct Mistake {
    pub(super) field: String,
    pub(super) reason: Reason,
}

type Checking = Result<(), Mistake>;

/// Checks a configuration; the services that it stands for.
pub(super) fn check(config: &Config) -> Result<Services, Mistake> {
    interfaces(config)?;
    sources(&config.nat)?;
    places(&config.options().nat)?;
    timeouts(&config.nat.timeouts)?;
    within(config.limits.idle, LONGEST_IDLE, print, "limits.idle")?;
    room(config)?;
    dispatcher(config)?;
    let mtu = |bytes: u16| format!("{bytes} bytes");
    within(config.uplink.mtu, [LEAST_MTU, u16::MAX], mtu, "uplink.mtu")?;
    let mut services = Vec::new();
    for (at, service) in config.services.iter().enumerate() {
        let place = format!("services[{at}]");
        fields(service, &place)?;
        idle(service, config.limits.idle, &format!("{place}.idle"))?;
        has_source(service, &config.nat, &place)?;
        services.push(service.typed());
    }
    config.balanced(services).map_err(|error| Mistake {
        field: place_of(&error, &config.services),
        reason: match error {
            ServiceError::NoWeight { .. } => Reason::NoWeight,
            ServiceError::NoMac { .. } => Reason::NoMac,
            ServiceError::OnePort { .. } => Reason::OnePort,
            other => other.into(),
        },
    })
}

fn mistake(field: impl Display, reason: Reason) -> Mistake {
    Mistake { field: field.to_string(), reason }
}

fn interfaces(config: &Config) -> Checking {
    if config.interfaces.is_empty() {
        return Err(mistake("interfaces", Reason::NoInterface));
    }
    let mut known = HashSet::new();
    for (at, interface) in config.interfaces.iter().enumerate() {
        if !known.insert(&interface.name) {
            let twice = Reason::Twice(interface.name.clone());
            return Err(mistake(format_args!("interfaces[{at}].name"), twice));
        }
    }
    Ok(())
}

fn dispatcher(config: &Config) -> Checking {
    let said = config.dispatcher.iter().flat_map(|place| place.goes_on.iter().enumerate());
    for (at, action) in said.clone() {
        if said.clone().any(|(before, other)| before < at && other == action) {
            let twice = Reason::Twice(format!("{action:?}").to_lowercase());
            return Err(mistake(format_args!("dispatcher.goes_on[{at}]"), twice));
        }
    }
    Ok(())
}

/// The library says which sizes there can be.
fn room(config: &Config) -> Checking {
    let Err(OpenError::Option { option, problem, .. }) = config.options().check() else {
        return Ok(());
    };
    let field = match option {
        // A service takes some, too.
        "lines" if config.limits.services > config.limits.backends => "limits.services",
        "lines" => "limits.backends",
        "sources" => "limits.networks",
        "tracked" => "limits.flows",
        "frontends" => "limits.frontends",
        "slots" => "limits.slots",
        "services" => "limits.services",
        "clients" => "limits.clients",
        nat => nat,
    };
    Err(mistake(field, Reason::Limit(problem)))
}

fn sources(nat: &Nat) -> Checking {
    let mut known = HashSet::new();
    for (at, source) in nat.sources.iter().enumerate() {
        if !known.insert(source) {
            return Err(mistake(
                format_args!("nat.sources[{at}]"),
                Reason::Twice(source.to_string()),
            ));
        }
    }
    let plain = |port: u16| port.to_string();
    within(nat.first_port, [1, u16::MAX - 63], plain, "nat.first_port")?;
    within(nat.last_port, [nat.first_port + 63, u16::MAX], plain, "nat.last_port")
}

/// Places for sources: one at least for each that is listed, and no more of both families than ports can be named.
fn places(nat: &NatOptions) -> Checking {
    let (most, [v4, v6]) = (nat.most_places(), nat.places());
    let mut all = 0;
    for (is_v4, places, field) in [(true, v4, "nat.places4"), (false, v6, "nat.places6")] {
        let sources = nat.sources.iter().filter(|source| source.is_ipv4() == is_v4).count();
        within(places, [sources, most], |places: usize| places.to_string(), field)?;
        all += places;
        if all > most {
            let ports = nat.ports_each();
            return Err(mistake(field, Reason::Places { all, most, ports }));
        }
    }
    Ok(())
}

fn timeouts(timeouts: &Timeouts) -> Checking {
    let Timeouts { opening, established, answered, closing } = timeouts;
    within(*opening, NAT_TIMEOUTS, print, "nat.timeouts.opening")?;
    within(*established, NAT_TIMEOUTS, print, "nat.timeouts.established")?;
    within(*answered, NAT_TIMEOUTS, print, "nat.timeouts.answered")?;
    within(*closing, NAT_TIMEOUTS, print, "nat.timeouts.closing")
}

/// How long a service's flows may be silent, if it says so: no longer than can be told.
fn idle(service: &Service, longest: Duration, place: &str) -> Checking {
    let Some(idle) = service.idle else { return Ok(()) };
    if idle > longest {
        let [idle, longest] = [idle, longest].map(print);
        return Err(mistake(place, Reason::Idle { idle, longest }));
    }
    within(idle, [SHORTEST_IDLE, longest], print, place)
}

/// Packets of a service with full NAT have addresses to come from, and a source is no service's.
fn has_source(service: &Service, nat: &Nat, place: &str) -> Checking {
    if let Some(at) = service.addresses.iter().position(|own| nat.sources.contains(own)) {
        let wrong =
            Reason::Contradiction("this is a source in `nat`: what comes to it is an answer");
        return Err(mistake(format_args!("{place}.addresses[{at}]"), wrong));
    }
    let family = |address: &IpAddr| address.is_ipv4();
    let needs = service.addresses.first().map(family);
    if service.forwarding == Forwarding::Snat
        && !nat.sources.iter().any(|source| Some(family(source)) == needs)
    {
        let wrong = Reason::Contradiction("`nat` has no source of the service's family");
        return Err(mistake(format_args!("{place}.forwarding"), wrong));
    }
    Ok(())
}

/// What is wrong with the fields of a service, each by itself.
fn fields(service: &Service, place: &str) -> Checking {
    let character = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let name = &service.name;
    if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(character) {
        return Err(mistake(format_args!("{place}.name"), Reason::Name(name.clone())));
    }
    if let Some(slots) = service.table.filter(|slots| TableSize::new(*slots).is_none()) {
        return Err(mistake(format_args!("{place}.table"), Reason::TableSize(slots)));
    }
    named_once(service, place)?;
    if let Some(check) = &service.check {
        if service.port == 0 && check.port.is_none() {
            return Err(mistake(format_args!("{place}.check"), Reason::NoCheckPort));
        }
        checking(check, &format!("{place}.check"))?;
        path(service, check.path, &format!("{place}.check.path"))?;
    } else if service.fail_open {
        let field = format_args!("{place}.fail_open").to_string();
        return Err(mistake(field, Reason::Contradiction("nothing fails without `check`")));
    }
    Ok(())
}

/// Whatever its port: commands and counters know a backend by its address.
fn named_once(service: &Service, place: &str) -> Checking {
    let mut known = HashSet::new();
    for (at, backend) in service.backends.iter().enumerate() {
        if !known.insert(backend.address) {
            let (name, id) = (service.name.as_str().into(), backend.address.into());
            let twice = ServiceError::DuplicateBackend { service: name, backend: id };
            return Err(mistake(format_args!("{place}.backends[{at}].address"), twice.into()));
        }
    }
    Ok(())
}

fn checking(check: &Check, place: &str) -> Checking {
    let [shortest, longest] = INTERVALS;
    within(check.interval, [shortest, longest], print, &format!("{place}.interval"))?;
    within(check.timeout, [Duration::from_millis(1), longest], print, &format!("{place}.timeout"))?;
    if check.timeout > check.interval {
        return Err(mistake(format_args!("{place}.timeout"), Reason::Overlap));
    }
    let plain = |number: u32| number.to_string();
    within(check.rise, [1, 100], plain, &format!("{place}.rise"))?;
    within(check.fall, [1, 100], plain, &format!("{place}.fall"))?;
    within(u32::from(check.jitter), [0, 50], plain, &format!("{place}.jitter"))?;
    if check.port == Some(0) {
        let wrong = Reason::Contradiction("nobody listens on port 0");
        return Err(mistake(format_args!("{place}.port"), wrong));
    }
    probe(&check.probe, &format!("{place}.probe"))
}

/// Only who is reached by a tunnel can be asked through it, and only by a packet of the tunnel's family.
fn path(service: &Service, path: Option<CheckPath>, place: &str) -> Checking {
    let wrong = |what| Err(mistake(place, Reason::Contradiction(what)));
    match path {
        Some(CheckPath::Tunnel)
            if !matches!(service.forwarding, Forwarding::Tunnel | Forwarding::Gue(_)) =>
        {
            wrong("no tunnel leads to the backends: `forwarding` is neither `tunnel` nor `gue`")
        }
        _ if service.unasked().is_some() => {
            wrong("the service has no address of the family of all backends: write `direct`")
        }
        _ => Ok(()),
    }
}

fn within<T: PartialOrd + Copy>(
    found: T,
    [least, most]: [T; 2],
    print: impl Fn(T) -> String,
    field: &str,
) -> Checking {
    if (least..=most).contains(&found) {
        return Ok(());
    }
    let [found, least, most] = [found, least, most].map(print);
    Err(mistake(field, Reason::Range { found, least, most }))
}

fn probe(probe: &Probe, place: &str) -> Checking {
    match probe {
        Probe::Tcp => Ok(()),
        Probe::Http(http) => request(http, &format!("{place}.http")),
        Probe::Https(https) => secured(https, &format!("{place}.https")),
        Probe::Udp(udp) => {
            let sent = udp.send.0.len();
            let place = format!("{place}.udp.send");
            within(sent, [1, LONGEST_PROBE], |length| format!("{length} bytes"), &place)
        }
    }
}

fn request(http: &Http, place: &str) -> Checking {
    let is_path = |c: char| c.is_ascii_graphic();
    if !http.path.starts_with('/') || !http.path.chars().all(is_path) {
        let wrong = Reason::Contradiction("a path begins with / and has no spaces");
        return Err(mistake(format_args!("{place}.path"), wrong));
    }
    let host = http.host.as_deref().unwrap_or("host");
    if host.is_empty() || !host.chars().all(is_path) {
        let wrong = Reason::Contradiction("that is no name of a host");
        return Err(mistake(format_args!("{place}.host"), wrong));
    }
    let plain = |status: u16| status.to_string();
    within(http.least_status, [100, 599], plain, &format!("{place}.least_status"))?;
    within(http.most_status, [http.least_status, 599], plain, &format!("{place}.most_status"))
}

fn secured(https: &Https, place: &str) -> Checking {
    request(&https.plain(), place)?;
    match (&https.ca, https.insecure) {
        (None, false) => {
            let wrong = Reason::Contradiction("write `ca`, or `insecure: true`");
            Err(mistake(place, wrong))
        }
        (Some(_), true) => {
            let wrong = Reason::Contradiction("`ca` says whom to trust, `insecure` says everybody");
            Err(mistake(format_args!("{place}.insecure"), wrong))
        }
        _ => Ok(()),
    }
}

/// The field that the library complains about.
fn place_of(error: &ServiceError, services: &[Service]) -> String {
    let at =
        |name: &ServiceName| services.iter().rposition(|service| service.name == name.as_str());
    let service = |name: &ServiceName, field: &str| match at(name) {
        Some(at) => format!("services[{at}].{field}"),
        None => "services".to_owned(),
    };
    let backend = |name: &ServiceName, id: &BackendId, field: &str| {
        let backends = at(name).map(|at| &services[at].backends);
        let found = backends.and_then(|all| all.iter().rposition(|one| one.address == id.address));
        service(name, &format!("backends[{}].{field}", found.unwrap_or_default()))
    };
    match error {
        ServiceError::DuplicateName { name } => service(name, "name"),
        ServiceError::NoAddress { service: name } => service(name, "addresses"),
        ServiceError::DuplicateFrontend { second, .. } => service(second, "addresses"),
        ServiceError::Address { service: name, address }
        | ServiceError::Family { service: name, address, .. } => {
            address_at(services, (at(name), *address))
        }
        ServiceError::DuplicateBackend { service, backend: id } => backend(service, id, "address"),
        ServiceError::NoWeight { service, backend: id } => backend(service, id, "weight"),
        ServiceError::NoMac { service, backend: id } => backend(service, id, "mac"),
        ServiceError::Port { service, backend: id } => backend(service, id, "port"),
        ServiceError::Mtu { service, backend: id, .. } => backend(service, id, "mtu"),
        ServiceError::NoTunnelPort { service: name } => service(name, "forwarding.gue.port"),
        ServiceError::Affinity { service: name, .. } => service(name, "affinity.timeout"),
        ServiceError::AffinityByPort { service: name } => service(name, "affinity"),
        ServiceError::QuicIsUdp { service: name }
        | ServiceError::QuicServers { service: name, .. } => service(name, "quic"),
        ServiceError::OptionIsTcp { service: name }
        | ServiceError::OptionBySnat { service: name }
        | ServiceError::TcpServers { service: name, .. } => service(name, "tcp_option"),
        ServiceError::ServerId { service, backend: id, .. }
        | ServiceError::DuplicateServerId { service, second: id, .. } => {
            backend(service, id, "server_id")
        }
        ServiceError::NoNetwork { service: name }
        | ServiceError::TooManyNetworks { service: name, .. } => service(name, "sources"),
        ServiceError::Network { service: name, network, .. } => {
            let listed = at(name).and_then(|at| services[at].sources.as_ref());
            service(name, &listed.map(|one| network_at(one, network)).unwrap_or_default())
        }
        ServiceError::OnePort { service: name, .. } => service(name, "hash"),
        ServiceError::TableTooSmall { service: name, .. } => service(name, "table"),
        ServiceError::TooManyBackends { service: name, .. } => service(name, "backends"),
        _ => "services".to_owned(),
    }
}

/// A network among those that are listed.
fn network_at(sources: &Sources, network: &IpNet) -> String {
    let (field, networks) = match sources {
        Sources::Allow(networks) => ("allow", networks),
        Sources::Deny(networks) => ("deny", networks),
    };
    let at = networks.iter().position(|one| one == network).unwrap_or_default();
    format!("sources.{field}[{at}]")
}

/// An address of the service's own, or of one of its backends.
fn address_at(services: &[Service], (at, address): (Option<usize>, IpAddr)) -> String {
    let Some(at) = at else { return "services".to_owned() };
    let service = &services[at];
    let own = service.addresses.iter().position(|own| *own == address);
    let backend = service.backends.iter().position(|backend| backend.address == address);
    match (own, backend) {
        (Some(own), _) => format!("services[{at}].addresses[{own}]"),
        (None, Some(backend)) => format!("services[{at}].backends[{backend}].address"),
        (None, None) => format!("services[{at}]"),
    }
}
