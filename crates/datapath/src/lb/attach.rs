//! How the balancer is bound to an interface.

use std::fmt;

use super::Beside;

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
