//! What is measured.

use std::{cell::RefCell, error::Error, rc::Rc};

use flowgate_abi::DropReason;
use flowgate_benches::{
    course::Course,
    packets::{End, Packet, Version, syn},
    rig::{Fate, Object, Rig},
    sampling::Sampling,
};
use flowgate_conformance::frames::{Frame, tcp};
use flowgate_datapath::{Delivery, Options, Stage};
use flowgate_policy::outcome::{Flow, FlowProtocol};

use crate::row::{Meaning, Row, Shared};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const HOT: Sampling = Sampling::once(100_000);
/// So few events in a call that the reader is woken once.
const TOLD: Sampling = Sampling { runs: 2000, calls: 20, read: false };
const READ: Sampling = Sampling { runs: 30_000, calls: 1, read: true };
/// The source port of the connection of a row with one, and the first of many.
const PORT: u16 = 1024;
/// Flows of the rows with many.
const MANY: usize = 1 << 16;

const PASSES: Meaning = Meaning::Meets(Fate::Passed);
const DENIED: Meaning = Meaning::Meets(Fate::Dropped(DropReason::PolicyDefaultDeny));

/// All rows of one load of the programs, for so many rounds.
pub(crate) fn rows(object: &Object, rounds: usize) -> Result<Vec<Row>> {
    let rig = |delivery, options| rig(object.clone(), delivery, options);
    let quiet = rig(Delivery::Stack, silent())?;
    let redirecting = rig(Delivery::Redirect, silent())?;
    let loud = rig(Delivery::Stack, talkative())?;
    let full = rig(Delivery::Stack, sized(silent()))?;
    let fresh = rig(Delivery::Stack, sized(silent()))?;
    let telling = rig(Delivery::Stack, sized(talkative()))?;
    let mut rows = Vec::new();
    for version in [Version::V4, Version::V6] {
        let mut list = List { version, rows: Vec::new() };
        list.established(&quiet, &redirecting)?;
        list.many(&full)?;
        list.new_flows("new flow, no event", &fresh, Sampling::once((MANY / rounds) as u32));
        let told = Sampling { runs: 1000, calls: (MANY / rounds / 1000) as u32, read: false };
        list.new_flows("new flow, event told", &telling, told);
        list.denied(&quiet, &loud);
        list.other_protocols(&quiet)?;
        list.odd(&quiet)?;
        rows.append(&mut list.rows);
    }
    Ok(rows)
}

fn rig(object: Object, delivery: Delivery, options: Options) -> Result<Shared> {
    Ok(Rc::new(RefCell::new(Rig::new(object, delivery, options)?)))
}

fn silent() -> Options {
    Options { events_per_second: 0, ..Options::default() }
}

fn talkative() -> Options {
    Options { events_per_second: u32::MAX, event_bytes: 1 << 25, ..Options::default() }
}

/// With flow tables for as many flows as there will be.
fn sized(options: Options) -> Options {
    Options { flows4: MANY, flows6: MANY, ..options }
}

/// Rows of one IP version.
struct List {
    version: Version,
    rows: Vec<Row>,
}

impl List {
    /// Adds a row of one flow, and returns it.
    fn row(&mut self, name: &str, rig: &Shared, packet: Packet) -> &mut Row {
        let version = if self.version == Version::V4 { "IPv4" } else { "IPv6" };
        self.rows.push(Row {
            name: format!("{name}, {version}"),
            rig: Rc::clone(rig),
            stage: Stage::FromEndpoint,
            sampling: HOT,
            course: Course::of(&packet, 1),
            meaning: PASSES,
            refused: 0,
        });
        self.rows.last_mut().expect("just pushed")
    }

    /// The first packet of a flow of the client's.
    fn opening(&self, destination: End, protocol: FlowProtocol) -> Frame {
        let address = |end: End| end.address(self.version).parse().expect("an address");
        let (source, destination) = (address(End::Client), address(destination));
        let flow = Flow { source, destination, protocol };
        Frame { hops: 255, ..Frame::opening(flow, PORT) }
    }

