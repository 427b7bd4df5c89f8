//! What drives flowgate's benches in the kernel: packets of many flows in one call of
//! `BPF_PROG_TEST_RUN`, for a program under test or for the wire.
//!
//! The kernel doesn't put a packet back between runs, and gives the same one to each. These programs
//! go first: they restore the packet's head and what lies beside the bytes (mark, VLAN tag), and make
//! the packet the next flow's ([`course`]). [`tc_next_packet`] then tail-calls the program under test,
//! which returns to the kernel; what it costs by itself is measured by having it tail-call an empty
//! program; [`xdp_next_frame`] does the same before programs for XDP, and puts the frame's ends back
//! too. [`xdp_next_packet`] hands a live frame to the stack. What flowgate is compared with is here
//! too ([`tries`], [`words`]).
//!
//! Bytes are written only where they differ, so that the program under test finds them in the cache
//! as it would find those of a packet that came in, and not in the store buffer.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod course;
#[path = "../../../crates/ebpf-progs/shared/src/object.rs"]
mod object;
mod tries;
mod words;

use core::ptr;

use aya_ebpf::{
    bindings::{__sk_buff, xdp_action, xdp_md},
    btf_maps::{Array, PerCpuArray, ProgramArray},
    helpers::{
        bpf_redirect, bpf_redirect_peer, bpf_skb_vlan_push, bpf_xdp_adjust_head,
        bpf_xdp_adjust_tail, bpf_xdp_get_buff_len,
    },
    macros::{btf_map, classifier, xdp},
    programs::{TcContext, XdpContext},
};

use crate::course::{Course, put_destination};

#[btf_map]
pub static COURSE: Array<Course, 1> = Array::new();
/// The program under test.
#[btf_map]
pub static TESTED: ProgramArray<1> = ProgramArray::new();
/// The same for XDP: one array has programs of one type.
#[btf_map]
pub static TESTED_XDP: ProgramArray<1> = ProgramArray::new();
/// Addresses as they lie in memory, an IPv4 one in the first half of the first word: the destinations
/// that [`tc_next_target`] and [`xdp_next_target`] take in turn.
#[btf_map]
pub static TARGETS: Array<[u64; 2], 1> = Array::new();
/// How much [`xdp_cut`] puts in front of a frame, and how long that is then.
#[btf_map]
pub static CUT: Array<[u64; 2], 1> = Array::new();
/// Where [`tc_redirect`] and [`tc_redirect_peer`] send packets: an interface index.
#[btf_map]
pub static TARGET: Array<u64, 1> = Array::new();
/// Packets that came to [`tc_sink`] or [`words::xdp_sink`].
#[btf_map]
pub static ARRIVED: PerCpuArray<u64, 1> = PerCpuArray::new();

const SHOT: i32 = 2;
/// `TC_ACT_STOLEN`: what no program under test returns; the course is wrong.
const FAILED: i32 = 4;
const ETH_P_8021Q: u16 = 0x8100;

/// Reads one field of a context, by one load of its own width.
macro_rules! field {
    ($context:expr, $name:ident) => {
        // SAFETY: the kernel hands a valid context to the program.
        unsafe { ptr::read_volatile(&raw const (*$context).$name) }
    };
}

/// Restores the packet for the next flow and hands it to the program under test.
#[classifier]
pub fn tc_next_packet(ctx: TcContext) -> i32 {
    if prepare(ctx.skb.skb).is_some() {
        // SAFETY: nothing here needs to be dropped.
        unsafe { TESTED.tail_call(&ctx, 0) };
    }
    FAILED
}

#[inline(always)]
fn prepare(skb: *mut __sk_buff) -> Option<()> {
    let course = course()?;
    // SAFETY: the mark may be written.
    unsafe { ptr::write_volatile(&raw mut (*skb).mark, 0) };
    if course.vlan != 0 && field!(skb, vlan_present) == 0 {
        // SAFETY: a plain helper call; no pointer into the packet is older than it.
        unsafe { bpf_skb_vlan_push(skb, ETH_P_8021Q.to_be(), course.vlan as u16) };
    }
    let (head, end) = (field!(skb, data), field!(skb, data_end));
    course.put_next(head as usize as *mut u8, end as usize as *mut u8)
}

/// Restores the frame for the next flow and hands it to the program under test.
#[xdp(frags)]
pub fn xdp_next_frame(ctx: XdpContext) -> u32 {
    if restore(ctx.ctx).is_some() {
        // SAFETY: nothing here needs to be dropped.
        unsafe { TESTED_XDP.tail_call(&ctx, 0) };
    }
    xdp_action::XDP_ABORTED
}

