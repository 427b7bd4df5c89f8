//! The eBPF programs: entry points of a few lines around `flowgate-pipeline`.
//!
//! A context becomes a cursor ([`packet`]), maps become tables ([`tables`]), the pipeline decides,
//! and one exhaustive match turns its verdict into an action ([`act`]).
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod act;
mod maps;
mod packet;
mod tables;

use aya_ebpf::{bindings::__sk_buff, macros::classifier, programs::TcContext};
use flowgate_abi::{Be16, event::Hook};
use flowgate_pipeline::{V4, V6, hook, parse::Layer3};

use crate::{act::act, tables::Maps};

/// A packet comes from an endpoint; at TC ingress of the endpoint's host side.
#[classifier]
pub fn tc_from_endpoint(ctx: TcContext) -> i32 {
    let skb = ctx.skb.skb;
    // An endpoint in this very network namespace could have set it.
    packet::take_mark(skb);
    finish(match Layer3::of(packet::ethertype(skb)) {
        Layer3::Ipv4 => from_endpoint_v4(skb),
        Layer3::Ipv6 => from_endpoint_v6(skb),
        other => not_ip(skb, other, Hook::FromEndpoint),
    })
}

/// A packet goes to an endpoint; at TC egress of the endpoint's host side.
#[classifier]
pub fn tc_to_endpoint(ctx: TcContext) -> i32 {
    let skb = ctx.skb.skb;
    if packet::take_mark(skb) {
        return act::PASS;
    }
    finish(match Layer3::of(packet::ethertype(skb)) {
        Layer3::Ipv4 => to_endpoint_v4(skb),
        Layer3::Ipv6 => to_endpoint_v6(skb),
        other => not_ip(skb, other, Hook::ToEndpoint),
    })
}

/// Sweeps the next bucket of the flow tables; run by user space (`BPF_PROG_TEST_RUN`), never
/// attached. Returns 1 if there may be more to do in that bucket.
#[classifier]
pub fn tc_sweep(_ctx: TcContext) -> i32 {
    let (v4, index) = maps::next_bucket();
    finish(if v4 { sweep_v4(index) } else { sweep_v6(index) })
}

/// Does nothing: what every program costs that is run by `BPF_PROG_TEST_RUN`.
#[classifier]
pub fn tc_empty(_ctx: TcContext) -> i32 {
    act::PASS
}

// VERIFIER: a subprogram for each hook and family. Both families inlined into one took 440 of the
// stack's 512 bytes on 5.10. They get the raw context pointer: LLVM would pass `data` and
// `data_end` of a larger context as scalars, which no kernel takes.

#[inline(never)]
fn from_endpoint_v4(skb: *mut __sk_buff) -> i32 {
    let (maps, frame) = (Maps::new(), packet::frame(skb, Hook::FromEndpoint));
    let verdict = hook::from_endpoint::<V4, _, _>(packet::cursor4(skb, frame), frame, &maps);
    outcome(act::<V4>(skb, &maps, verdict), &maps)
}

#[inline(never)]
fn from_endpoint_v6(skb: *mut __sk_buff) -> i32 {
    let (maps, frame) = (Maps::new(), packet::frame(skb, Hook::FromEndpoint));
    let verdict = hook::from_endpoint::<V6, _, _>(packet::cursor6(skb, frame), frame, &maps);
    outcome(act::<V6>(skb, &maps, verdict), &maps)
}

#[inline(never)]
fn to_endpoint_v4(skb: *mut __sk_buff) -> i32 {
    let (maps, frame) = (Maps::new(), packet::frame(skb, Hook::ToEndpoint));
    let verdict = hook::to_endpoint::<V4, _, _>(packet::cursor4(skb, frame), frame, &maps);
    outcome(act::<V4>(skb, &maps, verdict), &maps)
}

#[inline(never)]
fn to_endpoint_v6(skb: *mut __sk_buff) -> i32 {
    let (maps, frame) = (Maps::new(), packet::frame(skb, Hook::ToEndpoint));
    let verdict = hook::to_endpoint::<V6, _, _>(packet::cursor6(skb, frame), frame, &maps);
    outcome(act::<V6>(skb, &maps, verdict), &maps)
}

#[inline(never)]
fn sweep_v4(index: u32) -> i32 {
    let maps = Maps::new();
    outcome(flowgate_pipeline::sweep::bucket::<V4, _>(&maps, index) as i32, &maps)
}

#[inline(never)]
fn sweep_v6(index: u32) -> i32 {
    let maps = Maps::new();
    outcome(flowgate_pipeline::sweep::bucket::<V6, _>(&maps, index) as i32, &maps)
}

#[inline(always)]
fn not_ip(skb: *mut __sk_buff, layer3: Layer3, hook: Hook) -> i32 {
    let maps = Maps::new();
    act::<V4>(skb, &maps, hook::other(layer3, packet::frame(skb, hook), &maps))
}

/// Set in a subprogram's result if there is an event to hand over. It lies outside of the actions,
/// which are small or -1.
const EVENT: i32 = 1 << 16;

#[inline(always)]
fn outcome(action: i32, maps: &Maps) -> i32 {
    if maps.has_event() { action ^ EVENT } else { action }
}

#[inline(always)]
fn finish(outcome: i32) -> i32 {
    let told = (outcome & EVENT != 0) != (outcome < 0);
    if !told {
        return outcome;
    }
    Maps::new().hand_over_event();
    outcome ^ EVENT
}

/// An EtherType as it lies in a socket buffer.
type EtherType = Be16;

/// VERIFIER: a panic path that survives optimisation must not load; an endless loop doesn't.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The string that the kernel knows: GPL-only helpers may be called.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
