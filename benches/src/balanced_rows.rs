//! What is measured: services of every kind, and packets to them.

use std::{cell::RefCell, error::Error, net::IpAddr, rc::Rc, time::Duration};

use crate::{
    balancing::{PASSED, Rig, TRANSMITTED},
    course::Course,
    packets::Packet,
    sampling::{Sample, Sampling},
};
use flowgate_conformance::frames::{Frame, tcp};
use flowgate_datapath::lb::{BalancerOptions, NatOptions};
use flowgate_policy::outcome::{Flow, FlowProtocol};
use flowgate_services::{
    Services, TcpServers, Uplink,
    model::{Backend, BackendState, Forwarding, NextHop, Service},
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;
type Shared = Rc<RefCell<Rig>>;

/// Packets of a round of a row with one flow.
pub const HOT: Sampling = Sampling::once(100_000);
/// The first source port.
const PORT: u16 = 1024;
/// Flows of the rows with many.
pub const MANY: usize = 1 << 16;
/// New flows of a round, each of which takes a port, or an entry of few.
const NEW: usize = 1 << 13;
/// Entries of a table that fits into the caches of one CPU: 2 MiB.
const SMALL: usize = 1 << 17;
const MOST: usize = 1 << 24;
/// Sources of each family, with full NAT.
const SOURCES: u16 = 4;
const MOST_AT_ONCE: usize = 1 << 20;
/// The MTU of the path on which packets are too big.
const NARROW: u16 = 1320;
/// That of the other paths.
const ETHERNET: u16 = 1500;

const TCP: FlowProtocol = FlowProtocol::Tcp(80);
const UDP: FlowProtocol = FlowProtocol::Udp(80);

/// What becomes of all packets of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    /// They go to a backend.
    Balanced,
    /// They go to a backend, and get an entry each.
    Tracked,
    /// They are answered.
    Answered,
    /// They are nobody's.
    Passed,
}

/// A row of the table.
pub struct Row {
    /// What is sent, and how it is sent on.
    pub name: String,
    rig: Shared,
    course: Course,
    sampling: Sampling,
    meaning: Meaning,
    /// Before each round every slot begins to move once more, when nobody has an entry any more.
    moves_anew: bool,
    /// What is measured is what it costs beyond making frames as long as their answers: so many bytes.
    answer: Option<usize>,
}

impl Row {
    /// What it sends, from its first flow on; and how much of it.
    #[must_use]
    pub fn course(&self) -> (Course, Sampling) {
        (self.course.clone(), self.sampling)
    }

    /// Sends less at once.
    pub fn shorten(&mut self, runs: u32) {
        self.sampling = Sampling::once(runs);
    }

    /// One round; what was measured is what was meant.
    ///
    /// # Errors
    /// Something else became of its packets.
    pub fn measure(&mut self) -> Result<Sample> {
        let mut rig = self.rig.borrow_mut();
        if self.moves_anew {
            move_anew(&mut rig)?;
        }
        let before = rig.balanced()?;
        let (sample, action) = match self.answer {
            Some(answer) => rig.time_beyond_cutting(&mut self.course, (answer, self.sampling))?,
            None => rig.time(&mut self.course, self.sampling)?,
        };
        let after = rig.balanced()?;
        let (balanced, tracked) = (after.0 - before.0, after.1 - before.1);
        let packets = self.sampling.packets();
        let meant = match self.meaning {
            Meaning::Balanced => (TRANSMITTED, packets, 0),
            Meaning::Tracked => (TRANSMITTED, packets, packets),
            Meaning::Answered => (TRANSMITTED, 0, 0),
            Meaning::Passed => (PASSED, 0, 0),
        };
        if (action, balanced, tracked) == meant {
            return Ok(sample);
        }
        let name = &self.name;
        Err(format!(
            "{name}: {balanced} balanced, {tracked} tracked, the last {action}; meant was {meant:?}"
        )
        .into())
    }
}

