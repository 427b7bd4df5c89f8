//! Connection ids of QUIC on a wire: a client that moves to other ports and to another address stays with its backend,
//! whatever becomes of the table.
//!
//! Privileged: without the capabilities, or without a bridge, it says so in one line and is skipped.

mod segment;

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    time::Instant,
};

use flowgate_abi::lb::Counter;
use flowgate_datapath::lb::{BalancerOptions, LoadBalancer, XdpAttach};
use flowgate_services::{
    QuicServers, Services,
    model::{Backend, BackendState, Forwarding, Service},
};
use segment::{ARM, PATIENCE, PORT, Segment, must, vips};

const SERVERS: QuicServers = QuicServers { rotation: 0, octets: 2, ids: 1024 };
/// By which the second backend is named.
const ID: u16 = 0x203;

fn services(backends: &[Backend]) -> Services {
    let service = vips().into_iter().fold(Service::udp("quic", PORT), Service::address);
    let mut service = service.forwarding(Forwarding::Layer2);
    service.options.quic = Some(SERVERS);
    Services::new([backends.iter().copied().fold(service, Service::backend)]).expect("good")
}

/// A packet with a short header, whose connection id has this server id.
fn packet(id: u16) -> [u8; 16] {
    let [high, low] = id.to_be_bytes();
    [0x40, 0x07, high, low, 1, 2, 3, 4, 9, 9, 9, 9, 9, 9, 9, 9]
}

/// Asks a service's address so often from an address of the client, each time from another port.
fn ask(segment: &Segment, (from, to): (IpAddr, IpAddr), id: u16, times: usize) {
    let answered = || {
        let sockets: Vec<_> =
            (0..times).map(|_| UdpSocket::bind((from, 0)).expect("a port")).collect();
        for socket in &sockets {
            socket.set_read_timeout(Some(PATIENCE)).expect("set");
            socket.send_to(&packet(id), SocketAddr::new(to, PORT)).expect("sent");
            let mut answer = [0; 32];
            let (length, who) = socket.recv_from(&mut answer).expect("an answer");
            assert_eq!((&answer[..length], who.ip()), (&packet(id)[..], to));
        }
    };
    segment.client.run(answered).expect("a thread there");
}

/// Packets to each backend.
fn sent(balancer: &LoadBalancer) -> Vec<u64> {
    let stats = balancer.stats().expect("read");
    stats.services[0].backends.iter().map(|(_, traffic)| traffic.packets).collect()
}

/// Gives the client another address, to which the node knows the way.
fn moves(segment: &Segment) -> IpAddr {
    let (client, mac) = (&segment.client, segment.client.mac());
    let (other, port) = ("198.18.5.2", client.host_interface());
    let added = client.run(|| must(&format!("addr add {other}/32 dev lo")));
    added.expect("a thread there");
    must(&format!("route add {other}/32 dev {port}"));
    must(&format!("neigh add {other} lladdr {mac} dev {port} nud permanent"));
    other.parse().expect("an address")
}

#[test]
fn a_client_that_moves_stays_with_the_server_that_its_connection_id_names() {
    let Some(segment) = Segment::new() else { return };
    let listed = segment.listed();
    let listed = [listed[0].server_id(0x102), listed[1].server_id(ID)];
    let mut balancer =
        LoadBalancer::builder().options(BalancerOptions::default()).open().expect("opens");
    let _ = balancer.attach(ARM, XdpAttach::Generic).expect("attaches");
    let _ = balancer.apply(&services(&listed), Instant::now()).expect("fits");
    for to in vips() {
        let from = segment.client.addresses().iter().find(|from| from.is_ipv4() == to.is_ipv4());
        ask(&segment, (*from.expect("of both families"), to), ID, 20);
    }
    assert_eq!(sent(&balancer), [0, 40], "the same server from every port");
    let moved = (moves(&segment), vips()[0]);
    ask(&segment, moved, ID, 20);
    assert_eq!(sent(&balancer), [0, 60], "and from another address");
    // Everything new is the other one's.
    let draining = [listed[0], listed[1].state(BackendState::Draining)];
    let _ = balancer.apply(&services(&draining), Instant::now()).expect("fits");
    ask(&segment, moved, ID, 20);
    assert_eq!(sent(&balancer), [0, 80], "who drains keeps its connections");
    let _ = balancer.apply(&services(&listed[..1]), Instant::now()).expect("fits");
    ask(&segment, moved, ID, 20);
    assert_eq!(sent(&balancer), [20], "nobody is named who is gone");
    let stats = balancer.stats().expect("read");
    assert_eq!([stats.get(Counter::QuicNamed), stats.get(Counter::QuicUnknown)], [80, 20]);
    assert!(stats.drops.is_empty(), "{:?}", stats.drops);
}
