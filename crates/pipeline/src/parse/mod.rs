//! Reads a packet's headers once, into a [`Packet`].
//!
//! Two readers: [`plain`] for what nearly every packet is, by direct access and with few checks, and
//! [`whole`] for everything. Where [`plain`] takes a packet, [`whole`] reads the same from it
//! (`plain_reads_what_whole_reads`).
//!
//! Invariants: ports come from a transport header that is there, or, for a later fragment, from that
//! of its datagram's first; a protocol without ports has none, so no port rule matches it.

mod icmp;
mod link;
mod network;
mod whole;

use flowgate_abi::{Be16, DropReason, EtherAddr};

pub use icmp::Role;
pub(crate) use icmp::icmp;
pub use link::{Layer3, Link, arp, link};
pub use network::{Fragment, Network, Parse};
pub use whole::whole;

use crate::{
    Cursor, Family,
    family::Tuple,
    wire::{Ethernet, Ports, Tcp, protocol},
};

/// A packet's headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<F: Family> {
    /// Both ends, the protocol, the ports.
    pub tuple: Tuple<F::Addr>,
    /// Who sent the packet: the tuple's source, but for an error and for neighbour discovery.
    pub sender: F::Addr,
    /// To whom the packet goes.
    pub receiver: F::Addr,
    /// The Ethernet address that it came from.
    pub mac: EtherAddr,
    /// Where in the frame the network header begins.
    pub network: u16,
    /// Where in the frame the transport's header begins; 0: it isn't there, for this is a later fragment.
    pub transport: u16,
    /// Hops left before this one.
    pub hops: u8,
    /// The TCP flags; 0 for other protocols and for later fragments.
    pub tcp_flags: u8,
    /// What it means to its flow.
    pub role: Role,
    /// Its frame has a tag.
    pub tagged: bool,
}

impl<F: Family> Packet<F> {
    /// Nothing read yet.
    #[inline(always)]
    #[must_use]
    pub fn unread() -> Self {
        Self {
            tuple: Tuple::default(),
            sender: F::Addr::default(),
            receiver: F::Addr::default(),
            mac: EtherAddr::default(),
            network: 0,
            transport: 0,
            hops: 0,
            tcp_flags: 0,
            role: Role::Any,
            tagged: false,
        }
    }

    /// No transport header read yet.
    #[inline(always)]
    fn clear_transport(&mut self) {
        self.tuple.source_port = Be16::from_raw(0);
        self.tuple.destination_port = Be16::from_raw(0);
        self.tuple.icmp_type = 0;
        self.tcp_flags = 0;
        self.role = Role::Any;
    }
}

/// Reads a packet that is like most: no tags, options, extension headers or fragments, and TCP or
/// UDP inside. `false`: this isn't one, and [`whole`] has to read it. Writes every field.
#[inline(always)]
pub fn plain<F: Parse, C: Cursor>(cursor: &mut C, link: Link, packet: &mut Packet<F>) -> bool {
    if link.tags > 0 {
        return false;
    }
    let Some(ethernet) = cursor.take::<Ethernet>() else { return false };
    packet.mac = ethernet.source;
    packet.network = size_of::<Ethernet>() as u16;
    packet.transport = packet.network + F::HEADER;
    packet.tagged = link.tagged;
    packet.clear_transport();
    if !F::plain(cursor, packet) {
        return false;
    }
    packet.sender = packet.tuple.source;
    packet.receiver = packet.tuple.destination;
    match packet.tuple.protocol {
        protocol::TCP => tcp(cursor, packet).is_ok(),
        protocol::UDP => ports(cursor, &mut packet.tuple).is_ok(),
        _ => false,
    }
}

#[inline(always)]
fn tcp<F: Family, C: Cursor>(cursor: &mut C, packet: &mut Packet<F>) -> Result<(), DropReason> {
    let header: Tcp = cursor.take().ok_or(DropReason::MalformedPacket)?;
    if header.data_offset >> 4 < 5 {
        return Err(DropReason::MalformedPacket);
    }
    packet.tuple.source_port = header.source;
    packet.tuple.destination_port = header.destination;
    packet.tcp_flags = header.flags;
    Ok(())
}

#[inline(always)]
pub(crate) fn ports<A, C: Cursor>(cursor: &mut C, tuple: &mut Tuple<A>) -> Result<(), DropReason> {
    let header: Ports = cursor.take().ok_or(DropReason::MalformedPacket)?;
    tuple.source_port = header.source;
    tuple.destination_port = header.destination;
    Ok(())
}
