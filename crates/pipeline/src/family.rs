//! What differs between IPv4 and IPv6, so that everything else is written once.

use flowgate_abi::{
    Addr4, Addr6, Be16, Be32,
    endpoint::Endpoint,
    flow::{Bucket4, Bucket6, Flow, Way4, Way6},
    ipcache::{ROOT, ROOT_BITS},
    policy::PortTable,
};
use flowgate_abi::{Shared32, Shared64};

use crate::wire::{Ipv4, Ipv6, protocol};

/// An address family.
pub trait Family: Copy + core::fmt::Debug + PartialEq + 'static {
    /// An address, as it lies in memory.
    type Addr: Copy + PartialEq + Default + zerocopy::FromBytes;
    /// The canonical tuple: see [`Family::key`].
    type Key: Copy + Default;
    /// A bucket of this family's flow table.
    type Bucket: Bucket<Way = Self::Way>;
    /// A way of such a bucket.
    type Way: Way<Self>;

    /// 4 or 6.
    const NUMBER: u8;
    /// The ICMP of this family.
    const ICMP: u8;
    /// Bytes of the network header, without what may follow it.
    const HEADER: u16;
    /// Type of an echo request, and of the reply to it.
    const ECHO: [u8; 2];
    /// The first node of this family's root in the ipcache.
    const IPCACHE_ROOT: u32;
    /// Nodes that a look-up in the ipcache visits at most: but for the last one, each is done with four
    /// bits or more.
    const IPCACHE_DEPTH: u32;

    /// 64 bits of an address, from bit `at` (less than 128) on, counted from the left; zeros follow it.
    fn bits(address: &Self::Addr, at: u32) -> u64;
    /// The endpoint's address of this family; zero: it has none.
    fn address(endpoint: &Endpoint) -> Self::Addr;
    /// Neighbour discovery may come from this address, whoever the endpoint is.
    fn is_link_scoped(address: Self::Addr) -> bool;
    /// No packet on a wire may come from this address: unspecified, loopback, multicast, reserved.
    fn is_martian_source(address: Self::Addr) -> bool;
    /// No packet on a wire may go to this address: unspecified, loopback. Multicast and broadcast are
    /// destinations like any other.
    fn is_martian_destination(address: Self::Addr) -> bool;
    /// The peer index of that address.
    fn peer(endpoint: &Endpoint) -> u32;
    /// The canonical key of a tuple: the smaller of the two ends comes first, so that both
    /// directions of a connection have one key. `true`: the source is the second end.
    fn key(tuple: &Tuple<Self::Addr>) -> (Self::Key, bool);
    /// The tuple of a key, from the first end to the second.
    fn tuple(key: &Self::Key) -> Tuple<Self::Addr>;
    /// A hash of a key: multiply and xorshift over its words. Not for attackers who know the seed.
    fn hash(key: &Self::Key, seed: u64) -> u64;
    /// An address in an event.
    fn wide(addr: Self::Addr) -> [u64; 2];
    /// The index of an ICMP type in [`PortTable::Other`].
    fn icmp_port(icmp_type: u8) -> u16;
}

/// Access to the head of a bucket; the ways are reached through [`crate::FlowTable::way`].
pub trait Bucket {
    /// Its way.
    type Way;
    /// Part of the hash of each way; 0: free.
    fn tags(&self) -> &[Shared32; 7];
    /// The age of each way.
    fn ages(&self) -> &[Shared32; 7];
    /// The ways.
    fn ways(&self) -> &[Self::Way; 7];
    /// Not 0: an entry had to go to its second choice.
    fn spilled(&self) -> &Shared32;
}

/// Access to a way.
pub trait Way<F: Family> {
    /// It holds this key now.
    fn holds(&self, key: &F::Key) -> bool;
    /// Makes it hold a key.
    fn set_key(&self, key: &F::Key);
    /// The key that it holds.
    fn key(&self) -> F::Key;
    /// What is known of the connection.
    fn flow(&self) -> &Flow;
}

/// Both ends of a packet or of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tuple<A> {
    /// From whom.
    pub source: A,
    /// To whom.
    pub destination: A,
    /// From which port; the identifier of the ICMP query that it sends.
    pub source_port: Be16,
    /// To which port; the identifier of the ICMP query that it has sent.
    pub destination_port: Be16,
    /// The IP protocol.
    pub protocol: u8,
    /// For an ICMP query or its reply the type of the query; otherwise 0.
    pub icmp_type: u8,
}

impl<A: Copy> Tuple<A> {
    /// Seen from the other end.
    #[inline(always)]
    #[must_use]
    pub fn reversed(&self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            ..*self
        }
    }

    /// Protocol and ICMP type as they lie in a key's last word.
    #[inline(always)]
    fn kind(&self) -> u64 {
        (self.protocol as u64) << 24 | (self.icmp_type as u64) << 16
    }
}

#[inline(always)]
fn port_word(first: Be16, second: Be16, kind: u64) -> u64 {
    (first.raw() as u64) << 48 | (second.raw() as u64) << 32 | kind
}

