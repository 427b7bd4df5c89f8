//! Frontends: where clients send to, and which service that is.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Addr6, Be16, Shared32, Shared64};

/// Where a packet goes: address, family, protocol, port.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Target {
    /// The address; an IPv4 address lies in the first word's first four bytes.
    pub address: Addr6,
    /// Port, protocol and family; 0: no target at all.
    pub kind: u64,
}

impl Target {
    /// A protocol's number that no packet has here: the target is the address as such, whatever is
    /// sent to it.
    pub const ANYTHING: u8 = 0;

    /// Packs port, protocol number and family (4 or 6). A port of 0 stands for all ports.
    #[inline(always)]
    #[must_use]
    pub const fn kind(port: Be16, protocol: u8, family: u8) -> u64 {
        port.raw() as u64 | (protocol as u64) << 16 | (family as u64) << 24
    }

    /// Address and family alone.
    #[inline(always)]
    #[must_use]
    pub const fn of_address(self) -> Self {
        let family = self.kind >> 24;
        Self { kind: family << 24, ..self }
    }
}

/// A frontend: the target, and the service that it belongs to.
///
/// ABI: a cache line, of which a look-up reads the first half.
#[repr(C)]
#[cfg_attr(
    not(target_arch = "bpf"),
    derive(Debug, Default, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout)
)]
pub struct Frontend {
    /// Whose packets are meant.
    pub target: Target,
    /// Seed of its flows' hash.
    pub seed: u64,
    /// Index of its table's first slot among all slots, a multiple of [`super::SLOTS`].
    pub slots: u32,
    /// Slots of its table; 0: the address as such, which has none.
    pub size: u32,
    /// [`Lines`] of its backends.
    pub lines: Shared64,
    /// [`Frontend::HASH_SOURCE`] and its like.
    pub flags: Shared32,
    /// Number of its service.
    pub service: u32,
    /// [`super::Sources`]: which clients it takes.
    pub sources: Shared64,
}

impl Frontend {
    /// The slot is chosen by the source address alone.
    pub const HASH_SOURCE: u32 = 1;
    /// Fragments find the ports of their datagram's first; otherwise they are dropped.
    pub const FRAGMENTS: u32 = 2;
    /// Packets go to backends as the balancer's own ([`super::nat`]).
    pub const SNAT: u32 = 4;
    /// No service's: an address from which such packets come, to which backends answer. `slots` is the
    /// first of its groups of ports.
    pub const SOURCE: u32 = 8;
    /// The slot is chosen by the destination port alone.
    pub const HASH_PORT: u32 = 16;
    /// Clients have pins; [`Frontend::HASH_SOURCE`] goes with it. Bits 8 to 12 of the flags are
    /// [`Frontend::pin_shift`].
    pub const AFFINITY: u32 = 32;
    /// Packets are QUIC's; bits 13 to 21 of the flags are [`super::QuicIds`].
    pub const QUIC: u32 = 64;
    /// An option of TCP names backends; bits 18 to 29 of the flags are [`super::TcpOption`].
    pub const TCP_OPTION: u32 = 128;

    /// Flags of pins whose ages are so many milliseconds long: this power of two.
    #[must_use]
    pub const fn pins(shift: u32) -> u32 {
        Self::AFFINITY | (shift & 31) << 8
    }

    /// The binary logarithm of the milliseconds of an age of pins.
    #[inline(always)]
    #[must_use]
    pub const fn pin_shift(flags: u32) -> u32 {
        flags >> 8 & 31
    }

    /// The age that a pin gets at a time, in a circle of [`super::AGES`].
    #[inline(always)]
    #[must_use]
    pub const fn pin_age(flags: u32, milliseconds: u64) -> u32 {
        (milliseconds >> Self::pin_shift(flags)) as u32 % super::AGES
    }

    /// What it is now.
    #[cfg(not(target_arch = "bpf"))]
    #[must_use]
    pub fn snapshot(&self) -> Self {
        let [lines, sources] = [&self.lines, &self.sources].map(Shared64::load);
        let (lines, sources) = (Shared64::new(lines), Shared64::new(sources));
        Self { lines, sources, flags: Shared32::new(self.flags.load()), ..*self }
    }
}

/// Where a service's backends lie: the index of the first line, which is [`super::NOBODY`]'s (low half), and
/// how many there are. One word, so that both change at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lines(pub u64);

impl Lines {
    /// Of its parts.
    #[must_use]
    pub const fn new(start: u32, count: u32) -> Self {
        Self(start as u64 | (count as u64) << 32)
    }

    /// The index of the first line.
    #[inline(always)]
    #[must_use]
    pub const fn start(self) -> u32 {
        self.0 as u32
    }

    /// How many lines there are.
    #[must_use]
    pub const fn count(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

const _: () = assert!(size_of::<Frontend>() == 64);
const _: () = assert!(core::mem::offset_of!(Frontend, seed) == 24);
