//! Drives a program under test over the packets of many flows in one call of `BPF_PROG_TEST_RUN`.
//!
//! The kernel doesn't put a packet back between runs, and gives the same one to each. This program
//! goes first: it restores the packet's head and what lies beside the bytes (mark, VLAN tag), makes
//! the packet the next flow's, and tail-calls the program under test, which then returns to the
//! kernel. What it costs by itself is measured by having it tail-call an empty program.
//!
//! Bytes are written only where they differ, so that the program under test finds them in the cache
//! as it would find those of a packet that came in, and not in the store buffer.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

use core::ptr;

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_MMAPABLE},
    btf_maps::{Array, ProgramArray},
    helpers::bpf_skb_vlan_push,
    macros::{btf_map, classifier},
    programs::TcContext,
};

/// Words of 8 bytes at a packet's beginning that are restored: all headers that there may be.
const WORDS: usize = 12;
const HEAD: usize = 8 * WORDS;

/// What runs next. User space writes it before each call.
#[repr(C)]
pub struct Course {
    /// Flows that take turns.
    flows: u64,
    /// The next flow: its number, from 0.
    next: u64,
    /// What is added to the number: its low 16 bits are the port, the rest goes to the address.
    base: u64,
    /// Where the port lies that differs between flows.
    port_at: u64,
    /// Where the low 16 bits of the address lie that differs between flows.
    address_at: u64,
    /// The low 16 bits of that address.
    address: u64,
    /// The VLAN of the tag that the packet has beside its bytes; 0: it has none.
    vlan: u64,
    /// The packet's first bytes.
    head: [u64; WORDS],
    /// Ones where a packet keeps these bytes, zeros where flows differ.
    kept: [u64; WORDS],
}

#[btf_map]
pub static COURSE: Array<Course, 1, { BPF_F_MMAPABLE as usize }> = Array::new();
/// The program under test.
#[btf_map]
pub static TESTED: ProgramArray<1> = ProgramArray::new();

/// `TC_ACT_STOLEN`: what no program under test returns; the course is wrong.
const FAILED: i32 = 4;
const ETH_P_8021Q: u16 = 0x8100;

/// Restores the packet for the next flow and hands it to the program under test.
#[classifier]
pub fn tc_next_packet(ctx: TcContext) -> i32 {
    let Some(course) = COURSE.get_ptr_mut(0) else { return FAILED };
    // SAFETY: the element of a map; one call runs at a time.
    let course = unsafe { &mut *course };
    if prepare(ctx.skb.skb, course).is_none() {
        return FAILED;
    }
    // SAFETY: nothing here needs to be dropped.
    unsafe { TESTED.tail_call(&ctx, 0) };
    FAILED
}

#[inline(always)]
fn prepare(skb: *mut __sk_buff, course: &mut Course) -> Option<()> {
    // SAFETY: the kernel hands a valid context to the program; the mark may be written.
    unsafe {
        ptr::write_volatile(&raw mut (*skb).mark, 0);
        if course.vlan != 0 && ptr::read_volatile(&raw const (*skb).vlan_present) == 0 {
            bpf_skb_vlan_push(skb, ETH_P_8021Q.to_be(), course.vlan as u16);
        }
    }
    let (head, end) = bounds(skb)?;
    for index in 0..WORDS {
        // SAFETY: inside of the head.
        unsafe { restore(head.cast::<u64>().add(index), course.head[index], course.kept[index]) };
    }
    let flow = course.next;
    course.next = if flow + 1 < course.flows { flow + 1 } else { 0 };
    let number = course.base + flow;
    put_short(head, end, course.port_at, number as u16)?;
    put_short(head, end, course.address_at, (course.address + (number >> 16)) as u16)
}

/// The packet's first byte and the end of what lies there, if that is a whole head.
#[inline(always)]
fn bounds(skb: *mut __sk_buff) -> Option<(*mut u8, *mut u8)> {
    // SAFETY: fields of the context, each read by one load of its own width.
    let (data, end) = unsafe {
        (ptr::read_volatile(&raw const (*skb).data), ptr::read_volatile(&raw const (*skb).data_end))
    };
    let (head, end) = (data as usize as *mut u8, end as usize as *mut u8);
    (head.wrapping_add(HEAD) <= end).then_some((head, end))
}

/// In network byte order; inside of the head.
#[inline(always)]
fn put_short(head: *mut u8, end: *mut u8, at: u64, value: u16) -> Option<()> {
    let mut at = at;
    // VERIFIER: LLVM leaves assembly alone, so the bound stays where the verifier sees it.
    // SAFETY: an AND with a constant.
    unsafe { core::arch::asm!("{0} &= 63", inout(reg) at) };
    let place = head.wrapping_add(at as usize);
    if place.wrapping_add(2) > end {
        return None;
    }
    // SAFETY: before the end.
    unsafe { put(place.cast::<u16>(), value.to_be()) };
    Some(())
}

/// # Safety
/// The pointer is good for reading and writing; it needn't be aligned, since packets aren't.
#[inline(always)]
unsafe fn put(at: *mut u16, value: u16) {
    // SAFETY: the caller's.
    unsafe {
        if ptr::read_volatile(at) != value {
            ptr::write_volatile(at, value);
        }
    }
}

/// # Safety
/// As [`put`].
#[inline(always)]
unsafe fn restore(at: *mut u64, value: u64, kept: u64) {
    // SAFETY: the caller's.
    unsafe {
        let found = ptr::read_volatile(at);
        let changed = (found ^ value) & kept;
        if changed != 0 {
            ptr::write_volatile(at, found ^ changed);
        }
    }
}

/// VERIFIER: a panic path that survives optimisation must not load; an endless loop doesn't.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The string that the kernel knows: GPL-only helpers may be called.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
