//! A stage in front of flowgate's balancer that limits sources: it blocks prefixes, and holds each source of
//! others to a rate. It knows nothing of the balancer: `XDP_PASS` hands a frame on.
//!
//! CPUs that judge frames of one source at the same time may let through as many more as there are of them.
#![no_std]
#![no_main]

mod rule;

use core::ptr;

use aya_ebpf::{
    EbpfContext,
    bindings::{xdp_action, xdp_md},
    btf_maps::{LpmTrie, LruHashMap, PerCpuArray, lpm_trie::Key},
    helpers::bpf_ktime_get_ns,
    macros::{btf_map, xdp},
    programs::XdpContext,
};

use crate::rule::Rule;

/// An address as it lies on the wire; IPv4 as `::ffff:a.b.c.d` (RFC 4291, section 2.5.5.2).
type Source = [u32; 4];

/// By prefix; the longest that matches counts.
#[btf_map]
pub static RULES: LpmTrie<Source, Rule, 4096> = LpmTrie::new();
/// By source: when its bucket is full again.
#[btf_map]
pub static SOURCES: LruHashMap<Source, u64, 65536> = LruHashMap::new();
/// Element 0: frames that were dropped.
#[btf_map]
pub static DROPPED: PerCpuArray<u64, 1> = PerCpuArray::new();

const ETHERTYPE: usize = 12;
const IPV4_SOURCE: usize = 26;
const IPV6_SOURCE: usize = 22;

/// Drops what its source may not send.
#[xdp(frags)]
pub fn xdp_limit(ctx: XdpContext) -> u32 {
    match source(ctx.as_ptr().cast()) {
        Some(source) if !admits(&source) => {
            count();
            xdp_action::XDP_DROP
        }
        _ => xdp_action::XDP_PASS,
    }
}

#[inline(always)]
fn source(ctx: *mut xdp_md) -> Option<Source> {
    let ethertype: u16 = read(ctx, ETHERTYPE)?;
    match u16::from_be(ethertype) {
        0x0800 => {
            let address: u32 = read(ctx, IPV4_SOURCE)?;
            Some([0, 0, 0xffff_u32.to_be(), address])
        }
        0x86dd => read(ctx, IPV6_SOURCE),
        _ => None,
    }
}

#[inline(always)]
fn admits(source: &Source) -> bool {
    let Some(rule) = RULES.get(&Key::new(128, *source)) else { return true };
    if rule.blocks() {
        return false;
    }
    // SAFETY: a plain helper call.
    let now = unsafe { bpf_ktime_get_ns() };
    let Some(bucket) = SOURCES.get_ptr_mut(source) else {
        // The table takes a source in place of the one that was silent for longest; if it takes none, the
        // frame counts for nothing.
        if let Some(full) = rule.spend(0, now) {
            let _ = SOURCES.insert(source, full, 0);
        }
        return true;
    };
    // SAFETY: the element stays as long as the program runs; other CPUs write whole words.
    let full = unsafe { ptr::read_volatile(bucket) };
    let Some(full) = rule.spend(full, now) else { return false };
    // SAFETY: as above.
    unsafe { ptr::write_volatile(bucket, full) };
    true
}

#[inline(always)]
fn count() {
    let Some(dropped) = DROPPED.get_ptr_mut(0) else { return };
    // SAFETY: this CPU's own element, and nothing else runs on it meanwhile.
    unsafe { *dropped += 1 };
}

/// Reads a value at an offset, if all of it is there.
///
/// VERIFIER: each context access must be one load of the field's own width, which volatile keeps it.
#[inline(always)]
fn read<T>(ctx: *mut xdp_md, offset: usize) -> Option<T> {
    // SAFETY: the kernel hands a valid context to the program.
    let start = unsafe { ptr::read_volatile(&raw const (*ctx).data) } as usize as *const u8;
    // SAFETY: as above.
    let end = unsafe { ptr::read_volatile(&raw const (*ctx).data_end) } as usize as *const u8;
    let behind = start.wrapping_add(offset + size_of::<T>());
    if behind > end {
        return None;
    }
    // SAFETY: these bytes are inside of the packet, as the verifier checks too, and any are an integer. Packets
    // allow unaligned access on every architecture that has a JIT.
    Some(unsafe { ptr::read(start.wrapping_add(offset).cast()) })
}

/// VERIFIER: a panic path that survives optimisation must not load; an endless loop doesn't.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
