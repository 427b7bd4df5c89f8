//! Writes the seeds of the corpora: `cargo run --example seeds` in `fuzz/`.
//!
//! Frames are built by flowgate-conformance around the fixed endpoints, some by hand and some of
//! every shape; manifests are those of the scenarios that differ most in shape, and a world of
//! two pods; event records are those of a few flows. What `cargo xtask fuzz --merge` found lies
//! beside them.

use std::{fs, io, net::IpAddr, path::Path, time::UNIX_EPOCH};

use flowgate_abi::event::Hook;
use flowgate_conformance::{
    envelope::{fragments, with_target},
    frames::{Frame, error_about, tcp},
    shapes,
    trio::{Rules, Trio},
};
use flowgate_fuzz::targets::balance;
use flowgate_lb::capture::{self, write};
use flowgate_policy::{
    host::HostTables,
    outcome::{Flow, FlowProtocol},
};
use zerocopy::IntoBytes;

const SCENARIOS: [&str; 13] = [
    "01-deny-ingress",
    "05-from-all-namespaces",
    "07-pods-by-expression",
    "10-pods-and-namespaces",
    "17-named-port",
    "27-both-directions",
    "30-any-port-of-a-protocol",
    "35-egress-to-a-block-with-a-hole",
    "47-sctp-port",
    "50-egress-port-range",
    "64-admin-named-port-of-the-other-end",
    "69-admin-network-policy",
    "71-both-baseline-kinds",
];

fn main() -> io::Result<()> {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR"));
    let frames = fuzz.join("corpus/parse_frame");
    fs::create_dir_all(&frames)?;
    for (name, bytes) in seeds() {
        fs::write(frames.join(name), bytes)?;
    }
    let kept = |name: &str| name.ends_with(", tcp") || name == "arp";
    for shape in shapes::all().into_iter().filter(|shape| kept(&shape.name)) {
        fs::write(frames.join(shape.name.replace(", ", "-").replace(' ', "_")), shape.bytes)?;
    }
    let events = fuzz.join("corpus/events");
    fs::create_dir_all(&events)?;
    for (number, record) in records().into_iter().enumerate() {
        fs::write(events.join(format!("record-{number}")), record)?;
    }
    let [configurations, captures] =
        ["lb_config", "capture"].map(|name| fuzz.join("corpus").join(name));
    fs::create_dir_all(&configurations)?;
    fs::copy(fuzz.join("../examples/load-balancer/lb.yaml"), configurations.join("lb.yaml"))?;
    fs::create_dir_all(&captures)?;
    for (name, bytes) in self::captures()? {
        fs::write(captures.join(name), bytes)?;
    }
    balancing(fuzz)?;
    let manifests = fuzz.join("corpus/manifest");
    fs::create_dir_all(&manifests)?;
    fs::write(manifests.join("world.yaml"), flowgate_fuzz::MANIFESTS)?;
    let conformance = fuzz.join("../crates/conformance/scenarios");
    for name in SCENARIOS {
        let from = conformance.join(name).join("manifests.yaml");
        fs::copy(from, manifests.join(format!("{name}.yaml")))?;
    }
    for name in ["namespace-x", "pod-x-a"] {
        let from = conformance.join("world").join(format!("{name}.yaml"));
        fs::copy(from, manifests.join(format!("{name}.yaml")))?;
    }
    fs::write(manifests.join("list.json"), LIST)
}

/// Each connection through the balancer, and each packet that it has sent into a tunnel.
fn balancing(fuzz: &Path) -> io::Result<()> {
    let [inputs, tunnelled] = ["balance", "decapsulate"].map(|name| fuzz.join("corpus").join(name));
    fs::create_dir_all(&inputs)?;
    fs::create_dir_all(&tunnelled)?;
    for (name, frames) in connections() {
        fs::write(inputs.join(&name), balance::input(&frames))?;
        for (number, frame) in balance::sent(&frames).into_iter().enumerate() {
            fs::write(tunnelled.join(format!("{name}-{number}")), frame)?;
        }
    }
    Ok(())
}

