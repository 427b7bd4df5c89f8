//! The oracle, the host and the kernel agree: on what becomes of each frame and on every byte; host and kernel
//! also on what was counted.

use std::{net::IpAddr, time::Duration};

use flowgate_abi::{DropReason, lb::Counter};
use flowgate_conformance::{
    envelope,
    frames::{Frame, Frames},
    generate::Generator,
};
use flowgate_datapath::lb::{Balanced, Fate};
use flowgate_policy::outcome::{Flow, FlowProtocol};
use flowgate_services::model::{BackendState, Protocol};

use crate::{
    oracle::{Expected, Oracle},
    rig::{self, Trio},
};

fn corpus() -> u32 {
    std::env::var("FLOWGATE_CORPUS").map_or(20_000, |text| text.parse().expect("a number"))
}

/// A flow that may be a service's: three of four go to a frontend.
fn flow(generator: &mut Generator) -> Flow {
    let frontends = rig::frontends();
    let frontend = frontends[generator.below(frontends.len() as u64) as usize];
    let (mut destination, mut protocol) = match frontend.protocol {
        Protocol::Tcp => (frontend.address, FlowProtocol::Tcp(frontend.port)),
        _ => (frontend.address, FlowProtocol::Udp(frontend.port)),
    };
    if generator.below(4) == 0 {
        let addresses = rig::addresses();
        destination = addresses[generator.below(addresses.len() as u64) as usize];
        protocol = other_protocol(generator, destination);
    }
    let client = generator.below(40) as u16;
    let source = match destination {
        IpAddr::V4(_) => IpAddr::from([203, 0, 113, client as u8]),
        IpAddr::V6(_) => IpAddr::from([0x2001, 0xdb8, 9, 0, 0, 0, 0, client]),
    };
    Flow { source, destination, protocol }
}

fn other_protocol(generator: &mut Generator, destination: IpAddr) -> FlowProtocol {
    match generator.below(8) {
        0..=1 => FlowProtocol::Tcp(9999),
        2..=3 => FlowProtocol::Udp(9999),
        4..=5 if destination.is_ipv4() => FlowProtocol::Icmp { icmp_type: 8 },
        4..=5 => FlowProtocol::Icmp6 { icmp_type: 128 },
        6 => FlowProtocol::Sctp(80),
        _ => FlowProtocol::Other(47),
    }
}

/// Frames around such a flow: one, or a datagram in pieces, seldom in their order.
fn some(generator: &mut Generator, frames: &mut Frames) -> Vec<Vec<u8>> {
    if generator.below(10) > 0 {
        return vec![frame(generator, frames)];
    }
    let whole = Frame { payload: 1600, ..Frame::opening(flow(generator), 5000) }.bytes();
    let size = [400, 800, 1480][generator.below(3) as usize];
    let mut pieces = envelope::fragments(&whole, generator.below(50) as u16, size);
    if generator.below(4) == 0 {
        pieces.reverse();
    }
    pieces
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
fn change(trio: &mut Trio, generator: &mut Generator) {
    trio.now += Duration::from_millis(1500);
    let ticked =
        (trio.kernel.tick(trio.now).expect("it ticks"), trio.host.tick(trio.now).expect("ticks"));
    assert_eq!(ticked.0, ticked.1);
    let services = trio.host.services().clone();
    let all: Vec<_> = services.iter().cloned().collect();
    let service = &all[generator.below(all.len() as u64) as usize];
    let Some(backend) = service.backends.first() else { return };
    let state = [BackendState::Active, BackendState::Draining, BackendState::Quarantined]
        [generator.below(3) as usize];
    let changed = services.with_state(&service.name, backend.id(), state).expect("it is there");
    trio.apply(&changed);
}

/// What is wrong with what became of a frame on the host, if anything.
fn judge(oracle: &mut Oracle, frame: &[u8], host: &Balanced) -> Result<(), String> {
    let expected = oracle.judge(frame);
    let fate = match host.fate {
        Fate::Drop(reason) => Err(reason.expect("the host says why")),
        _ => Ok(host.frame.clone()),
    };
    let is_right = match expected.clone() {
        Expected::Pass => host.fate == Fate::Pass && host.frame == frame,
        Expected::Drop(reason) => fate == Err(reason),
        Expected::Answer(bytes) => host.fate == Fate::Transmit && host.frame == bytes,
        Expected::Balanced { service, key, about } => {
            return oracle.check(frame, (service, key, about), &fate);
        }
    };
    if is_right { Ok(()) } else { Err(format!("expected {expected:?}")) }
}

/// What became of frames, by fate.
#[derive(Default)]
struct Fates {
    passed: u32,
    sent: u32,
    dropped: u32,
}

impl Fates {
    fn count(&mut self, fate: Fate) {
        match fate {
            Fate::Pass => self.passed += 1,
            Fate::Transmit => self.sent += 1,
            Fate::Drop(_) => self.dropped += 1,
        }
    }
}

/// Runs a frame through all three.
fn compare(trio: &mut Trio, frame: &[u8]) -> Fate {
    let kernel = trio.kernel.replay(frame).expect("it runs");
    let host = trio.host.replay(frame).expect("it runs");
    assert_eq!(seen(&kernel), seen(&host), "frame {}\nhost: {:?}", hex(frame), host.fate);
    if let Err(problem) = judge(&mut trio.oracle, frame, &host) {
        let (frame, sent) = (hex(frame), hex(&host.frame));
        panic!("frame {frame}\nhost: {:?} {sent}\n{problem}", host.fate);
    }
    host.fate
}

#[test]
fn oracle_host_and_kernel_agree() {
    let Some(mut trio) = Trio::new(rig::options()) else { return };
    let (mut generator, mut frames) = (Generator::new(5), Frames::default());
    let (mut fates, mut cases) = (Fates::default(), 0);
    while cases < corpus() {
        for frame in some(&mut generator, &mut frames) {
            cases += 1;
            fates.count(compare(&mut trio, &frame));
            if cases % 500 == 0 {
                change(&mut trio, &mut generator);
            }
        }
    }
    let Fates { passed, sent, dropped } = fates;
    println!("{cases} cases, {passed} passed, {sent} sent, {dropped} dropped");
    let (kernel, host) = (trio.kernel.stats().expect("read"), trio.host.stats().expect("read"));
    println!("drops {:?}\ncounters {:?}", host.drops, host.counters);
    assert_eq!(kernel, host);
    assert!([passed, sent, dropped].iter().all(|count| *count * 10 > cases), "all kinds occur");
    let tracked: u64 = host.services.iter().map(|service| service.total().tracked).sum();
    assert!(host.drops.contains_key(&DropReason::SourceRefused), "clients are refused");
    assert!(host.services.iter().any(|service| service.pinned > 0), "clients have pins");
    assert!(tracked > 0 && host.get(Counter::FragmentsFollowed) > 0, "the rare occurs: {tracked}");
}
