//! A SYN that meets the entry of an earlier flow of the same name.

use std::time::Duration;

use flowgate_services::{
    Balancer, ClientFlow, Services, TableSize, Uplink,
    host::HostTables,
    life::Stage,
    model::{Backend, BackendId, BackendState, Protocol, Service},
};

use crate::{
    flow::{self, CLOSE, GO_ON, OPEN},
    walk::tables,
};

pub(crate) fn backend(last: u8) -> Backend {
    Backend::new([198, 18, 0, last].into())
}

/// A service of two backends, of which the first may be in another state.
pub(crate) fn services(first: BackendState) -> Services {
    let service = Service::tcp("web", flow::PORT).address(flow::SERVICE).table(TableSize::ALL[0]);
    let mut service = service.backend(backend(1).state(first)).backend(backend(2));
    service.options.idle = Some(Duration::from_secs(20));
    Services::new([service]).expect("good services")
}

/// A balancer, and a flow that the first backend has.
fn begin() -> (Balancer<HostTables>, ClientFlow) {
    let Ok(mut balancer) = Balancer::adopt(tables(64, 256), Uplink::default(), 1);
    let _ = balancer.apply(&services(BackendState::Active), Duration::ZERO).expect("it fits");
    let mut flows = (0..).map(|number| flow::client(number, Protocol::Tcp));
    let first = Some(backend(1).id());
    let flow = flows.find(|flow| balancer.explain(flow).expect("known").backend() == first);
    (balancer, flow.expect("half of all"))
}

fn pass(balancer: &mut Balancer<HostTables>, seconds: std::ops::RangeInclusive<u64>) {
    for second in seconds {
        let Ok(_) = balancer.tick(Duration::from_secs(second));
    }
}

fn send(balancer: &Balancer<HostTables>, flow: &ClientFlow, flags: u8) -> BackendId {
    flow::send(balancer.store(), flow, flags).expect("somebody has it")
}

fn stage(balancer: &Balancer<HostTables>, flow: &ClientFlow) -> Stage {
    balancer.explain(flow).expect("known").stage
}

#[test]
fn a_handshake_that_is_tried_again_stays_with_a_draining_backend_and_the_next_flow_does_not() {
    let (mut balancer, flow) = begin();
    let _ = balancer.apply(&services(BackendState::Draining), Duration::ZERO).expect("it fits");
    let [first, second] = [backend(1).id(), backend(2).id()];
    assert_eq!(send(&balancer, &flow, OPEN), first);
    pass(&mut balancer, 0..=5);
    assert_eq!(stage(&balancer, &flow), Stage::Move);
    assert_eq!([OPEN, GO_ON, OPEN].map(|flags| send(&balancer, &flow, flags)), [first; 3]);
    assert_eq!([CLOSE, GO_ON].map(|flags| send(&balancer, &flow, flags)), [first; 2]);
    assert_eq!([OPEN, OPEN, GO_ON].map(|flags| send(&balancer, &flow, flags)), [second; 3]);
}

#[test]
fn a_handshake_that_is_tried_again_leaves_a_failing_backend_and_a_live_flow_stays() {
    let (mut balancer, flow) = begin();
    let [first, second] = [backend(1).id(), backend(2).id()];
    let _ = balancer.apply(&services(BackendState::Quarantined), Duration::ZERO).expect("it fits");
    assert_eq!(stage(&balancer, &flow), Stage::Move);
    assert_eq!([GO_ON, GO_ON].map(|flags| send(&balancer, &flow, flags)), [first; 2]);
    assert_eq!([OPEN, GO_ON].map(|flags| send(&balancer, &flow, flags)), [second; 2]);
}
