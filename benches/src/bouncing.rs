//! Links from whose far end frames come back: what a program costs there, in the driver, with frames that really go
//! over a wire.
//!
//! The kernel makes frames at the node's end ([`live`]) and sends them; a program of XDP at the far end, which is in a
//! network namespace of its own, sends them back; what comes to the node's end is counted and dropped. Not here:
//! programs without a wire ([`crate::balancing`]).

use std::error::Error;

use aya::{
    Ebpf,
    maps::{Array, MapData, PerCpuArray, ProgramArray},
    programs::{Xdp, XdpMode},
};
use flowgate_lab::{Node, Pod};

use crate::{
    course::{Course, Element, MISSING, OBJECT},
    live,
};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const MAKER: &str = "xdp_next_frame";
const BOUNCE: &str = "xdp_bounce";
const SINK: &str = "xdp_sink";

/// What makes frames, and the node at whose links it does.
pub struct Source {
    node: Node,
    ebpf: Ebpf,
    course: Array<MapData, Element>,
    /// The kernel empties it when nobody holds it.
    _next: ProgramArray<MapData>,
}

/// A link of a node's.
pub struct Link {
    /// The far end.
    pub far: Pod,
    /// Of the node's end.
    arrived: PerCpuArray<MapData, u64>,
    /// They run as long as they are here.
    programs: Vec<Ebpf>,
}

impl Source {
    /// Moves this thread into a new node.
    ///
    /// # Errors
    /// The kernel refuses something of it.
    pub fn new() -> Result<Self> {
        let node = Node::enter()?;
        let mut ebpf = Ebpf::load(OBJECT)?;
        for name in [BOUNCE, MAKER] {
            xdp(&mut ebpf, name)?.load()?;
        }
        let mut next = ProgramArray::try_from(ebpf.take_map("TESTED_XDP").ok_or(MISSING)?)?;
        next.set(0, &xdp(&mut ebpf, BOUNCE)?.fd()?.try_clone()?, 0)?;
        let course = Array::try_from(ebpf.take_map("COURSE").ok_or(MISSING)?)?;
        Ok(Self { node, ebpf, course, _next: next })
    }

    /// Another link, on whose far end is nothing yet.
    ///
    /// # Errors
    /// The kernel refuses something of it.
    pub fn link(&mut self, name: &str) -> Result<Link> {
        let far = self.node.add_pod(name, &[])?;
        let mut ebpf = Ebpf::load(OBJECT)?;
        attach(&mut ebpf, SINK, far.host_interface())?;
        let arrived = PerCpuArray::try_from(ebpf.take_map("ARRIVED").ok_or(MISSING)?)?;
        Ok(Link { far, arrived, programs: vec![ebpf] })
    }

    /// Sends frames and gets them back, from the course's next flow on; nanoseconds for each.
    ///
    /// # Errors
    /// The kernel doesn't send them, or not all come back.
    pub fn send(&mut self, link: &Link, course: &mut Course, frames: u32) -> Result<f64> {
        self.node.namespace().join()?;
        self.course.set(0, course.element(), 0)?;
        let before = link.arrived()?;
        let maker = xdp(&mut self.ebpf, MAKER)?;
        let took = live::send(maker, course, (link.far.host_interface_index(), frames))?;
        course.next = (course.next + frames as usize) % course.flows;
        match link.arrived()? - before {
            back if back < u64::from(frames) => {
                Err(format!("of {frames} frames {back} came back").into())
            }
            // Neighbour discovery may have come by.
            _ => Ok(took.as_nanos() as f64 / f64::from(frames)),
        }
    }
}

impl Link {
    /// Puts a program at the far end that sends frames back and does no more.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn bounce(&mut self) -> Result<()> {
        let mut ebpf = Ebpf::load(OBJECT)?;
        self.far.run(|| attach(&mut ebpf, BOUNCE, self.far.interface()))??;
        self.programs.push(ebpf);
        Ok(())
    }

    fn arrived(&self) -> Result<u64> {
        Ok(self.arrived.get(&0, 0)?.iter().sum())
    }
}

fn attach(ebpf: &mut Ebpf, name: &str, interface: &str) -> Result<()> {
    let program = xdp(ebpf, name)?;
    program.load()?;
    program.attach(interface, XdpMode::Driver)?;
    Ok(())
}

fn xdp<'e>(ebpf: &'e mut Ebpf, name: &str) -> Result<&'e mut Xdp> {
    Ok(ebpf.program_mut(name).ok_or(MISSING)?.try_into()?)
}
