//! Full NAT by the pipeline over host tables, beside a model that knows flows alone: no two live flows
//! share a port, every answer finds its client, and none is refused while nine of ten ports suffice.

mod changing;

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use flowgate_abi::{
    DropReason,
    lb::{Settings, nat::GROUP},
};
use flowgate_conformance::nat::{
    model::{Key, Model, TIMEOUTS},
    packet::{ACK, Packet, SYN},
    walk::{self, BACKEND, CLIENT, Fate, Walk, address, sources},
};
use flowgate_pipeline::lb::Action;
use flowgate_services::{
    ApplyError, Balancer, ClientFlow, NatTimeouts, Services, SourcesError, Uplink,
    host::HostTables,
    model::{
        AFFINITY, Backend, Forwarding, Frontend, Protocol, Service, ServiceName, SourceRanges,
    },
    store::{NatStore, Room},
};

/// Tables with three places for sources of IPv4 and two for IPv6, and so many groups of ports from 1024 on.
fn tables(each: u32) -> HostTables {
    let settings = Settings {
        fragment_seed: 1,
        displacement_mask: 63,
        frontend_shift: 26,
        tracked_mask: 63,
        fragment_timeout: 1000,
        hz: 1000,
        errors_per_second: 1000,
        age_length: 10_000,
        nat_mask: (5 * each * GROUP / 4).next_power_of_two() - 1,
        nat_groups: [3 * each, 2 * each],
        nat_groups_each: each,
        nat_first_port: 1024,
        pin_mask: 1,
        ..Settings::default()
    };
    let room = Room {
        frontends: 64,
        slots: 4096,
        lines: 256,
        services: 8,
        tracked: 512,
        nat_sources: 5,
        sources: 16,
        pins: 16,
    };
    HostTables::new(settings, room)
}

/// Of both protocols and families; the one with ports of its backends' own, the other with any port.
fn services() -> Services {
    let snat = |service: Service| service.forwarding(Forwarding::Snat);
    let v4 = |last| Backend::new(IpAddr::from([198, 18, 0, last]));
    let v6 = |last| Backend::new(IpAddr::from([0x2001, 0xdb8, 2, 0, 0, 0, 0, last]));
    let web = snat(Service::tcp("web", 80)).address(address("198.51.100.1"));
    let web6 = snat(Service::tcp("web6", 80)).address(address("2001:db8:1::1"));
    let mut names = snat(Service::udp("names", 0)).address(address("198.51.100.1"));
    names.options.affinity = Some(AFFINITY);
    let names6 = snat(Service::udp("names6", 53)).address(address("2001:db8:1::1"));
    Services::new([
        web.backend(v4(1).port(8080)).backend(v4(2)),
        web6.backend(v6(1).port(8080)).backend(v6(2)),
        names.backend(v4(3)).backend(v4(4)),
        names6.backend(v6(3)),
    ])
    .expect("good services")
}

fn balancer(each: u32) -> Balancer<HostTables> {
    let Ok(mut balancer) = Balancer::adopt(tables(each), Uplink::default(), 0);
    balancer.set_sources(&sources()).expect("room for them");
    let [opening, established, answered, closing] = TIMEOUTS.map(Duration::from_millis);
    let timeouts = NatTimeouts { opening, established, answered, closing };
    balancer.set_nat_timeouts(timeouts);
    balancer.apply(&services(), Duration::ZERO).expect("it fits");
    balancer
}

/// The balancer as the walk knows it.
struct Plane(Balancer<HostTables>);

impl walk::Plane for Plane {
    fn run(&mut self, frame: &[u8]) -> Fate {
        let passed = self.0.store().run(frame);
        match passed.action {
            Action::Pass => Fate::Passed,
            Action::Transmit => Fate::Sent(passed.frame),
            Action::Drop(reason) => Fate::Dropped(reason),
        }
    }

    fn tick(&mut self, millis: u64) {
        let Ok(_) = self.0.tick(Duration::from_millis(millis));
    }

    fn turn_to(&mut self, sources: &[IpAddr], millis: u64) -> bool {
        let services = self.0.services().with_nat_sources(sources.iter().copied());
        match self.0.apply(&services, Duration::from_millis(millis)) {
            Ok(_) => true,
            Err(ApplyError::Sources(SourcesError::NoPlace { .. })) => false,
            Err(error) => panic!("{error}"),
        }
    }
}

fn walk(each: u32, seed: u64) -> Walk<Plane> {
    Walk::new(Plane(balancer(each)), each, seed)
}

#[test]
fn no_two_live_flows_share_a_port_and_every_answer_finds_its_client() {
    for seed in 0..4 {
        let mut walk = walk(2, seed);
        (0..20_000).for_each(|_| walk.step(100));
        assert!(walk.opened > 1000, "{} flows", walk.opened);
    }
}

