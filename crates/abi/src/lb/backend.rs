//! A backend: the outer headers of its packets, finished but for what differs from packet to packet.

use crate::Shared64;

/// A backend's line.
///
/// ABI: a cache line. The header is a frame's first bytes as they lie in memory: Ethernet, then IPv4 or
/// IPv6, with zeros where length, traffic class, entropy and checksum go.
#[repr(C)]
#[cfg_attr(
    not(target_arch = "bpf"),
    derive(Debug, Default, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout)
)]
pub struct Backend {
    /// The header.
    pub header: [u64; 7],
    /// [`Tail`].
    pub tail: Shared64,
}

impl Backend {
    /// What it is now.
    #[cfg(not(target_arch = "bpf"))]
    #[must_use]
    pub fn snapshot(&self) -> Self {
        Self { header: self.header, tail: Shared64::new(self.tail.load()) }
    }
}

/// How a backend's packets leave, and how large they may be.
///
/// Bits 0 to 15: the sum of the header's 16-bit words as they lie in memory, folded; 16 to 31: bytes of
/// the largest inner packet; 32 to 47: the UDP port of the tunnel, or the backend's own, as it lies in
/// memory; 48 to 53: bits of entropy in the source; 54, 55: flags; 56 to 62: [`Kind`]; 63: a flag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tail(pub u64);

/// How packets of a backend leave.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Not at all: nobody, or a line that was never used.
    Nobody = 0,
    /// In IPv4.
    Tunnel4 = 1,
    /// In IPv6.
    Tunnel6 = 2,
    /// In UDP over IPv4.
    Gue4 = 3,
    /// In UDP over IPv6.
    Gue6 = 4,
    /// As they are, to another Ethernet address.
    Layer2 = 5,
    /// As the balancer's own, to another address: full NAT. The header has the backend's address in its
    /// third and fourth word, and its family in the first byte behind; the tail has its port, 0: the
    /// service's.
    Snat = 6,
}

impl Kind {
    /// From its number.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Nobody,
            1 => Self::Tunnel4,
            2 => Self::Tunnel6,
            3 => Self::Gue4,
            4 => Self::Gue6,
            5 => Self::Layer2,
            6 => Self::Snat,
            _ => return None,
        })
    }
}

impl Tail {
    /// Nobody has this number any more: what still names it counts as not there.
    pub const GONE: u64 = 1 << 54;
    /// Frames go back to who delivered the packet; the header's Ethernet addresses are zero.
    pub const TO_SENDER: u64 = 1 << 55;
    /// It fails its health checks: a handshake that is tried again goes elsewhere.
    pub const FAILS: u64 = 1 << 63;

    /// Of its parts, without flags; `port` lies in network order in memory.
    #[must_use]
    pub const fn new(kind: Kind, sum: u16, room: u16, port: u16) -> Self {
        Self(sum as u64 | (room as u64) << 16 | (port as u64) << 32 | (kind as u64) << 56)
    }

    /// With a flag.
    #[must_use]
    pub const fn with(self, flag: u64) -> Self {
        Self(self.0 | flag)
    }

    /// With so many bits of the source's end that differ from flow to flow.
    #[must_use]
    pub const fn with_entropy(self, bits: u32) -> Self {
        Self(self.0 | ((bits & 63) as u64) << 48)
    }

    /// Number of [`Kind`].
    #[inline(always)]
    #[must_use]
    pub const fn kind(self) -> u8 {
        (self.0 >> 56) as u8 & 0x7f
    }

    /// The folded sum of the header's words as they lie in memory.
    #[inline(always)]
    #[must_use]
    pub const fn sum(self) -> u32 {
        self.0 as u32 & 0xffff
    }

    /// Bytes of the largest IP packet that the backend can be sent.
    #[inline(always)]
    #[must_use]
    pub const fn room(self) -> u32 {
        (self.0 >> 16) as u32 & 0xffff
    }

    /// The tunnel's UDP port, or the backend's own, as it lies in memory.
    #[inline(always)]
    #[must_use]
    pub const fn port(self) -> u16 {
        (self.0 >> 32) as u16
    }

    /// Bits of the outer source address that differ from flow to flow.
    #[inline(always)]
    #[must_use]
    pub const fn entropy(self) -> u32 {
        (self.0 >> 48) as u32 & 63
    }

    /// It has this flag.
    #[inline(always)]
    #[must_use]
    pub const fn has(self, flag: u64) -> bool {
        self.0 & flag != 0
    }
}

const _: () = assert!(size_of::<Backend>() == 64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_keeps_its_parts_apart() {
        let tail = Tail::new(Kind::Gue6, 0xabcd, 1432, 0x1234).with_entropy(32);
        let parts = (tail.kind(), tail.sum(), tail.room(), tail.port(), tail.entropy());
        assert_eq!(parts, (4, 0xabcd, 1432, 0x1234, 32));
        for flag in [Tail::GONE, Tail::TO_SENDER, Tail::FAILS] {
            assert!(!tail.has(flag) && tail.with(flag).has(flag));
            assert_eq!(tail.with(flag).kind(), tail.kind());
        }
        for number in 0..=255 {
            assert!(Kind::from_number(number).is_none_or(|kind| kind as u8 == number));
        }
    }
}
