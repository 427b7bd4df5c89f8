//! A whole frame on the host.

use super::Wrapped;
use crate::{
    hook::{FrameBytes, Rewrite},
    lb::HostBuffer,
    parse::Layer3,
};

impl Wrapped for HostBuffer<'_> {
    fn is_super(&self) -> bool {
        false
    }

    fn unwrap(&mut self, bytes: u32, inner: Layer3) -> bool {
        let Some(addresses) = self.load::<[u16; 6]>(0) else { return false };
        self.shrink(bytes) && self.store(0, addresses) && self.store(12, inner.ethertype())
    }
}