#[test]
fn what_has_no_port_is_refused_and_live_flows_stay() {
    let mut walk = walk(1, 9);
    for client in 0..250u8 {
        let source = SocketAddr::new(IpAddr::from([203, 0, 113, client]), 5000);
        let destination = SocketAddr::new(address("198.51.100.1"), 80);
        walk.ask(Packet { source, destination, tcp: Some(SYN) });
    }
    // Two sources of 64 ports.
    assert_eq!((walk.opened, walk.refused), (128, 122));
    let keys: Vec<Key> = walk.model.flows.keys().copied().collect();
    keys.iter().for_each(|&key| walk.answer(key, SYN | ACK));
    for &(source, destination, _) in &keys {
        walk.ask(Packet { source, destination, tcp: Some(ACK) });
    }
    // Opening flows would be over, these are established.
    (0..50).for_each(|_| walk.tick(1024));
    keys.iter().for_each(|&key| walk.answer(key, ACK));
    (0..102).for_each(|_| walk.tick(1024));
    assert_eq!((0..2).map(|group| walk.plane.0.store().taken(group)).sum::<u64>(), 0);
    let source = SocketAddr::new(IpAddr::from([203, 0, 113, 251]), 5000);
    let destination = SocketAddr::new(address("198.51.100.1"), 80);
    walk.ask(Packet { source, destination, tcp: Some(SYN) });
    assert_eq!(walk.opened, 129, "the ports are free again");
}

#[test]
fn an_account_of_a_flow_tells_what_its_packets_become() {
    let mut walk = walk(2, 5);
    for _ in 0..20 {
        (0..500).for_each(|_| walk.step(100));
        walk.tick(1024);
        let balancer = &walk.plane.0;
        for (&(client, service, is_tcp), flow) in &walk.model.flows {
            let protocol = if is_tcp { Protocol::Tcp } else { Protocol::Udp };
            let frontend = Frontend { address: service.ip(), protocol, port: service.port() };
            let told = |port| {
                let flow =
                    ClientFlow { client: client.ip(), port, frontend, quic: None, server_id: None };
                balancer.explain(&flow).expect("a service's")
            };
            let told_of = told(client.port());
            let translated = told_of.translated.expect("it has a port");
            assert_eq!((translated.source, translated.destination), (flow.port, flow.backend));
            assert_eq!(told_of.backend().map(|id| id.address), Some(flow.backend.ip()));
            assert_eq!(told(9).translated, None);
        }
        let stats = balancer.sources();
        assert!(stats.iter().all(|one| one.ports == 2 * GROUP as usize), "{stats:?}");
        for one in stats {
            let owners = walk.model.flows.values().map(|flow| flow.port.ip());
            assert_eq!(one.taken, owners.filter(|owner| *owner == one.address).count());
        }
    }
    assert!(walk.opened > 500, "{} flows", walk.opened);
}

/// As many ports as by default, from two sources.
#[test]
fn nobody_is_refused_while_nine_of_ten_ports_suffice() {
    let each = 496;
    let mut walk = walk(each, 3);
    let most = 2 * each * GROUP * 9 / 10;
    for number in 0..most {
        let client = IpAddr::from([203, 0, 113, (number >> 14) as u8]);
        let source = SocketAddr::new(client, 1024 + (number & 0x3fff) as u16);
        let destination = SocketAddr::new(address("198.51.100.1"), 80);
        walk.ask(Packet { source, destination, tcp: Some(SYN) });
    }
    assert_eq!((walk.opened, walk.refused), (most, 0));
    assert_eq!(walk.model.taken(address("198.51.100.1")), most as usize);
}

#[test]
fn a_flow_whose_backend_is_gone_gets_another_one_by_another_port() {
    let mut walk = walk(2, 1);
    let source = SocketAddr::new(address("203.0.113.7"), 5000);
    let packet = |port, tcp| Packet {
        source,
        destination: SocketAddr::new(address("198.51.100.1"), port),
        tcp,
    };
    for (packet, name) in [(packet(80, Some(SYN)), "web"), (packet(53, None), "names")] {
        walk.ask(packet);
        let key = (packet.source, packet.destination, packet.tcp.is_some());
        let before = walk.model.flows[&key].clone();
        let services = walk.plane.0.services().clone();
        let listed = &services.get(&ServiceName::from(name)).expect("listed").backends;
        let gone = listed.iter().find(|backend| backend.address == before.backend.ip());
        let id = gone.expect("one of them").id();
        let services = services.without_backend(&name.into(), id).expect("listed");
        walk.plane.0.apply(&services, Duration::from_millis(walk.now())).expect("it fits");
        let later = Packet { tcp: packet.tcp.map(|_| ACK), ..packet };
        let passed = walk.plane.0.store().run(&later.frame(CLIENT, 64));
        assert_eq!(passed.action, Action::Transmit);
        let sent = Packet::read(&passed.frame);
        assert_ne!(sent.destination.ip(), before.backend.ip());
        assert_ne!(sent.source, before.port);
        walk.model = Model::default();
        walk.model.asked(&later, &sent, walk.now());
        walk.answer(key, ACK);
        walk.tick(1000);
    }
}

