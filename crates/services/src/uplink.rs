//! The network between the balancer and its backends.

use ipnet::{Ipv4Net, Ipv6Net};

use crate::model::{Backend, Mac};

/// How packets leave for backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uplink {
    /// Whom frames for [`NextHop::Gateway`](crate::model::NextHop::Gateway) are sent to. `None`: whoever
    /// delivered the packet.
    pub gateway: Option<Mac>,
    /// Outer source addresses over IPv4; which of them, depends on the flow, so that a backend spreads
    /// packets over its receive queues. No more than 65,536 are used.
    pub source4: Ipv4Net,
    /// Outer source addresses over IPv6; no more than 2^32 are used.
    pub source6: Ipv6Net,
    /// The largest IP packet that paths to backends carry, outer headers included, in bytes, where a
    /// backend says nothing else ([`Backend::mtu`](crate::model::Backend::mtu)).
    pub mtu: u16,
}

impl Uplink {
    /// The largest IP packet that the path to a backend carries, outer headers included.
    #[must_use]
    pub fn mtu_to(&self, backend: &Backend) -> u16 {
        backend.mtu.unwrap_or(self.mtu)
    }
}

impl Default for Uplink {
    /// Back to who delivered the packet; sources from 172.16.0.0/16, as other balancers have them, and
    /// from the discard prefix (RFC 6666), neither of which is ever answered; 1500 bytes.
    fn default() -> Self {
        Self {
            gateway: None,
            source4: Ipv4Net::new_assert([172, 16, 0, 0].into(), 16),
            source6: Ipv6Net::new_assert([0x100, 0, 0, 0, 0, 0, 0, 0].into(), 64),
            mtu: 1500,
        }
    }
}
