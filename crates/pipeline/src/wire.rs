//! Headers as they lie on the wire: natural alignment, byte order in the type, no methods that
//! decide anything.

use flowgate_abi::{Addr4, Addr6, Be16, Be32, EtherAddr};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// EtherType of IPv4 (RFC 894).
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// EtherType of a tag (IEEE 802.1Q).
pub const ETHERTYPE_TAG: u16 = 0x8100;
/// EtherType of a service provider's tag (IEEE 802.1ad).
pub const ETHERTYPE_SERVICE_TAG: u16 = 0x88a8;
/// EtherType of ARP (RFC 826).
pub const ETHERTYPE_ARP: u16 = 0x0806;
/// EtherType of IPv6 (RFC 2464).
pub const ETHERTYPE_IPV6: u16 = 0x86dd;

/// IP protocol numbers.
pub mod protocol {
    /// RFC 792.
    pub const ICMP: u8 = 1;
    /// IPv4 inside (RFC 2003).
    pub const IPV4: u8 = 4;
    /// IPv6 inside (RFC 2473).
    pub const IPV6: u8 = 41;
    /// RFC 9293.
    pub const TCP: u8 = 6;
    /// RFC 768.
    pub const UDP: u8 = 17;
    /// RFC 4443.
    pub const ICMPV6: u8 = 58;
    /// RFC 9260.
    pub const SCTP: u8 = 132;
    /// Hop-by-hop options of IPv6 (RFC 8200, section 4.3).
    pub const HOP_BY_HOP: u8 = 0;
    /// The routing header of IPv6 (RFC 8200, section 4.4).
    pub const ROUTING: u8 = 43;
    /// The fragment header of IPv6 (RFC 8200, section 4.5).
    pub const FRAGMENT: u8 = 44;
    /// The authentication header (RFC 4302).
    pub const AUTHENTICATION: u8 = 51;
    /// Destination options of IPv6 (RFC 8200, section 4.6).
    pub const DESTINATION_OPTIONS: u8 = 60;
    /// The mobility header (RFC 6275).
    pub const MOBILITY: u8 = 135;
    /// The host identity protocol (RFC 7401).
    pub const HIP: u8 = 139;
    /// Shim6 (RFC 5533).
    pub const SHIM6: u8 = 140;
}

/// TCP flags (RFC 9293, section 3.1).
pub mod tcp {
    /// No more data from the sender.
    pub const FIN: u8 = 1;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 2;
    /// Reset the connection.
    pub const RST: u8 = 4;
    /// The acknowledgement field counts.
    pub const ACK: u8 = 16;
}

/// Ethernet II.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Ethernet {
    /// To whom.
    pub destination: EtherAddr,
    /// From whom.
    pub source: EtherAddr,
    /// What is inside.
    pub ethertype: Be16,
}

/// A tag inside of a frame (IEEE 802.1Q); the type in front of it is Ethernet's.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Tag {
    /// Priority, drop eligibility, VLAN.
    pub control: Be16,
    /// What is inside.
    pub ethertype: Be16,
}

/// ARP for IPv4 over Ethernet (RFC 826).
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Arp {
    /// Ethernet: 1.
    pub hardware: Be16,
    /// IPv4: its EtherType.
    pub protocol: Be16,
    /// Bytes of an Ethernet address and of an IPv4 address.
    pub lengths: [u8; 2],
    /// Request or reply.
    pub operation: Be16,
    /// Whose Ethernet address the sender says this is.
    pub sender_mac: EtherAddr,
    /// Whose IPv4 address the sender says this is, in halves.
    pub sender: [Be16; 2],
    /// Whom it asks or answers.
    pub target_mac: EtherAddr,
    /// Whose Ethernet address it asks for, in halves.
    pub target: [Be16; 2],
}

/// The start of an IPv6 extension header (RFC 8200, section 4); the whole of a fragment header.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Extension {
    /// What comes next.
    pub next_header: u8,
    /// Units of 8 bytes behind these 8; the authentication header: units of 4 bytes, less 2.
    pub length: u8,
    /// Fragment: offset in bytes, and in the last bit whether more follow. Routing: type, and
    /// segments left.
    pub middle: Be16,
    /// Fragment: what names the datagram.
    pub identification: Be32,
}

/// IPv4 without its options (RFC 791).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Ipv4 {
    /// Version (4 bits) and length in words of 32 bits (4 bits).
    pub version_length: u8,
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// Bytes of header and payload.
    pub total_length: Be16,
    /// Names the datagram that a fragment belongs to.
    pub identification: Be16,
    /// Flags (3 bits: reserved, don't fragment, more fragments) and offset in units of 8 bytes.
    pub fragment: Be16,
    /// Hops left.
    pub ttl: u8,
    /// What is inside.
    pub protocol: u8,
    /// Over the header alone.
    pub checksum: Be16,
    /// From whom.
    pub source: Addr4,
    /// To whom.
    pub destination: Addr4,
}

/// IPv6 (RFC 8200).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Ipv6 {
    /// Version (4 bits), traffic class, flow label.
    pub version_class_label: Be32,
    /// Bytes behind this header.
    pub payload_length: Be16,
    /// What is inside.
    pub next_header: u8,
    /// Hops left.
    pub hop_limit: u8,
    /// From whom.
    pub source: Addr6,
    /// To whom.
    pub destination: Addr6,
}

/// TCP without its options (RFC 9293).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Tcp {
    /// From which port.
    pub source: Be16,
    /// To which port.
    pub destination: Be16,
    /// Number of the first byte.
    pub sequence: Be32,
    /// Number of the next byte expected.
    pub acknowledgement: Be32,
    /// Length in words of 32 bits (high 4 bits).
    pub data_offset: u8,
    /// [`tcp`]'s flags.
    pub flags: u8,
    /// Bytes that the sender will take.
    pub window: Be16,
    /// Over pseudo header, header and payload.
    pub checksum: Be16,
    /// Where urgent data ends.
    pub urgent: Be16,
}

/// The ports, in front of UDP, SCTP and TCP alike, and what follows them in UDP.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Ports {
    /// From which port.
    pub source: Be16,
    /// To which port.
    pub destination: Be16,
    /// UDP: length and checksum. SCTP: the verification tag. TCP: the sequence number.
    pub rest: Be32,
}

/// ICMP and ICMPv6 (RFC 792, RFC 4443).
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Icmp {
    /// The type.
    pub icmp_type: u8,
    /// The code.
    pub code: u8,
    /// Over the message (ICMPv6: and a pseudo header).
    pub checksum: Be16,
    /// Queries: the identifier.
    pub identifier: Be16,
    /// Queries: the sequence number.
    pub sequence: Be16,
}

const _: () = assert!(size_of::<Tag>() == 4 && size_of::<Arp>() == 28);
const _: () = assert!(size_of::<Extension>() == 8 && size_of::<Ethernet>() == 14);
const _: () = assert!(size_of::<Ipv4>() == 20);
const _: () = assert!(size_of::<Ipv6>() == 40 && size_of::<Tcp>() == 20);
const _: () = assert!(size_of::<Ports>() == 8 && size_of::<Icmp>() == 8);