#[inline(always)]
fn mix(hash: u64, word: u64) -> u64 {
    let mixed = (hash ^ word).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed ^ mixed >> 32
}

#[inline(always)]
fn finish(hash: u64) -> u64 {
    let mixed = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    mixed ^ mixed >> 29
}

macro_rules! bucket_access {
    ($family:ty, $bucket:ty, $way:ty, $($word:literal)+) => {
        impl Bucket for $bucket {
            type Way = $way;
            #[inline(always)]
            fn tags(&self) -> &[Shared32; 7] {
                &self.tags
            }
            #[inline(always)]
            fn ages(&self) -> &[Shared32; 7] {
                &self.ages
            }
            #[inline(always)]
            fn ways(&self) -> &[$way; 7] {
                &self.ways
            }
            #[inline(always)]
            fn spilled(&self) -> &Shared32 {
                &self.spilled
            }
        }

        impl Way<$family> for $way {
            #[inline(always)]
            fn holds(&self, key: &<$family as Family>::Key) -> bool {
                true $(&& Shared64::load(&self.key[$word]) == key[$word])+
            }
            #[inline(always)]
            fn set_key(&self, key: &<$family as Family>::Key) {
                $(self.key[$word].store(key[$word]);)+
            }
            #[inline(always)]
            fn key(&self) -> <$family as Family>::Key {
                [$(self.key[$word].load()),+]
            }
            #[inline(always)]
            fn flow(&self) -> &Flow {
                &self.flow
            }
        }
    };
}

bucket_access!(V4, Bucket4, Way4, 0 1);
bucket_access!(V6, Bucket6, Way6, 0 1 2 3 4);

/// IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum V4 {}

impl Family for V4 {
    type Addr = Addr4;
    type Key = [u64; 2];
    type Bucket = Bucket4;
    type Way = Way4;
    const NUMBER: u8 = 4;
    const ICMP: u8 = protocol::ICMP;
    const HEADER: u16 = size_of::<Ipv4>() as u16;
    const ECHO: [u8; 2] = [8, 0];
    const IPCACHE_ROOT: u32 = 0;
    const IPCACHE_DEPTH: u32 = (32 - ROOT_BITS as u32) / 4;

    #[inline(always)]
    fn bits(address: &Addr4, at: u32) -> u64 {
        ((address.get() as u64) << 32).wrapping_shl(at)
    }

    #[inline(always)]
    fn address(endpoint: &Endpoint) -> Addr4 {
        endpoint.addr4
    }

    #[inline(always)]
    fn is_link_scoped(_address: Addr4) -> bool {
        false
    }

    /// 0/8, 127/8, and 224/3 whole (RFC 6890).
    #[inline(always)]
    fn is_martian_source(address: Addr4) -> bool {
        address.get() >= 0xe000_0000 || Self::is_martian_destination(address)
    }

    #[inline(always)]
    fn is_martian_destination(address: Addr4) -> bool {
        address.get() >> 24 == 0 || address.get() >> 24 == 127
    }

    #[inline(always)]
    fn peer(endpoint: &Endpoint) -> u32 {
        endpoint.peer4.load()
    }

    #[inline(always)]
    fn key(tuple: &Tuple<Addr4>) -> ([u64; 2], bool) {
        let source = (tuple.source.raw() as u64) << 16 | tuple.source_port.raw() as u64;
        let destination =
            (tuple.destination.raw() as u64) << 16 | tuple.destination_port.raw() as u64;
        let (first, second) =
            if source <= destination { (source, destination) } else { (destination, source) };
        let addresses = (first >> 16) << 32 | second >> 16;
        let ports = (first & 0xffff) << 48 | (second & 0xffff) << 32 | tuple.kind();
        ([addresses, ports], source > destination)
    }

    #[inline(always)]
    fn tuple(key: &[u64; 2]) -> Tuple<Addr4> {
        Tuple {
            source: Be32::from_raw((key[0] >> 32) as u32),
            destination: Be32::from_raw(key[0] as u32),
            source_port: Be16::from_raw((key[1] >> 48) as u16),
            destination_port: Be16::from_raw((key[1] >> 32) as u16),
            protocol: (key[1] >> 24) as u8,
            icmp_type: (key[1] >> 16) as u8,
        }
    }

    #[inline(always)]
    fn hash(key: &[u64; 2], seed: u64) -> u64 {
        finish(mix(mix(seed, key[0]), key[1]))
    }

    #[inline(always)]
    fn wide(addr: Addr4) -> [u64; 2] {
        [
            if cfg!(target_endian = "little") {
                addr.raw() as u64
            } else {
                (addr.raw() as u64) << 32
            },
            0,
        ]
    }

    #[inline(always)]
    fn icmp_port(icmp_type: u8) -> u16 {
        PortTable::icmp4(icmp_type)
    }
}

/// IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum V6 {}