    fn established(&mut self, quiet: &Shared, redirecting: &Shared) -> Result<()> {
        let outwards = syn(self.version, End::Client, End::World, PORT);
        quiet.borrow_mut().establish(&outwards, true, 1)?;
        let packet = Packet::new(&outwards.flags(tcp::ACK));
        self.row("established, to the world", quiet, packet);
        let answer = Packet::new(&outwards.answer().flags(tcp::ACK));
        let reply = self.row("established, reply from the world", quiet, answer);
        reply.stage = Stage::ToEndpoint;
        let inwards = syn(self.version, End::Client, End::Server, PORT);
        let packet = Packet::new(&inwards.flags(tcp::ACK));
        quiet.borrow_mut().establish(&inwards, false, 1)?;
        self.row("established, to a local endpoint by the stack", quiet, packet.clone());
        redirecting.borrow_mut().establish(&inwards, false, 1)?;
        let name = "established, redirected to a local endpoint";
        self.row(name, redirecting, packet).meaning = Meaning::Meets(Fate::Redirected);
        Ok(())
    }

    /// Flows that take turns, in a table of their own that is sized for them.
    fn many(&mut self, full: &Shared) -> Result<()> {
        let opening = syn(self.version, End::Client, End::World, PORT);
        full.borrow_mut().establish(&opening, true, MANY)?;
        let packet = Packet::new(&opening.flags(tcp::ACK));
        let row = self.row("established, 65,536 flows", full, packet);
        row.course.flows = MANY;
        row.sampling = Sampling::once(MANY as u32);
        Ok(())
    }

    /// Every packet opens another flow, in a table of their own that is sized for them.
    fn new_flows(&mut self, name: &str, fresh: &Shared, sampling: Sampling) {
        let opening = Packet::new(&syn(self.version, End::Client, End::World, PORT));
        let row = self.row(name, fresh, opening);
        row.course.flows = MANY;
        row.sampling = sampling;
        row.meaning = Meaning::Opens;
    }

    fn denied(&mut self, quiet: &Shared, loud: &Shared) {
        let packet = Packet::new(&syn(self.version, End::Client, End::Closed, PORT));
        self.row("denied, no event", quiet, packet.clone()).meaning = DENIED;
        for (name, sampling) in
            [("denied, event told", TOLD), ("denied, event read meanwhile", READ)]
        {
            let row = self.row(name, loud, packet.clone());
            row.meaning = DENIED;
            row.sampling = sampling;
        }
        // Judged each time, since a RST gets no entry.
        let reset = syn(self.version, End::Client, End::World, PORT + 1).flags(tcp::RST);
        self.row("allowed without an entry (RST)", quiet, Packet::new(&reset));
    }

    fn other_protocols(&mut self, quiet: &Shared) -> Result<()> {
        for (name, protocol) in
            [("UDP, answered", FlowProtocol::Udp(80)), ("SCTP, answered", FlowProtocol::Sctp(80))]
        {
            let opening = self.opening(End::World, protocol);
            quiet.borrow_mut().establish(&opening, true, 1)?;
            self.row(name, quiet, Packet::new(&opening));
        }
        let echo = match self.version {
            Version::V4 => FlowProtocol::Icmp { icmp_type: 8 },
            Version::V6 => FlowProtocol::Icmp6 { icmp_type: 128 },
        };
        let echo = self.opening(End::Server, echo);
        quiet.borrow_mut().establish(&echo, false, 1)?;
        self.row("ICMP echo, to a local endpoint by the stack", quiet, Packet::new(&echo));
        Ok(())
    }

    /// Around the flows that the rows before have opened.
    fn odd(&mut self, quiet: &Shared) -> Result<()> {
        let segment = syn(self.version, End::Client, End::World, PORT).flags(tcp::ACK);
        let segment = Packet::new(&segment);
        self.row("established, VLAN-tagged", quiet, segment.clone().tagged(VLAN));
        if self.version == Version::V6 {
            self.row("established, with a header of options", quiet, segment.with_options());
        }
        let datagram = Packet::new(&self.opening(End::World, FlowProtocol::Udp(80)));
        let first = datagram.clone().fragment(0, true);
        quiet.borrow_mut().send(&first, Stage::FromEndpoint)?;
        self.row("UDP, first fragment", quiet, first);
        self.row("UDP, later fragment", quiet, datagram.clone().fragment(100, false));
        if self.version == Version::V4 {
            self.row("ARP request", quiet, datagram.arp());
        }
        Ok(())
    }
}

/// Any number but 0.
const VLAN: u16 = 7;
