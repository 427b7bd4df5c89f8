//! A packet to a service, as far as the balancer reads it.

use flowgate_abi::{Be16, DropReason, lb::Target};

use super::Buffer;
use crate::{
    Cursor, Family, Skip, V4, V6,
    family::Tuple,
    hook::Route,
    parse::{self, Fragment, Packet, Parse, Role},
    wire::{self, Ethernet, Ipv4, Ipv6, Tcp, protocol},
};

/// A packet that comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<F: Family> {
    /// From the client to the service; for an ICMP error that of the quoted packet, turned round, so that
    /// it is the client's as well.
    pub tuple: Tuple<F::Addr>,
    /// The address that it was sent to.
    pub receiver: F::Addr,
    /// Bytes from its IP header on.
    pub length: u32,
    /// The TCP flags; 0 for other protocols.
    pub tcp_flags: u8,
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// Hops left before this one.
    pub hops: u8,
    /// What it means to its flow.
    pub role: Role,
    /// Where it lies in its datagram.
    pub place: Fragment,
    /// It has neither options nor extension headers.
    pub bare: bool,
}

impl<F: Balanceable> Request<F> {
    /// Nothing read yet.
    #[inline(always)]
    #[must_use]
    pub fn unread() -> Self {
        Self {
            tuple: Tuple::default(),
            receiver: F::Addr::default(),
            length: 0,
            tcp_flags: 0,
            traffic_class: 0,
            hops: 0,
            role: Role::Any,
            place: Fragment::WHOLE,
            bare: true,
        }
    }

    /// It opens a flow: a SYN that acknowledges nothing.
    #[inline(always)]
    #[must_use]
    pub fn opens(&self) -> bool {
        self.tcp_flags & (wire::tcp::SYN | wire::tcp::ACK) == wire::tcp::SYN
    }

    /// It ends the client's half of a flow, or all of it.
    #[inline(always)]
    #[must_use]
    pub fn closes(&self) -> bool {
        self.tcp_flags & (wire::tcp::FIN | wire::tcp::RST) != 0
    }

    /// Whose packets these are.
    #[inline(always)]
    #[must_use]
    pub fn target(&self) -> Target {
        F::target(self.tuple.destination, self.tuple.destination_port, self.tuple.protocol)
    }
}

/// What the balancer needs of a family.
pub trait Balanceable: Parse + Route {
    /// Protocol number of this family's packets inside of another packet.
    const INSIDE: u8;
    /// Where the transport's header begins in a frame with no more than the usual headers.
    const TRANSPORT: u32;
    /// Where the payload of UDP begins in such a frame.
    const DATAGRAM: u32 = Self::TRANSPORT + 8;

    /// Reads a header without options, extension headers or fragment; `false`: it isn't one.
    fn read_plain<C: Cursor>(cursor: &mut C, request: &mut Request<Self>) -> bool;
    /// Reads what [`Parse::network`] leaves out: length, traffic class.
    fn read_envelope<C: Cursor>(cursor: &mut C, request: &mut Request<Self>) -> Option<()>;
    /// A target of this family.
    fn target(address: Self::Addr, port: Be16, protocol: u8) -> Target;
    /// The hash by which a target is found.
    fn target_hash(target: &Target) -> u64;
    /// The hash of a flow, by the seed of its frontend. As even as siphash on structured addresses; not
    /// for attackers who know the seed.
    fn flow_hash(tuple: &Tuple<Self::Addr>, seed: u64) -> u64;
}

/// Reads a packet that is like most: TCP or UDP, nothing special. `None`: this isn't one.
#[inline(always)]
pub fn plain<F: Balanceable, B: Buffer>(buffer: &B) -> Option<Request<F>> {
    let mut cursor = buffer.head();
    let _: Ethernet = cursor.take()?;
    plain_packet(&mut cursor)
}

/// The same, from the network header on.
#[inline(always)]
pub fn plain_packet<F: Balanceable, C: Cursor>(cursor: &mut C) -> Option<Request<F>> {
    let mut request = Request::unread();
    if !F::read_plain(cursor, &mut request) {
        return None;
    }
    request.receiver = request.tuple.destination;
    let read = match request.tuple.protocol {
        protocol::TCP => tcp(cursor, &mut request),
        protocol::UDP => parse::ports(cursor, &mut request.tuple),
        _ => return None,
    };
    read.is_ok().then_some(request)
}

#[inline(always)]
fn tcp<F: Balanceable, C: Cursor>(
    cursor: &mut C,
    request: &mut Request<F>,
) -> Result<(), DropReason> {
    let header: Tcp = cursor.take().ok_or(DropReason::MalformedPacket)?;
    if header.data_offset >> 4 < 5 {
        return Err(DropReason::MalformedPacket);
    }
    request.tuple.source_port = header.source;
    request.tuple.destination_port = header.destination;
    request.tcp_flags = header.flags;
    Ok(())
}

/// Reads any packet's network header; what is behind it is read by [`transport`].
///
/// # Errors
/// The reason for which it can't be balanced.
#[inline(always)]
pub fn network<F: Balanceable, B: Buffer>(
    buffer: &B,
    cursor: &mut B::Whole<'_>,
    request: &mut Request<F>,
) -> Result<(), DropReason> {
    let mut first = buffer.whole();
    let read = first.take::<Ethernet>().and_then(|_| F::read_envelope(&mut first, request));
    read.ok_or(DropReason::MalformedPacket)?;
    cursor.take::<Ethernet>().ok_or(DropReason::MalformedPacket)?;
    let network = F::network(cursor, &mut request.tuple)?;
    request.hops = network.hops;
    request.place = network.fragment;
    request.receiver = request.tuple.destination;
    Ok(())
}

