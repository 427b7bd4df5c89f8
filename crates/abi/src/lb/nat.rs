//! Full NAT: which port of a source address a flow has, and what its packets become in either direction.
//!
//! ABI: a port's place in the table is its number, so what a reply belongs to is one load, and no two
//! flows can share a port. Which ports are taken is a bit for each; who finds a bit clear and sets it, at
//! once, has the port.

use crate::{Addr6, Shared64};

/// Ports whose bits lie in one word.
pub const GROUP: u32 = 64;
/// Ports that there may be at all: a flow's word names its port in 26 bits.
pub const MAX_PORTS: u32 = 1 << 26;

/// A place, which a source may have: an address from which packets to backends come. And apart from that, which
/// place's turn is here in each of two lists of those whose ports new flows get.
///
/// ABI: packets go by one of the lists ([`Active`]), and the other is written meanwhile; so sources change all
/// at once. Places of IPv4 come first, in both lists as well.
#[repr(C)]
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    zerocopy::FromBytes,
    zerocopy::IntoBytes,
    zerocopy::Immutable,
    zerocopy::KnownLayout,
)]
pub struct Source {
    /// The address; an IPv4 address lies in the first word's first four bytes. Zero: nobody has the place.
    pub address: Addr6,
    /// For each list, the number of a place.
    pub turns: [u32; 2],
}

/// Whose ports new flows get: which list is valid ([`Source::turns`]), and how many places of each family it names.
///
/// Bits 0 to 30: of IPv4; 32 to 62: of IPv6; 63: the list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Active(pub u64);

impl Active {
    const COUNT: u64 = 0x7fff_ffff;

    /// Of its parts; of the list's number the lowest bit counts.
    #[inline(always)]
    #[must_use]
    pub const fn new(list: u32, [v4, v6]: [u32; 2]) -> Self {
        Self(v4 as u64 & Self::COUNT | (v6 as u64 & Self::COUNT) << 32 | (list as u64) << 63)
    }

    /// The list, 0 or 1.
    #[inline(always)]
    #[must_use]
    pub const fn list(self) -> u32 {
        (self.0 >> 63) as u32
    }

    /// Places of IPv4.
    #[inline(always)]
    #[must_use]
    pub const fn v4(self) -> u32 {
        (self.0 & Self::COUNT) as u32
    }

    /// Places of IPv6.
    #[inline(always)]
    #[must_use]
    pub const fn v6(self) -> u32 {
        (self.0 >> 32 & Self::COUNT) as u32
    }
}

/// A port of a source: the flow that has it.
///
/// ABI: two cache lines. Addresses lie as in [`Source`], ports in network order. A word is written by the
/// port's owner before `life` is, and not again until the port has another one.
#[repr(C)]
#[cfg_attr(
    not(target_arch = "bpf"),
    derive(Debug, Default, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout)
)]
pub struct Translation {
    /// [`Life`].
    pub life: Shared64,
    /// The hash of the flow, from the client's side.
    pub hash: Shared64,
    /// The client's address.
    pub client: [Shared64; 2],
    /// The address that the client knows.
    pub service: [Shared64; 2],
    /// The backend's address.
    pub backend: [Shared64; 2],
    /// The address that the backend knows.
    pub source: [Shared64; 2],
    /// [`Ports`].
    pub ports: Shared64,
    /// [`Way`].
    pub way: Shared64,
    /// The backend's number within its service.
    pub number: Shared64,
    /// Zero.
    pub reserved: [Shared64; 3],
}

/// The ports of a flow as they lie in memory: client's, service's, backend's, source's, 16 bits each from
/// the low end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ports(pub u64);

impl Ports {
    /// Of its parts.
    #[inline(always)]
    #[must_use]
    pub const fn new(client: u16, service: u16, backend: u16, source: u16) -> Self {
        Self(
            client as u64 | (service as u64) << 16 | (backend as u64) << 32 | (source as u64) << 48,
        )
    }

    /// The client's.
    #[inline(always)]
    #[must_use]
    pub const fn client(self) -> u16 {
        self.0 as u16
    }

    /// The service's.
    #[inline(always)]
    #[must_use]
    pub const fn service(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// The backend's.
    #[inline(always)]
    #[must_use]
    pub const fn backend(self) -> u16 {
        (self.0 >> 32) as u16
    }

    /// The source's.
    #[inline(always)]
    #[must_use]
    pub const fn source(self) -> u16 {
        (self.0 >> 48) as u16
    }
}

/// The way back to the client: the Ethernet address that delivered its first packet, in the low 48 bits as
/// it lies at a frame's start, and the flow's protocol above.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Way(pub u64);

impl Way {
    const ADDRESS: u64 = (1 << 48) - 1;

    /// Of its parts; `mac` is the first word of a frame, seen as little-endian.
    #[inline(always)]
    #[must_use]
    pub const fn new(mac: u64, protocol: u8) -> Self {
        Self(mac & Self::ADDRESS | (protocol as u64) << 48)
    }

    /// The Ethernet address, in the low 48 bits.
    #[inline(always)]
    #[must_use]
    pub const fn mac(self) -> u64 {
        self.0 & Self::ADDRESS
    }

