//! A balancer on either backend, with services of every kind.

use std::{
    borrow::Cow,
    net::IpAddr,
    time::{Duration, Instant},
};

use flowgate_datapath::{
    Backend as Tables, OpenError,
    lb::{BalancerOptions, LoadBalancer},
};
use flowgate_services::{
    Services, TableSize, Uplink,
    model::{
        AFFINITY, Backend, BackendState, Forwarding, Fragments, Frontend, HashMode, NextHop,
        Service, SourceRanges,
    },
};

use crate::oracle::Oracle;

pub(crate) fn options() -> BalancerOptions {
    BalancerOptions {
        frontends: 64,
        slots: 1 << 16,
        lines: 1024,
        services: 32,
        tracked: 4096,
        fragments: 4096,
        fragment: Duration::from_secs(3600),
        errors_per_second: u32::MAX,
        uplink: Uplink { gateway: Some([2, 0, 0, 0, 0, 0xfe]), ..Uplink::default() },
        ..BalancerOptions::default()
    }
}

/// The kernel's balancer; `None`: it can't be had here, which is said once.
pub(crate) fn kernel(options: BalancerOptions) -> Option<LoadBalancer> {
    let builder = LoadBalancer::builder().options(options).minimum_kernel(5, 10);
    let builder = match std::env::var_os("FLOWGATE_OBJECT") {
        Some(path) => builder.object(Cow::Owned(std::fs::read(path).expect("the object is there"))),
        None => builder,
    };
    match builder.open() {
        Ok(balancer) => Some(balancer),
        Err(error @ OpenError::MissingCapability { .. }) => {
            println!("SKIPPED: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

pub(crate) fn host(options: BalancerOptions) -> LoadBalancer {
    LoadBalancer::builder().backend(Tables::Host).options(options).open().expect("no privileges")
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn network(text: &str) -> ipnet::IpNet {
    text.parse().expect("a network")
}

/// Addresses that the services have, and one that none has.
pub(crate) fn addresses() -> Vec<IpAddr> {
    ["198.51.100.1", "198.51.100.2", "2001:db8:1::1", "198.51.100.9", "2001:db8:1::9"]
        .map(address)
        .to_vec()
}

/// Where the services' clients send to; a port for a service that has all.
pub(crate) fn frontends() -> Vec<Frontend> {
    let frontends = services();
    let frontends = frontends.iter().flat_map(|service| service.frontends().collect::<Vec<_>>());
    let with_port = |frontend: Frontend| Frontend { port: frontend.port.max(53), ..frontend };
    frontends.map(with_port).collect()
}

fn v4(last: u8) -> Backend {
    Backend::new(IpAddr::from([198, 18, 0, last]))
}

fn v6(last: u16) -> Backend {
    Backend::new(IpAddr::from([0x2001, 0xdb8, 2, 0, 0, 0, 0, last]))
}

/// Services of both protocols and families, by every way of forwarding.
pub(crate) fn services() -> Services {
    let (a, b, c) = (address("198.51.100.1"), address("198.51.100.2"), address("2001:db8:1::1"));
    let size = TableSize::ALL[0];
    let mixed = Service::tcp("mixed", 80).address(a).address(c).table(size);
    let mixed = mixed.backend(v4(1)).backend(v4(2).weight(2)).backend(v6(3)).backend(v6(4));
    let mut fragments = Service::udp("fragments", 80).address(a).address(c).backend(v4(5));
    fragments = fragments.backend(v6(6).mtu(1400));
    fragments.options.fragments = Fragments::Track;
    let gue =
        Service::tcp("gue", 443).address(a).address(c).forwarding(Forwarding::Gue { port: 6080 });
    let gue = gue.backend(v4(7)).backend(v6(8));
    let mac = |last| NextHop::Mac([2, 0, 0, 0, 1, last]);
    let layer2 = Service::tcp("layer2", 22).address(a).address(c).forwarding(Forwarding::Layer2);
    let layer2 = layer2.backend(v4(9).next_hop(mac(9))).backend(v4(10).next_hop(mac(10)));
    let mut wildcard = Service::udp("wildcard", 0).address(b).backend(v4(11)).backend(v4(12));
    wildcard.options.hash = HashMode::Source;
    let mut by_port = Service::tcp("by port", 0).address(b).backend(v4(15)).backend(v4(16));
    by_port.options.hash = HashMode::DestinationPort;
    let few = ["203.0.113.4/30", "203.0.113.16/28", "2001:db8:9::8/125", "2001:db8:9::1/128"];
    let few = SourceRanges::Allow(few.map(network).to_vec());
    let few = Service::tcp("few", 83).address(b).address(c).sources(few).backend(v4(17));
    let most = (0..13).map(|n| network(&format!("203.0.113.{}/32", 3 * n)));
    let most = most.chain((0..9).map(|n| network(&format!("2001:db8:9::{:x}/127", 4 * n))));
    let most = SourceRanges::Deny(most.collect());
    let mut most = Service::udp("most", 84).address(b).address(c).sources(most).backend(v4(18));
    most.options.fragments = Fragments::Track;
    let mut sticky = Service::tcp("sticky", 85).address(a).address(c).backend(v4(20));
    sticky = sticky.backend(v4(21)).backend(v6(22));
    sticky.options.affinity = Some(AFFINITY);
    let nobody = Service::tcp("nobody", 81).address(b);
    let draining = v4(13).state(BackendState::Draining);
    let draining = Service::tcp("draining", 82).address(b).backend(draining).backend(v4(14));
    Services::new([
        mixed, fragments, gue, layer2, wildcard, by_port, few, most, sticky, nobody, draining,
    ])
    .expect("good services")
}

/// All three, with the same services and the same changes behind them.
pub(crate) struct Trio {
    pub(crate) kernel: LoadBalancer,
    pub(crate) host: LoadBalancer,
    pub(crate) oracle: Oracle,
    pub(crate) now: Instant,
}

impl Trio {
    pub(crate) fn new(options: BalancerOptions) -> Option<Self> {
        let kernel = kernel(options.clone())?;
        let oracle = Oracle::new(&services(), options.uplink);
        let mut trio = Self { kernel, host: host(options), oracle, now: Instant::now() };
        trio.apply(&services());
        Some(trio)
    }

    pub(crate) fn apply(&mut self, services: &Services) {
        let kernel = self.kernel.apply(services, self.now).expect("it fits");
        assert_eq!(kernel, self.host.apply(services, self.now).expect("it fits"));
        self.oracle.apply(services);
    }
}
