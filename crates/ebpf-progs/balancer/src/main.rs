//! The load balancer's eBPF programs: entry points of a few lines around `flowgate-pipeline`.
//!
//! A context becomes a buffer ([`xdp_frame`], [`buffer`]), maps become tables ([`tables`]), the pipeline decides and rewrites,
//! and one exhaustive match turns what it says into an action.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod buffer;
mod maps;
#[path = "../../shared/src/object.rs"]
mod object;
mod tables;
#[path = "../../shared/src/xdp_frame.rs"]
mod xdp_frame;

use aya_ebpf::{
    EbpfContext,
    bindings::{xdp_action, xdp_md},
    macros::xdp,
    programs::XdpContext,
};
use flowgate_pipeline::{
    V4, V6,
    lb::{
        Action,
        hook::{Common, Rare, affine, common, rare},
        icmp::Answer,
        nat::{translate, translate_error},
        request,
    },
    parse::Layer3,
};

use crate::{buffer::Direct, tables::Maps, xdp_frame::Frame};

/// Balances what comes in by an interface.
#[xdp(frags)]
pub fn xdp_balance(ctx: XdpContext) -> u32 {
    let ctx: *mut xdp_md = ctx.as_ptr().cast();
    let mut head = Direct::new(ctx);
    match buffer::layer3(&mut head) {
        Layer3::Ipv4 => balance::<V4>(ctx, head, [rare_v4, nat_v4, nat_error_v4, affine_v4]),
        Layer3::Ipv6 => balance::<V6>(ctx, head, [rare_v6, nat_v6, nat_error_v6, affine_v6]),
        _ => xdp_action::XDP_PASS,
    }
}

/// Does nothing: what every program costs that is run by `BPF_PROG_TEST_RUN`.
#[xdp(frags)]
pub fn xdp_empty(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_TX
}

#[inline(always)]
fn balance<F: Answer>(
    ctx: *mut xdp_md,
    mut head: Direct,
    [rare, nat, nat_error, affine]: [fn(*mut xdp_md) -> u32; 4],
) -> u32 {
    match common::<F, _, _>(&mut Frame(ctx), request::plain_packet(&mut head), &Maps) {
        Common::Done(action) => act(action),
        Common::Rare => match rare(ctx) {
            NAT_ERROR => nat_error(ctx),
            action => action,
        },
        Common::Nat => nat(ctx),
        Common::Affine => affine(ctx),
    }
}

// VERIFIER: subprograms for what is rare, so that its stack and its states aren't those of what is common.

#[inline(never)]
fn rare_v4(ctx: *mut xdp_md) -> u32 {
    made(rare::<V4, _, _>(&mut Frame(ctx), &Maps))
}

#[inline(never)]
fn rare_v6(ctx: *mut xdp_md) -> u32 {
    made(rare::<V6, _, _>(&mut Frame(ctx), &Maps))
}

/// No action of XDP's: what is left to be done.
const NAT_ERROR: u32 = 0xff;

#[inline(always)]
fn made(rare: Rare) -> u32 {
    match rare {
        Rare::Done(action) => act(action),
        Rare::NatError => NAT_ERROR,
    }
}

#[inline(never)]
fn nat_error_v4(ctx: *mut xdp_md) -> u32 {
    act(translate_error::<V4, _, _>(&mut Frame(ctx), &Maps))
}

#[inline(never)]
fn nat_error_v6(ctx: *mut xdp_md) -> u32 {
    act(translate_error::<V6, _, _>(&mut Frame(ctx), &Maps))
}

#[inline(never)]
fn affine_v4(ctx: *mut xdp_md) -> u32 {
    act(affine::<V4, _, _>(&mut Frame(ctx), &Maps))
}

#[inline(never)]
fn affine_v6(ctx: *mut xdp_md) -> u32 {
    act(affine::<V6, _, _>(&mut Frame(ctx), &Maps))
}

#[inline(never)]
fn nat_v4(ctx: *mut xdp_md) -> u32 {
    act(translate::<V4, _, _>(&mut Frame(ctx), &Maps))
}

#[inline(never)]
fn nat_v6(ctx: *mut xdp_md) -> u32 {
    act(translate::<V6, _, _>(&mut Frame(ctx), &Maps))
}

#[inline(always)]
fn act(action: Action) -> u32 {
    match action {
        Action::Pass => xdp_action::XDP_PASS,
        Action::Transmit => xdp_action::XDP_TX,
        Action::Drop(_) => xdp_action::XDP_DROP,
    }
}
