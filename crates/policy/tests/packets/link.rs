//! The link layer: tags, Ethernet addresses, ARP, neighbour discovery.

use flowgate_abi::{DropReason, event::Hook};
use flowgate_conformance::{
    envelope::{arp, tagged, with_target},
    frames::Frame,
};
use flowgate_pipeline::Verdict;
use flowgate_policy::outcome::FlowProtocol;

use crate::world::{CLIENT, OUTSIDE, SERVER, World, address, between, bytes, mac, request};

const TAG: u16 = 0x8100;
const SERVICE_TAG: u16 = 0x88a8;

#[test]
fn a_tag_changes_no_verdict() {
    for v6 in [false, true] {
        for tags in [&[TAG][..], &[SERVICE_TAG], &[SERVICE_TAG, TAG], &[TAG, TAG]] {
            let frame = |port| tagged(&bytes(request(FlowProtocol::Tcp(port), v6)), tags);
            let world = World::new();
            assert_eq!(world.send(CLIENT, &frame(81)), Err(DropReason::PolicyDefaultDeny));
            assert_eq!(world.send(CLIENT, &frame(80)), Ok(()));
            // To the receiver it comes marked, by the stack: a redirect would hand the tag over.
            let verdict = world.run(CLIENT, Hook::FromEndpoint, &frame(80));
            assert_eq!(verdict, Ok(Verdict::Stack(SERVER)), "{tags:?}");
        }
    }
}

#[test]
fn a_third_tag_is_no_ip() {
    let frame = tagged(&bytes(request(FlowProtocol::Tcp(80), false)), &[TAG; 3]);
    assert_eq!(World::new().send(CLIENT, &frame), Err(DropReason::UnsupportedEtherType));
}

#[test]
fn a_foreign_ethernet_address_is_dropped() {
    for v6 in [false, true] {
        let mut frame = bytes(request(FlowProtocol::Tcp(80), v6));
        frame[11] = 9;
        assert_eq!(World::new().send(CLIENT, &frame), Err(DropReason::InvalidSourceMac));
    }
}

#[test]
fn arp_tells_the_truth_about_its_sender() {
    let v4 = |text: &str| text.parse().unwrap();
    let world = World::new();
    let asks = |source, sender| world.send(CLIENT, &arp(source, sender, v4("198.18.0.254")));
    let own = mac(CLIENT);
    assert_eq!(asks(own, (own, v4("198.18.0.1"))), Ok(()));
    // Probing an address before it is used (RFC 5227).
    assert_eq!(asks(own, (own, v4("0.0.0.0"))), Ok(()));
    let address = Err(DropReason::InvalidSourceAddress);
    assert_eq!(asks(own, (own, v4("198.18.0.2"))), address);
    let ethernet = Err(DropReason::InvalidSourceMac);
    assert_eq!(asks(own, (mac(SERVER), v4("198.18.0.1"))), ethernet);
    assert_eq!(asks(mac(SERVER), (own, v4("198.18.0.1"))), ethernet);
    assert_eq!(asks(mac(SERVER), (mac(SERVER), v4("198.18.0.1"))), ethernet);
}

#[test]
fn arp_that_comes_to_an_endpoint_passes() {
    let frame =
        arp(mac(9), (mac(9), "198.18.0.254".parse().unwrap()), "198.18.0.1".parse().unwrap());
    assert_eq!(World::new().receive(CLIENT, &frame), Ok(()));
}

#[test]
fn broken_arp_is_malformed() {
    let good =
        arp(mac(CLIENT), (mac(CLIENT), "198.18.0.1".parse().unwrap()), [198, 18, 0, 2].into());
    for length in 14..good.len() {
        let dropped = World::new().send(CLIENT, &good[..length]);
        assert_eq!(dropped, Err(DropReason::MalformedPacket), "{length} bytes");
    }
    // Another hardware, protocol, or length of address.
    for at in [15, 16, 18, 19] {
        let mut frame = good.clone();
        frame[at] ^= 1;
        assert_eq!(World::new().send(CLIENT, &frame), Err(DropReason::MalformedPacket), "{at}");
    }
}

