//! What the balancer puts into a tunnel comes out of it: the client's packet with a hop less.

use std::time::Instant;

use flowgate_conformance::frames::Frame;
use flowgate_datapath::{
    Backend as Tables,
    decap::Fate,
    lb::{self, BalancerOptions, LoadBalancer},
};
use flowgate_policy::outcome::{Flow, FlowProtocol};
use flowgate_services::{
    Services, Uplink,
    model::{Backend, Forwarding, Service},
};

use crate::rig::{self, GUE, HOOKS, address, hex};

/// A service for each forwarding and each family of the backend's address, by port.
fn services() -> Services {
    let forwardings = [Forwarding::Tunnel, Forwarding::Gue { port: GUE }];
    let all = forwardings.into_iter().flat_map(|f| rig::tunnel_ends().map(|end| (f, end)));
    let services = all.enumerate().map(|(number, (forwarding, end))| {
        let service = Service::tcp(format!("service {number}"), 80 + number as u16);
        let service = rig::services().into_iter().fold(service, Service::address);
        service.forwarding(forwarding).backend(Backend::new(end))
    });
    Services::new(services).expect("good services")
}

fn balancer() -> LoadBalancer {
    let [source4, source6] = ["198.18.255.0/24", "2001:db8:ffff::/96"];
    let uplink = Uplink {
        source4: source4.parse().expect("a network"),
        source6: source6.parse().expect("a network"),
        ..Uplink::default()
    };
    let options = BalancerOptions { uplink, ..BalancerOptions::default() };
    let builder = LoadBalancer::builder().backend(Tables::Host).options(options);
    let mut balancer = builder.open().expect("no privileges");
    let _ = balancer.apply(&services(), Instant::now()).expect("it fits");
    balancer
}

/// A packet of a client's to a service's port.
fn packet(port: u16, family: usize) -> Vec<u8> {
    let source = address(["203.0.113.7", "2001:db8:9::7"][family]);
    let destination = rig::services()[family];
    Frame::opening(Flow { source, destination, protocol: FlowProtocol::Tcp(port) }, 5000).bytes()
}

#[test]
fn what_the_balancer_sends_comes_out_again() {
    let mut balancer = balancer();
    for decapsulator in &mut rig::all() {
        for (port, family) in (80..84).flat_map(|port| [(port, 0), (port, 1)]) {
            let sent = balancer.replay(&packet(port, family)).expect("it runs");
            assert_eq!(sent.fate, lb::Fate::Transmit);
            for hook in HOOKS {
                let came = decapsulator.replay(hook, &sent.frame).expect("it runs");
                assert_eq!(came.fate, Fate::Unwrapped, "{port}: {}", hex(&sent.frame));
                let gone = sent.frame.len() - came.frame.len();
                let expected = &packet(port, family)[14..];
                let hops = if family == 0 { 8..12 } else { 7..8 };
                let (inner, at) = (&came.frame[14..], if family == 0 { 8 } else { 7 });
                assert_eq!(inner[at] + 1, expected[at], "one hop less");
                assert_eq!(inner[..hops.start], expected[..hops.start]);
                assert_eq!(inner[hops.end..], expected[hops.end..]);
                assert_eq!(inner, &sent.frame[14 + gone..], "as the balancer has sent it");
            }
        }
    }
}
