//! Lies about who one is, through the attached programs: frames from another's address, false
//! neighbours and routers, forged errors. What a lie would do is shown by telling it once more when no
//! datapath is in the way.
//!
//! Privileged: without the capabilities, each test says so in one line and is skipped.

use std::{
    io::ErrorKind,
    net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket},
};

use flowgate_abi::DropReason;
use flowgate_conformance::{envelope, frames::Frame};
use flowgate_datapath::Delivery;
use flowgate_lab::{Mac, Node, Pod};
use flowgate_policy::outcome::FlowProtocol;

mod rig;
mod wire;
use rig::{CLIENT, NODE, PATIENCE, Rig, SERVER, STRANGER, Setup, pods::addresses, until};
use wire::{DNS, Inbox, datagram, flow, from_pod};

/// Bytes of payload, by which datagrams are told apart.
const FALSE: usize = 64;
const TRUE: usize = 1000;

/// Datagrams by which the stranger says that it is somebody else.
fn false_datagrams(rig: &Rig, family: usize) -> [(DropReason, Vec<u8>); 2] {
    let (stranger, server) = (&rig.pods[STRANGER], rig.server(family, DNS));
    let mut by_mac = from_pod(stranger, datagram(rig, family, (DNS, FALSE)).bytes());
    by_mac[6..12].copy_from_slice(&rig.pods[CLIENT].mac().0);
    let client = rig.pods[CLIENT].addresses()[family];
    let flow = flow(client, server.ip(), FlowProtocol::Udp(DNS));
    let by_address = Frame { payload: FALSE, ..Frame::opening(flow, 5000) };
    [
        (DropReason::InvalidSourceMac, by_mac),
        (DropReason::InvalidSourceAddress, from_pod(stranger, by_address.bytes())),
    ]
}

#[test]
fn nobody_sends_from_anothers_address() {
    let Some(rig) = Rig::new(&Setup::by(Delivery::Stack)) else { return };
    let stranger = &rig.pods[STRANGER];
    let raw = stranger.raw().expect("a packet socket");
    let inboxes = [0, 1].map(|family| Inbox::open(&rig, rig.server(family, DNS)));
    let lies = [0, 1].map(|family| false_datagrams(&rig, family));
    for (family, inbox) in inboxes.iter().enumerate() {
        lies[family].iter().for_each(|(_, frame)| raw.send(frame).expect("sends"));
        let truth = datagram(&rig, family, (DNS, TRUE));
        raw.send(&from_pod(stranger, truth.bytes())).expect("sends");
        assert_eq!(inbox.next(), TRUE, "the first that arrives");
    }
    assert_eq!(rig.drops(), lies[0].iter().map(|(reason, _)| (*reason, 2)).collect());
    drop(rig.datapath);
    for (lies, inbox) in lies.iter().zip(&inboxes) {
        lies.iter().for_each(|(_, frame)| raw.send(frame).expect("sends"));
        assert_eq!([inbox.next(), inbox.next()], [FALSE; 2], "nothing is in the way any more");
    }
}

/// Where a pod may put a false entry into the node's tables: for the server's addresses.
fn false_neighbours(node: &mut Node, stranger: &Pod) -> [Option<Mac>; 2] {
    addresses(SERVER).map(|address| node.neighbour(stranger, address).expect("an answer"))
}

/// The node believes a router behind the stranger's link.
fn has_false_router(stranger: &Pod) -> bool {
    let routes = std::fs::read_to_string("/proc/thread-self/net/ipv6_route").expect("readable");
    let default = format!("{:032x} 00", 0);
    routes
        .lines()
        .any(|route| route.starts_with(&default) && route.ends_with(stranger.host_interface()))
}

/// ARP to the node, by which the stranger says that the server's address is its own.
fn false_arp(stranger: &Pod) -> Vec<u8> {
    let [IpAddr::V4(server), _] = addresses(SERVER) else { unreachable!("IPv4 comes first") };
    let [IpAddr::V4(node), _] = addresses(NODE) else { unreachable!("IPv4 comes first") };
    envelope::arp(stranger.mac().0, (stranger.mac().0, server), node)
}

