//! The eBPF programs at tunnels' other ends: a backend's, and those that take a balancer's own checks into the
//! tunnels. Entry points of a few lines around `flowgate-pipeline`.
//!
//! A context becomes a frame ([`xdp_frame`], [`socket_buffer`], [`own`]), maps become what is configured
//! ([`ends`]), the pipeline decides, and one match for each hook turns what it says into an action.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod ends;
mod maps;
#[path = "../../shared/src/object.rs"]
mod object;
mod own;
#[path = "../../shared/src/skb_copying.rs"]
mod skb_copying;
mod socket_buffer;
mod xdp;
#[path = "../../shared/src/xdp_frame.rs"]
mod xdp_frame;

use aya_ebpf::{
    EbpfContext,
    bindings::xdp_action,
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use flowgate_pipeline::{
    decap::{Fate, decapsulate},
    probe,
};

use crate::{ends::Maps, socket_buffer::SocketBuffer, xdp_frame::Frame};

/// Takes the outer headers off what comes in by an interface.
#[xdp(frags)]
pub fn xdp_decapsulate(ctx: XdpContext) -> u32 {
    match decapsulate(&mut Frame(ctx.as_ptr().cast()), &Maps) {
        Fate::Pass | Fate::Unwrapped => xdp_action::XDP_PASS,
        Fate::Drop(_) => xdp_action::XDP_DROP,
    }
}

/// On to whoever is behind us: `TC_ACT_UNSPEC` under clsact, `TCX_NEXT` under TCX.
const PASS: i32 = -1;
/// `TC_ACT_SHOT`.
const DROP: i32 = 2;

/// The same at TC ingress.
#[classifier]
pub fn tc_decapsulate(ctx: TcContext) -> i32 {
    match decapsulate(&mut SocketBuffer::incoming(ctx.skb.skb), &Maps) {
        Fate::Pass | Fate::Unwrapped => PASS,
        Fate::Drop(_) => DROP,
    }
}

/// Takes checks' packets into the tunnels of those who are checked; at TC egress.
#[classifier]
pub fn tc_probe_egress(ctx: TcContext) -> i32 {
    action(probe::leave(&mut SocketBuffer::new(ctx.skb.skb), &Maps))
}

/// Takes the answers back; at TC ingress.
#[classifier]
pub fn tc_probe_ingress(ctx: TcContext) -> i32 {
    action(probe::answer(&mut SocketBuffer::incoming(ctx.skb.skb), &Maps))
}

#[inline(always)]
const fn action(fate: probe::Fate) -> i32 {
    match fate {
        probe::Fate::Pass | probe::Fate::Rewritten => PASS,
        probe::Fate::Drop => DROP,
    }
}
