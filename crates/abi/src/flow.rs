//! The flow table: set-associative, in one array per family, ours because the kernel's LRU costs
//! 40 of 60 ns on a hit and 570 of 700 on an insert.
//!
//! A bucket is a head and seven ways. The head holds what a look-up and an eviction need, so that they
//! touch one line of it and one line of the way that they mean.

use crate::{Shared32, Shared64, endpoint};

/// Ways of a bucket. They are numbered from 1, so that 0 is none.
pub const WAYS: u32 = 7;

/// The kernel's lock of a map value; user space sees zero.
///
/// ABI: the kernel finds it by this name in the BTF of the value's type (`bpf_spin_lock`, 5.1).
#[repr(C)]
#[allow(non_camel_case_types)]
#[cfg_attr(
    not(target_arch = "bpf"),
    derive(Debug, Default, zerocopy::FromBytes, zerocopy::KnownLayout)
)]
pub struct bpf_spin_lock {
    val: Shared32,
}

macro_rules! bucket {
    ($(#[$doc:meta])* $bucket:ident, $way:ident, key $key:literal, size $size:literal $(, padding $padding:literal)?) => {
        $(#[$doc])*
        #[repr(C)]
        #[cfg_attr(not(target_arch = "bpf"), derive(Debug, Default, zerocopy::FromBytes, zerocopy::KnownLayout))]
        pub struct $bucket {
            /// Held while a way changes its owner.
            pub lock: bpf_spin_lock,
            /// Not 0: an entry of this bucket had to go to its second choice.
            pub spilled: Shared32,
            /// Part of the hash, not 0; 0: the way is free.
            pub tags: [Shared32; WAYS as usize],
            /// [`Age`] of each way.
            pub ages: [Shared32; WAYS as usize],
            $(padding: [Shared64; $padding],)?
            /// The entries.
            pub ways: [$way; WAYS as usize],
        }

        /// An entry: the connection's key and what is known of it.
        #[repr(C)]
        #[cfg_attr(not(target_arch = "bpf"), derive(Debug, Default, zerocopy::FromBytes, zerocopy::KnownLayout))]
        pub struct $way {
            /// The canonical tuple.
            pub key: [Shared64; $key],
            /// What is known of the connection.
            pub flow: Flow,
        }

        const _: () = assert!(size_of::<$bucket>() == $size);
    };
}

bucket! {
    /// A bucket of the IPv4 table.
    Bucket4, Way4, key 2, size 512
}
bucket! {
    /// A bucket of the IPv6 table.
    Bucket6, Way6, key 5, size 704, padding 3
}

/// What is known of a connection: six words, lent to the pipeline as `&Flow`.
///
/// `verdict` and `ends` are read by every packet and written seldom; `seen` and `bytes` are written
/// by every packet, each by its own direction. Direction 0 is the initiator's.
#[repr(C)]
#[cfg_attr(
    not(target_arch = "bpf"),
    derive(Debug, Default, zerocopy::FromBytes, zerocopy::KnownLayout)
)]
pub struct Flow {
    /// [`Verdict`]: the generation that allowed it, and its state.
    pub verdict: Shared64,
    /// [`Ends`]: for each end its peer and that peer's epoch.
    pub ends: Shared64,
    /// Per direction [`Seen`]: packets, and when the last one passed.
    pub seen: [Shared64; 2],
    /// Per direction [`Volume`]: bytes, and the end's slot.
    pub bytes: [Shared64; 2],
}

/// The generation that allowed a flow (low half; 0: none) and its state (high half).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict(pub u64);

impl Verdict {
    /// A new flow.
    #[inline(always)]
    #[must_use]
    pub const fn new(generation: u32, state: u32) -> Self {
        Self(generation as u64 | (state as u64) << 32)
    }

    /// The generation.
    #[inline(always)]
    #[must_use]
    pub const fn generation(self) -> u32 {
        self.0 as u32
    }

