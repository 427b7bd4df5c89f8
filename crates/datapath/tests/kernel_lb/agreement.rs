//! Host and kernel agree: on what becomes of each frame, on every byte, on what was counted, and on which
//! flows are tracked.

use std::{net::IpAddr, time::Duration};

use flowgate_conformance::{frames::Frames, generate::Generator};
use flowgate_datapath::lb::{Balanced, Fate};
use flowgate_policy::outcome::{Flow, FlowProtocol};
use flowgate_services::model::BackendState;

use crate::rig::{self, Pair};

fn corpus() -> u32 {
    std::env::var("FLOWGATE_CORPUS").map_or(20_000, |text| text.parse().expect("a number"))
}

/// A flow to an address that may be a service's.
fn flow(generator: &mut Generator) -> Flow {
    let addresses = rig::addresses();
    let destination = addresses[generator.below(addresses.len() as u64) as usize];
    let client = generator.below(40) as u16;
    let source = match destination {
        IpAddr::V4(_) => IpAddr::from([203, 0, 113, client as u8]),
        IpAddr::V6(_) => IpAddr::from([0x2001, 0xdb8, 9, 0, 0, 0, 0, client]),
    };
    let port = [80, 443, 22, 81, 82, 9999][generator.below(6) as usize];
    let protocol = match generator.below(12) {
        0..=5 => FlowProtocol::Tcp(port),
        6..=8 => FlowProtocol::Udp(port),
        9 if destination.is_ipv4() => FlowProtocol::Icmp { icmp_type: 8 },
        9 => FlowProtocol::Icmp6 { icmp_type: 128 },
        10 => FlowProtocol::Sctp(port),
        _ => FlowProtocol::Other(47),
    };
    Flow { source, destination, protocol }
}

/// A frame around such a flow: larger than a path now and then, with every traffic class.
fn frame(generator: &mut Generator, frames: &mut Frames) -> Vec<u8> {
    let flow = flow(generator);
    let (_, mut bytes) = frames.next(generator, flow);
    if generator.below(10) == 0 {
        grow(&mut bytes, 1300 + generator.below(300) as usize);
    }
    if generator.below(3) == 0 && bytes.len() > 16 {
        match bytes[12] {
            8 => bytes[15] = generator.below(256) as u8,
            _ => bytes[14..16]
                .copy_from_slice(&[0x60 | generator.below(16) as u8, generator.below(256) as u8]),
        }
    }
    bytes
}

/// Makes a frame's packet longer, and says so in its header.
fn grow(bytes: &mut Vec<u8>, length: usize) {
    if bytes.len() < 54 || bytes.len() >= length + 14 {
        return;
    }
    bytes.resize(length + 14, 0xa5);
    match bytes[12] {
        8 => bytes[16..18].copy_from_slice(&(length as u16).to_be_bytes()),
        _ => bytes[18..20].copy_from_slice(&(length as u16 - 40).to_be_bytes()),
    }
}

/// Without the reason, which the kernel doesn't tell here.
fn seen(balanced: &Balanced) -> (Fate, &[u8]) {
    match balanced.fate {
        Fate::Drop(_) => (Fate::Drop(None), &[]),
        fate => (fate, &balanced.frame),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Now and then a backend drains, comes back, or is taken out, and time passes.
fn change(pair: &mut Pair, generator: &mut Generator) {
    pair.now += Duration::from_millis(1500);
    let ticked =
        (pair.kernel.tick(pair.now).expect("it ticks"), pair.host.tick(pair.now).expect("ticks"));
    assert_eq!(ticked.0, ticked.1);
    let services = pair.host.services().clone();
    let all: Vec<_> = services.iter().cloned().collect();
    let service = &all[generator.below(all.len() as u64) as usize];
    let Some(backend) = service.backends.first() else { return };
    let state = [BackendState::Active, BackendState::Draining, BackendState::Quarantined]
        [generator.below(3) as usize];
    let changed = services.with_state(&service.name, backend.id(), state).expect("it is there");
    pair.apply(&changed);
}

#[test]
fn host_and_kernel_agree() {
    let Some(mut pair) = Pair::new(rig::options()) else { return };
    let (mut generator, mut frames) = (Generator::new(5), Frames::default());
    let (mut passed, mut sent, mut dropped) = (0, 0, 0);
    for number in 0..corpus() {
        let bytes = frame(&mut generator, &mut frames);
        let kernel = pair.kernel.replay(&bytes).expect("it runs");
        let host = pair.host.replay(&bytes).expect("it runs");
        assert_eq!(
            seen(&kernel),
            seen(&host),
            "frame {number}: {}\nhost: {:?}",
            hex(&bytes),
            host.fate
        );
        match host.fate {
            Fate::Pass => passed += 1,
            Fate::Transmit => sent += 1,
            Fate::Drop(_) => dropped += 1,
        }
        if number % 500 == 499 {
            change(&mut pair, &mut generator);
        }
    }
    println!("{} cases, {passed} passed, {sent} sent, {dropped} dropped", corpus());
    let (kernel, host) = (pair.kernel.stats().expect("read"), pair.host.stats().expect("read"));
    println!("drops {:?}\ncounters {:?}", host.drops, host.counters);
    assert_eq!(kernel.drops, host.drops);
    assert_eq!(kernel.counters, host.counters);
    assert_eq!(kernel.services, host.services);
    assert!([passed, sent, dropped].iter().all(|count| *count * 10 > corpus()), "all kinds occur");
}