/// All rows of one load of the programs, of so many rounds; loads are numbered from 0.
///
/// # Errors
/// The kernel doesn't take the programs, or not the packets.
pub fn rows(load: usize, rounds: usize) -> Result<Vec<Row>> {
    let stable = Rc::new(RefCell::new(Rig::new(options(), &services(true)?)?));
    let moving = Rc::new(RefCell::new(Rig::new(options(), &services(true)?)?));
    set_moving(&mut moving.borrow_mut())?;
    let small = BalancerOptions { tracked: SMALL, ..options() };
    let small = Rc::new(RefCell::new(Rig::new(small, &services(true)?)?));
    set_moving(&mut small.borrow_mut())?;
    let mut list = List { load, rounds, rows: Vec::new() };
    for v6 in [false, true] {
        list.stable(&stable, v6)?;
        list.moving(&moving, v6)?;
        list.in_small(&small, v6)?;
    }
    let named = Rc::new(RefCell::new(Rig::new(options(), &named()?)?));
    let translating = Rc::new(RefCell::new(Rig::new(with_sources(1), &snat()?)?));
    let changed = Rc::new(RefCell::new(with_others_sources()?));
    for v6 in [false, true] {
        list.named(&named, v6)?;
        list.snat(&translating, v6)?;
        list.translated("SYN of new flows, full NAT, other sources before", &changed, v6)?;
    }
    Ok(list.rows)
}

/// How the balancers are made.
#[must_use]
pub fn options() -> BalancerOptions {
    BalancerOptions {
        tracked: 1 << 20,
        errors_per_second: u32::MAX,
        uplink: Uplink { gateway: Some([2, 0, 0, 0, 0, 0xfe]), ..Uplink::default() },
        ..BalancerOptions::default()
    }
}

/// With ports for the rows' flows, of which nine of ten suffice for all; and with places for as many sources again.
fn with_sources(first: u16) -> BalancerOptions {
    let (sources, places) = (sources(first), Some(2 * SOURCES as usize));
    let nat = NatOptions { sources, places4: places, places6: places, ..NatOptions::default() };
    BalancerOptions { nat, ..options() }
}

/// Of each family, from a number on.
fn sources(first: u16) -> Vec<IpAddr> {
    let source = |number: u16| {
        let v6 = IpAddr::from([0x2001, 0xdb8, 9, 0, 0, 0, 0, number]);
        [IpAddr::from([198, 18, 9, number as u8]), v6]
    };
    (first..first + SOURCES).flat_map(source).collect()
}

/// It had other sources, and has those of [`with_sources`] since a change while it ran.
fn with_others_sources() -> Result<Rig> {
    let mut rig = Rig::new(with_sources(1 + SOURCES), &snat()?)?;
    let _ = rig.balancer.apply(&snat()?.with_nat_sources(sources(1)), rig.now)?;
    Ok(rig)
}

/// One service for each family, whose segments name their backends.
fn named() -> Result<Services> {
    let mut services = Vec::new();
    for v6 in [false, true] {
        let mut service = Service::tcp(if v6 { "named6" } else { "named4" }, 80).address(vip(v6));
        service.options.tcp_option = Some(TcpServers::default());
        let member = |id: u16| Backend::new(backend(v6, usize::from(id))).server_id(id);
        services.push((0..10).map(member).fold(service, Service::backend));
    }
    Ok(Services::new(services)?)
}

/// Options of TCP: time stamps behind two paddings, as Linux has them; and the server id of a backend, padded.
const STAMPS: [u8; 12] = [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2];
const SERVER_ID: [u8; 8] = [183, 6, 3, 0, 0, 0, 1, 1];

/// One service for each protocol and family, with full NAT.
fn snat() -> Result<Services> {
    let mut services = Vec::new();
    for v6 in [false, true] {
        let family = if v6 { 6 } else { 4 };
        for service in
            [Service::tcp(format!("tcp{family}"), 80), Service::udp(format!("udp{family}"), 80)]
        {
            let service = service.address(vip(v6)).forwarding(Forwarding::Snat);
            let member = |number| Backend::new(backend(v6, number));
            services.push((0..10).map(member).fold(service, Service::backend));
        }
    }
    Ok(Services::new(services)?)
}

/// Every slot of the rows' services goes from one half of the backends to the other, and has been announced.
fn set_moving(rig: &mut Rig) -> Result<()> {
    let first = *rig.balancer.services() != services(true)?;
    let _ = rig.balancer.apply(&services(first)?, rig.now)?;
    rig.now += Duration::from_secs(5);
    let _ = rig.balancer.tick(rig.now)?;
    Ok(())
}

/// Waits for the end of all that a change has begun, in the balancer's own time, and makes another one.
fn move_anew(rig: &mut Rig) -> Result<()> {
    loop {
        let ticked = rig.balancer.tick(rig.now)?;
        if (ticked.tracking, ticked.entries) == (0, 0) {
            break;
        }
        rig.now += ticked.next;
    }
    set_moving(rig)
}

