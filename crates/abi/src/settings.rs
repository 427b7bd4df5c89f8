//! What programs know from the moment that they are loaded: read-only data, constants to the
//! verifier.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Sizes, seeds and time-outs of one loaded set of programs.
///
/// They are kept with the pinned state, so that programs loaded later fit the maps of earlier ones.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Settings {
    /// Seed of the flow hash.
    pub hash_seed: u64,
    /// Buckets of the IPv4 flow table, less one; a power of two less one.
    pub flow4_mask: u32,
    /// Buckets of the IPv6 flow table, less one; a power of two less one.
    pub flow6_mask: u32,
    /// Endpoint slots, less one; a power of two less one.
    pub endpoint_mask: u32,
    /// Peers that have room.
    pub peers: u32,
    /// Rows of a slot, in cells.
    pub row_cells: u32,
    /// Decisions of a slot, in cells.
    pub decision_cells: u32,
    /// Decisions of a slot.
    pub decisions: u32,
    /// Jiffies per second (`CONFIG_HZ`).
    pub hz: u32,
    /// After how long of silence a flow is gone.
    pub timeouts: Timeouts,
    /// Events that each CPU may emit per second; 0: none.
    pub events_per_second: u32,
    /// For how long the later fragments of a datagram find its ports, in jiffies.
    pub fragment_timeout: u32,
    /// The socket buffer mark by which `tc_to_endpoint` knows what `tc_from_endpoint` has judged.
    pub mark: u32,
    /// [`Settings::THROUGH_STACK`] and its like.
    pub flags: u32,
    /// Buckets of the fragment table, less one; a power of two less one.
    pub fragment_mask: u32,
    /// Denied packets whose sender each CPU may tell per second; 0: none.
    pub answers_per_second: u32,
    /// The socket buffer mark by which both hooks know an answer of ours: drawn when the tables are made,
    /// so that nobody can guess it, and not [`Settings::mark`] or 0.
    pub answer_mark: u32,
    /// Zero.
    pub reserved: u32,
}

impl Settings {
    /// Packets between local endpoints go through the host's stack instead of being redirected.
    pub const THROUGH_STACK: u32 = 1;
    /// The kernel tells programs the time of the last tick (`bpf_ktime_get_coarse_ns`, Linux 5.11). The
    /// loader sets it each time; it isn't kept with the state.
    pub const COARSE_CLOCK: u32 = 2;
}

/// After how long of silence a flow is gone, by [`crate::flow::Class`], in units of 256 jiffies.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Timeouts(pub [u32; 4]);

const _: () = assert!(size_of::<Settings>() == 88);
