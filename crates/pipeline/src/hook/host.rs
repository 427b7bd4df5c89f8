//! A packet's way through either hook on the host.

use flowgate_abi::{Be16, DropReason, event::Hook, policy::Response};

use super::{Frame, FrameBytes, from_endpoint, not_ip, to_endpoint};
use crate::{
    FlowTable, Packet, SliceCursor, V4, V6, Verdict,
    answer::{Answers, Refused, Reshape, answer},
    parse::{self, Layer3, Link, Parse},
};

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ran {
    /// What happens to it. A redirected frame's bytes haven't changed yet: see [`super::route`].
    pub verdict: Verdict,
    /// It is the answer now, which goes back to its sender.
    pub answered: bool,
}

/// Runs a frame through a hook. Bytes don't change, and nobody is answered.
///
/// The eBPF programs make the same choices at their entry, to give each family a subprogram.
pub fn run<T>(bytes: &[u8], ifindex: u32, hook: Hook, tables: &T) -> Verdict
where
    T: FlowTable<V4> + FlowTable<V6>,
{
    let (link, frame) = meet(bytes, ifindex, hook);
    match link.layer3 {
        Layer3::Ipv4 => ip::<V4, T>(bytes, link, (frame, tables), &mut Packet::unread()),
        Layer3::Ipv6 => ip::<V6, T>(bytes, link, (frame, tables), &mut Packet::unread()),
        _ => not_ip(SliceCursor::new(bytes), link, frame, tables),
    }
}

/// Likewise, and makes a frame that is dropped its answer, if there is one.
pub fn run_and_answer<B, T>(bytes: &mut B, ifindex: u32, hook: Hook, tables: &T) -> Ran
where
    B: Reshape + AsRef<[u8]>,
    T: FlowTable<V4> + FlowTable<V6>,
{
    let (link, frame) = meet(bytes.as_ref(), ifindex, hook);
    match link.layer3 {
        Layer3::Ipv4 => answering::<V4, B, T>(bytes, link, frame, tables),
        Layer3::Ipv6 => answering::<V6, B, T>(bytes, link, frame, tables),
        _ => {
            let verdict = not_ip(SliceCursor::new(bytes.as_ref()), link, frame, tables);
            Ran { verdict, answered: false }
        }
    }
}

fn meet(bytes: &[u8], ifindex: u32, hook: Hook) -> (Link, Frame) {
    let link = parse::link(&bytes, bytes.load(12).unwrap_or(Be16::new(0)));
    (link, Frame { length: bytes.len() as u32, ifindex, hook })
}

fn answering<F, B, T>(bytes: &mut B, link: Link, frame: Frame, tables: &T) -> Ran
where
    F: Answers,
    B: Reshape + AsRef<[u8]>,
    T: FlowTable<F>,
{
    let mut packet = Packet::unread();
    let verdict = ip::<F, T>(bytes.as_ref(), link, (frame, tables), &mut packet);
    let response = Response::from_number(tables.response());
    let answered = matches!(verdict, Verdict::Drop(_))
        && response != Response::Silence
        && answer(tables, &Refused { frame, packet: &packet, response }, bytes);
    Ran { verdict, answered }
}

fn ip<F: Parse, T: FlowTable<F>>(
    bytes: &[u8],
    link: Link,
    (frame, tables): (Frame, &T),
    packet: &mut Packet<F>,
) -> Verdict {
    tables.note_response(Response::Silence as u8);
    let read = read(bytes, link, frame, tables, packet);
    let read = read.map(|()| &*packet);
    match frame.hook {
        Hook::ToEndpoint => to_endpoint::<F, T>(read, frame, tables),
        _ => from_endpoint::<F, T>(read, frame, tables),
    }
}

fn read<F: Parse, T: FlowTable<F>>(
    bytes: &[u8],
    link: Link,
    frame: Frame,
    tables: &T,
    packet: &mut Packet<F>,
) -> Result<(), DropReason> {
    if parse::plain(&mut SliceCursor::new(bytes), link, packet) {
        return Ok(());
    }
    parse::whole(&mut SliceCursor::new(bytes), link, (frame, tables), packet)
}
