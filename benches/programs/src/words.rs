//! Programs for XDP that say one word of every frame: a stage that does nothing, what sends frames back and does no
//! more, and the end of the way.

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};

use crate::ARRIVED;

/// Passes a frame.
#[xdp(frags)]
pub fn xdp_pass(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// Sends a frame back as it came.
#[xdp(frags)]
pub fn xdp_bounce(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_TX
}

/// Counts a frame and drops it.
#[xdp(frags)]
pub fn xdp_sink(_ctx: XdpContext) -> u32 {
    if let Some(count) = ARRIVED.get_ptr_mut(0) {
        // SAFETY: this CPU's own element, and nothing else runs on it meanwhile.
        unsafe { *count += 1 };
    }
    xdp_action::XDP_DROP
}
