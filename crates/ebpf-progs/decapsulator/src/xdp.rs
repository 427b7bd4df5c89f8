//! How a frame in its XDP buffer loses its outer headers.

use aya_ebpf::helpers::bpf_xdp_adjust_head;
use flowgate_pipeline::{
    decap::Wrapped,
    hook::{FrameBytes, Rewrite},
    parse::Layer3,
};

use crate::xdp_frame::Frame;

impl Wrapped for Frame {
    /// XDP doesn't say; a super-packet in UDP has another length than its first packet, and is found by that.
    #[inline(always)]
    fn is_super(&self) -> bool {
        false
    }

    #[inline(always)]
    fn unwrap(&mut self, bytes: u32, inner: Layer3) -> bool {
        let Some(addresses) = self.load::<[u16; 6]>(0) else { return false };
        // SAFETY: a plain helper call; pointers into the packet are taken anew behind it.
        if unsafe { bpf_xdp_adjust_head(self.0, bytes as i32) } != 0 {
            return false;
        }
        self.store(0, addresses) && self.store(12, inner.ethertype())
    }
}
