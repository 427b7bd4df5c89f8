//! Fragments, of both families.

use flowgate_abi::{DropReason, event::Hook};
use flowgate_conformance::{
    envelope::{Extension, extended, fragments, piece4},
    frames::Frame,
};
use flowgate_policy::outcome::FlowProtocol;

use crate::world::{CLIENT, OUTSIDE, SERVER, World, address, between, bytes, request};

/// A packet in fragments of 24 bytes.
fn cut(frame: Frame, identification: u16) -> Vec<Vec<u8>> {
    fragments(&bytes(Frame { payload: 60, ..frame }), identification, 24)
}

#[test]
fn later_fragments_find_their_ports() {
    for v6 in [false, true] {
        for protocol in [FlowProtocol::Udp(53), FlowProtocol::Tcp(80)] {
            let world = World::new();
            for fragment in cut(request(protocol, v6), 1) {
                assert_eq!(world.send(CLIENT, &fragment), Ok(()), "{protocol:?}");
            }
            let counters = world.installer.store().counters();
            assert_eq!(counters[0], 1, "all of them are one flow: {protocol:?}");
        }
    }
}

#[test]
fn a_datagram_whose_first_fragment_is_denied_is_denied() {
    for v6 in [false, true] {
        let world = World::new();
        for fragment in cut(request(FlowProtocol::Udp(54), v6), 1) {
            assert_eq!(world.send(CLIENT, &fragment), Err(DropReason::PolicyDefaultDeny));
        }
    }
}

#[test]
fn a_fragment_that_overtakes_its_first_is_dropped() {
    for v6 in [false, true] {
        let world = World::new();
        let pieces = cut(request(FlowProtocol::Udp(53), v6), 1);
        assert_eq!(world.send(CLIENT, &pieces[1]), Err(DropReason::FragmentNotFound));
        assert_eq!(world.send(CLIENT, &pieces[0]), Ok(()));
        assert_eq!(world.send(CLIENT, &pieces[1]), Ok(()));
    }
}

/// Another identification, protocol, source, destination, hook or endpoint is another datagram.
#[test]
fn fragments_belong_to_one_datagram() {
    for v6 in [false, true] {
        let world = World::new();
        let udp = request(FlowProtocol::Udp(53), v6);
        assert_eq!(world.send(CLIENT, &cut(udp, 1)[0]), Ok(()));
        let missing = Err(DropReason::FragmentNotFound);
        assert_eq!(world.send(CLIENT, &cut(udp, 2)[1]), missing);
        assert_eq!(world.send(CLIENT, &cut(request(FlowProtocol::Tcp(80), v6), 1)[1]), missing);
        let outside = OUTSIDE[usize::from(v6)].parse().unwrap();
        let elsewhere = between(address(CLIENT, v6), outside, FlowProtocol::Udp(53));
        assert_eq!(world.send(CLIENT, &cut(elsewhere, 1)[1]), missing);
        assert_eq!(world.receive(SERVER, &cut(udp, 1)[1]), missing);
        assert_eq!(world.receive(CLIENT, &cut(udp, 1)[1]), missing);
        assert_eq!(world.send(SERVER, &cut(udp, 1)[1]), missing);
        assert_eq!(world.send(CLIENT, &cut(udp, 1)[1]), Ok(()));
    }
}

/// Who claims another's address leaves nothing that its real fragments would find.
#[test]
fn nobody_puts_headers_under_anothers_datagrams() {
    for v6 in [false, true] {
        let world = World::new();
        let real = cut(request(FlowProtocol::Udp(54), v6), 1);
        let forged = cut(request(FlowProtocol::Udp(53), v6), 1);
        assert_eq!(world.receive(SERVER, &forged[0]), Err(DropReason::InvalidSourceAddress));
        assert_eq!(world.send(SERVER, &forged[0]), Err(DropReason::InvalidSourceMac));
        assert_eq!(world.send(CLIENT, &real[1]), Err(DropReason::FragmentNotFound));
    }
}

#[test]
fn a_first_fragment_has_the_whole_transport_header() {
    for v6 in [false, true] {
        let tiny = |size| fragments(&bytes(request(FlowProtocol::Tcp(80), v6)), 1, size).remove(0);
        for size in [8, 16] {
            let dropped = World::new().send(CLIENT, &tiny(size)).unwrap_err();
            let either = [DropReason::MalformedPacket, DropReason::FragmentOverlap];
            assert!(either.contains(&dropped), "{size} bytes: {dropped}");
        }
        assert_eq!(World::new().send(CLIENT, &tiny(24)), Ok(()));
    }
}

/// What lies behind the datagram's end, such as Ethernet's padding, is no header.
#[test]
fn padding_is_no_transport_header() {
    let mut frame = piece4(bytes(request(FlowProtocol::Tcp(80), false)), 1, (0, true));
    frame[16..18].copy_from_slice(&28u16.to_be_bytes());
    assert_eq!(World::new().send(CLIENT, &frame), Err(DropReason::FragmentOverlap));
}

