//! An Ethernet segment: a bridge on the node, in which hosts are neighbours of each other.

use crate::{LabError, netlink::Netlink};

/// A segment of a [`crate::Node`]. It goes with the node.
#[derive(Debug)]
pub struct Segment {
    bridge: u32,
}

impl Segment {
    pub(crate) fn make(node: &mut Netlink, number: u32) -> Result<Self, LabError> {
        let name = format!("fg-br{number}");
        node.add_bridge(&name)?;
        let bridge = node.index_of(&name)?;
        node.set_up(bridge)?;
        Ok(Self { bridge })
    }

    pub(crate) fn bridge(&self) -> u32 {
        self.bridge
    }
}
