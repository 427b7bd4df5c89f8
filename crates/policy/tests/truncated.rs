//! Frames of every shape, cut at every byte, through both hooks: nothing panics, nothing passes
//! without its ports, no rule is asked about what isn't there, and every drop is counted once under
//! its reason.
//!
//! What the pipeline doesn't support it may drop whole: held here is what must never pass.

use flowgate_abi::event::{Counter, DROP_REASONS, Hook, Kind, Tally};
use flowgate_conformance::{
    frames::Frame,
    shapes::{self, Shape},
    trio::{Party, Rules, Trio},
};
use flowgate_pipeline::Verdict;
use flowgate_policy::{
    host::HostTables,
    install::Installer,
    outcome::{Flow, FlowProtocol},
};

/// An Ethernet header: the kernel hands over nothing shorter.
const ETHERNET: usize = 14;
/// Longer than any flow lives, in jiffies.
const LIFETIME: u64 = 10_000 * 256;

/// Where a frame is met.
const HOOKS: [(Hook, Party); 4] = [
    (Hook::FromEndpoint, Party::Client),
    (Hook::FromEndpoint, Party::Server),
    (Hook::ToEndpoint, Party::Client),
    (Hook::ToEndpoint, Party::Server),
];

struct Tables(Installer<HostTables>);

impl Tables {
    fn under(rules: Rules) -> Self {
        let trio = Trio::new();
        Self(trio.install(HostTables::for_plan(trio.widest()), rules))
    }

    /// A frame meets tables without a flow.
    fn meet(&self, bytes: &[u8], (hook, party): (Hook, Party)) -> Verdict {
        let tables = self.0.store();
        let before = Books::of(tables);
        let verdict = tables.run(bytes, party.ifindex().expect("local"), hook).verdict;
        Books::of(tables).balance(&before, bytes.len(), hook, verdict);
        tables.advance(LIFETIME);
        while tables.sweep() > 0 {}
        verdict
    }

    /// Kind, protocol and ports of the events since the last call, the sweep's left out.
    fn told(&self) -> Vec<(u8, u8, (u16, u16))> {
        let events = self.0.store().take_events();
        let packets = events.iter().filter(|event| event.kind != Kind::Closed as u8);
        let ports = packets.map(|event| {
            let ports = (event.source_port.get(), event.destination_port.get());
            (event.kind, event.protocol, ports)
        });
        ports.collect()
    }
}

/// What is counted.
struct Books {
    drops: Vec<Tally>,
    passed: u64,
    neighbours: u64,
}

impl Books {
    fn of(tables: &HostTables) -> Self {
        let both = |tally: &[Tally; 2]| tally[0].packets + tally[1].packets;
        Self {
            drops: tables.drops(),
            passed: tables.traffic().iter().map(both).sum(),
            neighbours: tables.counters()[Counter::NeighbourPassed as usize],
        }
    }

    /// A drop is one packet more of its reason at its hook; a pass is counted elsewhere.
    fn balance(&self, before: &Self, length: usize, hook: Hook, verdict: Verdict) {
        let moved: Vec<usize> =
            (0..self.drops.len()).filter(|&at| self.drops[at] != before.drops[at]).collect();
        let Verdict::Drop(reason) = verdict else {
            assert!(moved.is_empty(), "{verdict:?} is counted as dropped");
            assert!(self.passed > before.passed || self.neighbours > before.neighbours);
            return;
        };
        let at = (hook as u32 * DROP_REASONS + reason as u32) as usize;
        assert_eq!(moved, [at], "{reason}");
        let Tally { packets, bytes } = before.drops[at];
        assert_eq!(self.drops[at], Tally { packets: packets + 1, bytes: bytes + length as u64 });
        assert_eq!((self.passed, self.neighbours), (before.passed, before.neighbours));
    }
}

/// Each shape with each of its beginnings, and how long that is.
fn cuts() -> impl Iterator<Item = (Shape, usize)> {
    shapes::all()
        .into_iter()
        .flat_map(|shape| (ETHERNET..=shape.bytes.len()).map(move |end| (shape.clone(), end)))
}

