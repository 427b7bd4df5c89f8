//! Which clients a service takes.
//!
//! Not here: how packets find that out (`sources.rs`).

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

/// Which clients a service takes, by their addresses. Packets of others are dropped
/// ([`flowgate_abi::DropReason::SourceRefused`]), also those of flows that were taken before; the last address
/// of IPv6, which is nobody's, is taken by [`SourceRanges::Any`] alone.
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SourceRanges {
    /// All of them.
    #[default]
    Any,
    /// Those in one of these networks, and nobody of a family of which there is none.
    Allow(Vec<IpNet>),
    /// Those in none of these networks.
    Deny(Vec<IpNet>),
}

impl SourceRanges {
    /// The networks that are listed.
    #[must_use]
    pub fn networks(&self) -> &[IpNet] {
        match self {
            Self::Any => &[],
            Self::Allow(networks) | Self::Deny(networks) => networks,
        }
    }

    /// They take a client.
    #[must_use]
    pub fn takes(&self, client: IpAddr) -> bool {
        let is_listed = self.networks().iter().any(|network| network.contains(&client));
        let is_last = client == IpAddr::V6(Ipv6Addr::from(u128::MAX));
        match self {
            Self::Any => true,
            Self::Allow(_) => is_listed && !is_last,
            Self::Deny(_) => !is_listed && !is_last,
        }
    }
}
