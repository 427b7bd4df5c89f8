//! The oracle, the host and both programs in the kernel agree: on what becomes of each frame and on every byte;
//! host and kernel also on what was counted.

use std::net::IpAddr;

use flowgate_conformance::{
    frames::{Frame, Frames},
    generate::Generator,
};
use flowgate_datapath::decap::{Decapsulated, Decapsulator, Fate, Hook};
use flowgate_policy::outcome::{Flow, FlowProtocol};

use crate::{
    oracle::{Expected, judge},
    rig::{self, GUE, HOOKS, address, hex},
};

fn corpus() -> u32 {
    std::env::var("FLOWGATE_CORPUS").map_or(20_000, |text| text.parse().expect("a number"))
}

/// One of several.
fn one<T: Copy>(generator: &mut Generator, of: &[T]) -> T {
    of[generator.below(of.len() as u64) as usize]
}

/// A client's packet, nearly always to a service.
fn inner(generator: &mut Generator, frames: &mut Frames) -> Vec<u8> {
    let v4 = generator.below(2) == 0;
    let (services, others) = (["198.51.100.1", "2001:db8:1::1"], ["198.51.100.9", "198.18.0.5"]);
    let (mut source, mut destination) =
        if v4 { ("203.0.113.7", services[0]) } else { ("2001:db8:9::7", services[1]) };
    match (generator.below(16), v4) {
        (0, true) => destination = one(generator, &others),
        (0, false) => destination = one(generator, &["2001:db8:1::9", "::1"]),
        (1, true) => source = one(generator, &["127.0.0.1", "0.0.0.0", "224.0.0.1", "240.0.0.1"]),
        (1, false) => source = one(generator, &["::1", "::", "fe80::1", "ff02::1"]),
        _ => {}
    }
    let (source, destination) = (address(source), address(destination));
    let protocol = one(generator, &[FlowProtocol::Tcp(80), FlowProtocol::Udp(53)]);
    let flow = Flow { source, destination, protocol };
    if generator.below(4) == 0 {
        return frames.next(generator, flow).1;
    }
    let options = if generator.below(8) == 0 { generator.below(11) as u8 } else { 0 };
    let hops = one(generator, &[64, 64, 64, 64, 1, 0]);
    Frame { options, hops, ..Frame::opening(flow, 5000) }.bytes()
}

/// Sets DSCP and ECN of a packet, with IPv4's checksum.
fn set_class(packet: &mut [u8], class: u8) {
    if packet.len() < 20 {
        return;
    }
    if packet[0] >> 4 == 6 {
        (packet[0], packet[1]) = (0x60 | class >> 4, packet[1] & 15 | class << 4);
        return;
    }
    packet[1] = class;
    fill_checksum(packet);
}

/// Over the first twenty bytes, right or (with options) not: nobody here looks at it.
fn fill_checksum(packet: &mut [u8]) {
    packet[10..12].fill(0);
    let words =
        packet[..20].chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let sum: u32 = words.sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// The outer IP header of some bytes, from an address to another.
fn outer(ends: (IpAddr, IpAddr), protocol: u8, length: usize) -> Vec<u8> {
    match ends {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let [high, low] = (length as u16 + 20).to_be_bytes();
            let mut header = vec![0x45, 0, high, low, 0, 0, 0x40, 0, 64, protocol, 0, 0];
            header.extend([source.octets(), destination.octets()].concat());
            fill_checksum(&mut header);
            header
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let [high, low] = (length as u16).to_be_bytes();
            let mut header = vec![0x60, 0, 0, 0, high, low, protocol, 64];
            header.extend([source.octets(), destination.octets()].concat());
            header
        }
        _ => unreachable!("ends of one family"),
    }
}

/// The ends of a tunnel, nearly always right.
fn ends(generator: &mut Generator, v4: bool) -> (IpAddr, IpAddr) {
    let (right, wrong) = if v4 {
        (("198.18.255.7", "198.18.0.5"), ("198.18.254.7", "198.18.0.6"))
    } else {
        (("2001:db8:ffff::7", "2001:db8:2::5"), ("2001:db8:fffe::7", "2001:db8:2::6"))
    };
    let source = if generator.below(16) == 0 { wrong.0 } else { right.0 };
    let destination = if generator.below(16) == 0 { wrong.1 } else { right.1 };
    (address(source), address(destination))
}

/// A packet in a tunnel; not always as a balancer would make it.
fn wrapped(generator: &mut Generator, frames: &mut Frames) -> Vec<u8> {
    let mut inner = inner(generator, frames);
    inner.drain(..14);
    if generator.below(2) == 0 {
        set_class(&mut inner, generator.below(256) as u8);
    }
    let mut protocol = if inner[0] >> 4 == 4 { 4 } else { 41 };
    if generator.below(32) == 0 {
        protocol = 45 - protocol;
    }
    if generator.below(24) == 0 {
        inner.extend([0; 3]);
    }
    let v4 = generator.below(2) == 0;
    if generator.below(2) == 0 {
        protocol = 17;
        inner = in_udp(generator, inner);
    }
    let mut packet = outer(ends(generator, v4), protocol, inner.len());
    set_class(&mut packet, one(generator, &[0, 1, 2, 3, 0xb8, 0xbb]));
    packet.extend(inner);
    spoil(generator, &mut packet);
    let ethertype = if v4 { [8, 0] } else { [0x86, 0xdd] };
    let ethernet = [&[2, 0, 0, 0, 0, 5, 2, 0, 0, 0, 0, 1][..], &ethertype].concat();
    [ethernet, packet].concat()
}