#[test]
fn nothing_passes_without_its_ports() {
    let tables = Tables::under(Rules::Open);
    let mut seen = 0;
    for (shape, end) in cuts() {
        for met in HOOKS {
            let verdict = tables.meet(&shape.bytes[..end], met);
            let passed = !matches!(verdict, Verdict::Drop(_));
            let (name, whole) = (&shape.name, end >= shape.needed);
            assert!(whole || !passed, "{name}: {end} bytes at {met:?}: {verdict:?}");
            seen += 1;
        }
    }
    println!("{} shapes, {seen} frames", shapes::all().len());
    assert!(seen >= 500);
}

/// A rule decides about a flow: a frame that is cut makes none, and nobody is told of one.
#[test]
fn no_rule_is_asked_about_what_is_not_there() {
    let tables = Tables::under(Rules::OneWay);
    for (shape, end) in cuts().filter(|(shape, end)| *end < shape.needed) {
        for met in HOOKS {
            let verdict = tables.meet(&shape.bytes[..end], met);
            let name = &shape.name;
            let Verdict::Drop(reason) = verdict else { panic!("{name}: {end} bytes at {met:?}") };
            assert!(!reason.is_policy(), "{name}: {end} bytes at {met:?}: {reason}");
            assert_eq!(tables.told(), [], "{name}: {end} bytes at {met:?}");
        }
    }
}

/// A flow has the ports of the transport header, wherever that begins.
#[test]
fn a_flow_has_the_frames_ports() {
    let tables = Tables::under(Rules::Open);
    for (shape, end) in cuts() {
        let Some(protocol) = shape.opens else { continue };
        let met = (Hook::FromEndpoint, Party::Client);
        let verdict = tables.meet(&shape.bytes[..end], met);
        let passed = !matches!(verdict, Verdict::Drop(_));
        let expected = vec![(Kind::New as u8, protocol, shape.ports())];
        let expected = if passed { expected } else { Vec::new() };
        assert_eq!(tables.told(), expected, "{}: {end} bytes", shape.name);
        let whole = end == shape.bytes.len();
        assert!(passed || !whole || !shape.plain, "{}: {verdict:?}", shape.name);
    }
}

/// The first packet of the flow that an error quotes: from the server to the client.
fn quoted(protocol: u8, v6: bool) -> Vec<u8> {
    let port = shapes::DESTINATION_PORT;
    let protocol = match protocol {
        6 => FlowProtocol::Tcp(port),
        17 => FlowProtocol::Udp(port),
        132 => FlowProtocol::Sctp(port),
        1 => FlowProtocol::Icmp { icmp_type: 8 },
        58 => FlowProtocol::Icmp6 { icmp_type: 128 },
        other => panic!("no shape quotes protocol {other}"),
    };
    let (source, destination) = (Party::Server.address(v6), Party::Client.address(v6));
    Frame::opening(Flow { source, destination, protocol }, shapes::SOURCE_PORT).bytes()
}

#[test]
fn an_error_that_quotes_too_little_is_no_error() {
    let tables = Tables::under(Rules::Open);
    let related = || tables.0.store().counters()[Counter::Related as usize];
    for (shape, end) in cuts() {
        let Some(protocol) = shape.quotes else { continue };
        let v6 = shape.name.contains("ipv6");
        let _ = tables.0.store().run(&quoted(protocol, v6), 2, Hook::FromEndpoint);
        let before = related();
        let verdict = tables.meet(&shape.bytes[..end], (Hook::FromEndpoint, Party::Client));
        let passed = !matches!(verdict, Verdict::Drop(_));
        let (name, whole) = (&shape.name, end >= shape.needed);
        assert!(whole || !passed, "{name}: {end} bytes: {verdict:?}");
        assert!(passed || end < shape.bytes.len() || !shape.plain, "{name}: {verdict:?}");
        assert_eq!(related() - before, u64::from(passed), "{name}: {end} bytes");
    }
}