const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xbad);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// A message of neighbour discovery to all nodes, with these bytes behind type, code and checksum.
fn discovery(stranger: &Pod, icmp_type: u8, body: &[u8]) -> Vec<u8> {
    let flow = flow(LINK_LOCAL.into(), ALL_NODES.into(), FlowProtocol::Icmp6 { icmp_type });
    let hops = 255;
    let frame = Frame { hops, payload: body.len() - 4, ..Frame::opening(flow, 0) };
    let mut bytes = frame.bytes();
    bytes[58..].copy_from_slice(body);
    let mut bytes = from_pod(stranger, bytes);
    bytes[..6].copy_from_slice(&[0x33, 0x33, 0, 0, 0, 1]);
    bytes
}

/// An advertisement that takes the server's address over (RFC 4861, section 4.4).
fn false_advertisement(stranger: &Pod) -> Vec<u8> {
    let [_, IpAddr::V6(server)] = addresses(SERVER) else { unreachable!("IPv6 comes last") };
    let link = [&[2, 1][..], &stranger.mac().0].concat();
    discovery(stranger, 136, &[&[0x20, 0, 0, 0][..], &server.octets(), &link].concat())
}

/// An advertisement of a router for half an hour (RFC 4861, section 4.2).
fn false_router(stranger: &Pod) -> Vec<u8> {
    let link = [&[1, 1][..], &stranger.mac().0].concat();
    discovery(stranger, 134, &[&[64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0][..], &link].concat())
}

#[test]
fn nobody_takes_anothers_address_over_or_becomes_a_router() {
    let Some(mut rig) = Rig::new(&Setup::by(Delivery::RedirectPeer)) else { return };
    let stranger = &rig.pods[STRANGER];
    addresses(NODE).into_iter().for_each(|own| rig.node.add_address(own).expect("an address"));
    // As gullible as a node can be: it listens to routers, and has an entry to be changed.
    let accept = format!("/proc/sys/net/ipv6/conf/{}/accept_ra", stranger.host_interface());
    std::fs::write(accept, "2").expect("the node's own setting");
    let [_, server6] = addresses(SERVER);
    let other = rig.pods[CLIENT].mac();
    rig.node.add_neighbour(stranger, server6, other).expect("an entry");
    let lies = [false_arp(stranger), false_advertisement(stranger), false_router(stranger)];

    let raw = stranger.raw().expect("a packet socket");
    lies.iter().for_each(|frame| raw.send(frame).expect("sends"));
    let dropped = [(DropReason::InvalidSourceAddress, 2), (DropReason::ForbiddenIcmp6, 1)];
    until("all are dropped", || rig.drops() == dropped.into());
    assert_eq!(false_neighbours(&mut rig.node, stranger), [None, Some(other)]);
    assert!(!has_false_router(stranger));

    drop(rig.datapath);
    lies.iter().for_each(|frame| raw.send(frame).expect("sends"));
    let own = Some(stranger.mac());
    until("nothing is in the way any more", || {
        false_neighbours(&mut rig.node, stranger) == [own, own] && has_false_router(stranger)
    });
}

/// A solicitation to a unicast address, as if it were a neighbour's (RFC 4861, section 7.3.3).
fn solicitation(stranger: &Pod, receiver: IpAddr) -> Vec<u8> {
    let (IpAddr::V6(own), IpAddr::V6(target)) = (stranger.addresses()[1], receiver) else {
        unreachable!("IPv6 comes last")
    };
    let flow = flow(own.into(), target.into(), FlowProtocol::Icmp6 { icmp_type: 135 });
    let mut frame = Frame { hops: 255, payload: 16, ..Frame::opening(flow, 0) }.bytes();
    frame[58..62].fill(0);
    frame[62..78].copy_from_slice(&target.octets());
    from_pod(stranger, frame)
}

/// One of the node's own counters of IPv6.
fn counted(name: &str) -> u64 {
    let counters = std::fs::read_to_string("/proc/thread-self/net/snmp6").expect("readable");
    let line = counters.lines().find(|line| line.split_whitespace().next() == Some(name));
    line.and_then(|line| line.split_whitespace().nth(1)).expect("known").parse().expect("a number")
}