/// A few packets of a client to each service, and of everything else that the balancer knows.
fn connections() -> Vec<(String, Vec<Vec<u8>>)> {
    let mut all = Vec::new();
    for (family, client, service) in
        [("4", "203.0.113.200", "198.51.100.1"), ("6", "2001:db8:9::7", "2001:db8:1::1")]
    {
        for port in [80, 443, 22, 83, 84, 85] {
            let frame = frame(client, service, FlowProtocol::Tcp(port));
            let packets = [tcp::SYN, tcp::ACK, tcp::FIN | tcp::ACK].map(|f| frame.flags(f).bytes());
            all.push((format!("tcp{family}-{port}"), packets.to_vec()));
        }
        for port in [80, 53] {
            let datagram = frame(client, service, FlowProtocol::Udp(port)).bytes();
            all.push((format!("udp{family}-{port}"), vec![datagram]));
        }
        let named = |protocol| Frame { payload: 16, ..frame(client, service, protocol) };
        all.push((format!("quic{family}"), connection_ids(named(FlowProtocol::Udp(443)))));
        all.push((format!("option{family}"), server_ids(named(FlowProtocol::Tcp(7000)))));
        let large = Frame { payload: 1400, ..frame(client, service, FlowProtocol::Tcp(80)) };
        let quoted = frame(client, service, FlowProtocol::Tcp(80)).answer();
        let error = error_about(&quoted, address(client), 3);
        let others = [ping(client, service).bytes(), large.flags(tcp::ACK).bytes(), error];
        all.push((format!("others{family}"), others.to_vec()));
    }
    let datagram =
        Frame { payload: 600, ..frame("203.0.113.200", "198.51.100.1", FlowProtocol::Udp(80)) };
    all.push(("fragments4".to_owned(), fragments(&datagram.bytes(), 7, 256)));
    all
}

/// Datagrams of QUIC, by a long header and by a short one, that name the server 26.
fn connection_ids(frame: Frame) -> Vec<Vec<u8>> {
    let long = [0xc0, 0, 0, 0, 1, 8, 0, 26, 1, 2, 3, 4, 5, 6, 0, 0];
    let short = [0x40, 0, 26, 1, 2, 3, 4, 5, 6, 0, 0, 0, 0, 0, 0, 0];
    [long, short].map(|payload| ending(frame.bytes(), &payload)).to_vec()
}

/// Segments whose options name the server 28, and nobody.
fn server_ids(frame: Frame) -> Vec<Vec<u8>> {
    let first = [183, 6, 28, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0];
    let behind = [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 183, 6, 99, 0];
    let segments = [(first, 7), (behind, 9)].map(|(options, words)| {
        let mut bytes = ending(frame.flags(tcp::ACK).bytes(), &options);
        let header = bytes.len() - options.len() - 20;
        bytes[header + 12] = words << 4;
        bytes
    });
    segments.to_vec()
}

/// A frame whose payload's end is something else.
fn ending(mut frame: Vec<u8>, end: &[u8]) -> Vec<u8> {
    let at = frame.len() - end.len();
    frame[at..].copy_from_slice(end);
    frame
}

/// What `kubectl get -o json` prints.
const LIST: &str = r#"{"apiVersion":"v1","kind":"List","items":[
{"apiVersion":"v1","kind":"Node","metadata":{"name":"n"},
 "status":{"addresses":[{"type":"InternalIP","address":"203.0.113.1"}]}},
{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p","namespace":"x"},
 "spec":{"nodeName":"n","hostNetwork":true,"containers":[]},"status":{"phase":"Running"}}]}
"#;

fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let tcp4 = frame("198.18.0.1", "198.18.0.2", FlowProtocol::Tcp(80));
    let tcp6 = frame("2001:db8::1", "2001:db8::2", FlowProtocol::Tcp(80));
    let udp4 = frame("198.18.0.1", "203.0.113.7", FlowProtocol::Udp(53));
    let options = Frame { options: 10, ..tcp4 };
    vec![
        ("arp", with(tcp4.bytes(), 12, &[8, 6])),
        ("lldp", with(tcp4.bytes(), 12, &[0x88, 0xcc])),
        ("tcp4-syn", tcp4.bytes()),
        ("tcp4-ack", tcp4.flags(tcp::ACK).bytes()),
        ("tcp4-rst", tcp4.flags(tcp::RST).bytes()),
        ("tcp4-answer", tcp4.answer().bytes()),
        ("tcp4-options", options.bytes()),
        ("tcp4-last-hop", Frame { hops: 1, ..tcp4 }.bytes()),
        ("tcp4-fragment", with(tcp4.bytes(), 20, &[0x20, 0])),
        ("tcp4-from-world", frame("203.0.113.7", "198.18.0.2", FlowProtocol::Tcp(80)).bytes()),
        ("tcp4-spoofed", frame("198.18.0.9", "203.0.113.7", FlowProtocol::Tcp(80)).bytes()),
        ("udp4-to-world", udp4.bytes()),
        ("sctp4", frame("198.18.0.1", "198.18.0.2", FlowProtocol::Sctp(132)).bytes()),
        ("icmp4-echo", ping("198.18.0.1", "198.18.0.2").bytes()),
        ("icmp4-error", error_about(&options, address("198.18.0.2"), 3)),
        ("tcp6-syn", tcp6.bytes()),
        ("tcp6-extension", with(tcp6.bytes(), 20, &[43])),
        ("icmp6-echo", ping("2001:db8::1", "2001:db8::2").bytes()),
        ("icmp6-error", error_about(&tcp6, address("2001:db8::2"), 1)),
        ("icmp6-solicitation", neighbour(135, 255, "2001:db8::2")),
        ("icmp6-advertisement", neighbour(136, 255, "2001:db8::1")),
        ("icmp6-advertisement-of-another", neighbour(136, 255, "2001:db8::2")),
        ("icmp6-advertisement-from-afar", neighbour(136, 64, "2001:db8::1")),
        ("icmp6-router-solicitation", neighbour(133, 255, "2001:db8::1")),
        ("icmp6-router-advertisement", neighbour(134, 255, "2001:db8::1")),
        ("icmp6-listener", neighbour(143, 1, "2001:db8::1")),
    ]
}

/// What is told of the seeds' flows at the client's hook, and of their end.
fn records() -> Vec<Vec<u8>> {
    let trio = Trio::new();
    let installer = trio.install(HostTables::for_plan(trio.widest()), Rules::OneWay);
    let tables = installer.store();
    for (_, frame) in seeds() {
        let _ = tables.run(&frame, 1, Hook::FromEndpoint);
        let _ = tables.run(&frame, 2, Hook::ToEndpoint);
    }
    tables.advance(1 << 24);
    while tables.sweep() > 0 {}
    tables.take_events().iter().map(|event| event.as_bytes().to_vec()).collect()
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn frame(source: &str, destination: &str, protocol: FlowProtocol) -> Frame {
    let flow = Flow { source: address(source), destination: address(destination), protocol };
    Frame::opening(flow, 40_000)
}

fn ping(source: &str, destination: &str) -> Frame {
    let protocol = match address(source) {
        IpAddr::V4(_) => FlowProtocol::Icmp { icmp_type: 8 },
        IpAddr::V6(_) => FlowProtocol::Icmp6 { icmp_type: 128 },
    };
    frame(source, destination, protocol)
}

/// Neighbour discovery, from the client, about an address.
fn neighbour(icmp_type: u8, hops: u8, target: &str) -> Vec<u8> {
    let frame = frame("2001:db8::1", "2001:db8::2", FlowProtocol::Icmp6 { icmp_type });
    with_target(Frame { hops, ..frame }.bytes(), target.parse().expect("an address"))
}

fn with(mut bytes: Vec<u8>, at: usize, replacement: &[u8]) -> Vec<u8> {
    bytes[at..at + replacement.len()].copy_from_slice(replacement);
    bytes
}

/// One frame, in every way in which it may be handed over.
fn captures() -> io::Result<[(&'static str, Vec<u8>); 3]> {
    let bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 6];
    let hex = format!("# a frame\n{}\n", capture::hex::digits(&bytes));
    let mut pcapng = Vec::new();
    write::header(&mut pcapng)?;
    write::frame(&mut pcapng, &capture::Frame::whole(bytes.clone()), UNIX_EPOCH)?;
    let mut pcap = vec![0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0];
    pcap.extend([0; 8]);
    pcap.extend([0, 0, 4, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 14, 0, 0, 0, 14, 0, 0, 0]);
    pcap.extend(&bytes);
    Ok([("frame.hex", hex.into_bytes()), ("frame.pcapng", pcapng), ("frame.pcap", pcap)])
}