impl Family for V6 {
    type Addr = Addr6;
    type Key = [u64; 5];
    type Bucket = Bucket6;
    type Way = Way6;
    const NUMBER: u8 = 6;
    const ICMP: u8 = protocol::ICMPV6;
    const HEADER: u16 = size_of::<Ipv6>() as u16;
    const ECHO: [u8; 2] = [128, 129];
    const IPCACHE_ROOT: u32 = ROOT;
    const IPCACHE_DEPTH: u32 = (128 - ROOT_BITS as u32) / 4;

    #[inline(always)]
    fn bits(address: &Addr6, at: u32) -> u64 {
        let (first, last) = (u64::from_be(address.first), u64::from_be(address.last));
        if at < 64 { first << at | last >> 1 >> (63 - at) } else { last.wrapping_shl(at) }
    }

    #[inline(always)]
    fn address(endpoint: &Endpoint) -> Addr6 {
        endpoint.addr6
    }

    /// Link-local (`fe80::/10`), or the unspecified address of duplicate address detection.
    #[inline(always)]
    fn is_link_scoped(address: Addr6) -> bool {
        u64::from_be(address.first) >> 54 == 0x3fa || (address.first | address.last) == 0
    }

    /// `::`, `::1`, `::ffff:0:0/96`, and `ff00::/8` (RFC 4291).
    #[inline(always)]
    fn is_martian_source(address: Addr6) -> bool {
        u64::from_be(address.first) >> 56 == 0xff || Self::is_martian_destination(address)
    }

    #[inline(always)]
    fn is_martian_destination(address: Addr6) -> bool {
        let last = u64::from_be(address.last);
        address.first == 0 && (last <= 1 || last >> 32 == 0xffff)
    }

    #[inline(always)]
    fn peer(endpoint: &Endpoint) -> u32 {
        endpoint.peer6.load()
    }

    #[inline(always)]
    fn key(tuple: &Tuple<Addr6>) -> ([u64; 5], bool) {
        let (source, destination) = (tuple.source, tuple.destination);
        let reverse = if source.first != destination.first {
            source.first > destination.first
        } else if source.last != destination.last {
            source.last > destination.last
        } else {
            tuple.source_port.raw() > tuple.destination_port.raw()
        };
        let (a, b) = if reverse { (destination, source) } else { (source, destination) };
        let (source, destination) = (tuple.source_port, tuple.destination_port);
        let (ap, bp) = if reverse { (destination, source) } else { (source, destination) };
        ([a.first, a.last, b.first, b.last, port_word(ap, bp, tuple.kind())], reverse)
    }

    #[inline(always)]
    fn tuple(key: &[u64; 5]) -> Tuple<Addr6> {
        Tuple {
            source: Addr6 { first: key[0], last: key[1] },
            destination: Addr6 { first: key[2], last: key[3] },
            source_port: Be16::from_raw((key[4] >> 48) as u16),
            destination_port: Be16::from_raw((key[4] >> 32) as u16),
            protocol: (key[4] >> 24) as u8,
            icmp_type: (key[4] >> 16) as u8,
        }
    }

    #[inline(always)]
    fn hash(key: &[u64; 5], seed: u64) -> u64 {
        finish(mix(mix(mix(mix(mix(seed, key[0]), key[1]), key[2]), key[3]), key[4]))
    }

    #[inline(always)]
    fn wide(addr: Addr6) -> [u64; 2] {
        [addr.first, addr.last]
    }

    #[inline(always)]
    fn icmp_port(icmp_type: u8) -> u16 {
        PortTable::icmp6(icmp_type)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuple4() -> Tuple<Addr4> {
        Tuple {
            source: Be32::new(0xc612_0001),
            destination: Be32::new(0xc612_0002),
            source_port: Be16::new(40000),
            destination_port: Be16::new(80),
            protocol: 6,
            icmp_type: 0,
        }
    }

    #[test]
    fn both_directions_have_one_key() {
        let t = tuple4();
        let (forward, a) = V4::key(&t);
        let (backward, b) = V4::key(&t.reversed());
        assert_eq!(forward, backward);
        assert_ne!(a, b);
        let t6 = Tuple {
            source: Addr6 { first: 1, last: 9 },
            destination: Addr6 { first: 1, last: 3 },
            source_port: t.source_port,
            destination_port: t.destination_port,
            protocol: 17,
            icmp_type: 0,
        };
        assert_eq!(V6::key(&t6).0, V6::key(&t6.reversed()).0);
        assert_ne!(V6::key(&t6).1, V6::key(&t6.reversed()).1);
    }

    #[test]
    fn a_key_keeps_the_tuple() {
        let t = tuple4();
        let (key, reverse) = V4::key(&t);
        let back = V4::tuple(&key);
        assert_eq!(if reverse { back.reversed() } else { back }, t);
    }

    #[test]
    fn queries_of_different_types_have_different_keys() {
        let echo = Tuple { protocol: 1, icmp_type: 8, ..tuple4() };
        let timestamp = Tuple { icmp_type: 13, ..echo };
        assert_ne!(V4::key(&echo).0, V4::key(&timestamp).0);
    }
}
