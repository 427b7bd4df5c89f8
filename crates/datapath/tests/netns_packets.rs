//! Packets of every size between real sockets, through the attached programs: fragments, jumbo
//! frames, super-packets with checksums that are still to be made, errors that routers send.
//!
//! Privileged: without the capabilities, each test says so in one line and is skipped.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
};

use flowgate_abi::{DropReason, event::Counter};
use flowgate_datapath::{Delivery, HookKind};
use flowgate_lab::{Answer, StackCounters};

mod rig;
use rig::{CLIENT, NODE, PATIENCE, Rig, SERVER, STRANGER, Setup, pods::addresses, until};

const DNS: u16 = 53;
const DISCARD: u16 = 9;
const WEB: u16 = 80;
/// Both ways, each.
const BULK: usize = 64 << 20;
const BLOCK: usize = 1 << 20;

/// Fails if a packet was dropped, or came with a wrong checksum, anywhere.
#[track_caller]
fn nothing_was_lost(rig: &Rig) {
    assert!(rig.drops().is_empty(), "{:?}", rig.drops());
    let mut stacks: Vec<StackCounters> =
        rig.pods.iter().map(|pod| pod.stack_counters().expect("readable")).collect();
    stacks.push(StackCounters::read().expect("readable"));
    for stack in &stacks {
        assert_eq!(stack.checksum_errors(), []);
    }
    assert_eq!(rig.count(Counter::RedirectFailed), 0);
}

fn set_mtu(rig: &mut Rig, mtu: u32) {
    rig.pods.iter().for_each(|pod| rig.node.set_mtu(pod, mtu).expect("a link takes it"));
}

fn large_datagrams(setup: &Setup) {
    let Some(mut rig) = Rig::new(setup) else { return };
    let _servers = rig.pods[SERVER].serve(&[], &[DNS]).expect("servers");
    let client = |rig: &Rig, bytes| {
        for family in 0..2 {
            let dns = rig.server(family, DNS);
            let pod = &rig.pods[CLIENT];
            assert_eq!(pod.udp_of(bytes, dns, PATIENCE).expect("a socket"), Answer::Echoed);
            assert_eq!(pod.ping_of(5000, dns.ip(), PATIENCE).expect("a socket"), Answer::Echoed);
        }
    };
    client(&rig, 20_000);
    let reassembled = |rig: &Rig, pod: usize| {
        let stack = rig.pods[pod].stack_counters().expect("readable");
        [stack.get("IpReasmOKs"), stack.get("Ip6ReasmOKs")]
    };
    for pod in [CLIENT, SERVER] {
        assert!(reassembled(&rig, pod).iter().all(|count| *count >= 2), "they were fragments");
    }
    set_mtu(&mut rig, 9000);
    client(&rig, 60_000);
    nothing_was_lost(&rig);
}

#[test]
fn large_datagrams_come_back_whole_into_the_peer() {
    large_datagrams(&Setup::by(Delivery::RedirectPeer));
}

#[test]
fn large_datagrams_come_back_whole_through_the_stack() {
    large_datagrams(&Setup::by(Delivery::Stack));
}

#[test]
fn large_datagrams_come_back_whole_by_clsact() {
    let setup = Setup::by(Delivery::RedirectPeer);
    large_datagrams(&Setup { hook: HookKind::Clsact, ..setup });
}

/// 20,008 bytes behind the network header, in pieces of 1480 or 1448 bytes.
const PIECES: u64 = 14;

fn denied_datagrams(delivery: Delivery) {
    let Some(rig) = Rig::new(&Setup::by(delivery)) else { return };
    let stranger = &rig.pods[STRANGER];
    let _servers = rig.pods[SERVER].serve(&[], &[DNS, DISCARD]).expect("servers");
    for family in 0..2 {
        let socket = stranger.run(|| UdpSocket::bind(any(family))).expect("runs").expect("binds");
        for _ in 0..10 {
            socket.send_to(&[0x5a; 20_000], rig.server(family, DISCARD)).expect("sends");
        }
        // The port decides, for all pieces: the same pods, the same size.
        let dns = rig.server(family, DNS);
        assert_eq!(stranger.udp_of(20_000, dns, PATIENCE).expect("a socket"), Answer::Echoed);
    }
    assert_eq!(rig.drops(), [(DropReason::PolicyDefaultDeny, 2 * 10 * PIECES)].into());
    let stack = rig.pods[SERVER].stack_counters().expect("readable");
    for (family, udp) in [("Ip", "UdpInDatagrams"), ("Ip6", "Udp6InDatagrams")] {
        let name = format!("{family}ReasmReqds");
        assert_eq!(stack.get(&name), PIECES * stack.get(udp), "no piece arrived in vain");
    }
}

fn any(family: usize) -> SocketAddr {
    if family == 0 { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() }
}

