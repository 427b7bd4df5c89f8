//! How the balancer is bound to an interface.

use std::fmt;

use super::Beside;
use crate::sys::link::Link;

/// By which mode of XDP the balancer is bound.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum XdpAttach {
    /// Native where the driver has it, generic otherwise.
    #[default]
    Any,
    /// In the driver, or not at all.
    Native,
    /// In the network stack, behind the driver.
    Generic,
}

/// The mode in which it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum XdpMode {
    /// In the driver.
    Native,
    /// In the network stack: slower, and it sees super-packets that can't be tunnelled
    /// ([`flowgate_abi::DropReason::SuperPacket`]).
    Generic,
}

impl fmt::Display for XdpMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Native => "native",
            Self::Generic => "generic",
        })
    }
}

/// Why what the balancer sends back by an interface may not arrive, although it runs there.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// It runs natively on a veth whose other end has no native program. Such an end takes what is sent back only if its
    /// GRO is on, which it isn't unless somebody switched it on (`veth_xdp_xmit`, Linux 5.13); that can't be seen from another
    /// network namespace. Attach in generic mode, switch GRO on there, or give that end a program.
    VethPeer {
        /// Frames that the interface dropped in sending since it was made, those that were sent back among them.
        dropped: u64,
    },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::VethPeer { dropped } = self;
        write!(
            f,
            "the veth's other end has no XDP program: unless its GRO is on, it takes nothing that is sent back \
             ({dropped} frames dropped in sending so far); switch GRO on there, or attach in generic mode"
        )
    }
}

impl Notice {
    /// Of a link, as it is now.
    pub(super) fn of(link: &Link) -> Option<Self> {
        if link.kind != "veth" || link.xdp_mode != Some(XdpMode::Native) {
            return None;
        }
        // An end that can't be seen has no program that is known.
        let other = link.other_end().ok().flatten();
        let takes = other.is_some_and(|end| end.xdp_mode == Some(XdpMode::Native));
        (!takes).then_some(Self::VethPeer { dropped: link.tx_dropped })
    }
}

/// What attaching came to.
#[must_use]
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttachedXdp {
    /// The interface's index.
    pub ifindex: u32,
    /// The mode in which it runs.
    pub mode: XdpMode,
    /// An earlier process had attached it: packets were balanced all the time.
    pub adopted: bool,
    /// Who else the interface runs.
    pub beside: Beside,
    /// Bytes of the largest IP packet that the interface carries.
    pub mtu: u32,
}
