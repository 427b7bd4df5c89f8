//! Endpoints, peers, and what an address leads to.

use crate::{Addr4, Addr6, EtherAddr, Shared32};

/// A local endpoint: one link of this node, found by the low bits of its interface index.
///
/// All but the peers is written while `ifindex` is 0 and no packet can reach it, and doesn't change
/// while it is not.
#[repr(C)]
#[cfg_attr(
    not(target_arch = "bpf"),
    derive(Debug, Default, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout)
)]
pub struct Endpoint {
    /// The host side's interface index; 0: the slot is free.
    pub ifindex: Shared32,
    /// [`Endpoint::REDIRECT_PEER`] and its like.
    pub flags: u32,
    /// Its IPv4 address; 0.0.0.0: none.
    pub addr4: Addr4,
    /// The peer index of its IPv4 address.
    pub peer4: Shared32,
    /// Its IPv6 address; `::`: none.
    pub addr6: Addr6,
    /// The Ethernet address of the endpoint itself.
    pub mac: EtherAddr,
    /// The Ethernet address of the host side, its router.
    pub router_mac: EtherAddr,
    /// This slot's own number.
    pub slot: u32,
    /// Counts the endpoints that have had this slot.
    pub incarnation: u32,
    /// The peer index of its IPv6 address.
    pub peer6: Shared32,
    /// Zero.
    pub reserved: [u32; 2],
}

impl Endpoint {
    /// Packets to it may be handed straight into its network namespace (`bpf_redirect_peer`).
    pub const REDIRECT_PEER: u32 = 1;
    /// Packets to it may be handed to its host side (`bpf_redirect`).
    pub const REDIRECT: u32 = 2;
    /// Its Ethernet address is known: it may send from no other.
    pub const CHECK_MAC: u32 = 4;
    /// It is this node itself, on one of its uplinks.
    pub const NODE: u32 = 8;
}

/// A peer: one distinct combination of labels, named ports and CIDR memberships.
#[repr(C)]
#[cfg_attr(
    not(target_arch = "bpf"),
    derive(Debug, Default, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout)
)]
pub struct Peer {
    /// Its numeric identity, for events.
    pub identity: Shared32,
    /// Low [`EPOCH_BITS`]: goes up whenever an address is taken away from it. Above: its owner, see
    /// [`Peer::owner`].
    pub epoch: Shared32,
}

impl Peer {
    /// The owner of all addresses that are neither pods' nor nodes'.
    pub const WORLD: u32 = 1;

    /// In whose hands a peer's addresses are, from its word: peers of one owner differ in networks and named
    /// ports alone. 0: not known.
    #[inline(always)]
    #[must_use]
    pub const fn owner(epoch: u32) -> u32 {
        epoch >> EPOCH_BITS
    }

    /// The word with its epoch raised.
    #[must_use]
    pub const fn raised(epoch: u32) -> u32 {
        epoch & !EPOCHS | epoch.wrapping_add(1) & EPOCHS
    }

    /// The word with another owner, of [`PEER_BITS`] bits.
    #[must_use]
    pub const fn owned(epoch: u32, owner: u32) -> u32 {
        epoch & EPOCHS | owner << EPOCH_BITS
    }
}

/// Width of a peer index in a flow.
pub const PEER_BITS: u32 = 20;
/// Width of an epoch in a flow. Before an epoch would wrap, a new generation is published, so two
/// equal epochs of one generation are the same epoch.
pub const EPOCH_BITS: u32 = 32 - PEER_BITS;
const EPOCHS: u32 = (1 << EPOCH_BITS) - 1;
/// The largest peer index plus one.
pub const MAX_PEERS: u32 = 1 << PEER_BITS;

/// What an address maps to: a leaf of the ipcache. 0: nothing, which is a defect, since the two
/// default routes are always there.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Leaf(pub u32);

impl Leaf {
    /// Nothing.
    pub const NONE: Self = Self(0);
    const PEER: u32 = 1 << 30;
    const ENDPOINT: u32 = 1 << 29;
    const VALUE: u32 = (1 << 21) - 1;

    /// A peer that isn't here.
    #[must_use]
    pub const fn peer(index: u32) -> Self {
        Self(Self::PEER | index)
    }

    /// A local endpoint, whose slot names the peer.
    #[must_use]
    pub const fn endpoint(slot: u32) -> Self {
        Self(Self::ENDPOINT | slot)
    }

    /// The peer's index, if it is one that isn't here.
    #[inline(always)]
    #[must_use]
    pub const fn as_peer(self) -> Option<u32> {
        if self.0 & Self::PEER != 0 { Some(self.0 & Self::VALUE) } else { None }
    }

    /// The endpoint's slot, if it is local.
    #[inline(always)]
    #[must_use]
    pub const fn as_endpoint(self) -> Option<u32> {
        if self.0 & Self::ENDPOINT != 0 { Some(self.0 & Self::VALUE) } else { None }
    }
}

const _: () = assert!(size_of::<Endpoint>() == 64 && size_of::<Peer>() == 8);
const _: () = assert!(core::mem::offset_of!(Endpoint, addr6) == 16);
const _: () = assert!(MAX_PEERS - 1 <= Leaf::VALUE);