#[test]
fn a_denied_port_denies_every_fragment_into_the_peer() {
    denied_datagrams(Delivery::RedirectPeer);
}

#[test]
fn a_denied_port_denies_every_fragment_through_the_stack() {
    denied_datagrams(Delivery::Stack);
}

/// Bytes without order, and which block it is in front.
fn block(number: u64) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut words: Vec<u64> = (0..BLOCK / 8).map(next).collect();
    words[0] = number;
    words.into_iter().flat_map(u64::to_be_bytes).collect()
}

fn send_bulk(stream: &mut TcpStream) {
    let mut bytes = block(0);
    for number in 0..BULK / BLOCK {
        bytes[..8].copy_from_slice(&(number as u64).to_be_bytes());
        stream.write_all(&bytes).expect("sends");
    }
}

fn check_bulk(stream: &mut TcpStream) {
    let (mut wanted, mut bytes) = (block(0), vec![0; BLOCK]);
    for number in 0..BULK / BLOCK {
        wanted[..8].copy_from_slice(&(number as u64).to_be_bytes());
        stream.read_exact(&mut bytes).expect("comes");
        assert!(bytes == wanted, "block {number} is another one");
    }
}

/// One way, then the other.
fn exchange_bulk(rig: &Rig, family: usize) {
    let web = rig.server(family, WEB);
    let listener = rig.pods[SERVER].run(|| TcpListener::bind(web)).expect("runs").expect("binds");
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        check_bulk(&mut stream);
        send_bulk(&mut stream);
    });
    let connect = || TcpStream::connect_timeout(&web, PATIENCE);
    let mut stream = rig.pods[CLIENT].run(connect).expect("runs").expect("connects");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    send_bulk(&mut stream);
    check_bulk(&mut stream);
    server.join().expect("the same bytes");
}

fn bulk(delivery: Delivery) {
    let Some(mut rig) = Rig::new(&Setup::by(delivery)) else { return };
    for mtu in [1500, 9000] {
        set_mtu(&mut rig, mtu);
        let before = from_endpoints(&rig);
        (0..2).for_each(|family| exchange_bulk(&rig, family));
        let after = from_endpoints(&rig);
        let average = (after.1 - before.1) / (after.0 - before.0);
        println!(
            "{delivery:?}, MTU {mtu}: {average} bytes for each packet, acknowledgements included"
        );
        assert!(average > u64::from(mtu), "they were super-packets");
    }
    nothing_was_lost(&rig);
}

/// Packets and bytes that came from all endpoints.
fn from_endpoints(rig: &Rig) -> (u64, u64) {
    let traffic = rig.datapath.counters().expect("readable").traffic;
    let all = traffic.values().map(|endpoint| endpoint.egress);
    all.fold((0, 0), |sum, tally| (sum.0 + tally.packets, sum.1 + tally.bytes))
}

#[test]
fn bulk_goes_both_ways_unchanged_into_the_peer() {
    bulk(Delivery::RedirectPeer);
}

#[test]
fn bulk_goes_both_ways_unchanged_through_the_stack() {
    bulk(Delivery::Stack);
}

fn errors(delivery: Delivery) {
    let Some(mut rig) = Rig::new(&Setup::by(delivery)) else { return };
    addresses(NODE).into_iter().for_each(|own| rig.node.add_address(own).expect("an address"));
    for family in 0..2 {
        let related = rig.count(Counter::Related);
        let closed = rig.server(family, DISCARD);
        let answer = rig.pods[CLIENT].udp(closed, PATIENCE).expect("a socket");
        assert_eq!(answer, Answer::Refused, "{closed} says that nobody listens");
        assert_eq!(rig.count(Counter::Related), related + 1);
    }
    nothing_was_lost(&rig);
}

#[test]
fn a_closed_port_is_told_into_the_peer() {
    errors(Delivery::RedirectPeer);
}

#[test]
fn a_closed_port_is_told_through_the_stack() {
    errors(Delivery::Stack);
}

/// The node routes from a link of 9000 bytes to one of 1500, and says so to the sender.
#[test]
fn a_router_tells_the_path_mtu() {
    let Some(mut rig) = Rig::new(&Setup::by(Delivery::Stack)) else { return };
    addresses(NODE).into_iter().for_each(|own| rig.node.add_address(own).expect("an address"));
    rig.node.set_mtu(&rig.pods[CLIENT], 9000).expect("a link takes it");
    let _servers = rig.pods[SERVER].serve(&[], &[DNS]).expect("servers");
    for family in 0..2 {
        let related = rig.count(Counter::Related);
        let dns = rig.server(family, DNS);
        let answer = rig.pods[CLIENT].udp_of(5000, dns, PATIENCE).expect("a socket");
        assert_eq!(answer, Answer::Echoed, "{dns} gets what fits the path");
        until("the router's word passed", || rig.count(Counter::Related) > related);
    }
    nothing_was_lost(&rig);
}