/// RFC 3128: a later fragment that is put over the ports or the flags.
#[test]
fn no_fragment_overlaps_the_transport_header() {
    for v6 in [false, true] {
        let world = World::new();
        let whole = bytes(request(FlowProtocol::Tcp(80), v6));
        assert_eq!(world.send(CLIENT, &fragments(&whole, 1, 24)[0]), Ok(()));
        for offset in [8, 16] {
            let over = if v6 {
                extended(&whole, &[Extension::fragment(1, offset, false)])
            } else {
                piece4(whole.clone(), 1, (offset.into(), false))
            };
            assert_eq!(world.send(CLIENT, &over), Err(DropReason::FragmentOverlap), "{offset}");
        }
    }
}

#[test]
fn a_ping_may_be_in_fragments() {
    for (v6, protocol) in [
        (false, FlowProtocol::Icmp { icmp_type: 8 }),
        (true, FlowProtocol::Icmp6 { icmp_type: 128 }),
    ] {
        let world = World::new();
        let ping =
            between(address(CLIENT, v6), OUTSIDE[usize::from(v6)].parse().unwrap(), protocol);
        let asks = cut(ping, 1);
        asks.iter().for_each(|piece| assert_eq!(world.send(CLIENT, piece), Ok(())));
        let answers = cut(ping.answer(), 1);
        answers.iter().for_each(|piece| assert_eq!(world.receive(CLIENT, piece), Ok(())));
        assert_eq!(world.installer.store().counters()[0], 1);
        // Nobody asked for this one.
        let missing = cut(Frame { source_port: 5, ..ping.answer() }, 2);
        assert_eq!(world.receive(CLIENT, &missing[0]), Err(DropReason::InvalidForFlow));
        assert_eq!(world.receive(CLIENT, &missing[1]), Err(DropReason::InvalidForFlow));
    }
}

/// RFC 6980.
#[test]
fn neighbour_discovery_is_never_in_fragments() {
    let solicits = between(
        address(CLIENT, true),
        "ff02::1".parse().unwrap(),
        FlowProtocol::Icmp6 { icmp_type: 135 },
    );
    let first = cut(Frame { hops: 255, ..solicits }, 1).remove(0);
    assert_eq!(World::new().send(CLIENT, &first), Err(DropReason::ForbiddenIcmp6));
}

#[test]
fn a_datagram_is_forgotten_after_its_time() {
    let world = World::new();
    let pieces = cut(request(FlowProtocol::Udp(53), false), 1);
    let timeout = 1250;
    assert_eq!(world.send(CLIENT, &pieces[0]), Ok(()));
    world.installer.store().advance(timeout);
    assert_eq!(world.send(CLIENT, &pieces[1]), Ok(()));
    world.installer.store().advance(1);
    assert_eq!(world.send(CLIENT, &pieces[1]), Err(DropReason::FragmentNotFound));
}

/// The table of this world has one bucket of four.
#[test]
fn a_full_table_refuses_and_loses_nothing_that_lives() {
    let world = World::new();
    let datagrams: Vec<_> =
        (1..=5).map(|id| cut(request(FlowProtocol::Udp(53), id % 2 == 0), id)).collect();
    for datagram in &datagrams[..4] {
        assert_eq!(world.send(CLIENT, &datagram[0]), Ok(()));
    }
    assert_eq!(world.send(CLIENT, &datagrams[4][0]), Err(DropReason::FragmentTableFull));
    for datagram in &datagrams[..4] {
        assert_eq!(world.send(CLIENT, &datagram[1]), Ok(()));
    }
    // The same datagram again takes its own place.
    assert_eq!(world.send(CLIENT, &datagrams[0][0]), Ok(()));
    world.installer.store().advance(1251);
    assert_eq!(world.send(CLIENT, &datagrams[4][0]), Ok(()));
}

#[test]
fn an_error_about_a_fragment_belongs_to_its_flow_if_it_quotes_the_ports() {
    let world = World::new();
    let outside = OUTSIDE[0].parse().unwrap();
    let sent = between(address(CLIENT, false), outside, FlowProtocol::Udp(53));
    let pieces = cut(sent, 1);
    pieces.iter().for_each(|piece| assert_eq!(world.send(CLIENT, piece), Ok(())));
    let report = |piece: &[u8]| {
        let protocol = FlowProtocol::Icmp { icmp_type: 11 };
        let mut frame =
            Frame { payload: 0, ..between(outside, address(CLIENT, false), protocol) }.bytes();
        frame.extend(&piece[14..42]);
        world.run(CLIENT, Hook::ToEndpoint, &frame).map(|_| ())
    };
    assert_eq!(report(&pieces[0]), Ok(()));
    assert_eq!(report(&pieces[1]), Err(DropReason::UnrelatedIcmpError));
}

/// Extension headers behind the fragment header shift the transport header, and what may lie over it.
#[test]
fn no_fragment_overlaps_a_transport_header_behind_extension_headers() {
    let whole = bytes(request(FlowProtocol::Tcp(80), true));
    let options = || Extension::options(60, 4);
    let world = World::new();
    let first = extended(&whole, &[Extension::fragment(1, 0, true), options()]);
    assert_eq!(world.send(CLIENT, &first), Ok(()));
    for (offset, wanted) in [
        (24, Err(DropReason::FragmentOverlap)),
        (32, Err(DropReason::FragmentOverlap)),
        (48, Err(DropReason::FragmentOverlap)),
        (56, Ok(())),
    ] {
        let mut over = extended(&whole, &[Extension::fragment(1, offset, false)]);
        over[54] = 60;
        assert_eq!(world.send(CLIENT, &over), wanted, "{offset}");
    }
}
