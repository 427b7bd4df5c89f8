//! Full NAT three ways: the model, the host and the kernel agree on what becomes of each packet, and host and
//! kernel on every byte and on what was counted.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use flowgate_abi::{DropReason, lb::nat::GROUP};
use flowgate_conformance::nat::{
    model::TIMEOUTS,
    packet::{ACK, Packet, SYN},
    report::Report,
    walk::{self, BACKEND, CLIENT, Fate, Walk, address, sources},
};
use flowgate_datapath::lb::{self, BalancerOptions, LoadBalancer, NatOptions};
use flowgate_services::{
    ApplyError, NatTimeouts, Services, SourcesError,
    model::{AFFINITY, Backend, Forwarding, NextHop, Service},
};

use crate::rig;

const GROUPS: u32 = 2;

fn options() -> BalancerOptions {
    let [opening, established, answered, closing] = TIMEOUTS.map(Duration::from_millis);
    let nat = NatOptions {
        sources: sources().to_vec(),
        ports: 1024..=1024 + (GROUPS * GROUP) as u16 - 1,
        timeouts: NatTimeouts { opening, established, answered, closing },
        places4: Some(3),
        places6: Some(2),
    };
    BalancerOptions { nat, ..rig::options() }
}

fn services() -> Services {
    let snat = |service: Service| service.forwarding(Forwarding::Snat);
    let v4 = |last| Backend::new(IpAddr::from([198, 18, 0, last]));
    let v6 = |last| Backend::new(IpAddr::from([0x2001, 0xdb8, 2, 0, 0, 0, 0, last]));
    let web = snat(Service::tcp("web", 80)).address(address("198.51.100.1"));
    let near = v4(2).next_hop(NextHop::Mac([2, 0, 0, 0, 1, 2]));
    let web6 = snat(Service::tcp("web6", 80)).address(address("2001:db8:1::1"));
    let mut names = snat(Service::udp("names", 0)).address(address("198.51.100.1"));
    names.options.affinity = Some(AFFINITY);
    let names6 = snat(Service::udp("names6", 53)).address(address("2001:db8:1::1"));
    Services::new([
        web.backend(v4(1).port(8080)).backend(near),
        web6.backend(v6(1).port(8080)).backend(v6(2)),
        names.backend(v4(3)).backend(v4(4)),
        names6.backend(v6(3).mtu(1400)),
    ])
    .expect("good services")
}

/// The host's balancer, and the kernel's, if that can be had here.
struct Plane {
    host: LoadBalancer,
    kernel: Option<LoadBalancer>,
    start: Instant,
}

impl Plane {
    fn new() -> Self {
        let (mut host, mut kernel) = (rig::host(options()), rig::kernel(options()));
        let start = Instant::now();
        for balancer in [&mut host].into_iter().chain(&mut kernel) {
            balancer.apply(&services(), start).expect("it fits");
            balancer.tick(start).expect("it ticks");
        }
        Self { host, kernel, start }
    }

    fn agree(&self) {
        let Some(kernel) = &self.kernel else { return };
        assert_eq!(self.host.stats().expect("read"), kernel.stats().expect("read"));
    }
}

impl walk::Plane for Plane {
    fn run(&mut self, frame: &[u8]) -> Fate {
        let host = self.host.replay(frame).expect("it runs");
        if let Some(kernel) = &mut self.kernel {
            let kernel = kernel.replay(frame).expect("it runs");
            let is_drop = |fate| matches!(fate, lb::Fate::Drop(_));
            assert_eq!(is_drop(host.fate), is_drop(kernel.fate), "{:?}: {frame:02x?}", host.fate);
            if !is_drop(host.fate) {
                assert_eq!(host, kernel, "of {frame:02x?}");
            }
        }
        match host.fate {
            lb::Fate::Pass => Fate::Passed,
            lb::Fate::Transmit => Fate::Sent(host.frame),
            lb::Fate::Drop(reason) => Fate::Dropped(reason.expect("the host says why")),
        }
    }

    fn tick(&mut self, millis: u64) {
        let now = self.start + Duration::from_millis(millis);
        let host = self.host.tick(now).expect("it ticks");
        if let Some(kernel) = &mut self.kernel {
            assert_eq!(host, kernel.tick(now).expect("it ticks"));
        }
    }

    fn turn_to(&mut self, sources: &[IpAddr], millis: u64) -> bool {
        let now = self.start + Duration::from_millis(millis);
        let services = services().with_nat_sources(sources.iter().copied());
        let done = [&mut self.host].into_iter().chain(&mut self.kernel).map(|balancer| {
            match balancer.apply(&services, now) {
                Ok(_) => true,
                Err(ApplyError::Sources(SourcesError::NoPlace { .. })) => false,
                Err(error) => panic!("{error}"),
            }
        });
        let done: Vec<bool> = done.collect();
        assert!(done.iter().all(|one| *one == done[0]), "{done:?}");
        done[0]
    }
}

#[test]
fn full_nat_agrees_with_its_model() {
    let mut walk = Walk::new(Plane::new(), GROUPS, 5);
    (0..4_000).for_each(|_| walk.step(100));
    assert!(walk.opened > 300 && walk.refused > 0, "{} and {}", walk.opened, walk.refused);
    walk.plane.agree();
    println!("{} flows, {} refused", walk.opened, walk.refused);
}

