//! Frames that were sampled behind the load balancer.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of a frame that a sample has room for: all of it, where an IP packet has up to 1,500 bytes and outer
/// headers. A power of two.
pub const ROOM: usize = 2048;

/// A frame as it was when the last program of its interface had said its word.
///
/// ABI: kernel and user space share it by one ring buffer of one process; it is no pinned state.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Sample {
    /// Nanoseconds since boot, suspended time left out (`CLOCK_MONOTONIC`).
    pub time: u64,
    /// Bytes of the frame, from its Ethernet header on.
    pub length: u32,
    /// What the program said, by the kernel's numbers (`enum xdp_action`).
    pub action: u32,
    /// Bytes that are here.
    pub kept: u32,
    /// Index of the interface by which it came.
    pub ifindex: u32,
    /// The first of its bytes; what lies behind [`Sample::kept`] means nothing.
    pub bytes: [u8; ROOM],
}

const _: () = assert!(size_of::<Sample>() == 24 + ROOM);

/// Which frames are sampled: constants to the verifier.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Sampling {
    /// A frame is sampled if a random number of 32 bits is no larger.
    pub threshold: u32,
    /// Bytes that are kept of a frame, from 1 to [`ROOM`].
    pub keep: u32,
}

const _: () = assert!(size_of::<Sampling>() == 8);
