//! Pods reach each other through the node's own stack, by every protocol and family that examples
//! and tests use.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use flowgate_lab::{Answer, ByteStream, Datagrams, Namespace, Node, Pace, Pod, available};

const SOON: Duration = Duration::from_secs(3);
const BRIEFLY: Duration = Duration::from_millis(200);

/// Says why, if the test can't run here.
fn skipped(test: &str) -> bool {
    match available() {
        Ok(()) => false,
        Err(missing) => {
            println!("SKIPPED {test}: {missing}");
            true
        }
    }
}

fn addresses(number: u16) -> [IpAddr; 2] {
    [format!("198.18.0.{number}").parse().unwrap(), format!("2001:db8::{number}").parse().unwrap()]
}

fn two_pods() -> (Node, Pod, Pod) {
    let mut node = Node::enter().unwrap();
    let client = node.add_pod("client", &addresses(1)).unwrap();
    let server = node.add_pod("server", &addresses(2)).unwrap();
    (node, client, server)
}

#[test]
fn pods_reach_each_other_by_tcp_udp_and_icmp() {
    if skipped("pods_reach_each_other_by_tcp_udp_and_icmp") {
        return;
    }
    let (_node, client, server) = two_pods();
    let _servers = server.serve(&[80, 8080], &[53]).unwrap();
    for &address in server.addresses() {
        for port in [80, 8080] {
            let web = SocketAddr::new(address, port);
            assert_eq!(client.tcp(web, SOON).unwrap(), Answer::Echoed, "{web}");
        }
        let dns = SocketAddr::new(address, 53);
        assert_eq!(client.udp(dns, SOON).unwrap(), Answer::Echoed, "{dns}");
        assert_eq!(client.ping(address, SOON).unwrap(), Answer::Echoed, "{address}");
    }
}

#[test]
fn the_node_reaches_its_pods() {
    if skipped("the_node_reaches_its_pods") {
        return;
    }
    let (mut node, client, server) = two_pods();
    let _servers = server.serve(&[80], &[]).unwrap();
    for address in addresses(254) {
        node.add_address(address).unwrap();
        assert_eq!(client.ping(address, SOON).unwrap(), Answer::Echoed, "{address}");
    }
    for &address in server.addresses() {
        let web = SocketAddr::new(address, 80);
        assert_eq!(flowgate_lab::probe::tcp(web, SOON).unwrap(), Answer::Echoed, "{web}");
    }
}

#[test]
fn a_closed_port_refuses_and_a_missing_pod_is_silent_or_unreachable() {
    if skipped("a_closed_port_refuses_and_a_missing_pod_is_silent_or_unreachable") {
        return;
    }
    let (node, client, server) = two_pods();
    let gone = server.addresses().to_vec();
    for &address in &gone {
        let closed = SocketAddr::new(address, 81);
        assert_eq!(client.tcp(closed, SOON).unwrap(), Answer::Refused, "{closed}");
        assert_eq!(client.udp(closed, SOON).unwrap(), Answer::Refused, "{closed}");
    }
    let mut node = node;
    node.remove_pod(server).unwrap();
    for address in gone {
        assert!(!client.ping(address, BRIEFLY).unwrap().reached(), "{address}");
    }
}

#[test]
fn a_talk_lasts_as_long_as_the_other_end() {
    if skipped("a_talk_lasts_as_long_as_the_other_end") {
        return;
    }
    let (_node, client, server) = two_pods();
    let servers = server.serve(&[80], &[]).unwrap();
    let mut talk = client.talk(SocketAddr::new(server.addresses()[1], 80), SOON).unwrap();
    assert_eq!(talk.line("first", SOON).unwrap(), Answer::Echoed);
    assert_eq!(talk.line("second", SOON).unwrap(), Answer::Echoed);
    drop(servers);
    assert_eq!(talk.line("third", SOON).unwrap(), Answer::Refused);
}

#[test]
fn every_pod_has_a_namespace_of_its_own_and_none_is_the_machines() {
    if skipped("every_pod_has_a_namespace_of_its_own_and_none_is_the_machines") {
        return;
    }
    let before = Namespace::current().unwrap();
    let (node, client, server) = two_pods();
    let all = [&before, node.namespace(), client.namespace(), server.namespace()];
    let mut inodes = all.map(|namespace| namespace.inode().unwrap());
    inodes.sort_unstable();
    assert!(inodes.windows(2).all(|pair| pair[0] != pair[1]), "{inodes:?}");
    let inside = client.run(|| Namespace::current().unwrap().inode().unwrap()).unwrap();
    assert_eq!(inside, client.namespace().inode().unwrap());
}

#[test]
fn the_bpf_file_system_is_private() {
    if skipped("the_bpf_file_system_is_private") {
        return;
    }
    let node = Node::enter().unwrap();
    let mounts = std::fs::read_to_string("/proc/thread-self/mounts").unwrap();
    let last = mounts.lines().rfind(|line| line.contains(node.bpffs().to_str().unwrap())).unwrap();
    assert!(last.starts_with("bpf "), "{last}");
    let entries = std::fs::read_dir(node.bpffs()).unwrap().map(|entry| entry.unwrap().file_name());
    // The kernel puts its two listings into every one.
    let pinned: Vec<_> =
        entries.filter(|name| !name.to_string_lossy().ends_with(".debug")).collect();
    assert!(pinned.is_empty(), "{pinned:?}");
}

