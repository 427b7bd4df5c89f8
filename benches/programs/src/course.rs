//! What runs next, and how it is put into a packet.

use core::ptr;

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
    pub vlan: u64,
    /// The frame's bytes; programs for sockets' buffers need none.
    pub length: u64,
    /// Bytes that the program under test puts in front of the frame.
    pub grown: u64,
    /// The packet's first bytes.
    head: [u64; WORDS],
    /// Ones where a packet keeps these bytes, zeros where flows differ.
    kept: [u64; WORDS],
}

impl Course {
    /// Restores a packet that lies between two pointers, and makes it the next flow's; `None`: it is
    /// shorter than a head.
    #[inline(always)]
    pub fn put_next(&mut self, head: *mut u8, end: *mut u8) -> Option<()> {
        let number = self.base + self.put_port(head, end)?;
        put_short(head, end, self.address_at, (self.address + (number >> 16)) as u16)
    }

    /// As [`Course::put_next`], with whatever destination address was there before; the flow's number.
    #[inline(always)]
    pub fn put_port(&mut self, head: *mut u8, end: *mut u8) -> Option<u64> {
        if head.wrapping_add(HEAD) > end {
            return None;
        }
        for index in 0..WORDS {
            // SAFETY: inside of the head.
            unsafe { restore(head.cast::<u64>().add(index), self.head[index], self.kept[index]) };
        }
        let flow = self.next;
        self.next = if flow + 1 < self.flows { flow + 1 } else { 0 };
        put_short(head, end, self.port_at, (self.base + flow) as u16)?;
        Some(flow)
    }
}

/// Where the destination's address begins, behind an Ethernet header without tags.
const DESTINATION_V4: usize = 30;
const DESTINATION_V6: usize = 38;

/// Makes an address, as it lies in memory, the destination of a packet whose head lies between two pointers.
#[inline(always)]
pub fn put_destination(head: *mut u8, end: *mut u8, address: &[u64; 2]) -> Option<()> {
    if head.wrapping_add(HEAD) > end {
        return None;
    }
    // SAFETY: inside of the head; packets are read and written unaligned.
    unsafe {
        if ptr::read_volatile(head.add(12)) == 8 {
            let place = head.add(DESTINATION_V4).cast::<u32>();
            if ptr::read_volatile(place) != address[0] as u32 {
                ptr::write_volatile(place, address[0] as u32);
            }
        } else {
            let place = head.add(DESTINATION_V6).cast::<u64>();
            restore(place, address[0], u64::MAX);
            restore(place.add(1), address[1], u64::MAX);
        }
    }
    Some(())
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
