//! Random walks of clients and backends past a balancer with full NAT, beside the model.
//!
//! The balancer has [`sources`] at first, so many groups of ports each from 1024 on, [`TIMEOUTS`](super::model::TIMEOUTS),
//! and services with full NAT at 198.51.100.1 and `2001:db8:1::1`, port 80 of TCP and 53 of UDP.

use std::net::{IpAddr, SocketAddr};

use flowgate_abi::{DropReason, lb::nat::GROUP};

use super::{
    model::{Key, Model},
    packet::{ACK, FIN, Packet, RST, SYN},
    report::Report,
};
use crate::generate::Generator;

/// What became of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is nobody's.
    Passed,
    /// Out it goes, as this.
    Sent(Vec<u8>),
    /// Dropped.
    Dropped(DropReason),
}

/// A balancer.
pub trait Plane {
    /// Runs a frame through it.
    fn run(&mut self, frame: &[u8]) -> Fate;
    /// So many milliseconds have passed since it began.
    fn tick(&mut self, millis: u64);
    /// New flows get ports of these sources alone, from this moment on; `false`: one of them finds no place.
    fn turn_to(&mut self, sources: &[IpAddr], millis: u64) -> bool;
}

/// The last byte of the Ethernet address of who delivers clients' packets.
pub const CLIENT: u8 = 1;
/// And of who delivers backends'.
pub const BACKEND: u8 = 2;

/// An address.
///
/// # Panics
/// The text is none.
#[must_use]
pub fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Where packets to backends come from.
#[must_use]
pub fn sources() -> [IpAddr; 3] {
    ["198.18.9.1", "2001:db8:9::1", "198.18.9.2"].map(address)
}

/// Sources of which a walk has some: of IPv4, and of IPv6.
#[must_use]
pub fn pool() -> [Vec<IpAddr>; 2] {
    [
        ["198.18.9.1", "198.18.9.2", "198.18.9.3"],
        ["2001:db8:9::1", "2001:db8:9::2", "2001:db8:9::3"],
    ]
    .map(|family| family.map(address).to_vec())
}

/// A walk.
#[derive(Debug)]
pub struct Walk<P> {
    /// The balancer.
    pub plane: P,
    /// What is known of flows.
    pub model: Model,
    /// Flows that opened.
    pub opened: u32,
    /// Packets that found no port.
    pub refused: u32,
    /// Of which sources new flows get ports.
    pub active: Vec<IpAddr>,
    generator: Generator,
    now: u64,
    each: u32,
}

impl<P: Plane> Walk<P> {
    /// Past a balancer with so many groups of ports for each source.
    pub fn new(plane: P, each: u32, seed: u64) -> Self {
        let (generator, model) = (Generator::new(seed), Model::default());
        let active = sources().to_vec();
        Self { plane, model, opened: 0, refused: 0, active, generator, now: 0, each }
    }

    /// Milliseconds since it began.
    pub fn now(&self) -> u64 {
        self.now
    }

    fn below(&mut self, count: u64) -> u64 {
        self.generator.below(count)
    }

    /// A client's packet. One of a live flow goes where the flow goes.
    ///
    /// # Panics
    /// Anything is wrong with what became of it.
    pub fn ask(&mut self, packet: Packet) {
        let key: Key = (packet.source, packet.destination, packet.tcp.is_some());
        let known = self.model.flows.contains_key(&key);
        match self.plane.run(&packet.frame(CLIENT, 64)) {
            Fate::Sent(frame) => {
                let sent = Packet::read(&frame);
                let kept = self.model.flows.get(&key).is_some_and(|flow| flow.port == sent.source);
                assert!(kept || self.active.contains(&sent.source.ip()), "from {}", sent.source);
                let ports = 1024..1024 + (self.each * GROUP) as u16;
                assert!(ports.contains(&sent.source.port()), "from {}", sent.source);
                assert_eq!(sent.tcp, packet.tcp);
                self.opened += u32::from(!known);
                self.model.asked(&packet, &sent, self.now);
            }
            Fate::Dropped(DropReason::InvalidForFlow) => {
                assert!(!known && packet.tcp.is_some_and(|flags| flags & (SYN | ACK) != SYN));
            }
            Fate::Dropped(DropReason::NoNatPort) => {
                self.model.forget(&key);
                self.refused += 1;
            }
            other => panic!("{packet:?}: {other:?}"),
        }
    }

    /// The backend of a live flow answers: that comes to the flow's client, from the service.
    ///
    /// # Panics
    /// It doesn't.
    pub fn answer(&mut self, key: Key, flags: u8) {
        let flow = self.model.flows[&key].clone();
        let tcp = key.2.then_some(flags);
        let packet = Packet { source: flow.backend, destination: flow.port, tcp };
        let Fate::Sent(frame) = self.plane.run(&packet.frame(BACKEND, 64)) else {
            panic!("{packet:?} of {key:?} finds nobody")
        };
        let back = Packet { source: key.1, destination: key.0, tcp };
        assert_eq!(Packet::read(&frame), back);
        assert_eq!(frame[..12], [2, 0, 0, 0, 0, CLIENT, 2, 0, 0, 0, 0, 0xba]);
        self.model.answered(&packet, self.now);
    }

