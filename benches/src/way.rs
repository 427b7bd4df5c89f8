//! A way from one pod to another, and what sends packets along it.
//!
//! The kernel makes the frames (`BPF_F_TEST_XDP_LIVE_FRAMES`) and takes them for received on the node's
//! end of the client's link; a program at the server's own interface counts and drops them. All of it is
//! in network namespaces of the way's own.

use std::{error::Error, net::IpAddr};

use aya::{
    Ebpf,
    maps::{Array, MapData, PerCpuArray},
    programs::{LinkOrder, SchedClassifier, TcAttachType, Xdp, XdpMode, tc::TcAttachOptions},
};
use flowgate_conformance::frames::Frame;
use flowgate_lab::{Node, Pod};
use flowgate_policy::outcome::{Flow, FlowProtocol};

use crate::{
    course::{Course, Element, MISSING, OBJECT, load_with_targets},
    live,
    packets::{End, Packet, Version, syn},
};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Ports from here on.
const PORT: u16 = 1024;

/// Two pods on a node, with a source of frames at one end and a sink at the other.
pub struct Way {
    /// Which has no link to the outside.
    pub node: Node,
    /// [`End::Client`].
    pub client: Pod,
    /// [`End::Server`].
    pub server: Pod,
    /// The program of `source` that makes frames.
    maker: &'static str,
    /// Programs at the node's end of the client's link, and at the server's interface.
    source: Ebpf,
    sink: Ebpf,
    course: Array<MapData, Element>,
    arrived: PerCpuArray<MapData, u64>,
}

impl Way {
    /// Moves this thread into the new node.
    ///
    /// # Errors
    /// The kernel refuses something of it.
    pub fn new() -> Result<Self> {
        Self::start(Ebpf::load(OBJECT)?, "xdp_next_packet")
    }

    /// Each flow has a destination of its own, of which there are as many as flows; all of them are
    /// routed to the server.
    ///
    /// # Errors
    /// The kernel refuses something of it.
    pub fn to_targets(targets: &[IpAddr]) -> Result<Self> {
        let source = load_with_targets(targets).map_err(|error| error.to_string())?;
        let mut way = Self::start(source, "xdp_next_target")?;
        for family in [4, 6] {
            way.node.route_rest_to(&way.server, family)?;
        }
        Ok(way)
    }

    fn start(mut source: Ebpf, maker: &'static str) -> Result<Self> {
        let mut node = Node::enter()?;
        let mut add = |end: End| {
            let addresses = [Version::V4, Version::V6].map(|version| end.address(version).parse());
            let [v4, v6] = addresses;
            Ok::<_, Box<dyn Error + Send + Sync>>(node.add_pod(end.name(), &[v4?, v6?])?)
        };
        let (client, server) = (add(End::Client)?, add(End::Server)?);
        let mut sink = Ebpf::load(OBJECT)?;
        // The kernel makes live frames for interfaces with such a program alone.
        let program: &mut Xdp = source.program_mut(maker).ok_or(MISSING)?.try_into()?;
        program.load()?;
        program.attach(client.host_interface(), XdpMode::Driver)?;
        server.run(|| put(&mut sink, SINK, server.interface()))??;
        let course = Array::try_from(source.take_map("COURSE").ok_or(MISSING)?)?;
        let arrived = PerCpuArray::try_from(sink.take_map("ARRIVED").ok_or(MISSING)?)?;
        Ok(Self { node, client, server, maker, source, sink, course, arrived })
    }

    /// Puts a program of the bench's at the node's end of the client's link.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn put_at_once(&mut self, program: &'static str) -> Result<()> {
        let mut target: Array<_, u64> =
            Array::try_from(self.source.map_mut("TARGET").ok_or(MISSING)?)?;
        target.set(0, u64::from(self.server.host_interface_index()), 0)?;
        put(&mut self.source, program, self.client.host_interface())
    }

    /// The sink, at the node's end of the client's link: packets end where they begin.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn sink_at_once(&mut self) -> Result<()> {
        let program: &mut SchedClassifier =
            self.sink.program_mut(SINK).ok_or(MISSING)?.try_into()?;
        attach(program, self.client.host_interface())
    }

    /// The client's packets to the server, of so many flows.
    ///
    /// # Errors
    /// Never: the addresses are right.
    pub fn course(&self, flows: usize) -> Result<Course> {
        let address = |end: End| end.address(Version::V4).parse();
        let (source, destination) = (address(End::Client)?, address(End::Server)?);
        let flow = Flow { source, destination, protocol: FlowProtocol::Udp(80) };
        let mut packet = self.clients_packet(&Frame::opening(flow, PORT));
        // When source ports end, the next destination port.
        packet.address_at = packet.port_at + 2;
        Ok(Course::of(&packet, flows))
    }

    /// Openings of so many connections of the client's to the world.
    #[must_use]
    pub fn openings(&self, version: Version, flows: usize) -> Course {
        let opening = syn(version, End::Client, End::World, PORT);
        Course::of(&self.clients_packet(&opening), flows)
    }

    fn clients_packet(&self, frame: &Frame) -> Packet {
        let mut packet = Packet::new(frame);
        packet.bytes[..6].copy_from_slice(&self.client.host_mac().0);
        packet.bytes[6..12].copy_from_slice(&self.client.mac().0);
        packet
    }

    /// Sends packets, from the course's next flow on; nanoseconds for each.
    ///
    /// # Errors
    /// The kernel doesn't send them, or not all arrive.
    pub fn send(&mut self, course: &mut Course, packets: u32) -> Result<f64> {
        self.node.namespace().join()?;
        self.course.set(0, course.element(), 0)?;
        let before = self.arrived()?;
        let program: &mut Xdp = self.source.program_mut(self.maker).ok_or(MISSING)?.try_into()?;
        let took = live::send(program, course, (self.client.host_interface_index(), packets))?;
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

const SINK: &str = "tc_sink";

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