    /// The state: [`state`]'s bits.
    #[inline(always)]
    #[must_use]
    pub const fn state(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// Bits of a flow's state.
pub mod state {
    /// The initiator is the key's second end.
    pub const FROM_SECOND: u32 = 1;
    /// The responder has answered.
    pub const ANSWERED: u32 = 2;
    /// The TCP handshake is complete (the initiator acknowledged the answer), or, for any other
    /// protocol, the responder has answered.
    pub const ESTABLISHED: u32 = 4;
    /// The initiator has sent a FIN.
    pub const FIN_INITIATOR: u32 = 8;
    /// The responder has sent a FIN.
    pub const FIN_RESPONDER: u32 = 16;
    /// The initiator has sent a RST, and nothing since.
    pub const RESET_INITIATOR: u32 = 32;
    /// Both FINs, or a RST: the entry lives on for stragglers alone.
    pub const CLOSING: u32 = 64;
    /// The sweep has told of its end.
    pub const TOLD: u32 = 128;
    /// It was allowed once and isn't any more. The entry stays, so that no packet of either end opens
    /// the connection anew from the middle; a SYN does.
    pub const REVOKED: u32 = 256;
    /// The responder has sent a RST, and nothing since.
    pub const RESET_RESPONDER: u32 = 512;
    /// What the senders of a revoked flow's packets are told: the number of a
    /// [`Response`](crate::policy::Response).
    pub const RESPONSE: u32 = 3 << RESPONSE_SHIFT;
    const RESPONSE_SHIFT: u32 = 10;
    /// Both ends' [`Hand`](super::Hand)s, as they were when the flow was judged last.
    pub const HANDS: u32 = u32::MAX << HANDS_SHIFT;
    const HANDS_SHIFT: u32 = 12;

    /// The bits for the hands of initiator and responder.
    #[inline(always)]
    #[must_use]
    pub const fn of_hands(initiator: super::Hand, responder: super::Hand) -> u32 {
        (initiator.0 | responder.0 << super::Hand::BITS) << HANDS_SHIFT
    }

    /// The bits for the number of a response.
    #[inline(always)]
    #[must_use]
    pub const fn of_response(number: u8) -> u32 {
        (number as u32) << RESPONSE_SHIFT & RESPONSE
    }

    /// The number of the response in a state.
    #[inline(always)]
    #[must_use]
    pub const fn response(state: u32) -> u8 {
        ((state & RESPONSE) >> RESPONSE_SHIFT) as u8
    }
}

/// For each end its peer and that peer's epoch: the initiator in the low half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends(pub u64);

impl Ends {
    /// Both ends.
    #[inline(always)]
    #[must_use]
    pub const fn new(initiator: End, responder: End) -> Self {
        Self(initiator.0 as u64 | (responder.0 as u64) << 32)
    }

    /// The end that opened the flow.
    #[inline(always)]
    #[must_use]
    pub const fn initiator(self) -> End {
        End(self.0 as u32)
    }

    /// The end that it was opened to.
    #[inline(always)]
    #[must_use]
    pub const fn responder(self) -> End {
        End((self.0 >> 32) as u32)
    }
}

/// A peer and its epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct End(pub u32);

impl End {
    /// From a peer's index and its whole epoch, of which the low bits are kept.
    #[inline(always)]
    #[must_use]
    pub const fn new(peer: u32, epoch: u32) -> Self {
        Self(peer & (endpoint::MAX_PEERS - 1) | epoch << endpoint::PEER_BITS)
    }

    /// The peer's index.
    #[inline(always)]
    #[must_use]
    pub const fn peer(self) -> u32 {
        self.0 & (endpoint::MAX_PEERS - 1)
    }
}

/// In whose hands the address of an end is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hand(pub(crate) u32);

impl Hand {
    /// In those of a pod or a node that isn't here: its peer says more.
    pub const ELSEWHERE: Self = Self(0);
    /// In nobody's whom the node knows.
    pub const WORLD: Self = Self(1);
    const BITS: u32 = 10;
    const LOCAL: u32 = 1 << (Self::BITS - 1);

    /// In those of a local endpoint, by the count of its slot's endpoints, of which the low bits are kept.
    #[inline(always)]
    #[must_use]
    pub const fn local(incarnation: u32) -> Self {
        Self(Self::LOCAL | incarnation & (Self::LOCAL - 1))
    }
}

/// Packets of a direction (high half) and when the last one passed (low half, jiffies).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen(pub u64);

impl Seen {
    /// One packet more.
    #[inline(always)]
    #[must_use]
    pub const fn one_more(self, jiffies: u32) -> Self {
        Self(((self.0 >> 32).wrapping_add(1) << 32) | jiffies as u64)
    }

    /// Packets, modulo 2^32.
    #[inline(always)]
    #[must_use]
    pub const fn packets(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// Bytes of a direction (low 48 bits) and the slot of the end that sends them (high 16 bits).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Volume(pub u64);

/// A slot that is none: the end isn't local.
pub const NO_SLOT: u32 = 0xffff;

impl Volume {
    const BYTES: u64 = (1 << 48) - 1;

    /// The first bytes of an end's direction.
    #[inline(always)]
    #[must_use]
    pub const fn new(slot: u32, bytes: u32) -> Self {
        Self((slot as u64) << 48 | bytes as u64)
    }

    /// More bytes; the sum wraps at 2^48 and leaves the slot alone.
    #[inline(always)]
    #[must_use]
    pub const fn more(self, bytes: u32) -> Self {
        Self(self.0 & !Self::BYTES | self.0.wrapping_add(bytes as u64) & Self::BYTES)
    }

    /// The same bytes, of another slot.
    #[inline(always)]
    #[must_use]
    pub const fn moved(self, slot: u32) -> Self {
        Self(self.0 & Self::BYTES | (slot as u64) << 48)
    }

    /// Bytes, modulo 2^48.
    #[inline(always)]
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0 & Self::BYTES
    }

    /// The slot of the end that sends them, or [`NO_SLOT`].
    #[inline(always)]
    #[must_use]
    pub const fn slot(self) -> u32 {
        (self.0 >> 48) as u32
    }
}

/// How old an entry is, and how long it may live: what eviction reads of it.
///
/// The low 30 bits are the time of its last packet in units of 256 jiffies, compared by difference;
/// the high 2 bits are its [`Class`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Age(pub u32);

/// Which time-out an entry has, and whether it may be evicted: those with even numbers may.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Nobody has answered yet, or the handshake isn't complete.
    Opening = 0,
    /// TCP, established.
    Established = 1,
    /// TCP, closed.
    Closing = 2,
    /// Any other protocol, answered.
    Answered = 3,
}

impl Age {
    const TIME: u32 = (1 << 30) - 1;

    /// The age of an entry of a class whose last packet passes now.
    #[inline(always)]
    #[must_use]
    pub const fn new(class: Class, jiffies: u64) -> Self {
        Self((class as u32) << 30 | (jiffies >> 8) as u32 & Self::TIME)
    }

    /// The class's number.
    #[inline(always)]
    #[must_use]
    pub const fn class(self) -> u32 {
        self.0 >> 30
    }

    /// The same class, last packet now.
    #[inline(always)]
    #[must_use]
    pub const fn refreshed(self, jiffies: u64) -> Self {
        Self(self.0 & !Self::TIME | (jiffies >> 8) as u32 & Self::TIME)
    }

    /// Units of 256 jiffies since the last packet.
    #[inline(always)]
    #[must_use]
    pub const fn idle(self, jiffies: u64) -> u32 {
        ((jiffies >> 8) as u32).wrapping_sub(self.0) & Self::TIME
    }
}

const _: () = assert!(size_of::<Flow>() == 48);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volume_wraps_without_touching_the_slot() {
        let v = Volume::new(7, u32::MAX);
        let full = Volume(v.0 | Volume::BYTES);
        assert_eq!((full.more(1).slot(), full.more(1).bytes()), (7, 0));
        assert_eq!(Volume::new(NO_SLOT, 5).more(6).bytes(), 11);
    }

    #[test]
    fn age_counts_over_the_wrap() {
        let before = Age::new(Class::Established, u64::from(Age::TIME) << 8);
        assert_eq!(before.idle((u64::from(Age::TIME) + 3) << 8), 3);
        assert_eq!(before.class(), Class::Established as u32);
        assert_eq!(before.refreshed(0).class(), Class::Established as u32);
    }

    #[test]
    fn an_end_keeps_peer_and_epoch_apart() {
        let end = End::new(endpoint::MAX_PEERS - 1, 5);
        assert_eq!(end.peer(), endpoint::MAX_PEERS - 1);
        assert_ne!(end, End::new(endpoint::MAX_PEERS - 1, 6));
    }
}