fn in_udp(generator: &mut Generator, inner: Vec<u8>) -> Vec<u8> {
    let port = if generator.below(16) == 0 { 53 } else { GUE };
    let length = inner.len() as u16 + if generator.below(16) == 0 { 7 } else { 8 };
    [[0xc0, 1], port.to_be_bytes(), length.to_be_bytes(), [0, 0]]
        .concat()
        .into_iter()
        .chain(inner)
        .collect()
}

/// Now and then makes an outer packet what a balancer never sends.
fn spoil(generator: &mut Generator, packet: &mut Vec<u8>) {
    match generator.below(40) {
        0 if packet[0] == 0x45 => packet[6] = 0x20,
        1 if packet[0] == 0x45 => packet[7] = 9,
        2 if packet[0] == 0x45 => packet[0] = 0x46,
        3 => packet[0] = 0x75,
        4 => packet[4] ^= 1,
        5 => packet[3] ^= 1,
        6 => {
            let length = packet.len();
            packet.truncate(generator.below(length as u64) as usize);
        }
        7 => packet.extend([0; 4]),
        _ => {}
    }
}

/// What the host did, and what the kernel does not tell.
fn seen(of: &Decapsulated) -> (Fate, &[u8]) {
    match of.fate {
        Fate::Drop(_) => (Fate::Drop(None), &[]),
        fate => (fate, &of.frame),
    }
}

fn check(frame: &[u8], host: &Decapsulated) {
    let seen = match host.fate {
        Fate::Pass => Expected::Pass,
        Fate::Unwrapped => Expected::Unwrapped(host.frame.clone()),
        Fate::Drop(reason) => Expected::Drop(reason.expect("the host says why")),
    };
    assert_eq!(seen, judge(frame), "frame {}", hex(frame));
    assert!(host.fate != Fate::Pass || host.frame == frame, "it passes unchanged");
}

/// Bytes of a frame that the kernel replays: at TC with a whole IP header.
fn least(hook: Hook, frame: &[u8]) -> usize {
    match (hook, frame.get(12..14)) {
        (Hook::Tc, Some([0x86, 0xdd])) => 54,
        (Hook::Tc, _) => 34,
        _ => 14,
    }
}

/// What became of frames, by fate.
#[derive(Default)]
struct Fates {
    passed: u32,
    unwrapped: u32,
    dropped: u32,
}

/// Runs frames through one of the kernel's programs, through the host and past the oracle.
fn compare(hook: Hook, kernel: &mut Decapsulator, cases: u32) -> Fates {
    let (mut generator, mut frames) = (Generator::new(11), Frames::default());
    let (mut host, mut fates) = (rig::host(), Fates::default());
    for case in 0..cases {
        let frame = if case % 8 == 0 {
            inner(&mut generator, &mut frames)
        } else {
            wrapped(&mut generator, &mut frames)
        };
        // The kernel doesn't replay others.
        if frame.len() < least(hook, &frame) {
            continue;
        }
        let ran = host.replay(hook, &frame).expect("it runs");
        check(&frame, &ran);
        let in_kernel = kernel.replay(hook, &frame).expect("it runs");
        assert_eq!(seen(&in_kernel), seen(&ran), "{hook:?}, frame {}: {:?}", hex(&frame), ran.fate);
        match ran.fate {
            Fate::Pass => fates.passed += 1,
            Fate::Unwrapped => fates.unwrapped += 1,
            Fate::Drop(_) => fates.dropped += 1,
        }
    }
    let (host, kernel) = (host.stats().expect("read"), kernel.stats().expect("read"));
    assert_eq!(kernel, host);
    println!("{hook:?}: drops {:?}\ncounters {:?}", host.drops, host.counters);
    assert!(host.drops.len() >= 7 && host.counters.len() == 9, "all kinds occur: {host:?}");
    fates
}

#[test]
fn oracle_host_and_kernel_agree() {
    let mut all = Fates::default();
    for hook in HOOKS {
        let Some(mut kernel) = rig::kernel() else { return };
        let Fates { passed, unwrapped, dropped } = compare(hook, &mut kernel, corpus() / 2);
        all.passed += passed;
        all.unwrapped += unwrapped;
        all.dropped += dropped;
    }
    let Fates { passed, unwrapped, dropped } = all;
    let cases = passed + unwrapped + dropped;
    println!("{cases} cases, {passed} passed, {unwrapped} unwrapped, {dropped} dropped");
    assert!(
        [passed, unwrapped, dropped].iter().all(|count| *count * 10 > cases),
        "all kinds occur"
    );
}