/// One service of each kind and family; `first`: the first ten backends are active, otherwise the other ten.
///
/// # Errors
/// Never: they are good services.
pub fn services(first: bool) -> Result<Services> {
    let mut services = Vec::new();
    for v6 in [false, true] {
        let family = if v6 { 6 } else { 4 };
        let with = |service: Service, last: usize| {
            let service = service.address(vip(v6));
            let member = |number: usize| {
                let active = (number < 10) == first;
                let state = if active { BackendState::Active } else { BackendState::Draining };
                let hop = NextHop::Mac([2, 0, 0, 0, 1, number as u8]);
                let backend = Backend::new(backend(v6, number)).state(state);
                if service.port == 22 { backend.next_hop(hop) } else { backend }
            };
            (0..last).map(member).fold(service.clone(), Service::backend)
        };
        let gue = Forwarding::Gue { port: 6080 };
        services.push(with(Service::tcp(format!("tcp-{family}"), 80), 20));
        services.push(with(Service::udp(format!("udp-{family}"), 80), 20));
        services.push(with(Service::tcp(format!("gue-{family}"), 443).forwarding(gue), 20));
        let layer2 = Service::tcp(format!("layer2-{family}"), 22);
        services.push(with(layer2.forwarding(Forwarding::Layer2), 20));
        let narrow = Service::tcp(format!("narrow-{family}"), 8080).address(vip(v6));
        services.push(narrow.backend(Backend::new(backend(v6, 1)).mtu(NARROW)));
    }
    Ok(Services::new(services)?)
}

pub(crate) fn vip(v6: bool) -> IpAddr {
    match v6 {
        false => IpAddr::from([198, 51, 100, 1]),
        true => IpAddr::from([0x2001, 0xdb8, 1, 0, 0, 0, 0, 1]),
    }
}

pub(crate) fn backend(v6: bool, number: usize) -> IpAddr {
    let last = number as u16 + 1;
    match v6 {
        false => IpAddr::from([198, 18, 0, last as u8]),
        true => IpAddr::from([0x2001, 0xdb8, 2, 0, 0, 0, 0, last]),
    }
}

/// A client's packet to an address.
fn packet(destination: IpAddr, protocol: FlowProtocol, flags: u8) -> Packet {
    let source = match destination {
        IpAddr::V4(_) => IpAddr::from([203, 0, 113, 7]),
        IpAddr::V6(_) => IpAddr::from([0x2001, 0xdb8, 15, 0, 0, 0, 0, 7]),
    };
    let flow = Flow { source, destination, protocol };
    let mut packet = Packet::new(&Frame::opening(flow, PORT).flags(flags));
    // Clients differ, not who is asked.
    packet.address_at = if destination.is_ipv4() { 28 } else { 36 };
    packet
}

/// A packet of an established connection's, to a backend by IPIP.
#[must_use]
pub fn established() -> Course {
    Course { grown: 20, ..Course::of(&packet(vip(false), TCP, tcp::ACK), 1) }
}

struct List {
    load: usize,
    rounds: usize,
    rows: Vec<Row>,
}

impl List {
    fn row(&mut self, name: &str, rig: &Shared, packet: &Packet) -> Result<&mut Row> {
        let sent = rig.borrow_mut().balancer.replay(&packet.bytes)?;
        let mut course = Course::of(packet, 1);
        course.grown = sent.frame.len().saturating_sub(packet.bytes.len());
        let version = if packet.bytes[12] == 8 { "IPv4" } else { "IPv6" };
        self.rows.push(Row {
            name: format!("{name}, {version}"),
            rig: Rc::clone(rig),
            course,
            sampling: HOT,
            meaning: Meaning::Balanced,
            moves_anew: false,
            answer: None,
        });
        self.rows.last_mut().ok_or_else(|| "just pushed".into())
    }

    /// The same packet of many flows that take turns.
    fn many(&mut self, name: &str, rig: &Shared, packet: &Packet) -> Result<&mut Row> {
        let row = self.row(name, rig, packet)?;
        row.course.flows = MANY;
        row.sampling = Sampling::once(MANY as u32);
        Ok(row)
    }

