//! The steps of the decapsulator, in their order.

use flowgate_abi::{
    Be16, DropReason,
    decap::{Counter, NETWORKS, SERVICE, TUNNEL_END},
    lb::Target,
};

use super::{
    Ends, Fate, Inner, Outer, Wrapped, ecn,
    outer::{self, ETHERNET, Envelope, UDP},
};
use crate::{
    V4, V6,
    parse::Layer3,
    wire::protocol::{self, IPV4, IPV6},
};

/// Takes the outer headers off a frame that a balancer has sent to this backend.
#[inline(always)]
pub fn decapsulate<B: Wrapped, T: Ends>(frame: &mut B, ends: &T) -> Fate {
    match Layer3::of(frame.load(12).unwrap_or_default()) {
        Layer3::Ipv4 => in_family::<V4, B, T>(frame, ends),
        Layer3::Ipv6 => in_family::<V6, B, T>(frame, ends),
        _ => Fate::Pass,
    }
}

/// The steps for an outer header of a family.
#[inline(always)]
pub fn in_family<O: Outer, B: Wrapped, T: Ends>(frame: &mut B, ends: &T) -> Fate {
    let Some(outer) = O::envelope(frame) else { return Fate::Pass };
    let Some(tunnel) = tunnel::<O, B, T>(frame, &outer, ends) else { return Fate::Pass };
    if ends.role(&outer.destination) & TUNNEL_END == 0 {
        return Fate::Pass;
    }
    match open::<O, B, T>(frame, (&outer, tunnel), ends) {
        Ok(()) => Fate::Unwrapped,
        Err(reason) => {
            ends.count_drop(reason, outer.length);
            Fate::Drop(reason)
        }
    }
}

/// How a packet is in a tunnel.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tunnel {
    Ipv4,
    Ipv6,
    /// In UDP, which says that it has so many bytes.
    Gue {
        length: u32,
    },
}

/// By what an outer header says that it carries; `None`: it carries no packet.
#[inline(always)]
fn tunnel<O: Outer, B: Wrapped, T: Ends>(frame: &B, outer: &Envelope, ends: &T) -> Option<Tunnel> {
    match outer.protocol {
        IPV4 => Some(Tunnel::Ipv4),
        IPV6 => Some(Tunnel::Ipv6),
        protocol::UDP if !outer.is_later => {
            let udp = outer::udp::<O, B>(frame)?;
            let port = ends.settings().gue_port;
            let length = udp.rest.get() >> 16;
            (port != Be16::from_raw(0) && udp.destination == port).then_some(Tunnel::Gue { length })
        }
        _ => None,
    }
}

/// Everything about a packet in a tunnel to this backend.
#[inline(always)]
fn open<O: Outer, B: Wrapped, T: Ends>(
    frame: &mut B,
    (outer, tunnel): (&Envelope, Tunnel),
    ends: &T,
) -> Result<(), DropReason> {
    if !outer.bare {
        return Err(DropReason::UnsupportedOuter);
    }
    if !may_send(ends, &outer.source) {
        return Err(DropReason::UnknownBalancer);
    }
    let mut headers = O::BYTES;
    let mut is_ipv6 = tunnel == Tunnel::Ipv6;
    if let Tunnel::Gue { length } = tunnel {
        headers += UDP;
        // Variant 1: the IP packet's own version says which it is.
        let first: u8 = frame.load(ETHERNET + headers).ok_or(DropReason::MalformedPacket)?;
        is_ipv6 = first >> 4 == 6;
        if frame.is_super() {
            return Err(DropReason::SuperPacket);
        }
        if length + O::BYTES != outer.length {
            return Err(DropReason::MalformedPacket);
        }
    }
    let place = Place { headers, gue: matches!(tunnel, Tunnel::Gue { .. }) };
    if is_ipv6 {
        unwrap::<O, V6, B, T>(frame, (outer, place), ends)
    } else {
        unwrap::<O, V4, B, T>(frame, (outer, place), ends)
    }
}

/// Whether tunnels are taken from an address.
#[inline(always)]
fn may_send<T: Ends>(ends: &T, source: &Target) -> bool {
    let count = u32::from(ends.settings().networks);
    let mut index = 0;
    while index < NETWORKS {
        if index >= count {
            return count == 0;
        }
        if ends.network(index).is_some_and(|network| network.holds(source)) {
            return true;
        }
        index += 1;
    }
    false
}

/// Where the inner packet lies.
#[derive(Clone, Copy)]
struct Place {
    /// Bytes of headers between Ethernet's and it.
    headers: u32,
    gue: bool,
}

/// Looks at the inner packet, and lets it go on.
#[inline(always)]
fn unwrap<O: Outer, I: Inner, B: Wrapped, T: Ends>(
    frame: &mut B,
    (outer, place): (&Envelope, Place),
    ends: &T,
) -> Result<(), DropReason> {
    let at = ETHERNET + place.headers;
    let packet = I::packet(frame, at).ok_or(DropReason::MalformedPacket)?;
    // Balancers put nothing behind it; more would be packets that were put together.
    if packet.length + place.headers != outer.length {
        return Err(DropReason::MalformedPacket);
    }
    if packet.is_martian {
        return Err(DropReason::Martian);
    }
    if ends.role(&packet.destination) & SERVICE == 0 {
        return Err(DropReason::UnknownService);
    }
    if packet.hops == 0 {
        return Err(DropReason::HopsExceeded);
    }
    let ecn = ecn::combined(packet.ecn, outer.ecn)?;
    if ecn != packet.ecn {
        I::set_ecn(frame, at, ecn).ok_or(DropReason::NotDecapsulated)?;
    }
    if !frame.unwrap(place.headers, I::LAYER3) {
        return Err(DropReason::NotDecapsulated);
    }
    ends.count(Counter::of(O::NUMBER == 6, place.gue, I::NUMBER == 6), packet.length);
    if ecn != packet.ecn && ecn == ecn::CE {
        ends.count(Counter::CongestionMarked as u32, packet.length);
    }
    Ok(())
}
