//! What the sender of a denied packet gets, byte for byte; and what nobody answers.

use flowgate_abi::{
    DropReason,
    event::{Counter, Hook},
};
use flowgate_conformance::{
    answers::answer,
    envelope::{self, Extension},
    frames::{Frame, error_about, tcp},
};
use flowgate_policy::{model::Response, outcome::FlowProtocol};

use crate::world::{CLIENT, OUTSIDE, SERVER, World, address, between, bytes, mac, request};

const HZ: u64 = 250;

/// A SYN to a port of the server that takes none; no payload.
fn denied(v6: bool) -> Frame {
    Frame { payload: 0, ..request(FlowProtocol::Tcp(81), v6) }
}

fn told(response: Response, frame: &[u8]) -> Option<Vec<u8>> {
    World::answering(response, u32::MAX).answer(CLIENT, Hook::FromEndpoint, frame)
}

#[test]
fn a_reset_of_ipv4() {
    let expected = [
        // Ethernet: to the client, from the server's address in the frame.
        &[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00][..],
        // IPv4: 40 bytes, don't fragment, 64 hops, TCP, checksum.
        &[0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0xae, 0xa8],
        &[198, 18, 0, 2, 198, 18, 0, 1],
        // TCP: from 81 to 40,000, sequence 0, acknowledges 2, RST and ACK, checksum.
        &[0, 81, 0x9c, 0x40, 0, 0, 0, 0, 0, 0, 0, 2, 0x50, 0x14, 0, 0, 0x87, 0x15, 0, 0],
    ];
    assert_eq!(told(Response::Reset, &bytes(denied(false))), Some(expected.concat()));
}