    fn stable(&mut self, rig: &Shared, v6: bool) -> Result<()> {
        let to = |protocol, flags| packet(vip(v6), protocol, flags);
        let (tunnel, gue) = if v6 { ("IP6IP6", "GUE over IPv6") } else { ("IPIP", "GUE") };
        let (segment, datagram) = (to(TCP, tcp::ACK), to(UDP, 0));
        self.row(&format!("TCP, established, {tunnel}"), rig, &segment)?;
        self.many(&format!("TCP, established, 65,536 flows, {tunnel}"), rig, &segment)?;
        let (load, rounds) = (self.load, self.rounds);
        let row = self.row(&format!("SYN of 16M flows, {tunnel}"), rig, &to(TCP, tcp::SYN))?;
        (row.course.flows, row.course.next) = (MOST, load * rounds * MOST_AT_ONCE);
        row.sampling = Sampling::once(MOST_AT_ONCE as u32);
        self.row(&format!("UDP, {tunnel}"), rig, &datagram)?;
        self.many(&format!("UDP, 65,536 flows, {tunnel}"), rig, &datagram)?;
        let tunnelled = to(FlowProtocol::Tcp(443), tcp::ACK);
        self.row(&format!("TCP, established, {gue}"), rig, &tunnelled)?;
        self.many(&format!("TCP, established, 65,536 flows, {gue}"), rig, &tunnelled)?;
        self.row("TCP, established, layer 2", rig, &to(FlowProtocol::Tcp(22), tcp::ACK))?;
        self.odd(rig, v6)
    }

    fn odd(&mut self, rig: &Shared, v6: bool) -> Result<()> {
        let to = |protocol, flags| packet(vip(v6), protocol, flags);
        let narrow = to(FlowProtocol::Tcp(8080), tcp::ACK);
        let paths = [
            ("too big for the path, answered", large(narrow, NARROW)),
            ("too big for a path of 1,500 bytes, answered", large(to(TCP, tcp::ACK), ETHERNET)),
        ];
        for (name, big) in paths {
            self.answered(name, rig, &big, None)?;
            let answer = rig.borrow_mut().balancer.replay(&big.bytes)?.frame.len();
            self.answered(&format!("{name}, beyond cutting"), rig, &big, Some(answer))?;
        }
        let echo = match v6 {
            false => FlowProtocol::Icmp { icmp_type: 8 },
            true => FlowProtocol::Icmp6 { icmp_type: 128 },
        };
        let echo = packet(vip(v6), echo, 0);
        self.row("echo request, answered", rig, &echo)?.meaning = Meaning::Answered;
        let other = packet(backend(v6, 99), TCP, tcp::ACK);
        self.row("not a service's", rig, &other)?.meaning = Meaning::Passed;
        Ok(())
    }

    fn answered(
        &mut self,
        name: &str,
        rig: &Shared,
        packet: &Packet,
        answer: Option<usize>,
    ) -> Result<()> {
        let row = self.row(name, rig, packet)?;
        row.course.grown = if row.name.ends_with("IPv6") { 48 } else { 28 };
        (row.meaning, row.answer) = (Meaning::Answered, answer);
        Ok(())
    }

    fn snat(&mut self, rig: &Shared, v6: bool) -> Result<()> {
        let to = |flags| packet(vip(v6), TCP, flags);
        let opening = Course::of(&to(tcp::SYN), MANY);
        rig.borrow_mut().send(&opening, MANY as u32)?;
        self.row("TCP, established, full NAT", rig, &to(tcp::ACK))?;
        self.many("TCP, established, 65,536 flows, full NAT", rig, &to(tcp::ACK))?;
        self.new_ports("SYN of new flows, full NAT", rig, v6)
    }

    /// As the last row of [`List::snat`], beside as many flows.
    fn translated(&mut self, name: &str, rig: &Shared, v6: bool) -> Result<()> {
        let opening = Course::of(&packet(vip(v6), TCP, tcp::SYN), MANY);
        rig.borrow_mut().send(&opening, MANY as u32)?;
        self.new_ports(name, rig, v6)
    }

    fn new_ports(&mut self, name: &str, rig: &Shared, v6: bool) -> Result<()> {
        let rounds = self.rounds;
        // Beside the flows of other rows.
        let mut opening = packet(vip(v6), TCP, tcp::SYN);
        opening.bytes[opening.address_at] ^= 0x80;
        let row = self.row(name, rig, &opening)?;
        (row.course.flows, row.course.next) = (NEW * rounds, 1);
        row.sampling = Sampling::once(NEW as u32 - 1);
        Ok(())
    }

