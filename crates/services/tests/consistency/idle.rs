//! A service's idle time that changes while its slots move: it holds for them at once.

use std::time::Duration;

use flowgate_services::{
    Balancer, Services, TableSize, Uplink,
    host::HostTables,
    life::Stage,
    model::{Backend, BackendState, Protocol, Service},
};

use crate::{flow, walk::tables};

/// A service whose flows may be silent for so many seconds, and whose first backend may be in another state.
fn services(first: BackendState, idle: u64) -> Services {
    let backend = |last| Backend::new([198, 18, 0, last].into());
    let service = Service::tcp("web", flow::PORT).address(flow::SERVICE).table(TableSize::ALL[0]);
    let mut service = service.backend(backend(1).state(first)).backend(backend(2));
    service.options.idle = Some(Duration::from_secs(idle));
    Services::new([service]).expect("good services")
}

/// The second in which slots that began to move with 20 s of silence are all where they should be, if after ten of
/// them it is another time.
fn ends(idle: u64) -> u64 {
    let Ok(mut balancer) = Balancer::adopt(tables(64, 256), Uplink::default(), 1);
    let apply = |balancer: &mut Balancer<HostTables>, services: &Services, second| {
        let _ = balancer.apply(services, Duration::from_secs(second)).expect("it fits");
    };
    apply(&mut balancer, &services(BackendState::Active, 20), 0);
    apply(&mut balancer, &services(BackendState::Draining, 20), 0);
    let moves = |balancer: &Balancer<HostTables>| {
        let flow = |number| flow::client(number, Protocol::Tcp);
        let stage = |number| balancer.explain(&flow(number)).expect("known").stage;
        (0..64).any(|number| stage(number) == Stage::Move)
    };
    for second in 0..=10 {
        let Ok(_) = balancer.tick(Duration::from_secs(second));
    }
    assert!(moves(&balancer));
    apply(&mut balancer, &services(BackendState::Draining, idle), 10);
    let mut seconds = 11..60;
    let end = seconds.find(|second| {
        let Ok(_) = balancer.tick(Duration::from_secs(*second));
        !moves(&balancer)
    });
    end.expect("it ends")
}

#[test]
fn another_idle_time_holds_for_slots_that_move_already() {
    let [shorter, same, longer] = [2, 20, 30].map(ends);
    assert_eq!((shorter, longer), (11, same + 10));
    assert!((23..=26).contains(&same), "{same}");
}