/// What a router forwarded would let data out of a pod that may send none.
#[test]
fn neighbour_discovery_ends_at_the_node() {
    const FORWARDED: &str = "Ip6OutForwDatagrams";
    const TAKEN: &str = "Icmp6InNeighborSolicits";
    let Some(mut rig) = Rig::new(&Setup::by(Delivery::Stack)) else { return };
    let stranger = &rig.pods[STRANGER];
    addresses(NODE).into_iter().for_each(|own| rig.node.add_address(own).expect("an address"));
    let [_, server] = addresses(SERVER);
    let [_, node] = addresses(NODE);
    let raw = stranger.raw().expect("a packet socket");
    let (forwarded, taken) = (counted(FORWARDED), counted(TAKEN));
    raw.send(&solicitation(stranger, server)).expect("sends");
    raw.send(&solicitation(stranger, node)).expect("sends");
    until("the node takes what is for it", || counted(TAKEN) > taken);
    assert_eq!((counted(FORWARDED), rig.drops()), (forwarded, [].into()));
    drop(rig.datapath);
    raw.send(&solicitation(stranger, server)).expect("sends");
    until("nothing is in the way any more", || counted(FORWARDED) > forwarded);
}

/// Says that the client's datagram to the server found a closed port; 8 bytes behind the network
/// header are quoted.
fn forged_error(rig: &Rig, family: usize, (reporter, port): (usize, u16)) -> Vec<u8> {
    let [client, server] = [CLIENT, SERVER].map(|pod| rig.pods[pod].addresses()[family]);
    let quoted = Frame::opening(flow(client, server, FlowProtocol::Udp(DNS)), port);
    let (protocol, network, code) = if family == 0 {
        (FlowProtocol::Icmp { icmp_type: 3 }, 20, 3)
    } else {
        (FlowProtocol::Icmp6 { icmp_type: 1 }, 40, 4)
    };
    let quote = &quoted.bytes()[14..14 + network + 8];
    let flow = flow(rig.pods[reporter].addresses()[family], client, protocol);
    let mut frame = Frame { payload: quote.len(), ..Frame::opening(flow, 0) }.bytes();
    frame[14 + network + 1] = code;
    frame[14 + network + 8..].copy_from_slice(quote);
    frame
}

#[test]
fn a_forged_error_does_not_reach_the_socket() {
    let Some(rig) = Rig::new(&Setup::by(Delivery::RedirectPeer)) else { return };
    let _servers = rig.pods[SERVER].serve(&[], &[DNS]).expect("servers");
    let (client, stranger) = (&rig.pods[CLIENT], &rig.pods[STRANGER]);
    let raw = stranger.raw().expect("a packet socket");
    let sockets = [0, 1].map(|family| connected(client, rig.server(family, DNS)));
    for (family, socket) in sockets.iter().enumerate() {
        echoes(socket);
        let port = socket.local_addr().expect("bound").port();
        for reporter in [STRANGER, SERVER] {
            let forged = from_pod(stranger, forged_error(&rig, family, (reporter, port)));
            raw.send(&forged).expect("sends");
        }
        let each = family as u64 + 1;
        let dropped = [DropReason::UnrelatedIcmpError, DropReason::InvalidSourceAddress];
        until("both are dropped", || rig.drops() == dropped.map(|reason| (reason, each)).into());
        echoes(socket);
    }
    let forged = [0, 1].map(|family| {
        let port = sockets[family].local_addr().expect("bound").port();
        from_pod(stranger, forged_error(&rig, family, (SERVER, port)))
    });
    drop(rig.datapath);
    for (socket, forged) in sockets.iter().zip(forged) {
        raw.send(&forged).expect("sends");
        let told = socket.recv(&mut [0; 64]).expect_err("nothing is in the way any more");
        assert_eq!(told.kind(), ErrorKind::ConnectionRefused);
    }
}

fn connected(pod: &Pod, to: SocketAddr) -> UdpSocket {
    let any: SocketAddr = if to.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = pod.run(|| UdpSocket::bind(any)).expect("runs").expect("binds");
    socket.connect(to).expect("a route");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    socket
}

#[track_caller]
fn echoes(socket: &UdpSocket) {
    socket.send(b"still there?").expect("no error waits");
    assert_eq!(socket.recv(&mut [0; 64]).expect("no error waits"), 12);
}
