//! Jumbo frames on a wire: longer than a page, so that native XDP has them in several buffers, through balancer
//! and decapsulator.
//!
//! Privileged: without the capabilities, or without a bridge, each test says so in one line and is skipped.

mod segment;

use std::{
    net::{IpAddr, UdpSocket},
    process::Command,
    time::{Duration, Instant},
};

use flowgate_abi::lb::Counter;
use flowgate_conformance::frames::Frame;
use flowgate_datapath::{
    decap::{Builder, Decapsulator, Hook, Way},
    lb::{BalancerOptions, LoadBalancer, XdpAttach, XdpMode},
};
use flowgate_lab::{Answer, Pod};
use flowgate_policy::outcome::{Flow, FlowProtocol};
use flowgate_services::{
    Services, Uplink,
    model::{Backend, Forwarding, NextHop, Service},
};
use segment::{ARM, PATIENCE, PORT, Segment, came_out, vips};

/// Of every interface.
const MTU: u16 = 9000;
/// Bytes behind a datagram's header: more than two pages, and not too many for an outer header.
const PAYLOAD: usize = 8500;
const GUE: u16 = 6080;
const NATIVE: Hook = Hook::Xdp(XdpAttach::Native);

/// Interfaces for jumbo frames. What XDP sends reaches the bridge only if its port runs XDP as well.
fn jumbo() -> Option<(Segment, Decapsulator)> {
    let mut segment = Segment::plain()?;
    let Segment { client, backends, node } = &mut segment;
    for pod in backends.iter().chain([&*client]) {
        node.set_mtu(pod, MTU.into()).expect("it takes that");
    }
    for link in [ARM, "arm", "segment"] {
        let mut command = Command::new("ip");
        let status = command.args(["link", "set", link, "mtu", &MTU.to_string()]).status();
        assert!(status.expect("it runs").success(), "{link}");
    }
    let port = Decapsulator::builder().tunnel_end(IpAddr::from([198, 18, 9, 9]));
    let mut port = port.open().expect("opens");
    let _ = port.attach("arm", NATIVE).expect("attaches");
    Some((segment, port))
}

fn balancer() -> LoadBalancer {
    let uplink = Uplink { mtu: MTU, ..Uplink::default() };
    let options = BalancerOptions { uplink, ..BalancerOptions::default() };
    let mut balancer = LoadBalancer::builder().options(options).open().expect("opens");
    let attached = balancer.attach(ARM, XdpAttach::Native).expect("attaches");
    assert_eq!((attached.mode, attached.mtu), (XdpMode::Native, MTU.into()));
    balancer
}

/// Datagrams at both addresses, to one backend's address of a family.
fn services(backend: &Pod, (forwarding, family): (Forwarding, usize)) -> Services {
    let to = Backend::new(backend.addresses()[family]).next_hop(NextHop::Mac(backend.mac().0));
    let service = vips().into_iter().fold(Service::udp("datagrams", PORT), Service::address);
    Services::new([service.forwarding(forwarding).backend(to)]).expect("good services")
}

/// A datagram of the client to the service, as it meets the balancer.
fn datagram(segment: &Segment, family: usize, payload: usize) -> Vec<u8> {
    let (source, destination) = (segment.client.addresses()[family], vips()[family]);
    let flow = Flow { source, destination, protocol: FlowProtocol::Udp(PORT) };
    let mut frame = Frame { payload, ..Frame::opening(flow, 40_000) }.bytes();
    frame[..6].copy_from_slice(&[2, 0, 0, 0, 0xba, 1]);
    frame[6..12].copy_from_slice(&segment.client.mac().0);
    frame
}

/// Waits for what is bound to happen.
#[track_caller]
fn wait(mut happened: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !happened() {
        assert!(begun.elapsed() < PATIENCE, "it doesn't happen");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn jumbo_frames_go_through_tunnels_whole() {
    let Some((segment, _port)) = jumbo() else { return };
    let mut balancer = balancer();
    let backend = &segment.backends[0];
    backend.add_silent_address(vips()[0]).expect("an address");
    let socket = backend.run(|| UdpSocket::bind((vips()[0], PORT)).expect("listens"));
    let socket = socket.expect("a thread there");
    socket.set_read_timeout(Some(PATIENCE)).expect("of a socket");
    let raw = segment.client.raw().expect("a raw socket");
    for form in [Forwarding::Tunnel, Forwarding::Gue { port: GUE }].map(|f| [(f, 0), (f, 1)]) {
        for form in form {
            println!("{form:?}");
            let _ = balancer.apply(&services(backend, form), Instant::now()).expect("fits");
            let builder = Decapsulator::builder().gue(GUE);
            let builder = backend.addresses().iter().copied().fold(builder, Builder::tunnel_end);
            let builder = vips().into_iter().fold(builder, Builder::service);
            let decapsulator = backend.run(|| {
                let mut decapsulator = builder.open().expect("opens");
                let attached = decapsulator.attach(backend.interface(), NATIVE).expect("attaches");
                assert_eq!(attached.way, Way::Xdp(XdpMode::Native));
                decapsulator
            });
            let decapsulator = decapsulator.expect("a thread there");
            for family in [0, 1] {
                raw.send(&datagram(&segment, family, PAYLOAD)).expect("sent");
            }
            // Headers of UDP twice, of IPv4, of IPv6.
            let bytes = 2 * (PAYLOAD as u64 + 8) + 20 + 40;
            wait(|| came_out(&decapsulator) == (2, bytes));
            // IPv6 wants a checksum, so that one ends in the backend's stack.
            let mut received = [0; 9000];
            assert_eq!(socket.recv(&mut received).expect("received"), PAYLOAD);
        }
    }
    assert!(balancer.stats().expect("read").drops.is_empty());
}

#[test]
fn jumbo_frames_are_answered() {
    let Some((segment, _port)) = jumbo() else { return };
    let mut balancer = balancer();
    let form = (Forwarding::Tunnel, 1);
    let services = services(&segment.backends[0], form);
    let _ = balancer.apply(&services, Instant::now()).expect("fits");
    for vip in vips() {
        let answer = segment.client.ping_of(PAYLOAD, vip, PATIENCE).expect("asked");
        assert_eq!(answer, Answer::Echoed, "echo requests by {vip}");
    }
    // With 40 bytes of an outer header they don't fit any more: one error each.
    let raw = segment.client.raw().expect("a raw socket");
    for family in [0, 1] {
        let most = usize::from(MTU) - [20, 40][family] - 8;
        raw.send(&datagram(&segment, family, most)).expect("sent");
    }
    wait(|| balancer.stats().expect("read").get(Counter::TooBigAnswered) == 2);
}
