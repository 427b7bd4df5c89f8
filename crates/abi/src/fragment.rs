//! The fragment table: by what the later fragments of a datagram find its ports.
//!
//! One table for both families, set-associative like the flow tables. Entries are short-lived and
//! never evicted before their time: a full bucket refuses.

use crate::{Shared64, flow::bpf_spin_lock};

/// Ways of a bucket.
pub const WAYS: usize = 4;

/// A bucket of the fragment table. Look-ups take the lock too: fragments are rare.
#[repr(C)]
#[cfg_attr(
    not(target_arch = "bpf"),
    derive(Debug, Default, zerocopy::FromBytes, zerocopy::KnownLayout)
)]
pub struct FragmentBucket {
    /// Held by whoever reads or writes a way.
    pub lock: bpf_spin_lock,
    /// Zero.
    pub reserved: crate::Shared32,
    /// The datagrams.
    pub ways: [Datagram; WAYS],
}

/// A datagram of which the first fragment has passed.
#[repr(C)]
#[cfg_attr(
    not(target_arch = "bpf"),
    derive(Debug, Default, zerocopy::FromBytes, zerocopy::KnownLayout)
)]
pub struct Datagram {
    /// Source and destination, two words each, and what names the datagram between them.
    pub key: [Shared64; 5],
    /// The headers that its first fragment had.
    pub headers: Shared64,
    /// When the first fragment passed, in jiffies; 0: the way is free.
    pub seen: Shared64,
}

const _: () = assert!(size_of::<FragmentBucket>() == 232);
