//! The link layer: tags, and ARP.

use flowgate_abi::{Be16, DropReason, EtherAddr};

use crate::{
    Cursor, Skip,
    hook::FrameBytes,
    wire::{self, Arp, Ethernet},
};

/// What is inside of an Ethernet frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer3 {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
    /// ARP.
    Arp,
    /// Anything else.
    Other,
}

impl Layer3 {
    /// By EtherType.
    #[inline(always)]
    #[must_use]
    pub const fn of(ethertype: Be16) -> Self {
        match ethertype.get() {
            wire::ETHERTYPE_IPV4 => Self::Ipv4,
            wire::ETHERTYPE_IPV6 => Self::Ipv6,
            wire::ETHERTYPE_ARP => Self::Arp,
            _ => Self::Other,
        }
    }

    /// Its EtherType; 0 for anything else.
    #[inline(always)]
    #[must_use]
    pub const fn ethertype(self) -> Be16 {
        Be16::new(match self {
            Self::Ipv4 => wire::ETHERTYPE_IPV4,
            Self::Ipv6 => wire::ETHERTYPE_IPV6,
            Self::Arp => wire::ETHERTYPE_ARP,
            Self::Other => 0,
        })
    }
}

/// What lies in front of the network header, and what that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// The network header.
    pub layer3: Layer3,
    /// Tags inside of the frame: up to two.
    pub tags: u32,
    /// It has a tag, inside or, as kernels do, kept beside it.
    pub tagged: bool,
}

impl Link {
    const fn behind(tags: u32, ethertype: Be16) -> Self {
        Self { layer3: Layer3::of(ethertype), tags, tagged: tags > 0 }
    }
}

/// Looks through up to two tags (QinQ); a third is something else than IP.
#[inline(always)]
#[must_use]
pub fn link<B: FrameBytes>(frame: &B, outermost: Be16) -> Link {
    if !is_tag(outermost) {
        return Link::behind(0, outermost);
    }
    let first: Be16 = frame.load(16).unwrap_or_default();
    if !is_tag(first) {
        return Link::behind(1, first);
    }
    Link::behind(2, frame.load(20).unwrap_or_default())
}

#[inline(always)]
fn is_tag(ethertype: Be16) -> bool {
    matches!(ethertype.get(), wire::ETHERTYPE_TAG | wire::ETHERTYPE_SERVICE_TAG)
}

/// Who an ARP packet says that it is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The frame's source.
    pub frame: EtherAddr,
    /// The sender's Ethernet address.
    pub mac: EtherAddr,
    /// The sender's IPv4 address, as it lies in memory.
    pub address: u32,
}

/// Reads an ARP packet.
///
/// # Errors
/// [`DropReason::MalformedPacket`]: it is cut off, or isn't about IPv4 over Ethernet.
#[inline(always)]
pub fn arp<C: Skip>(cursor: &mut C, tags: u32) -> Result<Claim, DropReason> {
    let ethernet: Ethernet = cursor.take().ok_or(DropReason::MalformedPacket)?;
    cursor.skip(tags * 4).ok_or(DropReason::MalformedPacket)?;
    let arp: Arp = Cursor::take(cursor).ok_or(DropReason::MalformedPacket)?;
    let about = (arp.hardware.get(), arp.protocol.get(), arp.lengths[0], arp.lengths[1]);
    if about != (1, wire::ETHERTYPE_IPV4, 6, 4) {
        return Err(DropReason::MalformedPacket);
    }
    let halves = arp.sender.map(|half| half.raw().to_ne_bytes());
    let address = u32::from_ne_bytes([halves[0][0], halves[0][1], halves[1][0], halves[1][1]]);
    Ok(Claim { frame: ethernet.source, mac: arp.sender_mac, address })
}
