//! Backends' lines: the outer headers of their packets, finished but for what differs from packet to
//! packet.

use std::net::IpAddr;

use flowgate_abi::{
    Shared64,
    lb::{Backend as Line, Kind, Tail},
};

use crate::{
    Uplink,
    adopt::{LAYER2_ADDRESS, LAYER2_FAMILY},
    model::{Backend, BackendState, Forwarding, NextHop, Service},
};

/// The family of what a packet to a backend carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Inner {
    V4,
    V6,
}

impl Inner {
    /// That of a service's address.
    pub(crate) const fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    const fn protocol(self) -> u8 {
        match self {
            Self::V4 => 4,
            Self::V6 => 41,
        }
    }
}

/// The line of a backend for packets to one of its service's addresses: what the balancer's tables have, for
/// somebody else who sends to the backend as clients' packets are sent.
#[must_use]
pub fn line_to(service: &Service, backend: &Backend, address: IpAddr, uplink: &Uplink) -> Line {
    line(service, backend, Inner::of(address), uplink)
}

const ETHERNET: usize = 14;
const UDP: u8 = 17;
const HOPS: u8 = 64;

/// The line of a backend for packets of a family.
pub(crate) fn line(service: &Service, backend: &Backend, inner: Inner, uplink: &Uplink) -> Line {
    let forwarding = service.forwarding;
    let mut bytes = [0u8; 56];
    let (mac, flags) = match (backend.next_hop, uplink.gateway) {
        (NextHop::Mac(mac), _) | (NextHop::Gateway, Some(mac)) => (mac, 0),
        (NextHop::Gateway, None) => ([0; 6], Tail::TO_SENDER),
    };
    bytes[..6].copy_from_slice(&mac);
    let room = uplink.mtu_to(backend).saturating_sub(forwarding.overhead(backend.address));
    let (port, protocol) = match forwarding {
        Forwarding::Gue { port } => (port, UDP),
        Forwarding::Snat => (backend.port, 0),
        Forwarding::Tunnel | Forwarding::Layer2 => (0, inner.protocol()),
    };
    let (entropy, sum) = match (forwarding, backend.address) {
        (Forwarding::Layer2 | Forwarding::Snat, address) => {
            keep_address(&mut bytes, address);
            (0, 0)
        }
        (_, IpAddr::V4(to)) => {
            let prefix = uplink.source4;
            write4(&mut bytes, protocol, [prefix.network().octets(), to.octets()]);
            ((32 - u32::from(prefix.prefix_len())).min(16), sum(&bytes[ETHERNET..ETHERNET + 20]))
        }
        (_, IpAddr::V6(to)) => {
            let prefix = uplink.source6;
            write6(&mut bytes, protocol, [prefix.network().octets(), to.octets()]);
            ((128 - u32::from(prefix.prefix_len())).min(32), 0)
        }
    };
    let tail = Tail::new(kind(forwarding, backend.address), sum, room, port.to_be());
    let fails = if backend.state == BackendState::Quarantined { Tail::FAILS } else { 0 };
    let tail = tail.with_entropy(entropy).with(flags).with(fails);
    Line { header: zerocopy::transmute!(bytes), tail: Shared64::new(tail.0) }
}

/// By it, the next process knows whose line it is, and full NAT where packets go to.
fn keep_address(bytes: &mut [u8; 56], address: IpAddr) {
    let kept = &mut bytes[LAYER2_ADDRESS..];
    match address {
        IpAddr::V4(v4) => kept[..4].copy_from_slice(&v4.octets()),
        IpAddr::V6(v6) => kept[..16].copy_from_slice(&v6.octets()),
    }
    bytes[LAYER2_FAMILY] = if address.is_ipv4() { 4 } else { 6 };
}

const fn kind(forwarding: Forwarding, address: IpAddr) -> Kind {
    match (forwarding, address) {
        (Forwarding::Tunnel, IpAddr::V4(_)) => Kind::Tunnel4,
        (Forwarding::Tunnel, IpAddr::V6(_)) => Kind::Tunnel6,
        (Forwarding::Gue { .. }, IpAddr::V4(_)) => Kind::Gue4,
        (Forwarding::Gue { .. }, IpAddr::V6(_)) => Kind::Gue6,
        (Forwarding::Layer2, _) => Kind::Layer2,
        (Forwarding::Snat, _) => Kind::Snat,
    }
}

/// IPv4: don't fragment, identification 0 (RFC 6864).
fn write4(bytes: &mut [u8; 56], protocol: u8, [from, to]: [[u8; 4]; 2]) {
    bytes[12..14].copy_from_slice(&[0x08, 0x00]);
    bytes[14..24].copy_from_slice(&[0x45, 0, 0, 0, 0, 0, 0x40, 0, HOPS, protocol]);
    bytes[26..30].copy_from_slice(&from);
    bytes[30..34].copy_from_slice(&to);
}

fn write6(bytes: &mut [u8; 56], protocol: u8, [from, to]: [[u8; 16]; 2]) {
    bytes[12..14].copy_from_slice(&[0x86, 0xdd]);
    bytes[14..22].copy_from_slice(&[0x60, 0, 0, 0, 0, 0, protocol, HOPS]);
    bytes[22..38].copy_from_slice(&from);
    bytes[38..54].copy_from_slice(&to);
}

/// The one's-complement sum of 16-bit words, as they lie in memory.
fn sum(bytes: &[u8]) -> u16 {
    let sum: u32 =
        bytes.chunks(2).map(|word| u32::from(u16::from_ne_bytes([word[0], word[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    ((folded & 0xffff) + (folded >> 16)) as u16
}
