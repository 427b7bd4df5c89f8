//! What the balancer's programs know from the moment that they are loaded, and what user space tells
//! them from time to time.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Shared32, Shared64};

/// Sizes and seeds of one loaded balancer: read-only data, constants to the verifier. They are kept with
/// the pinned state, so that programs loaded later fit the maps of earlier ones.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Settings {
    /// Seed of the fragment table's hash.
    pub fragment_seed: u64,
    /// Buckets of frontends, less one; a power of two less one.
    pub displacement_mask: u32,
    /// 32 less the binary logarithm of the frontends that have room.
    pub frontend_shift: u32,
    /// Buckets of tracked flows, less one; a power of two less one.
    pub tracked_mask: u32,
    /// Buckets of the fragment table, less one; a power of two less one.
    pub fragment_mask: u32,
    /// For how long the later fragments of a datagram find its ports, in jiffies.
    pub fragment_timeout: u32,
    /// Jiffies per second (`CONFIG_HZ`).
    pub hz: u32,
    /// ICMP errors that each CPU may send per second; 0: none.
    pub errors_per_second: u32,
    /// Milliseconds of one age of tracked flows.
    pub age_length: u32,
    /// Buckets of the flows that have a port of a source, less one; a power of two less one.
    pub nat_mask: u32,
    /// Groups of ports that places of IPv4 sources have, which come first; and those of IPv6.
    pub nat_groups: [u32; 2],
    /// Groups of ports that each place has.
    pub nat_groups_each: u32,
    /// The first port of each source.
    pub nat_first_port: u32,
    /// Buckets of clients' pins, less one; a power of two less one.
    pub pin_mask: u32,
}

/// What programs read from time to time, in one line that user space writes.
///
/// Programs have no clock for tracked flows: user space counts time by its own ticks, so while nobody
/// ticks no flow grows old.
#[repr(C)]
#[cfg_attr(
    not(target_arch = "bpf"),
    derive(Debug, Default, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout)
)]
pub struct Head {
    /// The age that an entry gets which is seen now, in a circle of [`super::AGES`].
    pub age: Shared32,
    /// Frontends of port 0: 0: a port that no frontend names is nobody's.
    pub wildcards: Shared32,
    /// Bytes of the largest IP packet that a link can have delivered: a larger one is a super-packet that
    /// the kernel put together.
    pub link_mtu: Shared32,
    /// Zero.
    pub reserved: Shared32,
    /// Milliseconds that were counted so far: flows with a port of a source are seen by it.
    pub clock: Shared64,
    /// [`super::nat::Active`].
    pub nat_active: Shared64,
    /// Zero.
    pub padding: [Shared64; 4],
}

const _: () = assert!(size_of::<Settings>() == 64 && size_of::<Head>() == 64);