#[test]
fn a_pod_takes_a_few_milliseconds() {
    if skipped("a_pod_takes_a_few_milliseconds") {
        return;
    }
    let mut node = Node::enter().unwrap();
    let start = Instant::now();
    let pods: Vec<Pod> =
        (1..=20).map(|number| node.add_pod("pod", &addresses(number)).unwrap()).collect();
    let each = start.elapsed() / 20;
    println!("{each:?} for each of {} pods", pods.len());
    assert!(each < Duration::from_millis(200), "{each:?}");
}

#[test]
fn a_load_arrives_whole() {
    if skipped("a_load_arrives_whole") {
        return;
    }
    let (_node, client, server) = two_pods();
    let pace = Pace { per_millisecond: 3, per_flow: 50, answered: true };
    let datagrams = Datagrams::start(&client, &server, 4, 4000, pace).unwrap();
    let stream = ByteStream::start(&client, &server, 6, 4000).unwrap();
    std::thread::sleep(BRIEFLY);
    let delivered = datagrams.stop().unwrap();
    assert!(delivered.complete(), "{delivered:?}");
    assert!(stream.stop().unwrap() > 0);
}

#[test]
fn what_is_longer_than_the_mtu_comes_back_whole() {
    if skipped("what_is_longer_than_the_mtu_comes_back_whole") {
        return;
    }
    let (mut node, client, server) = two_pods();
    let _servers = server.serve(&[], &[53]).unwrap();
    for mtu in [1500, 9000] {
        node.set_mtu(&client, mtu).unwrap();
        node.set_mtu(&server, mtu).unwrap();
        for &address in server.addresses() {
            let dns = SocketAddr::new(address, 53);
            assert_eq!(client.udp_of(20_000, dns, SOON).unwrap(), Answer::Echoed, "{dns}");
            assert_eq!(client.ping_of(5000, address, SOON).unwrap(), Answer::Echoed, "{address}");
        }
    }
    assert_eq!(server.stack_counters().unwrap().checksum_errors(), []);
    assert!(server.stack_counters().unwrap().get("IpReasmOKs") > 0);
}

#[test]
fn a_crowd_talks_on_every_connection() {
    if skipped("a_crowd_talks_on_every_connection") {
        return;
    }
    let (_node, client, server) = two_pods();
    let servers = server.serve(&[80], &[]).unwrap();
    let crowd = client.crowd(300, SocketAddr::new(server.addresses()[0], 80), SOON).unwrap();
    assert_eq!(crowd.line("first", SOON), 300);
    assert_eq!(crowd.line("second", SOON), 300);
    drop(servers);
    assert_eq!(crowd.line("third", SOON), 0);
}

#[test]
fn a_raw_frame_says_what_it_is_told_to_say() {
    if skipped("a_raw_frame_says_what_it_is_told_to_say") {
        return;
    }
    let (mut node, client, server) = two_pods();
    let [victim, _] = addresses(2);
    node.add_address(addresses(254)[0]).unwrap();
    assert_eq!(node.neighbour(&client, victim).unwrap(), None);
    // An ARP request to the node, by which the client says that the server's address is its own.
    let mac = client.mac().0;
    let mut frame = [&[0xff; 6][..], &mac, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &mac].concat();
    frame.extend([198, 18, 0, 2, 0, 0, 0, 0, 0, 0, 198, 18, 0, 254]);
    client.raw().unwrap().send(&frame).unwrap();
    let start = Instant::now();
    while node.neighbour(&client, victim).unwrap().is_none() {
        assert!(start.elapsed() < SOON, "the frame never came");
    }
    assert_eq!(node.neighbour(&client, victim).unwrap(), Some(client.mac()));
    assert_eq!(node.neighbour(&server, victim).unwrap(), Some(server.mac()));
}

#[test]
fn hosts_of_a_segment_are_neighbours_and_a_silent_address_is_nobodys() {
    if skipped("hosts_of_a_segment_are_neighbours_and_a_silent_address_is_nobodys") {
        return;
    }
    let mut node = Node::enter().unwrap();
    let segment = node.add_segment().unwrap();
    let client = node.add_host(&segment, "client", &addresses(1)).unwrap();
    let server = node.add_host(&segment, "server", &addresses(2)).unwrap();
    let silent: [IpAddr; 2] = ["198.18.0.9".parse().unwrap(), "2001:db8::9".parse().unwrap()];
    silent.iter().for_each(|&address| server.add_silent_address(address).unwrap());
    for &address in server.addresses() {
        assert_eq!(client.ping(address, SOON).unwrap(), Answer::Echoed, "{address}");
    }
    for address in silent {
        assert_ne!(client.ping(address, BRIEFLY).unwrap(), Answer::Echoed, "{address}");
    }
}
