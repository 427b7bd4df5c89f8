//! The decapsulator's part of the boundary: which addresses of a backend are a tunnel's end, which are
//! services', and who may send into the tunnel.
//!
//! It has maps of its own, since a backend has no balancer. They are never pinned: whoever opens a
//! decapsulator says all of it.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Addr6, Be16, counters::counters, lb::Target};

/// Networks of balancers that there is room for.
pub const NETWORKS: u32 = 32;

/// An address is an end of the tunnels: outer destinations.
pub const TUNNEL_END: u32 = 1;
/// An address is a service's: inner destinations.
pub const SERVICE: u32 = 2;

/// What the programs know from the moment that they are loaded: read-only data, constants to the verifier.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Settings {
    /// The UDP port of GUE; 0: none.
    pub gue_port: Be16,
    /// How many networks there are, up to [`NETWORKS`]; 0: everybody may send.
    pub networks: u16,
}

/// A network of balancers.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Network {
    /// Its first address, with its family alone.
    pub first: Target,
    /// The bits that all of its addresses share.
    pub mask: Addr6,
}

impl Network {
    /// An address with its family alone is of this network.
    #[inline(always)]
    #[must_use]
    pub const fn holds(&self, address: &Target) -> bool {
        let (first, other) = (&self.first.address, &address.address);
        let differs = (first.first ^ other.first) & self.mask.first
            | (first.last ^ other.last) & self.mask.last;
        differs == 0 && self.first.kind == address.kind
    }
}

counters! {
    /// What is counted apart from drops, in packets and their bytes from the inner IP header on; an index into
    /// the counters' map.
    Counter:
    /// IPv4 that came in IPv4.
    Ipv4InIpv4 = 0, "ipv4_in_ipv4";
    /// IPv6 that came in IPv4.
    Ipv6InIpv4 = 1, "ipv6_in_ipv4";
    /// IPv4 that came in IPv6.
    Ipv4InIpv6 = 2, "ipv4_in_ipv6";
    /// IPv6 that came in IPv6.
    Ipv6InIpv6 = 3, "ipv6_in_ipv6";
    /// IPv4 that came in GUE over IPv4.
    Ipv4InGue4 = 4, "ipv4_in_gue4";
    /// IPv6 that came in GUE over IPv4.
    Ipv6InGue4 = 5, "ipv6_in_gue4";
    /// IPv4 that came in GUE over IPv6.
    Ipv4InGue6 = 6, "ipv4_in_gue6";
    /// IPv6 that came in GUE over IPv6.
    Ipv6InGue6 = 7, "ipv6_in_gue6";
    /// Packets among them that met congestion in the tunnel, about which their receiver was told.
    CongestionMarked = 8, "congestion_marked";
}

impl Counter {
    /// Of what came in a tunnel; the numbers are made so.
    #[inline(always)]
    #[must_use]
    pub const fn of(outer_is_ipv6: bool, gue: bool, inner_is_ipv6: bool) -> u32 {
        inner_is_ipv6 as u32 | (outer_is_ipv6 as u32) << 1 | (gue as u32) << 2
    }
}

/// The decapsulator's maps: names, kinds, element sizes, and what each holds.
pub mod maps {
    use super::{Network, Target};
    use crate::{event::Tally, maps::maps, probe::Probe};

    maps! {
        /// Addresses with their family alone: what they are, [`super::TUNNEL_END`] and [`super::SERVICE`].
        ADDRESSES: Hash[Target => u32];
        /// The networks of balancers.
        BALANCERS: Array[u32 => Network];
        /// A balancer's own checks under way, by port, protocol and family; see [`crate::probe`].
        PROBES: Hash[u64 => Probe];
        /// Drops by reason.
        DROPS: PerCpuArray[u32 => Tally];
        /// Everything else that is counted, by [`super::Counter`].
        COUNTERS: PerCpuArray[u32 => Tally];
    }
}

const _: () = assert!(size_of::<Settings>() == 4 && size_of::<Network>() == 40);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_numbered_by_what_came_in_what() {
        for (number, &counter) in Counter::ALL.iter().enumerate() {
            assert_eq!(counter as usize, number);
        }
        assert_eq!(Counter::of(false, false, true), Counter::Ipv6InIpv4 as u32);
        assert_eq!(Counter::of(true, false, false), Counter::Ipv4InIpv6 as u32);
        assert_eq!(Counter::of(true, true, false), Counter::Ipv4InGue6 as u32);
    }

    #[test]
    fn a_network_holds_its_addresses_of_its_family() {
        let address = |octets, family| Target {
            address: Addr6::from_octets(octets),
            kind: Target::kind(Be16::new(0), Target::ANYTHING, family),
        };
        let (mut octets, mut mask) = ([0; 16], [0; 16]);
        (octets[0], octets[15], mask[0]) = (0x20, 7, 0xfe);
        let network = Network { first: address(octets, 6), mask: Addr6::from_octets(mask) };
        octets[0] = 0x21;
        assert!(network.holds(&address(octets, 6)));
        assert!(!network.holds(&address(octets, 4)));
        octets[0] = 0x22;
        assert!(!network.holds(&address(octets, 6)));
    }
}