    /// Routers of both sides can't forward packets of a live flow: who has sent them is told, each in its own words.
    ///
    /// # Panics
    /// Anybody isn't, or in others'.
    pub fn report(&mut self, key: Key, transport: usize) {
        let flow = self.model.flows[&key].clone();
        let tcp = key.2.then_some(ACK);
        let packet = |source, destination| Packet { source, destination, tcp };
        let router = address(if key.0.is_ipv4() { "203.0.113.254" } else { "2001:db8:7::fffe" });
        let sides = [
            (CLIENT, packet(key.1, key.0), packet(flow.backend, flow.port)),
            (BACKEND, packet(flow.port, flow.backend), packet(key.0, key.1)),
        ];
        for (from, seen, own) in sides {
            let report = Report::about(&seen, router, transport);
            let Fate::Sent(frame) = self.plane.run(&report.frame(from, 64)) else {
                panic!("a report about {seen:?} reaches nobody")
            };
            let expected = Report::about(&own, own.destination.ip(), transport);
            assert_eq!(frame[12..], expected.frame(0, 63)[12..], "about {seen:?}");
        }
    }

    /// Nobody but its backend answers for a flow.
    fn forge(&mut self, key: Key) {
        let flow = &self.model.flows[&key];
        let (source, destination) = (flow.backend, flow.port);
        let forged = [
            Packet { source: (source.ip(), 9).into(), destination, tcp: key.2.then_some(ACK) },
            Packet { source: key.0, destination, tcp: key.2.then_some(ACK) },
            Packet { source, destination, tcp: (!key.2).then_some(ACK) },
        ];
        for packet in forged {
            let fate = self.plane.run(&packet.frame(BACKEND, 64));
            assert_eq!(fate, Fate::Dropped(DropReason::InvalidForFlow), "{packet:?}");
        }
        // Nor is anybody told of packets that are no flow's.
        let tcp = key.2.then_some(ACK);
        let stray = [
            Packet { source: key.1, destination: (key.0.ip(), 9).into(), tcp },
            Packet { source: destination, destination: (source.ip(), 9).into(), tcp },
        ];
        for packet in stray {
            let report = Report::about(&packet, packet.destination.ip(), 8);
            let fate = self.plane.run(&report.frame(BACKEND, 64));
            assert_eq!(fate, Fate::Dropped(DropReason::UnrelatedIcmpError), "{packet:?}");
        }
    }

    /// Lets time pass.
    pub fn tick(&mut self, millis: u64) {
        self.now += millis;
        self.plane.tick(self.now);
        self.model.expire(self.now);
    }

    /// Other sources for new flows, some of [`pool`] of each family; `false`: one of them finds no place.
    pub fn turn(&mut self) -> bool {
        let mut wanted = Vec::new();
        for family in pool() {
            let chosen = 1 + self.below((1 << family.len()) - 1);
            let some = family.into_iter().enumerate().filter(|(at, _)| chosen >> at & 1 != 0);
            wanted.extend(some.map(|(_, source)| source));
        }
        let turned = self.plane.turn_to(&wanted, self.now);
        if turned {
            self.active = wanted;
        }
        turned
    }

    fn some_key(&mut self) -> Option<Key> {
        let mut keys: Vec<Key> = self.model.flows.keys().copied().collect();
        keys.sort_unstable();
        let count = keys.len() as u64;
        (count > 0).then(|| keys[self.generator.below(count) as usize])
    }

    fn some_client(&mut self, clients: u64) -> Packet {
        let (client, port) = (self.below(clients) as u16, 40_000 + self.below(4) as u16);
        let is_tcp = self.below(2) == 0;
        let (source, service) = if self.below(2) == 0 {
            (IpAddr::from([203, 0, 113, client as u8]), "198.51.100.1")
        } else {
            (IpAddr::from([0x2001, 0xdb8, 7, 0, 0, 0, 0, client]), "2001:db8:1::1")
        };
        let destination = SocketAddr::new(address(service), if is_tcp { 80 } else { 53 });
        Packet { source: (source, port).into(), destination, tcp: is_tcp.then_some(SYN) }
    }

    /// Somebody of so many clients, up to 256 of each family, or a backend does something; now and then a
    /// second passes.
    ///
    /// # Panics
    /// Anything is wrong with what became of it.
    pub fn step(&mut self, clients: u64) {
        match self.below(16) {
            0..=4 => {
                let packet = self.some_client(clients);
                self.ask(packet);
            }
            5..=6 => {
                let packet = self.some_client(clients);
                self.ask(Packet { tcp: packet.tcp.map(|_| ACK), ..packet });
            }
            step => self.go_on(step),
        }
        if self.below(40) == 0 {
            self.tick(1024);
        }
    }

    /// A live flow goes on.
    fn go_on(&mut self, step: u64) {
        let Some(key) = self.some_key() else { return };
        let flags = [ACK, ACK, ACK, FIN | ACK, RST][self.below(5) as usize];
        match step {
            7..=9 => {
                let tcp = key.2.then_some(flags);
                self.ask(Packet { source: key.0, destination: key.1, tcp });
            }
            10..=13 => {
                let flags = if self.below(3) == 0 { SYN | ACK } else { flags };
                self.answer(key, flags);
            }
            14 => {
                let transport = [8, 12, 18, 25][self.below(4) as usize];
                self.report(key, transport);
            }
            _ => self.forge(key),
        }
    }
}