/// An ICMPv6 message of a pod's link, with a target.
fn message(source: &str, icmp_type: u8, (hops, target): (u8, &str)) -> Vec<u8> {
    let protocol = FlowProtocol::Icmp6 { icmp_type };
    let frame = between(source.parse().unwrap(), "ff02::1".parse().unwrap(), protocol);
    with_target(bytes(Frame { hops, ..frame }), target.parse().unwrap())
}

#[test]
fn neighbour_discovery_tells_the_truth_about_its_sender() {
    let (own, other) = ("2001:db8::1", "2001:db8::2");
    let spoofed = Err(DropReason::InvalidSourceAddress);
    for (source, icmp_type, target, wanted) in [
        // Solicitations ask for another's address, and advertisements tell of one's own.
        (own, 135, other, Ok(())),
        ("fe80::1", 135, other, Ok(())),
        (other, 135, own, spoofed),
        (own, 136, own, Ok(())),
        ("fe80::1", 136, "fe80::1", Ok(())),
        (own, 136, other, spoofed),
        (other, 136, own, spoofed),
        // Asking whether an address is taken already is calling it one's own.
        ("::", 135, own, Ok(())),
        ("::", 135, "fe80::1", Ok(())),
        ("::", 135, other, spoofed),
        (own, 133, other, Ok(())),
    ] {
        let sent = World::new().send(CLIENT, &message(source, icmp_type, (255, target)));
        assert_eq!(sent, wanted, "type {icmp_type} from {source} about {target}");
    }
}

/// A host that forwarded it would let data out of an endpoint that may send none.
#[test]
fn neighbour_discovery_ends_at_the_host() {
    for (destination, wanted) in [
        ("ff02::1", Verdict::Pass),
        ("fe80::1", Verdict::Pass),
        ("2001:db8::fe", Verdict::HostAlone),
        (OUTSIDE[1], Verdict::HostAlone),
    ] {
        for icmp_type in [133, 135, 136] {
            let protocol = FlowProtocol::Icmp6 { icmp_type };
            let frame = between(address(CLIENT, true), destination.parse().unwrap(), protocol);
            let frame = bytes(Frame { hops: 255, ..frame });
            let frame = with_target(frame, "2001:db8::1".parse().unwrap());
            let verdict = World::new().run(CLIENT, Hook::FromEndpoint, &frame);
            assert_eq!(verdict, Ok(wanted), "type {icmp_type} to {destination}");
        }
    }
}

#[test]
fn what_has_crossed_a_router_is_no_neighbour_discovery() {
    let forbidden = Err(DropReason::ForbiddenIcmp6);
    for icmp_type in 133..=137 {
        let frame = message("2001:db8::1", icmp_type, (254, "2001:db8::1"));
        assert_eq!(World::new().send(CLIENT, &frame), forbidden, "{icmp_type}");
        assert_eq!(World::new().receive(CLIENT, &frame), forbidden, "{icmp_type}");
    }
}

/// CVE-2020-10749.
#[test]
fn an_endpoint_is_no_router() {
    for icmp_type in [134, 137] {
        let frame = message("fe80::1", icmp_type, (255, "2001:db8::1"));
        assert_eq!(World::new().send(CLIENT, &frame), Err(DropReason::ForbiddenIcmp6));
        // The host side of its link is.
        assert_eq!(World::new().receive(CLIENT, &frame), Ok(()));
    }
}

#[test]
fn multicast_listeners_report_on_their_link() {
    for icmp_type in [130, 131, 132, 143] {
        let report = |source, hops| message(source, icmp_type, (hops, "ff02::fb"));
        assert_eq!(World::new().send(CLIENT, &report("fe80::1", 1)), Ok(()));
        assert_eq!(World::new().send(CLIENT, &report("::", 1)), Ok(()));
        let forbidden = Err(DropReason::ForbiddenIcmp6);
        assert_eq!(World::new().send(CLIENT, &report("fe80::1", 2)), forbidden);
        let spoofed = Err(DropReason::InvalidSourceAddress);
        assert_eq!(World::new().send(CLIENT, &report("2001:db8::2", 1)), spoofed);
    }
}

#[test]
fn an_endpoint_sends_from_its_own_address_alone() {
    for v6 in [false, true] {
        let frame = between(address(SERVER, v6), address(CLIENT, v6), FlowProtocol::Tcp(80));
        assert_eq!(World::new().send(CLIENT, &bytes(frame)), Err(DropReason::InvalidSourceAddress));
    }
}
