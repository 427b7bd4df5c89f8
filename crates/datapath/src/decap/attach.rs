//! How the decapsulator is bound to an interface.

use std::fmt;

use crate::lb::{XdpAttach, XdpMode};

/// Where the decapsulator runs.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Before the network stack has seen the frame, where the driver has that; the fastest.
    Xdp(XdpAttach),
    /// At TC ingress, by TCX or, before Linux 6.6, clsact: for drivers without native XDP, where packets that
    /// GRO has put together stay so. Frames in a VLAN whose tag the driver takes off are seen.
    Tc,
}

/// By what it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Way {
    /// XDP, in a mode.
    Xdp(XdpMode),
    /// TC, by a TCX link.
    Tcx,
    /// TC, by a clsact filter: the kernel has no TCX.
    Clsact,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Xdp(mode) => write!(f, "XDP ({mode})"),
            Self::Tcx => f.write_str("TC (TCX)"),
            Self::Clsact => f.write_str("TC (clsact)"),
        }
    }
}

/// What attaching came to.
#[must_use]
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The interface's index.
    pub ifindex: u32,
    /// By what it runs.
    pub way: Way,
    /// An earlier process had attached it: packets were decapsulated all the time.
    pub adopted: bool,
}