    /// Segments of a service whose backends an option names.
    fn named(&mut self, rig: &Shared, v6: bool) -> Result<()> {
        let segment = packet(vip(v6), TCP, tcp::ACK);
        let behind = [&STAMPS[..], &SERVER_ID].concat();
        let rows: [(&str, &[u8]); 4] = [
            ("the option alone", &SERVER_ID),
            ("the option behind time stamps", &behind),
            ("time stamps alone", &STAMPS),
            ("no options", &[]),
        ];
        for (what, options) in rows {
            let name = format!("TCP, established, named by an option: {what}");
            self.row(&name, rig, &with_options(segment.clone(), options))?;
        }
        let opening = with_options(packet(vip(v6), TCP, tcp::SYN), &STAMPS);
        self.row("SYN, named by an option: time stamps alone", rig, &opening)?;
        Ok(())
    }

    fn moving(&mut self, rig: &Shared, v6: bool) -> Result<()> {
        let to = |protocol, flags| packet(vip(v6), protocol, flags);
        for (name, protocol, flags) in [("TCP, established", TCP, tcp::ACK), ("UDP", UDP, 0)] {
            let packet = to(protocol, flags);
            self.row(&format!("{name}, every slot moving"), rig, &packet)?;
            let name = format!("{name}, 65,536 flows, every slot moving");
            let row = self.many(&name, rig, &packet)?;
            // Each flow gets its entry.
            rig.borrow_mut().send(&row.course, MANY as u32)?;
        }
        self.opening("SYN of new flows, every slot moving", rig, v6, MANY)?;
        self.moving_oddly(rig, v6)
    }

    /// One flow each: others would take entries from the rows that open some.
    fn moving_oddly(&mut self, rig: &Shared, v6: bool) -> Result<()> {
        let to = |protocol| packet(vip(v6), protocol, tcp::ACK);
        let gue = if v6 { "GUE over IPv6" } else { "GUE" };
        let tunnelled = to(FlowProtocol::Tcp(443));
        self.row(&format!("TCP, established, {gue}, every slot moving"), rig, &tunnelled)?;
        let name = "too big for a path of 1,500 bytes, answered, every slot moving";
        self.answered(name, rig, &large(to(TCP), ETHERNET), None)?;
        let other = packet(backend(v6, 99), TCP, tcp::ACK);
        self.row("not a service's, every slot moving", rig, &other)?.meaning = Meaning::Passed;
        Ok(())
    }

    /// The same in 2 MiB of entries, of which there are none at first; and packets of the flows that have them then.
    fn in_small(&mut self, rig: &Shared, v6: bool) -> Result<()> {
        let [opening, established] = ["SYN of new flows", "TCP, established, 65,536 flows"]
            .map(|packets| format!("{packets}, every slot moving, 2 MiB of entries"));
        self.opening(&opening, rig, v6, MANY)?.moves_anew = true;
        let row = self.opening(&established, rig, v6, MANY)?;
        row.course.packet = packet(vip(v6), TCP, tcp::ACK);
        row.course.packet.bytes[row.course.packet.address_at] ^= 0x80;
        row.meaning = Meaning::Balanced;
        Ok(())
    }

    /// So many flows of a round, each of which is tracked.
    fn opening(&mut self, name: &str, rig: &Shared, v6: bool, flows: usize) -> Result<&mut Row> {
        let rounds = self.rounds;
        // Beside the flows of other rows.
        let mut opening = packet(vip(v6), TCP, tcp::SYN);
        opening.bytes[opening.address_at] ^= 0x80;
        let row = self.row(name, rig, &opening)?;
        (row.course.flows, row.course.next) = (flows * rounds, 1);
        row.sampling = Sampling::once(flows as u32 - 1);
        row.meaning = Meaning::Tracked;
        Ok(row)
    }
}

/// With options of TCP, whose length is one of words.
fn with_options(mut packet: Packet, options: &[u8]) -> Packet {
    let (transport, length_at) = if packet.bytes[12] == 8 { (34, 16) } else { (54, 18) };
    packet.bytes[transport + 12] += ((options.len() / 4) << 4) as u8;
    packet.bytes.splice(transport + 20..transport + 20, options.iter().copied());
    let length = &mut packet.bytes[length_at..length_at + 2];
    let longer = u16::from_be_bytes([length[0], length[1]]) + options.len() as u16;
    length.copy_from_slice(&longer.to_be_bytes());
    packet
}

/// One that its path doesn't carry.
fn large(mut packet: Packet, mtu: u16) -> Packet {
    let length = usize::from(mtu) + 80;
    packet.bytes.resize(14 + length, 0);
    let (at, length) = if packet.bytes[12] == 8 { (16, length) } else { (18, length - 40) };
    packet.bytes[at..at + 2].copy_from_slice(&(length as u16).to_be_bytes());
    packet
}