/// Beside the same walk, sources come, are retired, come back, and are gone.
#[test]
fn full_nat_agrees_with_its_model_while_its_sources_change() {
    let mut walk = Walk::new(Plane::new(), GROUPS, 7);
    let mut turned = [0; 2];
    for _ in 0..80 {
        (0..50).for_each(|_| walk.step(100));
        turned[usize::from(walk.turn())] += 1;
        walk.plane.agree();
    }
    assert!(turned[0] > 5 && turned[1] > 20, "refused and done: {turned:?}");
    println!("{} flows, {} refused, {turned:?} changes", walk.opened, walk.refused);
}

/// Frames that a walk doesn't have: too many of them for a port, too large, too old, not translatable.
#[test]
fn what_full_nat_refuses_is_refused_by_name() {
    let mut plane = Plane::new();
    let source = SocketAddr::new(address("203.0.113.7"), 5000);
    let destination = SocketAddr::new(address("198.51.100.1"), 80);
    let packet = |tcp| Packet { source, destination, tcp };
    let mut dropped = |frame: &[u8], reason| {
        assert_eq!(walk::Plane::run(&mut plane, frame), Fate::Dropped(reason), "{frame:02x?}");
    };
    dropped(&packet(Some(ACK)).frame(CLIENT, 64), DropReason::InvalidForFlow);
    dropped(&packet(Some(SYN)).frame(CLIENT, 1), DropReason::HopsExceeded);
    let mut fragment = packet(Some(SYN)).frame(CLIENT, 64);
    fragment[20] = 0x20;
    dropped(&fragment, DropReason::UnsupportedFragment);
    let mut options = packet(Some(SYN)).frame(CLIENT, 64);
    options[14] = 0x46;
    options.splice(34..34, [1, 1, 1, 1]);
    dropped(&options, DropReason::UnsupportedByNat);
    let multicast = Packet { source: (address("224.0.0.1"), 5000).into(), ..packet(Some(SYN)) };
    dropped(&multicast.frame(CLIENT, 64), DropReason::Martian);
    let stray = Packet { source: destination, destination: (sources()[0], 1030).into(), tcp: None };
    dropped(&stray.frame(BACKEND, 64), DropReason::InvalidForFlow);
    plane.agree();
}

/// A datagram's flow, and the report about its packet to the backend, of which so much is quoted.
fn reported(plane: &mut Plane, transport: usize) -> (Packet, Report) {
    let source = SocketAddr::new(address("203.0.113.7"), 5000);
    let destination = SocketAddr::new(address("198.51.100.1"), 53);
    let asked = Packet { source, destination, tcp: None };
    let Fate::Sent(frame) = walk::Plane::run(plane, &asked.frame(CLIENT, 64)) else {
        panic!("{asked:?} has no port")
    };
    let report = Report::about(&Packet::read(&frame), address("198.18.0.254"), transport);
    (asked, report)
}

#[test]
fn a_quoted_datagram_without_checksum_stays_without() {
    let mut plane = Plane::new();
    let (asked, mut report) = reported(&mut plane, 8);
    let mut expected = Report::about(&asked, asked.destination.ip(), 8);
    for quoted in [&mut report.quoted, &mut expected.quoted] {
        quoted[26..28].fill(0);
    }
    let Fate::Sent(sent) = walk::Plane::run(&mut plane, &report.frame(BACKEND, 64)) else {
        panic!("the report reaches nobody")
    };
    assert_eq!(sent[12..], expected.frame(0, 63)[12..]);
    plane.agree();
}

/// Reports to a source that are the host's, and those that nobody can translate.
#[test]
fn other_reports_pass_or_are_dropped_by_name() {
    let mut plane = Plane::new();
    let (asked, report) = reported(&mut plane, 8);
    let mut run = |frame: &[u8]| walk::Plane::run(&mut plane, frame);
    let own = Packet {
        source: (report.receiver, 40_000).into(),
        destination: (address("198.18.0.1"), 80).into(),
        tcp: Some(ACK),
    };
    assert_eq!(run(&Report::about(&own, report.sender, 8).frame(BACKEND, 64)), Fate::Passed);
    let mut options = report.clone();
    options.quoted[0] = 0x46;
    assert_eq!(run(&options.frame(BACKEND, 64)), Fate::Passed);
    let mut cut = report.clone();
    cut.quoted.truncate(22);
    assert_eq!(run(&cut.frame(BACKEND, 64)), Fate::Passed);
    let other = [sources()[0], sources()[2]].into_iter().find(|one| *one != report.receiver);
    let others = Report { receiver: other.expect("two of them"), ..report.clone() };
    assert_eq!(run(&others.frame(BACKEND, 64)), Fate::Passed);
    assert_eq!(run(&report.frame(BACKEND, 1)), Fate::Dropped(DropReason::HopsExceeded));
    let answer = Packet { source: asked.destination, destination: asked.source, tcp: None };
    let mut options = Report::about(&answer, address("203.0.113.254"), 8);
    options.quoted.splice(20..20, [1, 1, 1, 1]);
    options.quoted[0] = 0x46;
    assert_eq!(run(&options.frame(CLIENT, 64)), Fate::Dropped(DropReason::UnsupportedByNat));
    plane.agree();
}
