//! Network headers: options, extension headers, protocols without ports, addresses.

use flowgate_abi::{DropReason, event::Hook};
use flowgate_conformance::{
    envelope::{Extension, extended},
    frames::{Frame, tcp},
};
use flowgate_pipeline::Verdict;
use flowgate_policy::outcome::FlowProtocol;

use crate::world::{CLIENT, OUTSIDE, SERVER, World, address, between, bytes, request};

const HOP_BY_HOP: u8 = 0;
const DESTINATION_OPTIONS: u8 = 60;

/// A TCP packet to a port behind extension headers.
fn behind(port: u16, extensions: &[Extension]) -> Vec<u8> {
    extended(&bytes(request(FlowProtocol::Tcp(port), true)), extensions)
}

#[test]
fn ports_are_found_behind_extension_headers() {
    for extensions in [
        vec![Extension::options(HOP_BY_HOP, 1)],
        vec![Extension::options(DESTINATION_OPTIONS, 31)],
        vec![Extension::options(HOP_BY_HOP, 2), Extension::options(DESTINATION_OPTIONS, 3)],
        vec![Extension::authentication()],
        vec![Extension::routing(0)],
        vec![Extension::fragment(9, 0, false)],
        vec![Extension::options(DESTINATION_OPTIONS, 1); 8],
        vec![Extension::options(135, 1), Extension::options(139, 2), Extension::options(140, 1)],
    ] {
        let world = World::new();
        let denied = world.send(CLIENT, &behind(81, &extensions));
        assert_eq!(denied, Err(DropReason::PolicyDefaultDeny), "{extensions:?}");
        assert_eq!(world.send(CLIENT, &behind(80, &extensions)), Ok(()), "{extensions:?}");
        // It is the same flow as without them.
        assert_eq!(world.installer.store().counters()[0], 1);
        assert_eq!(world.send(CLIENT, &behind(80, &[])), Ok(()));
        assert_eq!(world.installer.store().counters()[0], 1, "{extensions:?}");
    }
}

#[test]
fn extension_headers_that_may_not_pass() {
    let options = || Extension::options(DESTINATION_OPTIONS, 1);
    for extensions in [
        vec![options(); 9],
        vec![options(), Extension::options(HOP_BY_HOP, 1)],
        vec![Extension::routing(1)],
        vec![Extension::fragment(9, 0, false), Extension::fragment(9, 0, false)],
    ] {
        let dropped = World::new().send(CLIENT, &behind(80, &extensions));
        assert_eq!(dropped, Err(DropReason::ExtensionHeader), "{extensions:?}");
    }
}

#[test]
fn an_extension_header_that_reaches_behind_the_packet_is_malformed() {
    let mut frame = behind(80, &[Extension::options(DESTINATION_OPTIONS, 1)]);
    frame[55] = 200;
    assert_eq!(World::new().send(CLIENT, &frame), Err(DropReason::MalformedPacket));
}

/// No next header, GRE, ESP: the bytes behind look like an allowed TCP packet.
#[test]
fn a_protocol_without_ports_matches_no_port_rule() {
    for v6 in [false, true] {
        for protocol in [59, 47, 50] {
            let mut frame = bytes(request(FlowProtocol::Tcp(80), v6));
            frame[if v6 { 20 } else { 23 }] = protocol;
            let dropped = World::new().send(CLIENT, &frame);
            assert_eq!(dropped, Err(DropReason::PolicyDefaultDeny), "{protocol}");
        }
    }
}

#[test]
fn a_protocol_without_ports_passes_where_everything_does() {
    for (v6, outside) in [(false, OUTSIDE[0]), (true, OUTSIDE[1])] {
        let world = World::new();
        let gre = between(address(CLIENT, v6), outside.parse().unwrap(), FlowProtocol::Other(47));
        assert_eq!(world.send(CLIENT, &bytes(gre)), Ok(()));
        assert_eq!(world.receive(CLIENT, &gre.answer().bytes()), Ok(()));
        // It was opened by the client; nobody opens anything to it.
        let world = World::new();
        let dropped = world.receive(CLIENT, &gre.answer().bytes());
        assert_eq!(dropped, Err(DropReason::PolicyDefaultDeny));
    }
}

/// Port 0 is a port like any other, not a wildcard.
#[test]
fn port_0_matches_no_rule_for_another_port() {
    for v6 in [false, true] {
        for protocol in [FlowProtocol::Tcp(0), FlowProtocol::Udp(0), FlowProtocol::Sctp(0)] {
            let dropped = World::new().send(CLIENT, &bytes(request(protocol, v6)));
            assert_eq!(dropped, Err(DropReason::PolicyDefaultDeny), "{protocol:?}");
        }
    }
}

#[test]
fn sctp_has_ports_of_its_own() {
    for v6 in [false, true] {
        let dropped = World::new().send(CLIENT, &bytes(request(FlowProtocol::Sctp(80), v6)));
        assert_eq!(dropped, Err(DropReason::PolicyDefaultDeny));
        let outside = OUTSIDE[usize::from(v6)].parse().unwrap();
        let open = between(address(CLIENT, v6), outside, FlowProtocol::Sctp(2905));
        let world = World::new();
        assert_eq!(world.send(CLIENT, &bytes(open)), Ok(()));
        assert_eq!(world.receive(CLIENT, &open.answer().bytes()), Ok(()));
    }
}

#[test]
fn options_of_ipv4_shift_the_ports() {
    for options in 0..=10 {
        let world = World::new();
        let frame = Frame { options, ..request(FlowProtocol::Tcp(80), false) };
        assert_eq!(world.send(CLIENT, &bytes(frame)), Ok(()));
        let frame = Frame { options, ..request(FlowProtocol::Tcp(81), false) };
        assert_eq!(world.send(CLIENT, &bytes(frame)), Err(DropReason::PolicyDefaultDeny));
    }
}

