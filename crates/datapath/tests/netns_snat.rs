//! Full NAT on a wire: real sockets of both families through XDP to servers that know nothing of it, and
//! connections that outlive the process.
//!
//! Privileged: without the capabilities, or without a bridge, each test says so in one line and is skipped.

mod segment;

use std::{net::SocketAddr, time::Instant};

use flowgate_abi::lb::Counter;
use flowgate_datapath::lb::{
    BalancerOptions, BalancerState, Builder, LoadBalancer, NatOptions, XdpAttach,
};
use flowgate_lab::{Answer, Pod};
use flowgate_services::{
    Services,
    model::{Backend, Forwarding, NextHop, Service},
};
use segment::{ARM, PATIENCE, PORT, Segment, all_answer, sources, vips};

/// Where the servers listen.
const HTTP: u16 = 8080;
const ECHO: u16 = 7007;
/// Where nobody listens.
const CLOSED: u16 = 7008;

fn builder() -> Builder {
    let nat = NatOptions { sources: sources().to_vec(), ..NatOptions::default() };
    let builder =
        LoadBalancer::builder().options(BalancerOptions { nat, ..BalancerOptions::default() });
    match std::env::var_os("FLOWGATE_OBJECT") {
        Some(path) => builder.object(std::fs::read(path).expect("the object is there")),
        None => builder,
    }
}

/// For each family HTTP, echo of both protocols, and datagrams that nobody takes.
fn services(segment: &Segment) -> Services {
    let mut services = Vec::new();
    for (family, vip) in vips().into_iter().enumerate() {
        let with = |service: Service, port| {
            let service = service.address(vip).forwarding(Forwarding::Snat);
            segment.backends.iter().fold(service, |service, pod: &Pod| {
                let near = NextHop::Mac(pod.mac().0);
                service.backend(Backend::new(pod.addresses()[family]).port(port).next_hop(near))
            })
        };
        services.push(with(Service::tcp(format!("http{family}"), PORT), HTTP));
        services.push(with(Service::tcp(format!("echo{family}"), ECHO), ECHO));
        services.push(with(Service::udp(format!("datagrams{family}"), PORT), ECHO));
        services.push(with(Service::udp(format!("closed{family}"), CLOSED), CLOSED));
    }
    Services::new(services).expect("good services")
}

fn start(segment: &Segment, builder: Builder) -> LoadBalancer {
    let mut balancer = builder.open().expect("opens");
    let _ = balancer.attach(ARM, XdpAttach::Generic).expect("attaches");
    let _ = balancer.apply(&services(segment), Instant::now()).expect("fits");
    let _ = balancer.tick(Instant::now()).expect("ticks");
    balancer
}

/// Serves pages that tell whom they are for, and are more than a packet.
fn serve_http(pod: &Pod) {
    let page = |peer| format!("{peer}\n{}", "x".repeat(3000));
    pod.serve_http(HTTP, page).expect("listens");
}

#[test]
fn servers_that_know_nothing_of_it_serve_clients_of_both_families() {
    let Some(segment) = Segment::plain() else { return };
    segment.backends.iter().for_each(serve_http);
    let serve = |pod: &Pod| pod.serve(&[ECHO], &[ECHO]).expect("listens");
    let _servers: Vec<_> = segment.backends.iter().map(serve).collect();
    let balancer = start(&segment, builder());
    for (vip, source) in vips().into_iter().zip(sources()) {
        for _ in 0..8 {
            let page = segment.client.get(SocketAddr::new(vip, PORT), PATIENCE).expect("a page");
            let (head, body) = page.split_once("\r\n\r\n").expect("a head and a body");
            assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
            let (peer, rest) = body.split_once('\n').expect("two lines");
            assert_eq!((peer, rest.len()), (source.to_string().as_str(), 3000));
        }
        let destination = SocketAddr::new(vip, PORT);
        for _ in 0..8 {
            assert_eq!(segment.client.udp(destination, PATIENCE).expect("asked"), Answer::Echoed);
        }
    }
    let stats = balancer.stats().expect("read");
    assert_eq!(stats.get(Counter::FlowsTranslated), 32);
    assert!(stats.get(Counter::AnswersTranslated) > 64, "{stats:?}");
    assert!(stats.drops.is_empty(), "{:?}", stats.drops);
    let reached = stats.services.iter().filter(|service| service.name.as_str().starts_with("http"));
    for service in reached {
        assert!(service.backends.iter().all(|(_, traffic)| traffic.opened > 0), "{service:?}");
    }
}

/// The servers' kernels say so, about packets that they know as from the balancer.
#[test]
fn clients_hear_that_nobody_listens() {
    let Some(segment) = Segment::plain() else { return };
    let balancer = start(&segment, builder());
    for vip in vips() {
        let answer = segment.client.udp(SocketAddr::new(vip, CLOSED), PATIENCE).expect("asked");
        assert_eq!(answer, Answer::Refused);
    }
    assert_eq!(balancer.stats().expect("read").get(Counter::ErrorsSteered), 2);
}

#[test]
fn connections_outlive_the_process() {
    let Some(segment) = Segment::plain() else { return };
    let serve = |pod: &Pod| pod.serve(&[ECHO], &[]).expect("listens");
    let _servers: Vec<_> = segment.backends.iter().map(serve).collect();
    let pins = segment.node.bpffs().join("balancer");
    let mut balancer = start(&segment, builder().pin(&pins));
    let mut open = segment.talks(ECHO, 8);
    for _ in 0..3 {
        all_answer(&mut open);
        balancer.persist().expect("it has pins");
        all_answer(&mut open);
        open.extend(segment.talks(ECHO, 2));
        balancer = start(&segment, builder().pin(&pins));
        assert_eq!(balancer.report().state, BalancerState::Adopted { services: 8 });
    }
    all_answer(&mut open);
    let ticked = balancer.tick(Instant::now()).expect("ticks");
    assert_eq!(ticked.ports, open.len());
    let drops = balancer.drops().expect("read");
    assert!(drops.is_empty(), "{drops:?}");
}
