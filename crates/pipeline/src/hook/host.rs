//! A packet's way through either hook on the host.

use flowgate_abi::{Be16, DropReason, event::Hook};

use super::{Frame, from_endpoint, not_ip, to_endpoint};
use crate::{
    FlowTable, Packet, SliceCursor, V4, V6, Verdict,
    parse::{self, Layer3, Link, Parse},
};

/// Runs a frame through a hook. Bytes don't change here: see [`super::route`].
///
/// The eBPF programs make the same choices at their entry, to give each family a subprogram.
pub fn run<T: FlowTable<V4> + FlowTable<V6>>(
    bytes: &[u8],
    ifindex: u32,
    hook: Hook,
    tables: &T,
) -> Verdict {
    let outermost = bytes.get(12..14).map_or(0, |at| u16::from_be_bytes([at[0], at[1]]));
    let link = parse::link(&bytes, Be16::new(outermost));
    let frame = Frame { length: bytes.len() as u32, ifindex, hook };
    match link.layer3 {
        Layer3::Ipv4 => ip::<V4, T>(bytes, link, frame, tables),
        Layer3::Ipv6 => ip::<V6, T>(bytes, link, frame, tables),
        _ => not_ip(SliceCursor::new(bytes), link, frame, tables),
    }
}

fn ip<F: Parse, T: FlowTable<F>>(bytes: &[u8], link: Link, frame: Frame, tables: &T) -> Verdict {
    let mut packet = Packet::unread();
    let read = read(bytes, link, frame, tables, &mut packet);
    let packet = read.map(|()| &packet);
    match frame.hook {
        Hook::ToEndpoint => to_endpoint::<F, T>(packet, frame, tables),
        _ => from_endpoint::<F, T>(packet, frame, tables),
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
