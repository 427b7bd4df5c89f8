//! Frames that few sockets send, through the attached programs: headers outside of the linear part,
//! options and extension headers, tags.
//!
//! Privileged: without the capabilities, each test says so in one line and is skipped.

use std::io::ErrorKind;

use flowgate_abi::{DropReason, event::Counter};
use flowgate_conformance::{
    envelope::{self, Extension},
    frames::Frame,
};
use flowgate_datapath::Delivery;
use flowgate_lab::RawSocket;
use flowgate_policy::outcome::FlowProtocol;

mod rig;
mod wire;
use rig::{Rig, SERVER, STRANGER, Setup, until};
use wire::{DNS, Inbox, datagram, flow, from_pod};

const DISCARD: u16 = 9;
/// Longer than a page, so that its headers need not lie in the linear part.
const LONG: usize = 5000;
const SHORT: usize = 64;

fn set_mtu(rig: &mut Rig, mtu: u32) {
    rig.pods.iter().for_each(|pod| rig.node.set_mtu(pod, mtu).expect("a link takes it"));
}

/// A datagram as plain as can be, and the same with what may lie around it.
fn variants(frame: &Frame) -> Vec<Vec<u8>> {
    let plain = frame.bytes();
    if frame.flow.source.is_ipv4() {
        return vec![plain, Frame { options: 3, ..*frame }.bytes()];
    }
    // Linux takes no more than 7 bytes of padding for serious.
    let [first, last] = [0, 60].map(|kind| Extension::options(kind, 1));
    let atomic = Extension::fragment(7, 0, false);
    let chains = [vec![first.clone()], vec![last.clone()], vec![first, last, atomic]];
    let extended = chains.iter().map(|chain| envelope::extended(&plain, chain));
    std::iter::once(plain.clone()).chain(extended).collect()
}

fn scattered(delivery: Delivery) {
    let Some(mut rig) = Rig::new(&Setup::by(delivery)) else { return };
    set_mtu(&mut rig, 9000);
    let stranger = &rig.pods[STRANGER];
    let raw = stranger.raw().expect("a packet socket");
    let mut denied = 0;
    for family in 0..2 {
        let [closed, open] = [DISCARD, DNS].map(|port| Inbox::open(&rig, rig.server(family, port)));
        let [no, yes] = [DISCARD, DNS].map(|port| variants(&datagram(&rig, family, (port, LONG))));
        for (no, yes) in no.into_iter().zip(yes) {
            for send in [RawSocket::send, RawSocket::send_scattered] {
                for frame in [&no, &yes] {
                    send(&raw, &from_pod(stranger, frame.clone())).expect("sends");
                }
                denied += 1;
                assert_eq!(open.next(), LONG);
                assert_eq!(rig.drops(), [(DropReason::PolicyDefaultDeny, denied)].into());
            }
        }
        closed.socket.set_nonblocking(true).expect("a flag");
        let nothing = closed.socket.recv(&mut [0; 1]).expect_err("nothing came");
        assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
    }
}

#[test]
fn headers_outside_of_the_linear_part_are_read_into_the_peer() {
    scattered(Delivery::RedirectPeer);
}

#[test]
fn headers_outside_of_the_linear_part_are_read_through_the_stack() {
    scattered(Delivery::Stack);
}

/// A closed port answers a SYN with a RST, and nobody answers one that was dropped.
#[test]
fn a_scattered_syn_is_judged_like_any() {
    let Some(mut rig) = Rig::new(&Setup::by(Delivery::RedirectPeer)) else { return };
    set_mtu(&mut rig, 9000);
    let stranger = &rig.pods[STRANGER];
    let raw = stranger.raw().expect("a packet socket");
    let resets = || rig.pods[SERVER].stack_counters().expect("readable").get("TcpOutRsts");
    let mut told = 0;
    for family in 0..2 {
        for send in [RawSocket::send, RawSocket::send_scattered] {
            for port in [DISCARD, 80] {
                let ends = [STRANGER, SERVER].map(|pod| rig.pods[pod].addresses()[family]);
                let flow = flow(ends[0], ends[1], FlowProtocol::Tcp(port));
                let syn = Frame { payload: LONG, ..Frame::opening(flow, 5000 + told as u16) };
                send(&raw, &from_pod(stranger, syn.bytes())).expect("sends");
            }
            told += 1;
            until("the server resets", || resets() == told);
            assert_eq!(rig.drops(), [(DropReason::PolicyDefaultDeny, told)].into());
        }
    }
}

/// A tag's identifier; with 0 it says nothing but a priority, and the stack takes the packet.
fn with_identifiers(mut frame: Vec<u8>, tags: usize, identifier: u16) -> Vec<u8> {
    for tag in 0..tags {
        frame[14 + 4 * tag..16 + 4 * tag].copy_from_slice(&identifier.to_be_bytes());
    }
    frame
}

const TAGS: [&[u16]; 4] = [&[0x8100], &[0x88a8], &[0x88a8, 0x8100], &[0x8100, 0x8100]];

fn tagged(delivery: Delivery) {
    let Some(rig) = Rig::new(&Setup::by(delivery)) else { return };
    let stranger = &rig.pods[STRANGER];
    let raw = stranger.raw().expect("a packet socket");
    let mut denied = 0;
    for family in 0..2 {
        let inbox = Inbox::open(&rig, rig.server(family, DNS));
        for tags in TAGS {
            for (port, identifier) in [(DISCARD, 0), (DISCARD, 100), (DNS, 100), (DNS, 0)] {
                // What the stack doesn't take is the longer one.
                let payload = SHORT + usize::from(identifier);
                let plain = from_pod(stranger, datagram(&rig, family, (port, payload)).bytes());
                let frame = envelope::tagged(&plain, tags);
                let frame = with_identifiers(frame, tags.len(), identifier);
                raw.send(&frame).expect("sends");
            }
            denied += 2;
            assert_eq!(inbox.next(), SHORT, "{tags:x?}");
            assert_eq!(rig.drops(), [(DropReason::PolicyDefaultDeny, denied)].into());
        }
    }
    // Untagged and tagged, whatever the identifier: one flow of each family.
    assert_eq!(rig.count(Counter::FlowsNew), 2);
    let flows = rig.datapath.flows().expect("readable");
    assert!(flows.iter().all(|flow| flow.packets[0] == 2 * TAGS.len() as u32), "{flows:?}");
}

#[test]
fn tagged_frames_are_judged_like_untagged_ones_into_the_peer() {
    tagged(Delivery::RedirectPeer);
}

#[test]
fn tagged_frames_are_judged_like_untagged_ones_through_the_stack() {
    tagged(Delivery::Stack);
}