#[test]
fn martians_neither_come_nor_go() {
    let sources = [
        "0.0.0.0",
        "0.1.2.3",
        "127.0.0.1",
        "127.255.255.255",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::ffff:198.18.0.9",
        "ff02::1",
        "ff0e::1",
    ];
    for source in sources.map(|text| text.parse::<std::net::IpAddr>().unwrap()) {
        let frame = between(source, address(SERVER, source.is_ipv6()), FlowProtocol::Tcp(80));
        let dropped = World::new().receive(SERVER, &frame.bytes());
        assert_eq!(dropped, Err(DropReason::Martian), "{source}");
    }
    let destinations = ["0.0.0.0", "127.0.0.1", "::", "::1", "::ffff:198.18.0.2"];
    for destination in destinations.map(|text| text.parse::<std::net::IpAddr>().unwrap()) {
        let source = address(CLIENT, destination.is_ipv6());
        let frame = between(source, destination, FlowProtocol::Tcp(80));
        let dropped = World::new().send(CLIENT, &bytes(frame));
        assert_eq!(dropped, Err(DropReason::Martian), "{destination}");
    }
}

/// A multicast or broadcast address is a destination like any other: egress policy decides by what
/// the ipcache says of it, and an answer from the address of a host belongs to no flow.
#[test]
fn multicast_is_judged_like_any_destination() {
    for (group, host) in
        [("224.0.0.251", OUTSIDE[0]), ("255.255.255.255", OUTSIDE[0]), ("ff02::fb", OUTSIDE[1])]
    {
        let group: std::net::IpAddr = group.parse().unwrap();
        let world = World::new();
        let query = between(address(CLIENT, group.is_ipv6()), group, FlowProtocol::Udp(5353));
        assert_eq!(world.send(CLIENT, &bytes(query)), Ok(()), "{group}");
        let mut answer = query.answer();
        answer.flow.destination = host.parse().unwrap();
        let dropped = world.receive(CLIENT, &answer.bytes());
        assert_eq!(dropped, Err(DropReason::PolicyDefaultDeny), "{group}");
    }
}

#[test]
fn the_last_hop_is_the_stacks() {
    for v6 in [false, true] {
        let frame = Frame { hops: 1, ..request(FlowProtocol::Tcp(80), v6) };
        let verdict = World::new().run(CLIENT, Hook::FromEndpoint, &bytes(frame));
        assert_eq!(verdict, Ok(Verdict::Stack(SERVER)));
    }
}

/// A RST in somebody else's name doesn't end a connection: who is said to have sent it goes on.
#[test]
fn a_forged_reset_is_taken_back() {
    let world = World::new();
    let outside = OUTSIDE[0].parse().unwrap();
    let open = between(outside, address(SERVER, false), FlowProtocol::Tcp(80));
    let sends = |frame: Frame| {
        let mut bytes = frame.bytes();
        bytes[11] = SERVER as u8;
        let sent =
            if frame.reply { world.send(SERVER, &bytes) } else { world.receive(SERVER, &bytes) };
        assert_eq!(sent, Ok(()), "{frame:?}");
    };
    sends(open);
    sends(open.answer());
    sends(open.flags(tcp::ACK));
    sends(open.flags(tcp::RST));
    sends(open.flags(tcp::ACK));
    // Silent for longer than a closed connection may be.
    world.installer.store().advance(30 * 256);
    sends(open.answer().flags(tcp::ACK));
    assert_eq!(world.installer.store().counters()[0], 1, "the same flow");
}

/// With identifier 0 the queries of both ends have one key: neither passes as the other's answer.
#[test]
fn a_query_is_no_answer_to_a_query() {
    for (v6, protocol) in [
        (false, FlowProtocol::Icmp { icmp_type: 8 }),
        (true, FlowProtocol::Icmp6 { icmp_type: 128 }),
    ] {
        let world = World::new();
        let (client, outside) = (address(CLIENT, v6), OUTSIDE[usize::from(v6)].parse().unwrap());
        let asks = Frame { source_port: 0, ..between(client, outside, protocol) };
        let asks_back = Frame { source_port: 0, ..between(outside, client, protocol) };
        assert_eq!(world.send(CLIENT, &bytes(asks)), Ok(()));
        let dropped = world.receive(CLIENT, &asks_back.bytes());
        assert_eq!(dropped, Err(DropReason::PolicyDefaultDeny));
        let dropped = world.send(CLIENT, &bytes(asks_back.answer()));
        assert_eq!(dropped, Err(DropReason::InvalidForFlow));
        assert_eq!(world.receive(CLIENT, &asks.answer().bytes()), Ok(()));
    }
}

/// A group's packets, and those that a bridge floods, come to endpoints that they aren't addressed to.
#[test]
fn who_gets_anothers_packets_does_not_cut_its_flows() {
    for v6 in [false, true] {
        let world = World::new();
        let outside = OUTSIDE[usize::from(v6)].parse().unwrap();
        let group = if v6 { "ff02::fb" } else { "224.0.0.251" }.parse().unwrap();
        for destination in [address(SERVER, v6), group] {
            let query = between(outside, destination, FlowProtocol::Udp(53)).bytes();
            for _ in 0..2 {
                assert_eq!(world.receive(SERVER, &query), Ok(()), "{destination}");
                let dropped = world.receive(CLIENT, &query);
                assert_eq!(dropped, Err(DropReason::PolicyDefaultDeny), "{destination}");
            }
        }
    }
}
