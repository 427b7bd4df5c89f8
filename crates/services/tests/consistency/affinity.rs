//! Clients' pins: how long they last, and what happens when there are no more.

use std::{collections::BTreeMap, net::IpAddr, ops::Range, time::Duration};

use flowgate_abi::lb::Counter;
use flowgate_services::{
    Balancer, ClientFlow, Services, TableSize, Uplink,
    host::HostTables,
    model::{Backend, BackendId, Frontend, Protocol, Service},
};

use crate::{
    flow::{self, OPEN},
    walk::tables,
};

/// A service of some backends whose clients keep theirs for some seconds.
fn services(backends: Range<u8>, seconds: u64) -> Services {
    let service = Service::tcp("web", flow::PORT).address(flow::SERVICE).table(TableSize::ALL[0]);
    let backends = backends.map(|last| Backend::new([198, 18, 0, last].into()));
    let mut service = backends.fold(service, Service::backend);
    service.options.idle = Some(Duration::from_secs(10));
    service.options.affinity = Some(Duration::from_secs(seconds));
    Services::new([service]).expect("good services")
}

fn begin(services: &Services) -> Balancer<HostTables> {
    let Ok(mut balancer) = Balancer::adopt(tables(64, 256), Uplink::default(), 1);
    let _ = balancer.apply(services, Duration::ZERO).expect("it fits");
    balancer
}

/// A flow of a client, by its number, from another port each time.
fn flow(client: u32, port: u16) -> ClientFlow {
    let frontend = Frontend { address: flow::SERVICE, protocol: Protocol::Tcp, port: flow::PORT };
    ClientFlow {
        client: IpAddr::from((0xc612_8000 + client).to_be_bytes()),
        port,
        frontend,
        quic: None,
        server_id: None,
    }
}

fn open(balancer: &Balancer<HostTables>, client: u32, port: u16) -> BackendId {
    flow::send(balancer.store(), &flow(client, port), OPEN).expect("somebody has it")
}

fn pass(balancer: &mut Balancer<HostTables>, seconds: Range<u64>) {
    for second in seconds {
        let Ok(_) = balancer.tick(Duration::from_secs(second));
    }
}

fn pin(balancer: &Balancer<HostTables>, client: u32) -> Option<BackendId> {
    balancer.explain(&flow(client, 1)).expect("a flow of the service").pin
}

#[test]
fn a_pin_lasts_as_long_as_is_said_and_up_to_a_quarter_longer() {
    for (seconds, port) in [(16, 1), (100, 2), (1000, 3)] {
        let mut balancer = begin(&services(1..5, seconds));
        let backend = open(&balancer, 1, port);
        pass(&mut balancer, 0..seconds);
        assert_eq!(pin(&balancer, 1), Some(backend), "{seconds}");
        assert_eq!(open(&balancer, 1, 7), backend, "the last packet counts");
        pass(&mut balancer, seconds..2 * seconds);
        assert_eq!(pin(&balancer, 1), Some(backend), "{seconds}");
        pass(&mut balancer, 2 * seconds..2 * seconds + seconds / 4 + 6);
        assert_eq!(pin(&balancer, 1), None, "{seconds}");
    }
}

#[test]
fn pins_go_on_when_they_are_to_last_longer_or_shorter() {
    let mut balancer = begin(&services(1..5, 1000));
    pass(&mut balancer, 0..10);
    let backends: Vec<BackendId> = (0..20).map(|client| open(&balancer, client, 1)).collect();
    for (seconds, time) in [(50, 11), (80_000, 13)] {
        let changed = services(1..9, seconds);
        let _ = balancer.apply(&changed, Duration::from_secs(time)).expect("it fits");
        pass(&mut balancer, time..time + 2);
        let now: Vec<BackendId> = (0..20).map(|client| open(&balancer, client, 2)).collect();
        assert_eq!(now, backends);
    }
}

#[test]
fn a_full_table_of_pins_forgets_nobody_and_counts_whom_it_lacks() {
    let mut balancer = begin(&services(1..5, 1000));
    let clients: BTreeMap<u32, BackendId> =
        (0..400).map(|client| (client, open(&balancer, client, 1))).collect();
    let has_pin = |client: &u32| pin(&balancer, *client).is_some();
    let pinned: Vec<u32> = clients.keys().copied().filter(has_pin).collect();
    let refused = balancer.store().counted(Counter::PinsRefused);
    assert_eq!(pinned.len() as u64 + refused, 400);
    assert!(pinned.len() > 200 && pinned.len() <= 256, "{}", pinned.len());
    let _ = balancer.apply(&services(1..9, 1000), Duration::ZERO).expect("it fits");
    pass(&mut balancer, 0..30);
    let stays = |client: &u32| open(&balancer, *client, 2) == clients[client];
    assert!(pinned.iter().all(stays));
    assert!(!clients.keys().all(stays), "whoever has no pin goes by the table");
}
