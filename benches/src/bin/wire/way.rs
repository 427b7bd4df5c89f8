//! A way from one pod to another, and what sends packets along it.

use std::{net::IpAddr, time::Instant};

use aya::{
    Ebpf,
    maps::{Array, MapData, PerCpuArray},
    programs::{
        LinkOrder, SchedClassifier, TcAttachType, TestRun, TestRunAttrs, TestRunOptions, Xdp,
        XdpMode, tc::TcAttachOptions,
    },
};
use flowgate_benches::{
    course::{Course, Element, OBJECT},
    packets::{End, Packet, Version},
};
use flowgate_conformance::frames::Frame;
use flowgate_lab::{Node, Pod};
use flowgate_policy::outcome::{Flow, FlowProtocol};

use crate::Result;

/// Frames of a batch, as a driver would poll them.
const BATCH: u32 = 64;
/// Ports from here on.
const PORT: u16 = 1024;

/// Two pods on a node, with a source of frames at one end and a sink at the other.
pub(crate) struct Way {
    pub(crate) node: Node,
    pub(crate) client: Pod,
    pub(crate) server: Pod,
    /// Programs at the node's end of the client's link, and at the server's interface.
    source: Ebpf,
    sink: Ebpf,
    course: Array<MapData, Element>,
    arrived: PerCpuArray<MapData, u64>,
}

impl Way {
    /// Moves this thread into the new node.
    pub(crate) fn new() -> Result<Self> {
        let mut node = Node::enter()?;
        let address = |end: End| end.address(Version::V4).parse::<IpAddr>();
        let client = node.add_pod(End::Client.name(), &[address(End::Client)?])?;
        let server = node.add_pod(End::Server.name(), &[address(End::Server)?])?;
        let (mut source, mut sink) = (Ebpf::load(OBJECT)?, Ebpf::load(OBJECT)?);
        // The kernel makes live frames for interfaces with such a program alone.
        let program: &mut Xdp = source.program_mut(SOURCE).ok_or(MISSING)?.try_into()?;
        program.load()?;
        program.attach(client.host_interface(), XdpMode::Driver)?;
        server.run(|| put(&mut sink, SINK, server.interface()))??;
        let course = Array::try_from(source.take_map("COURSE").ok_or(MISSING)?)?;
        let arrived = PerCpuArray::try_from(sink.take_map("ARRIVED").ok_or(MISSING)?)?;
        Ok(Self { node, client, server, source, sink, course, arrived })
    }

    /// Puts a program of the bench's at the node's end of the client's link.
    pub(crate) fn put_at_once(&mut self, program: &'static str) -> Result<()> {
        let mut target: Array<_, u64> =
            Array::try_from(self.source.map_mut("TARGET").ok_or(MISSING)?)?;
        target.set(0, u64::from(self.server.host_interface_index()), 0)?;
        put(&mut self.source, program, self.client.host_interface())
    }

    /// The sink, at the node's end of the client's link: packets end where they begin.
    pub(crate) fn sink_at_once(&mut self) -> Result<()> {
        let program: &mut SchedClassifier =
            self.sink.program_mut(SINK).ok_or(MISSING)?.try_into()?;
        attach(program, self.client.host_interface())
    }

    /// The client's packets to the server, of so many flows.
    pub(crate) fn course(&self, flows: usize) -> Result<Course> {
        let address = |end: End| end.address(Version::V4).parse();
        let (source, destination) = (address(End::Client)?, address(End::Server)?);
        let flow = Flow { source, destination, protocol: FlowProtocol::Udp(80) };
        let mut packet = Packet::new(&Frame::opening(flow, PORT));
        packet.bytes[..6].copy_from_slice(&self.client.host_mac().0);
        packet.bytes[6..12].copy_from_slice(&self.client.mac().0);
        // When source ports end, the next destination port.
        packet.address_at = packet.port_at + 2;
        Ok(Course::of(&packet, flows))
    }

    /// Sends packets, from the course's next flow on; nanoseconds for each.
    pub(crate) fn send(&mut self, course: &mut Course, packets: u32) -> Result<f64> {
        self.node.namespace().join()?;
        self.course.set(0, course.element(), 0)?;
        let before = self.arrived()?;
        let context = [0, course.packet.bytes.len() as u32, 0, self.client.host_interface_index()];
        let context: Vec<u8> =
            context.into_iter().chain([0, 0]).flat_map(u32::to_ne_bytes).collect();
        let options = TestRunOptions {
            data_in: Some(&course.packet.bytes),
            ctx_in: Some(&context),
            repeat: packets,
            attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
            ..TestRunOptions::default()
        };
        let program: &mut Xdp = self.source.program_mut(SOURCE).ok_or(MISSING)?.try_into()?;
        let start = Instant::now();
        program.test_run(options)?;
        let took = start.elapsed();
        course.next = (course.next + packets as usize) % course.flows;
        match self.arrived()? - before {
            arrived if arrived < u64::from(packets) => {
                Err(format!("of {packets} packets {arrived} arrived").into())
            }
            // Neighbour discovery may have come by.
            _ => Ok(took.as_nanos() as f64 / f64::from(packets)),
        }
    }

    fn arrived(&self) -> Result<u64> {
        Ok(self.arrived.get(&0, 0)?.iter().sum())
    }
}

const SOURCE: &str = "xdp_next_packet";
const SINK: &str = "tc_sink";
const MISSING: &str = "the bench's object isn't what it should be";

/// Loads a program and attaches it to what comes in by an interface of this network namespace.
fn put(ebpf: &mut Ebpf, name: &str, interface: &str) -> Result<()> {
    let program: &mut SchedClassifier = ebpf.program_mut(name).ok_or(MISSING)?.try_into()?;
    program.load()?;
    attach(program, interface)
}

fn attach(program: &mut SchedClassifier, interface: &str) -> Result<()> {
    let order = TcAttachOptions::TcxOrder(LinkOrder::default());
    program.attach_with_options(interface, TcAttachType::Ingress, order)?;
    Ok(())
}