    /// The IP protocol.
    #[inline(always)]
    #[must_use]
    pub const fn protocol(self) -> u8 {
        (self.0 >> 48) as u8
    }
}

/// What a flow has come to, and when it was seen: 0: the port is nobody's, or its owner is done.
///
/// Bits 0 to 31: when, in units of [`Life::UNIT`] milliseconds of the balancer's clock; 32 to 61:
/// [`crate::flow::state`]; 62: it is of datagrams, not of TCP; 63: it lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Life(pub u64);

impl Life {
    /// Milliseconds that it tells apart.
    pub const UNIT: u64 = 1 << Self::UNIT_BITS;
    const UNIT_BITS: u32 = 8;
    const LIVES: u64 = 1 << 63;
    const DATAGRAMS: u64 = 1 << 62;
    const STATE: u64 = 0x3fff_ffff;

    /// The moment that a clock shows.
    #[inline(always)]
    #[must_use]
    pub const fn moment(millis: u64) -> u32 {
        (millis >> Self::UNIT_BITS) as u32
    }

    /// A live flow in a state, seen at a moment.
    #[inline(always)]
    #[must_use]
    pub const fn new(is_tcp: bool, state: u32, moment: u32) -> Self {
        let kind = if is_tcp { 0 } else { Self::DATAGRAMS };
        Self(Self::LIVES | kind | (state as u64 & Self::STATE) << 32 | moment as u64)
    }

    /// It is a connection's.
    #[inline(always)]
    #[must_use]
    pub const fn is_tcp(self) -> bool {
        self.0 & Self::DATAGRAMS == 0
    }

    /// There is a flow.
    #[inline(always)]
    #[must_use]
    pub const fn lives(self) -> bool {
        self.0 & Self::LIVES != 0
    }

    /// Bits of [`crate::flow::state`].
    #[inline(always)]
    #[must_use]
    pub const fn state(self) -> u32 {
        (self.0 >> 32 & Self::STATE) as u32
    }

    /// When it was seen.
    #[inline(always)]
    #[must_use]
    pub const fn seen(self) -> u32 {
        self.0 as u32
    }
}

/// A word by which a client's flow finds its port, in a [`super::Bucket`] like that of a tracked flow.
///
/// Bits 0 to 25: the port's index among all; 26 to 63: part of the flow's hash. 0: a free cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mapping(pub u64);

impl Mapping {
    const INDEX: u64 = MAX_PORTS as u64 - 1;

    /// Of a flow's hash, and the index of its port.
    ///
    /// ABI: a word of index 0 whose hash has no bit in these 38 would be a free cell: that hash is
    /// another one.
    #[inline(always)]
    #[must_use]
    pub const fn new(hash: u64, index: u32) -> Self {
        let part = hash & !Self::INDEX;
        let part = if part == 0 { Self::INDEX + 1 } else { part };
        Self(part | index as u64 & Self::INDEX)
    }

    /// It may be the same flow's.
    #[inline(always)]
    #[must_use]
    pub const fn is(self, other: Self) -> bool {
        (self.0 ^ other.0) & !Self::INDEX == 0
    }

    /// The index of its port.
    #[inline(always)]
    #[must_use]
    pub const fn index(self) -> u32 {
        (self.0 & Self::INDEX) as u32
    }
}

const _: () = assert!(size_of::<Translation>() == 128 && size_of::<Source>() == 24);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_keep_their_parts_apart() {
        let ports = Ports::new(1, 2, 3, 0xffff);
        let parts = (ports.client(), ports.service(), ports.backend(), ports.source());
        assert_eq!(parts, (1, 2, 3, 0xffff));
        let way = Way::new(u64::MAX, 17);
        assert_eq!((way.mac(), way.protocol()), ((1 << 48) - 1, 17));
        let life = Life::new(true, u32::MAX, u32::MAX);
        assert_eq!((life.state(), life.seen(), life.lives()), (0x3fff_ffff, u32::MAX, true));
        assert!(life.is_tcp() && !Life::new(false, 0, 0).is_tcp());
        assert!(Life::new(true, 0, 0).lives() && !Life::default().lives());
        assert_eq!(Life::moment(511), 1);
    }

    #[test]
    fn lists_and_counts_keep_apart() {
        let most = 0x7fff_ffff;
        for (list, counts) in [(0, [1, 2]), (1, [most, 0]), (1, [0, most])] {
            let active = Active::new(list, counts);
            assert_eq!((active.list(), [active.v4(), active.v6()]), (list, counts));
        }
        assert_eq!(Active::default(), Active::new(0, [0, 0]));
    }

    #[test]
    fn no_mapping_is_a_free_cell() {
        let mapping = Mapping::new(3, 0);
        assert_ne!(mapping.0, 0);
        assert!(mapping.is(Mapping::new(3, MAX_PORTS - 1)));
        assert!(!mapping.is(Mapping::new(1 << 27, 0)));
        assert_eq!(Mapping::new(u64::MAX, 12).index(), 12);
    }
}