/// By connections that go on, and not only by those that open.
#[test]
fn a_client_with_affinity_is_seen_by_every_packet() {
    let mut walk = walk(2, 1);
    let mut web = Service::clone(services().get(&ServiceName::from("web")).expect("listed"));
    web.options.idle = Some(Duration::from_secs(10));
    web.options.affinity = Some(Duration::from_secs(20));
    let only = Services::new([web]).expect("a good service");
    walk.plane.0.apply(&only, Duration::ZERO).expect("it fits");
    let source = SocketAddr::new(address("203.0.113.7"), 5000);
    let destination = SocketAddr::new(address("198.51.100.1"), 80);
    let packet = |flags| Packet { source, destination, tcp: Some(flags) };
    walk.ask(packet(SYN));
    walk.answer((source, destination, true), SYN | ACK);
    let frontend = only.iter().flat_map(|service| service.frontends()).next().expect("one");
    let flow = ClientFlow { client: source.ip(), port: 1, frontend, quic: None, server_id: None };
    let pin = |walk: &Walk<Plane>| walk.plane.0.explain(&flow).expect("the service's").pin;
    for _ in 0..20 {
        walk.ask(packet(ACK));
        (0..5).for_each(|_| walk.tick(1000));
        assert!(pin(&walk).is_some(), "{} ms", walk.now());
    }
    (0..100).for_each(|_| walk.tick(1000));
    assert_eq!(pin(&walk), None);
}

#[test]
fn sources_and_services_keep_apart() {
    let Ok(mut balancer) = Balancer::adopt(tables(1), Uplink::default(), 0);
    let refused = balancer.apply(&services(), Duration::ZERO).expect_err("no source");
    assert!(matches!(refused, ApplyError::NoSource { .. }), "{refused}");
    let sources_refused = |balancer: &mut Balancer<HostTables>, list: &[IpAddr]| {
        let refused = balancer.set_sources(list).expect_err("they can't be sources");
        let ApplyError::Sources(why) = refused else { panic!("{refused}") };
        why
    };
    let twice = [sources()[0], sources()[0]];
    let why = sources_refused(&mut balancer, &twice);
    assert_eq!(why, SourcesError::Duplicate { address: sources()[0] });
    let many: Vec<IpAddr> = (1..=4).map(|last| IpAddr::from([198, 18, 9, last])).collect();
    let why = sources_refused(&mut balancer, &many);
    assert_eq!(why, SourcesError::NoPlace { address: many[3], have: 3, retired: 0 });
    balancer.set_sources(&sources()).expect("places for them");
    balancer.set_sources(&sources()).expect("the same again");
    let at_source = Service::tcp("at a source", 80).address(sources()[0]);
    let at_source = Services::new([at_source]).expect("good by itself");
    let refused = balancer.apply(&at_source, Duration::ZERO).expect_err("it's taken");
    assert!(matches!(refused, ApplyError::SourceAddress { .. }), "{refused}");
    balancer.apply(&services(), Duration::ZERO).expect("it fits");
    let address = address("198.51.100.1");
    let why = sources_refused(&mut balancer, &[sources()[0], address, sources()[1]]);
    assert_eq!(why, SourcesError::Taken { address });
}

/// What comes to a source and is no answer.
#[test]
fn the_hosts_own_packets_pass() {
    let mut walk = walk(1, 1);
    let backend = SocketAddr::new(address("198.18.0.1"), 80);
    for (port, tcp) in [(1023, Some(ACK)), (1024 + 64, Some(ACK)), (40_000, None)] {
        let destination = SocketAddr::new(sources()[0], port);
        let frame = Packet { source: backend, destination, tcp }.frame(BACKEND, 64);
        let passed = walk.plane.0.store().run(&frame);
        assert_eq!((passed.action, passed.frame), (Action::Pass, frame));
    }
    let mut echo = Packet { source: backend, destination: (sources()[0], 1024).into(), tcp: None }
        .frame(BACKEND, 64);
    echo[23] = 1;
    assert_eq!(walk.plane.0.store().run(&echo).action, Action::Pass);
    walk.tick(1000);
}

#[test]
fn a_client_that_its_service_does_not_take_gets_no_port() {
    let mut balancer = balancer(1);
    let service = Service::tcp("web", 80)
        .address(address("198.51.100.1"))
        .forwarding(Forwarding::Snat)
        .sources(SourceRanges::Deny(vec!["203.0.113.128/25".parse().expect("a network")]))
        .backend(Backend::new(address("198.18.0.1")));
    let services = Services::new([service]).expect("a good service");
    balancer.apply(&services, Duration::ZERO).expect("it fits");
    let opening = |client| {
        let source = SocketAddr::new(address(client), 1000);
        let destination = SocketAddr::new(address("198.51.100.1"), 80);
        let frame = Packet { source, destination, tcp: Some(SYN) }.frame(CLIENT, 64);
        balancer.store().run(&frame).action
    };
    assert_eq!(opening("203.0.113.200"), Action::Drop(DropReason::SourceRefused));
    assert_eq!(opening("203.0.113.1"), Action::Transmit);
}