#[test]
fn a_reset_of_ipv6() {
    let network = [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let expected = [
        &[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x86, 0xdd][..],
        // IPv6: 20 bytes of TCP, 64 hops.
        &[0x60, 0, 0, 0, 0, 20, 6, 64],
        &network,
        &[2],
        &network,
        &[1],
        &[0, 81, 0x9c, 0x40, 0, 0, 0, 0, 0, 0, 0, 2, 0x50, 0x14, 0, 0, 0xb7, 0xc8, 0, 0],
    ];
    assert_eq!(told(Response::Reset, &bytes(denied(true))), Some(expected.concat()));
}

#[test]
fn an_error_of_ipv4() {
    let frame = bytes(Frame { payload: 4, ..request(FlowProtocol::Udp(54), false) });
    let expected = [
        &[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00][..],
        // 60 bytes of internetwork control, ICMP.
        &[0x45, 0xc0, 0, 60, 0, 0, 0x40, 0, 64, 1, 0xad, 0xd9],
        &[198, 18, 0, 2, 198, 18, 0, 1],
        // Destination unreachable, administratively prohibited.
        &[3, 13, 0xab, 0xbb, 0, 0, 0, 0],
        &frame[14..],
    ];
    assert_eq!(told(Response::Icmp, &frame), Some(expected.concat()));
}

#[test]
fn an_error_of_ipv6() {
    let frame = bytes(Frame { payload: 4, ..request(FlowProtocol::Udp(54), true) });
    let answer = told(Response::Icmp, &frame).expect("an answer");
    assert_eq!(answer[14..22], [0x60, 0, 0, 0, 0, 60, 58, 64]);
    assert_eq!(answer[22..54], [&frame[38..54], &frame[22..38]].concat());
    assert_eq!((&answer[54..56], &answer[58..62]), (&[1, 1][..], &[0; 4][..]));
    assert_eq!(answer[62..], frame[14..]);
}

/// Every kind of segment, against what the RFC says: sequence, acknowledgement, flags.
#[test]
fn a_reset_fits_its_segment() {
    const SEQUENCE: u32 = 0xffff_fffe;
    const ACKNOWLEDGED: u32 = 0x0102_0304;
    let (syn, fin, ack) = (tcp::SYN, tcp::FIN, tcp::ACK);
    let answers = tcp::RST | tcp::ACK;
    let table = [
        (syn, 0, 0, SEQUENCE.wrapping_add(1), answers),
        (syn, 5, 0, SEQUENCE.wrapping_add(6), answers),
        (syn | fin, 0, 0, SEQUENCE.wrapping_add(2), answers),
        (fin, 1, 0, SEQUENCE.wrapping_add(2), answers),
        (0, 3, 0, SEQUENCE.wrapping_add(3), answers),
        (syn | ack, 0, ACKNOWLEDGED, 0, tcp::RST),
        (ack, 100, ACKNOWLEDGED, 0, tcp::RST),
        (fin | ack, 0, ACKNOWLEDGED, 0, tcp::RST),
    ];
    for v6 in [false, true] {
        let at = if v6 { 54 } else { 34 };
        for (flags, payload, sequence, acknowledgement, answered) in table {
            let mut frame = bytes(Frame { payload, ..denied(v6).flags(flags) });
            frame[at + 4..at + 8].copy_from_slice(&SEQUENCE.to_be_bytes());
            frame[at + 8..at + 12].copy_from_slice(&ACKNOWLEDGED.to_be_bytes());
            let reset = told(Response::Reset, &frame).expect("an answer");
            let expected = [sequence.to_be_bytes(), acknowledgement.to_be_bytes()].concat();
            assert_eq!(reset[at + 4..at + 12], expected, "flags {flags} payload {payload}");
            assert_eq!(reset[at + 13], answered, "flags {flags} payload {payload}");
            assert_eq!(Some(reset), answer(&frame, Response::Reset), "flags {flags}");
        }
    }
}

#[test]
fn a_reset_is_for_tcp_and_all_else_gets_an_error() {
    for protocol in [FlowProtocol::Udp(54), FlowProtocol::Sctp(1), FlowProtocol::Other(47)] {
        for v6 in [false, true] {
            let frame = bytes(request(protocol, v6));
            let answer = told(Response::Reset, &frame);
            assert!(answer.is_some() && answer == told(Response::Icmp, &frame), "{protocol}");
        }
    }
    // A query is answered too: it is no error.
    let ping = bytes(request(FlowProtocol::Icmp { icmp_type: 8 }, false));
    assert_eq!(told(Response::Reset, &ping), answer(&ping, Response::Icmp));
    // And TCP behind options or extension headers.
    let frame = bytes(Frame { options: 2, ..denied(false) });
    assert_eq!(told(Response::Reset, &frame), answer(&frame, Response::Icmp));
    let frame = envelope::extended(&bytes(denied(true)), &[Extension::options(60, 1)]);
    assert_eq!(told(Response::Reset, &frame), answer(&frame, Response::Icmp));
}

#[test]
fn an_error_quotes_as_much_as_fits() {
    for v6 in [false, true] {
        let (header, most) = if v6 { (40, 1280) } else { (20, 576) };
        for payload in [0, 1, 7, 400, 516, 517, 1180, 1181, 1200, 1400, 9000] {
            let frame = bytes(Frame { payload, ..denied(v6) });
            let error = told(Response::Icmp, &frame).expect("an answer");
            let whole = 2 * header + 8 + 20 + payload;
            assert_eq!(error.len() - 14, whole.min(most), "{payload} bytes");
            assert_eq!(Some(error), answer(&frame, Response::Icmp));
        }
    }
}

#[test]
fn what_pads_a_frame_is_not_quoted() {
    let mut frame = bytes(denied(false));
    frame.extend([0xaa; 6]);
    let error = told(Response::Icmp, &frame).expect("an answer");
    assert_eq!(error.len(), 14 + 28 + 40);
    // A length that is a lie: what is there counts.
    frame[16..18].copy_from_slice(&[0, 24]);
    assert_eq!(told(Response::Icmp, &frame).expect("an answer").len(), 14 + 28 + 46);
}

#[test]
fn tags_stay() {
    for tags in [&[0x8100][..], &[0x88a8, 0x8100]] {
        for v6 in [false, true] {
            let frame = envelope::tagged(&bytes(denied(v6)), tags);
            for response in [Response::Icmp, Response::Reset] {
                let told = told(response, &frame);
                assert_eq!(told, answer(&frame, response));
                let tagged = 14 + 4 * tags.len();
                assert_eq!(told.expect("an answer")[12..tagged], frame[12..tagged]);
            }
        }
    }
}

#[test]
fn silence_is_silence() {
    assert_eq!(told(Response::Silence, &bytes(denied(false))), None);
}

#[test]
fn nobody_answers_resets_groups_and_later_fragments() {
    for response in [Response::Icmp, Response::Reset] {
        for v6 in [false, true] {
            for flags in [tcp::RST, tcp::RST | tcp::ACK] {
                assert_eq!(told(response, &bytes(denied(v6).flags(flags))), None, "a reset");
            }
            let mut frame = bytes(denied(v6));
            frame[0] |= 1;
            assert_eq!(told(response, &frame), None, "to a group's Ethernet address");
            let udp = bytes(Frame { payload: 64, ..request(FlowProtocol::Udp(54), v6) });
            let pieces = envelope::fragments(&udp, 7, 32);
            let world = World::answering(response, u32::MAX);
            for (number, piece) in pieces.iter().enumerate() {
                let told = world.answer(CLIENT, Hook::FromEndpoint, piece);
                assert_eq!(told.is_some(), number == 0, "fragment {number}");
                assert_eq!(told, answer(piece, response));
            }
        }
    }
}

#[test]
fn who_lies_about_who_it_is_hears_nothing() {
    let world = World::answering(Response::Reset, u32::MAX);
    let spoofed =
        bytes(between(OUTSIDE[0].parse().unwrap(), address(SERVER, false), FlowProtocol::Tcp(81)));
    assert_eq!(world.answer(CLIENT, Hook::FromEndpoint, &spoofed), None);
    // And at the receiver's link the address of a pod of this node.
    assert_eq!(world.answer(SERVER, Hook::ToEndpoint, &bytes(denied(false))), None);
    let counters = world.installer.store().counters();
    assert_eq!(counters[Counter::AnswersReset as usize], 0);
}

/// The world is answered where it meets the pod; what a bridge floods isn't.
#[test]
fn who_is_elsewhere_is_told_too() {
    for (v6, outside) in [(false, OUTSIDE[0]), (true, OUTSIDE[1])] {
        let outside = outside.parse().unwrap();
        let frame = bytes(between(outside, address(SERVER, v6), FlowProtocol::Tcp(81)));
        for response in [Response::Icmp, Response::Reset] {
            let world = World::answering(response, u32::MAX);
            let told = world.answer(SERVER, Hook::ToEndpoint, &frame);
            assert_eq!(told, answer(&frame, response));
            assert!(told.is_some());
            assert_eq!(world.answer(CLIENT, Hook::ToEndpoint, &frame), None, "it is the server's");
        }
    }
}

#[test]
fn both_ends_of_a_revoked_connection_are_told_as_often_as_they_send() {
    let world = World::answering(Response::Reset, u32::MAX);
    for v6 in [false, true] {
        let frame = request(FlowProtocol::Tcp(80), v6);
        let answers = Frame { reply: true, ..frame };
        let server = |frame: Frame| {
            let mut bytes = frame.bytes();
            bytes[6..12].copy_from_slice(&mac(SERVER));
            bytes
        };
        assert_eq!(world.send(CLIENT, &bytes(frame)), Ok(()));
        assert_eq!(world.send(SERVER, &server(answers.flags(tcp::SYN | tcp::ACK))), Ok(()));
        assert_eq!(world.send(CLIENT, &bytes(frame.flags(tcp::ACK))), Ok(()));
    }
    let mut world = world;
    world.close();
    for v6 in [false, true] {
        let frame = request(FlowProtocol::Tcp(80), v6).flags(tcp::ACK);
        let mut back = Frame { reply: true, ..frame }.bytes();
        back[6..12].copy_from_slice(&mac(SERVER));
        for _ in 0..2 {
            let there = bytes(frame);
            assert_eq!(
                world.answer(CLIENT, Hook::FromEndpoint, &there),
                answer(&there, Response::Reset)
            );
            assert_eq!(
                world.answer(SERVER, Hook::FromEndpoint, &back),
                answer(&back, Response::Reset)
            );
        }
        // An error about it means nothing any more, and isn't answered.
        let error = error_about(&frame, address(SERVER, v6), if v6 { 1 } else { 3 });
        let mut error = error;
        error[6..12].copy_from_slice(&mac(SERVER));
        assert_eq!(world.run(SERVER, Hook::FromEndpoint, &error), Err(DropReason::Revoked));
        assert_eq!(world.answer(SERVER, Hook::FromEndpoint, &error), None);
    }
}

#[test]
fn answers_beyond_the_budget_are_counted_as_suppressed() {
    let world = World::answering(Response::Reset, 3);
    let count = |counter: Counter| world.installer.store().counters()[counter as usize];
    let send = |port: u16| {
        let frame = bytes(Frame { source_port: port, ..denied(false) });
        world.answer(CLIENT, Hook::FromEndpoint, &frame).is_some()
    };
    assert_eq!((1..=5).filter(|port| send(*port)).count(), 3);
    assert_eq!((count(Counter::AnswersReset), count(Counter::AnswersSuppressed)), (3, 2));
    world.installer.store().advance(HZ - 1);
    assert!(!send(6), "a second hasn't passed");
    world.installer.store().advance(1);
    assert!(send(7));
    // What may not be answered costs nothing.
    let reset = bytes(denied(false).flags(tcp::RST));
    assert_eq!(world.answer(CLIENT, Hook::FromEndpoint, &reset), None);
    assert_eq!((count(Counter::AnswersReset), count(Counter::AnswersSuppressed)), (4, 3));
}
