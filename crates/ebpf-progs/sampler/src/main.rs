//! Samples frames: one of so many, as they are when the last program of the interface has said its word.
//!
//! It takes the place of the interface's first program while somebody samples, and runs that by a tail call from
//! a subprogram, which comes back here with what was said. While nobody samples, it isn't there.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

#[path = "../../shared/src/object.rs"]
mod object;
#[path = "../../shared/src/ring_buffer.rs"]
mod ring_buffer;

use core::{arch::asm, ptr};

use aya_ebpf::{
    EbpfContext,
    bindings::{xdp_action, xdp_md},
    btf_maps::{PerCpuArray, ProgramArray},
    helpers::{
        bpf_get_prandom_u32, bpf_ktime_get_ns, bpf_ringbuf_discard, bpf_ringbuf_reserve,
        bpf_ringbuf_submit, bpf_tail_call, bpf_xdp_get_buff_len, bpf_xdp_load_bytes,
    },
    macros::{btf_map, xdp},
    programs::XdpContext,
};
use flowgate_abi::sample::{ROOM, Sample, Sampling};

use crate::ring_buffer::RingBuffer;

/// Samples that nobody has read yet: as many as fit into 4 MiB.
#[unsafe(link_section = ".maps")]
#[unsafe(no_mangle)]
pub static SAMPLES: RingBuffer<4194304> = RingBuffer::new();

/// Samples that there was no room for.
#[btf_map]
pub static LOST: PerCpuArray<u64, 1> = PerCpuArray::new();

/// The slots of the interface's programs; the first of them is where a frame begins.
#[btf_map]
pub static STAGES: ProgramArray<17> = ProgramArray::new();

/// Set by the loader before the program is verified.
#[unsafe(no_mangle)]
#[used]
static SAMPLING: Sampling = Sampling { threshold: u32::MAX, keep: ROOM as u32 };

#[inline(always)]
fn sampling() -> Sampling {
    let mut sampling = &raw const SAMPLING;
    // SAFETY: does nothing, but LLVM must believe that the pointer is another one afterwards, or it
    // would take the values above for the last word.
    unsafe { asm!("{0} = {0}", inout(reg) sampling) };
    // SAFETY: it still points to SAMPLING, which never changes once the program is loaded.
    unsafe { *sampling }
}

/// Runs the interface's programs, and samples what they have left.
#[xdp(frags)]
pub fn xdp_sample(ctx: XdpContext) -> u32 {
    let ctx: *mut xdp_md = ctx.as_ptr().cast();
    // VERIFIER: it takes the action for what `on` says when there is no program, so nothing may depend on it.
    let action = on(ctx);
    let Sampling { threshold, keep } = sampling();
    // SAFETY: a plain helper call.
    if unsafe { bpf_get_prandom_u32() } <= threshold {
        sample(ctx, action, keep);
    }
    action
}

/// What the programs say. The one that is tail-called returns to this one's caller.
#[inline(never)]
fn on(ctx: *mut xdp_md) -> u32 {
    // SAFETY: the context as it came, and an array of programs.
    unsafe { bpf_tail_call(ctx.cast(), (&raw const STAGES).cast_mut().cast(), 0) };
    let nobody: u64;
    // SAFETY: a constant, which LLVM would otherwise put in place of the call's result.
    unsafe { asm!("{0} = {1}", out(reg) nobody, const xdp_action::XDP_ABORTED) };
    nobody as u32
}

#[inline(always)]
fn sample(ctx: *mut xdp_md, action: u32, keep: u32) {
    // SAFETY: a plain helper call.
    let length = unsafe { bpf_xdp_get_buff_len(ctx) };
    let kept = bounded(if length > u64::from(keep) { u64::from(keep) } else { length });
    // SAFETY: a plain helper call; the size is a constant.
    let place = unsafe {
        bpf_ringbuf_reserve((&raw const SAMPLES).cast_mut().cast(), size_of::<Sample>() as u64, 0)
    };
    let sample: *mut Sample = place.cast();
    if sample.is_null() {
        return lose();
    }
    // SAFETY: the reserved element is a sample; its bytes have room for `kept`.
    unsafe {
        (*sample).time = bpf_ktime_get_ns();
        (*sample).length = length as u32;
        (*sample).action = action;
        (*sample).kept = kept;
        (*sample).ifindex = ptr::read_volatile(&raw const (*ctx).ingress_ifindex);
        let into = (&raw mut (*sample).bytes).cast();
        if bpf_xdp_load_bytes(ctx, 0, into, kept) == 0 {
            bpf_ringbuf_submit(place, 0);
        } else {
            bpf_ringbuf_discard(place, 0);
            lose();
        }
    }
}

#[inline(always)]
fn lose() {
    if let Some(lost) = LOST.get_ptr_mut(0) {
        // SAFETY: element 0 of this CPU, on which nobody else runs.
        unsafe { *lost += 1 };
    }
}

/// From 1 to [`ROOM`], as every frame has it.
///
/// VERIFIER: LLVM knows the bounds, and drops what tells the verifier; it leaves assembly alone.
#[inline(always)]
fn bounded(kept: u64) -> u32 {
    let mut bounded = kept.wrapping_sub(1);
    // SAFETY: arithmetic: ((kept - 1) & (ROOM - 1)) + 1.
    unsafe { asm!("{0} &= {1}", "{0} += 1", inout(reg) bounded, const ROOM - 1) };
    bounded as u32
}
