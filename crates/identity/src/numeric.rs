//! Numeric identities: the numbers by which packets' ends are known, numbered as Cilium numbers them.
//!
//! Not here: who gets which number ([`crate::IdentityAllocator`]). The reserved numbers and the
//! scopes are those of Cilium's `pkg/identity`, so that tools which know them print the right names.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The number of an identity.
///
/// Displays as the name of a reserved identity, else as the number.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct NumericIdentity(pub u32);

impl NumericIdentity {
    /// Nothing is known about this end.
    pub const UNKNOWN: Self = Self(0);
    /// The node itself.
    pub const HOST: Self = Self(1);
    /// Everything outside, of either family.
    pub const WORLD: Self = Self(2);
    /// A workload that isn't managed.
    pub const UNMANAGED: Self = Self(3);
    /// The health checker.
    pub const HEALTH: Self = Self(4);
    /// A workload whose labels aren't known yet.
    pub const INIT: Self = Self(5);
    /// Another node of the cluster.
    pub const REMOTE_NODE: Self = Self(6);
    /// The Kubernetes API server.
    pub const KUBE_APISERVER: Self = Self(7);
    /// An ingress proxy.
    pub const INGRESS: Self = Self(8);
    /// Everything outside, by IPv4.
    pub const WORLD_IPV4: Self = Self(9);
    /// Everything outside, by IPv6.
    pub const WORLD_IPV6: Self = Self(10);

    /// The lowest number that is ever allocated.
    pub const MIN_ALLOCATED: Self = Self(256);
    /// The highest number that is allocated in [`Scope::Global`].
    pub const MAX_GLOBAL: Self = Self(65_535);
    /// The bit of [`Scope::Local`].
    pub const LOCAL_FLAG: u32 = 1 << 24;
    /// The bit of [`Scope::RemoteNode`].
    pub const REMOTE_NODE_FLAG: u32 = 2 << 24;

    const NAMES: [&'static str; 11] = [
        "unknown",
        "host",
        "world",
        "unmanaged",
        "health",
        "init",
        "remote-node",
        "kube-apiserver",
        "ingress",
        "world-ipv4",
        "world-ipv6",
    ];

    /// Where the number means what it means.
    #[must_use]
    pub const fn scope(self) -> Scope {
        match self.0 >> 24 {
            1 => Scope::Local,
            2 => Scope::RemoteNode,
            _ => Scope::Global,
        }
    }

    /// Whether the number is below those that are allocated. Not every reserved number has a name.
    #[must_use]
    pub const fn is_reserved(self) -> bool {
        self.0 < Self::MIN_ALLOCATED.0
    }

    /// The name, if this is one of the named reserved identities.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        Self::NAMES.get(usize::try_from(self.0).ok()?).copied()
    }
}

impl fmt::Display for NumericIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.pad(name),
            None => fmt::Display::fmt(&self.0, f),
        }
    }
}

/// Where a numeric identity means what it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Scope {
    /// The same on every node: workloads, and the reserved identities.
    Global,
    /// On this node alone: address ranges.
    Local,
    /// On this node alone: other nodes.
    RemoteNode,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 3] = [Self::Global, Self::Local, Self::RemoteNode];

    /// The lowest number that is allocated in this scope.
    #[must_use]
    pub const fn first(self) -> NumericIdentity {
        match self {
            Self::Global => NumericIdentity::MIN_ALLOCATED,
            Self::Local => NumericIdentity(NumericIdentity::LOCAL_FLAG | 1),
            Self::RemoteNode => NumericIdentity(NumericIdentity::REMOTE_NODE_FLAG | 1),
        }
    }

    /// How many numbers there are to allocate in this scope.
    #[must_use]
    pub const fn capacity(self) -> u32 {
        match self {
            Self::Global => NumericIdentity::MAX_GLOBAL.0 - NumericIdentity::MIN_ALLOCATED.0 + 1,
            Self::Local | Self::RemoteNode => 0xff_ffff,
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Global => "global",
            Self::Local => "local",
            Self::RemoteNode => "remote-node",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_numbers_have_ciliums_names() {
        assert_eq!(NumericIdentity::HOST.name(), Some("host"));
        assert_eq!(NumericIdentity::KUBE_APISERVER.to_string(), "kube-apiserver");
        assert_eq!(NumericIdentity::WORLD_IPV6.to_string(), "world-ipv6");
        assert_eq!(NumericIdentity(11).name(), None);
        assert_eq!(NumericIdentity(300).to_string(), "300");
    }

    #[test]
    fn the_reserved_range_ends_where_allocation_begins() {
        assert!(NumericIdentity(255).is_reserved());
        assert!(!NumericIdentity::MIN_ALLOCATED.is_reserved());
        assert!(!Scope::Local.first().is_reserved());
    }

    #[test]
    fn scopes_are_in_the_high_byte() {
        for scope in Scope::ALL {
            let last = scope.first().0 + scope.capacity() - 1;
            assert_eq!(scope.first().scope(), scope);
            assert_eq!(NumericIdentity(last).scope(), scope);
        }
        assert_eq!(NumericIdentity(0x01ff_ffff).scope(), Scope::Local);
        assert_eq!(Scope::Global.first().0 + Scope::Global.capacity() - 1, 65_535);
        assert_eq!(NumericIdentity::WORLD.scope(), Scope::Global);
    }
}