/// The head is put back by a helper call also if nobody has moved it, so that the empty program pays
/// for that call as the program under test does.
#[inline(always)]
fn restore(ctx: *mut xdp_md) -> Option<()> {
    let course = course()?;
    let grown = if length(ctx) == course.length { 0 } else { course.grown };
    // SAFETY: a plain helper call; pointers into the frame are taken behind it.
    if unsafe { bpf_xdp_adjust_head(ctx, grown as i32) } != 0 {
        return None;
    }
    let missing = course.length.wrapping_sub(length(ctx)) as i32;
    // SAFETY: as above.
    if missing != 0 && unsafe { bpf_xdp_adjust_tail(ctx, missing) } != 0 {
        return None;
    }
    let (head, end) = (field!(ctx, data), field!(ctx, data_end));
    course.put_next(head as usize as *mut u8, end as usize as *mut u8)
}

/// Nothing but making the frame as long as its answer, by as much more at its head and less at its end: what
/// answering costs at least, [`xdp_next_frame`]'s putting back among it.
#[xdp(frags)]
pub fn xdp_cut(ctx: XdpContext) -> u32 {
    match cut(ctx.ctx) {
        Some(()) => xdp_action::XDP_TX,
        None => xdp_action::XDP_ABORTED,
    }
}

#[inline(always)]
fn cut(ctx: *mut xdp_md) -> Option<()> {
    let [grown, answer] = *CUT.get(0)?;
    let missing = answer.wrapping_sub(grown).wrapping_sub(length(ctx)) as i32;
    // SAFETY: plain helper calls; no pointer into the frame is older than they.
    let failed =
        unsafe { bpf_xdp_adjust_tail(ctx, missing) | bpf_xdp_adjust_head(ctx, -(grown as i32)) };
    (failed == 0).then_some(())
}

#[inline(always)]
fn length(ctx: *mut xdp_md) -> u64 {
    // SAFETY: a plain helper call.
    unsafe { bpf_xdp_get_buff_len(ctx) }
}

/// As [`tc_next_packet`], with a destination of its own for each flow.
#[classifier]
pub fn tc_next_target(ctx: TcContext) -> i32 {
    // SAFETY: the mark may be written.
    unsafe { ptr::write_volatile(&raw mut (*ctx.skb.skb).mark, 0) };
    if put_target(field!(ctx.skb.skb, data), field!(ctx.skb.skb, data_end)).is_some() {
        // SAFETY: nothing here needs to be dropped.
        unsafe { TESTED.tail_call(&ctx, 0) };
    }
    FAILED
}

/// Makes a live frame the next flow's and hands it to the stack, as if it had come in.
#[xdp]
pub fn xdp_next_packet(ctx: XdpContext) -> u32 {
    match next_frame(&ctx) {
        Some(()) => xdp_action::XDP_PASS,
        None => xdp_action::XDP_ABORTED,
    }
}

/// As [`xdp_next_packet`], with a destination of its own for each flow.
#[xdp]
pub fn xdp_next_target(ctx: XdpContext) -> u32 {
    match put_target(field!(ctx.ctx, data), field!(ctx.ctx, data_end)) {
        Some(()) => xdp_action::XDP_PASS,
        None => xdp_action::XDP_ABORTED,
    }
}

#[inline(always)]
fn put_target(head: u32, end: u32) -> Option<()> {
    let (head, end) = (head as usize as *mut u8, end as usize as *mut u8);
    let flow = course()?.put_port(head, end)?;
    put_destination(head, end, TARGETS.get(flow as u32)?)
}

#[inline(always)]
fn next_frame(ctx: &XdpContext) -> Option<()> {
    let (head, end) = (field!(ctx.ctx, data), field!(ctx.ctx, data_end));
    course()?.put_next(head as usize as *mut u8, end as usize as *mut u8)
}

#[inline(always)]
fn course() -> Option<&'static mut Course> {
    // SAFETY: the element of a map; one call runs at a time.
    COURSE.get_ptr_mut(0).map(|course| unsafe { &mut *course })
}

/// Counts a packet and drops it: the end of the way.
#[classifier]
pub fn tc_sink(_ctx: TcContext) -> i32 {
    if let Some(count) = ARRIVED.get_ptr_mut(0) {
        // SAFETY: this CPU's own element, and nothing else runs on it meanwhile.
        unsafe { *count += 1 };
    }
    SHOT
}

/// Nothing but a redirect to the host side of a link.
#[classifier]
pub fn tc_redirect(_ctx: TcContext) -> i32 {
    // SAFETY: a plain helper call.
    target().map_or(SHOT, |ifindex| unsafe { bpf_redirect(ifindex, 0) as i32 })
}

/// Nothing but a redirect into the network namespace behind a link.
#[classifier]
pub fn tc_redirect_peer(_ctx: TcContext) -> i32 {
    // SAFETY: a plain helper call.
    target().map_or(SHOT, |ifindex| unsafe { bpf_redirect_peer(ifindex, 0) as i32 })
}

#[inline(always)]
fn target() -> Option<u32> {
    TARGET.get(0).map(|ifindex| *ifindex as u32)
}
