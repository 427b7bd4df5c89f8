//! Numbers and addresses whose byte order is in the type.

use core::net::IpAddr;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A 16-bit number in network byte order.
#[repr(transparent)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Be16(u16);

impl Be16 {
    /// From host byte order.
    #[inline(always)]
    #[must_use]
    pub const fn new(host: u16) -> Self {
        Self(host.to_be())
    }

    /// To host byte order.
    #[inline(always)]
    #[must_use]
    pub const fn get(self) -> u16 {
        u16::from_be(self.0)
    }

    /// The bits as they lie in memory.
    #[inline(always)]
    #[must_use]
    pub const fn raw(self) -> u16 {
        self.0
    }

    /// From bits as they lie in memory.
    #[inline(always)]
    #[must_use]
    pub const fn from_raw(raw: u16) -> Self {
        Self(raw)
    }
}

/// A 32-bit number in network byte order.
#[repr(transparent)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Be32(u32);

impl Be32 {
    /// From host byte order.
    #[inline(always)]
    #[must_use]
    pub const fn new(host: u32) -> Self {
        Self(host.to_be())
    }

    /// To host byte order.
    #[inline(always)]
    #[must_use]
    pub const fn get(self) -> u32 {
        u32::from_be(self.0)
    }

    /// The bits as they lie in memory.
    #[inline(always)]
    #[must_use]
    pub const fn raw(self) -> u32 {
        self.0
    }

    /// From bits as they lie in memory.
    #[inline(always)]
    #[must_use]
    pub const fn from_raw(raw: u32) -> Self {
        Self(raw)
    }
}

/// An IPv4 address.
pub type Addr4 = Be32;

/// An IPv6 address: sixteen bytes in network order, seen as two words as they lie in memory.
///
/// ABI: words rather than bytes, since LLVM's BPF back end turns `[u8; 16]` into byte loads; two
/// fields rather than an array, since rustc then passes them in registers, and no copy of the
/// address ever lies on the stack.
#[repr(C)]
#[allow(clippy::derived_hash_with_manual_eq, reason = "the same equality, written by word")]
#[derive(Clone, Copy, Debug, Default, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Addr6 {
    /// The first eight bytes.
    pub first: u64,
    /// The last eight bytes.
    pub last: u64,
}

/// By word: the derived comparison becomes one of 128 bits, for which LLVM aligns copies on the
/// stack to 16 bytes, and its BPF back end can't copy those (crash in LLVM 22's `expandMEMCPY`).
impl PartialEq for Addr6 {
    #[inline(always)]
    fn eq(&self, other: &Self) -> bool {
        (self.first ^ other.first) | (self.last ^ other.last) == 0
    }
}

impl Addr6 {
    /// From the sixteen bytes of the address, first byte first.
    #[must_use]
    pub fn from_octets(octets: [u8; 16]) -> Self {
        zerocopy::transmute!(octets)
    }

    /// From an address of either family; an IPv4 address lies in the first four bytes, before zeros.
    #[must_use]
    pub fn wide(address: IpAddr) -> Self {
        let mut octets = [0; 16];
        match address {
            IpAddr::V4(address) => octets[..4].copy_from_slice(&address.octets()),
            IpAddr::V6(address) => octets = address.octets(),
        }
        Self::from_octets(octets)
    }

    /// The sixteen bytes of the address, first byte first.
    #[must_use]
    pub fn octets(self) -> [u8; 16] {
        zerocopy::transmute!(self)
    }
}

/// An Ethernet address, as users write it: its bytes, first byte first.
pub type Mac = [u8; 6];

/// An Ethernet address as the programs compare it.
///
/// ABI: three words of 16 bits, which is how Ethernet aligns it; LLVM's BPF back end turns `[u8; 6]`
/// into byte loads, and a copy of `[u16; 3]` into a call of `memcpy`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct EtherAddr {
    first: u16,
    middle: u16,
    last: u16,
}

impl EtherAddr {
    /// From its bytes.
    #[must_use]
    pub fn from_octets(octets: Mac) -> Self {
        zerocopy::transmute!(octets)
    }

    /// Its bytes.
    #[must_use]
    pub fn octets(self) -> Mac {
        zerocopy::transmute!(self)
    }
}

/// Without branches.
impl PartialEq for EtherAddr {
    #[inline(always)]
    fn eq(&self, other: &Self) -> bool {
        (self.first ^ other.first) | (self.middle ^ other.middle) | (self.last ^ other.last) == 0
    }
}

const _: () = assert!(size_of::<Be16>() == 2 && size_of::<Be32>() == 4 && size_of::<Addr6>() == 16);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_order_lies_in_memory_first_byte_first() {
        assert_eq!(Be16::new(0x1234).as_bytes(), [0x12, 0x34]);
        assert_eq!(Be32::new(0x1234_5678).as_bytes(), [0x12, 0x34, 0x56, 0x78]);
        assert_eq!(Be32::new(7).get(), 7);
    }

    #[test]
    fn addresses_keep_their_octets() {
        let octets: [u8; 16] = core::array::from_fn(|i| i as u8 + 1);
        assert_eq!(Addr6::from_octets(octets).octets(), octets);
        assert_eq!(Addr6::from_octets(octets).as_bytes(), octets);
        assert_eq!(Addr6::wide(IpAddr::from(octets)).octets(), octets);
        let v4 = Addr6::wide(IpAddr::from([1, 2, 3, 4])).octets();
        assert_eq!(v4, [1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }
}