/// Reads the transport's header of any packet that isn't a later fragment.
///
/// # Errors
/// The reason for which it can't be balanced.
#[inline(always)]
pub fn transport<F: Balanceable, C: Skip>(
    cursor: &mut C,
    request: &mut Request<F>,
) -> Result<(), DropReason> {
    match request.tuple.protocol {
        protocol::TCP => tcp(cursor, request),
        protocol::UDP => parse::ports(cursor, &mut request.tuple),
        p if p == F::ICMP => icmp(cursor, request),
        _ => Err(DropReason::UnsupportedProtocol),
    }
}

#[inline(always)]
fn icmp<F: Balanceable, C: Skip>(
    cursor: &mut C,
    request: &mut Request<F>,
) -> Result<(), DropReason> {
    let mut packet = Packet::<F>::unread();
    packet.tuple = request.tuple;
    packet.sender = request.tuple.source;
    packet.receiver = request.receiver;
    packet.hops = request.hops;
    parse::icmp(cursor, &mut packet)?;
    request.tuple = packet.tuple;
    request.role = packet.role;
    Ok(())
}

/// Two rounds of xorshift and multiply.
#[inline(always)]
const fn mix(hash: u64) -> u64 {
    let first = (hash ^ hash >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
    let second = (first ^ first >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
    second ^ second >> 32
}

/// A hash of three words: two rounds of xorshift and multiply.
#[inline(always)]
pub const fn mix3(first: u64, second: u64, third: u64) -> u64 {
    mix(first.wrapping_mul(0x9e37_79b9_7f4a_7c15)
        ^ second.rotate_left(29).wrapping_mul(0xc2b2_ae3d_27d4_eb4f)
        ^ third)
}

/// Both ports, behind 32 bits of something else.
#[inline(always)]
fn ports<A>(tuple: &Tuple<A>) -> u64 {
    u64::from(tuple.source_port.raw()) << 32 | u64::from(tuple.destination_port.raw()) << 48
}

/// More fragments, and the offset.
const FRAGMENTED: u16 = 0x3fff;

impl Balanceable for V4 {
    const INSIDE: u8 = 4;
    const TRANSPORT: u32 = 14 + 20;

    #[inline(always)]
    fn read_plain<C: Cursor>(cursor: &mut C, request: &mut Request<Self>) -> bool {
        let Some(header) = cursor.take::<Ipv4>() else { return false };
        envelope4(&header, request);
        request.hops = header.ttl;
        request.tuple.source = header.source;
        request.tuple.destination = header.destination;
        request.tuple.protocol = header.protocol;
        header.version_length == 0x45 && header.fragment.get() & FRAGMENTED == 0
    }

    #[inline(always)]
    fn read_envelope<C: Cursor>(cursor: &mut C, request: &mut Request<Self>) -> Option<()> {
        envelope4(&cursor.take()?, request);
        Some(())
    }

    #[inline(always)]
    fn target(address: Self::Addr, port: Be16, protocol: u8) -> Target {
        let [first, last] = Self::wide(address);
        Target {
            address: flowgate_abi::Addr6 { first, last },
            kind: Target::kind(port, protocol, Self::NUMBER),
        }
    }

    #[inline(always)]
    fn target_hash(target: &Target) -> u64 {
        mix(target.address.first | target.kind << 32)
    }

    #[inline(always)]
    fn flow_hash(tuple: &Tuple<Self::Addr>, seed: u64) -> u64 {
        mix((u64::from(tuple.source.raw()) | ports(tuple)) ^ seed)
    }
}

#[inline(always)]
fn envelope4(header: &Ipv4, request: &mut Request<V4>) {
    request.length = u32::from(header.total_length.get());
    request.traffic_class = header.traffic_class;
    request.bare = header.version_length == 0x45;
}

impl Balanceable for V6 {
    const INSIDE: u8 = 41;
    const TRANSPORT: u32 = 14 + 40;

    #[inline(always)]
    fn read_plain<C: Cursor>(cursor: &mut C, request: &mut Request<Self>) -> bool {
        let Some(header) = cursor.take::<Ipv6>() else { return false };
        envelope6(&header, request);
        request.hops = header.hop_limit;
        request.tuple.source = header.source;
        request.tuple.destination = header.destination;
        request.tuple.protocol = header.next_header;
        header.version_class_label.get() >> 28 == 6
    }

    #[inline(always)]
    fn read_envelope<C: Cursor>(cursor: &mut C, request: &mut Request<Self>) -> Option<()> {
        envelope6(&cursor.take()?, request);
        Some(())
    }

    #[inline(always)]
    fn target(address: Self::Addr, port: Be16, protocol: u8) -> Target {
        Target { address, kind: Target::kind(port, protocol, Self::NUMBER) }
    }

    #[inline(always)]
    fn target_hash(target: &Target) -> u64 {
        mix3(target.address.first, target.address.last, target.kind)
    }

    #[inline(always)]
    fn flow_hash(tuple: &Tuple<Self::Addr>, seed: u64) -> u64 {
        mix3(tuple.source.first, tuple.source.last, ports(tuple) ^ seed)
    }
}

#[inline(always)]
fn envelope6(header: &Ipv6, request: &mut Request<V6>) {
    request.length = u32::from(header.payload_length.get()) + size_of::<Ipv6>() as u32;
    request.traffic_class = (header.version_class_label.get() >> 20) as u8;
    request.bare = header.next_header == V6::ICMP;
}
