//! The filter on a wire: datagrams of a pod with two addresses, of which one is blocked.
//!
//! Privileged: where it can't run, it says so in one line and is skipped.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    time::Duration,
};

use flowgate_datapath::lb::{LoadBalancer, XdpAttach};
use flowgate_lab::Node;
use xdp_stage::{Limits, Rule, stage};

#[test]
fn a_blocked_sources_datagrams_never_arrive() {
    if let Err(missing) = flowgate_lab::available() {
        println!("SKIPPED: {missing}");
        return;
    }
    let mut node = Node::enter().expect("namespaces of its own");
    let server = IpAddr::from([198, 51, 100, 1]);
    node.add_address(server).expect("an address");
    let [good, bad] = [[198, 18, 7, 1], [198, 18, 8, 1]].map(IpAddr::from);
    let pod = node.add_pod("pod", &[good, bad]).expect("a pod");
    let inbox = UdpSocket::bind((server, 9000)).expect("binds");
    inbox.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");

    let mut balancer = LoadBalancer::builder().before(stage()).open().expect("opens");
    let attached = balancer.attach(pod.host_interface(), XdpAttach::Any).expect("attaches");
    println!("{}, {} mode", balancer.report(), attached.mode);
    let limits = Limits::of(&balancer).expect("told").expect("the filter is there");
    let send = |from: IpAddr, text: &'static str| {
        let send = move || {
            let socket = UdpSocket::bind(SocketAddr::new(from, 0))?;
            socket.send_to(text.as_bytes(), (server, 9000))
        };
        pod.run(send).expect("runs").expect("is sent");
    };
    // What is sent on one way arrives in that order.
    let next = || {
        let mut buffer = [0; 64];
        let (length, from) = inbox.recv_from(&mut buffer).expect("a datagram");
        (from.ip(), String::from_utf8_lossy(&buffer[..length]).into_owned())
    };
    send(bad, "before");
    assert_eq!(next(), (bad, "before".to_owned()));
    limits.set((bad, 24), Rule::BLOCK).expect("there is room");
    send(bad, "blocked");
    send(good, "good");
    assert_eq!(next(), (good, "good".to_owned()));
    assert_eq!(limits.dropped().expect("read"), 1);
    limits.remove((bad, 24)).expect("it is there");
    send(bad, "after");
    assert_eq!(next(), (bad, "after".to_owned()));
}
