//! `flowgate-lb sample` against a running balancer in namespaces of its own; what it writes is read by another
//! implementation of pcapng.
//!
//! Privileged: without the capabilities, each test says so in one line and is skipped.

mod process;
mod segment;

use std::{
    fs,
    net::UdpSocket,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use flowgate_lb::{
    api::{Request, answer::Status},
    capture,
};
use pcap_parser::{Block, PcapBlockOwned, PcapNGOption, PcapNGSlice};
use process::{PATIENCE, Process, Running};
use segment::Hosts;

const PORT: u16 = 53;

/// A balancer's hosts, and a datagram socket of the backend's at the service's address.
struct Rig {
    hosts: Hosts,
    served: UdpSocket,
}

impl Rig {
    fn new(test: &str) -> Option<Self> {
        let hosts = Hosts::new(test)?;
        let served = hosts.serve(PORT);
        let directory = format!("directory: {}\n", hosts.path("").display());
        let text = hosts.file(PORT, ("generic", &directory));
        fs::write(hosts.path("lb.yaml"), text).expect("written");
        Some(Self { hosts, served })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.hosts.path(name)
    }

    /// A running balancer.
    fn balance(&self) -> Running {
        let directory = self.path("");
        let mut running = Running::start(&self.hosts.balancer, &self.path("lb.yaml"), directory);
        running.wait("it answers", |running| running.try_ask::<Status>(&Request::Status).is_some());
        running
    }

    fn sample(&self, arguments: &[&str]) -> Process {
        let directory = self.path("").display().to_string();
        let file = self.path("out.pcapng").display().to_string();
        let own = ["sample", "--directory", &directory, "-w", &file, "--every", "1"];
        Process::start(&self.hosts.balancer, &[&own[..], arguments].concat())
    }

    /// Sends a datagram; whether the backend got one within a moment.
    fn send(&self) -> bool {
        self.hosts.reach(&self.served)
    }

    fn read(&self) -> Vec<Seen> {
        let file = fs::read(self.path("out.pcapng")).expect("it is there");
        let whole = capture::frames(&file).expect("our own reader takes it");
        let seen = packets(&file);
        assert_eq!(seen.len(), whole.len());
        seen
    }
}

/// Waits until it has happened.
#[track_caller]
fn wait(mut happened: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !happened() {
        assert!(begun.elapsed() < PATIENCE, "it doesn't happen");
        thread::sleep(Duration::from_millis(2));
    }
}

/// A packet of a file.
struct Seen {
    interface: String,
    comment: String,
    verdict: Vec<u8>,
    bytes: Vec<u8>,
    length: u32,
}

fn option(options: &[PcapNGOption<'_>], code: u16) -> Vec<u8> {
    let found = options.iter().find(|option| option.code.0 == code);
    found.map(|option| option.as_bytes().expect("its length fits").to_vec()).unwrap_or_default()
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("text")
}

fn packets(file: &[u8]) -> Vec<Seen> {
    let (mut interfaces, mut seen) = (Vec::new(), Vec::new());
    let blocks = PcapNGSlice::from_slice(file).expect("pcapng");
    for block in blocks.map_while(Result::ok) {
        match block {
            PcapBlockOwned::NG(Block::InterfaceDescription(interface)) => {
                interfaces.push(text(option(&interface.options, 2)));
            }
            PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => seen.push(Seen {
                interface: interfaces[packet.if_id as usize].clone(),
                comment: text(option(&packet.options, 1)),
                verdict: option(&packet.options, 7),
                bytes: packet.data[..packet.caplen as usize].to_vec(),
                length: packet.origlen,
            }),
            _ => {}
        }
    }
    seen
}

#[test]
fn packets_are_written_with_verdict_service_and_backend() {
    let test = "packets_are_written_with_verdict_service_and_backend";
    let Some(rig) = Rig::new(test) else { return };
    let _balancer = rig.balance();
    let mut unknown = rig.sample(&["--service", "web"]);
    wait(|| unknown.ended().is_some());
    assert_eq!(unknown.ended(), Some(false), "there is no such service");
    for (snaplen, kept) in [("2048", 55), ("20", 20)] {
        let mut sample = rig.sample(&["--service", "dns", "--count", "10", "--snaplen", snaplen]);
        wait(|| {
            rig.send();
            sample.ended().is_some()
        });
        assert_eq!(sample.ended(), Some(true));
        let seen = rig.read();
        assert_eq!(seen.len(), 10);
        for one in seen {
            assert_eq!(one.comment, "forwarded, service dns, backend 198.18.0.11");
            assert_eq!(one.verdict, [2, 3, 0, 0, 0, 0, 0, 0, 0], "XDP_TX");
            assert_eq!(one.interface, rig.hosts.balancer.interface());
            assert_eq!((one.length, one.bytes.len()), (55, kept));
            assert!(one.bytes.starts_with(&rig.hosts.backend.mac().0));
        }
    }
}

#[test]
fn a_balancer_that_is_killed_while_it_samples_balances_on() {
    let test = "a_balancer_that_is_killed_while_it_samples_balances_on";
    let Some(rig) = Rig::new(test) else { return };
    let balancer = rig.balance();
    let mut sample = rig.sample(&["--service", "dns"]);
    let seen = || {
        fs::read(rig.path("out.pcapng"))
            .is_ok_and(|file| !file.is_empty() && !packets(&file).is_empty())
    };
    wait(|| rig.send() && seen());
    drop(balancer);
    wait(|| sample.ended().is_some());
    assert_eq!(sample.ended(), Some(false), "nobody answers it any more");
    assert!(!rig.read().is_empty(), "what was written is whole");
    wait(|| rig.send());
    for _ in 0..10 {
        assert!(rig.send(), "the backend gets every one");
    }
    let _balancer = rig.balance();
    for _ in 0..10 {
        assert!(rig.send(), "the backend gets every one");
    }
    let mut sample = rig.sample(&["--count", "3"]);
    wait(|| {
        rig.send();
        sample.ended().is_some()
    });
    assert_eq!(sample.ended(), Some(true));
}
