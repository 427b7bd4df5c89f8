//! A socket buffer as the pipeline's cursor and frame.

use core::{arch::asm, ptr};

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_INVALIDATE_HASH, BPF_F_RECOMPUTE_CSUM},
    helpers::{
        bpf_csum_diff, bpf_l4_csum_replace, bpf_skb_change_head, bpf_skb_change_tail,
        bpf_skb_change_type, bpf_skb_load_bytes, bpf_skb_store_bytes,
    },
};
use flowgate_abi::event::Hook;
use flowgate_pipeline::{
    Cursor,
    answer::{LONGEST, Reshape, folded},
    hook::{Frame, FrameBytes, Rewrite},
    parse::{self, Link},
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::{EtherType, maps};

/// Reads one field of the context.
///
/// VERIFIER: each context access must be one load of the field's own width; volatile keeps LLVM
/// from merging or repeating it.
macro_rules! field {
    ($skb:expr, $name:ident) => {
        // SAFETY: the kernel hands a valid context to the program.
        unsafe { ptr::read_volatile(&raw const (*$skb).$name) }
    };
}

/// What lies in front of the network header.
#[inline(always)]
pub fn link(skb: *mut __sk_buff) -> Link {
    let outermost = EtherType::from_raw(field!(skb, protocol) as u16);
    let link = parse::link(&SocketBuffer(skb), outermost);
    Link { tagged: link.tagged || field!(skb, vlan_present) != 0, ..link }
}

/// What the hook knows of the frame.
#[inline(always)]
pub fn frame(skb: *mut __sk_buff, hook: Hook) -> Frame {
    Frame { length: field!(skb, len), ifindex: field!(skb, ifindex), hook }
}

/// What a mark says of a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// Nothing: it is none of ours.
    None,
    /// `tc_from_endpoint` has judged it. An endpoint can't forge it: the kernel clears the mark of what
    /// comes out of another network namespace, and `tc_from_endpoint` that of the rest.
    Judged,
    /// It is an answer of ours, on its way back through the other hook of its link. Nobody knows the
    /// mark who may not send past the programs anyway.
    Answer,
}

/// Takes a mark of ours off.
#[inline(always)]
pub fn take_mark(skb: *mut __sk_buff) -> Mark {
    let mark = field!(skb, mark);
    // What nearly every packet has.
    if mark == 0 {
        return Mark::None;
    }
    let ours = if mark == maps::settings().mark {
        Mark::Judged
    } else if mark == maps::settings().answer_mark {
        Mark::Answer
    } else {
        return Mark::None;
    };
    write_mark(skb, 0);
    ours
}

/// Tells `tc_to_endpoint` that the packet is judged.
#[inline(always)]
pub fn mark_as_judged(skb: *mut __sk_buff) {
    write_mark(skb, maps::settings().mark);
}

/// Tells the other hook of the link that the packet is an answer.
#[inline(always)]
pub fn mark_as_answer(skb: *mut __sk_buff) {
    write_mark(skb, maps::settings().answer_mark);
}

#[inline(always)]
fn write_mark(skb: *mut __sk_buff, mark: u32) {
    // SAFETY: the mark may be written in TC programs.
    unsafe { ptr::write_volatile(&raw mut (*skb).mark, mark) };
}

/// `PACKET_HOST` and `PACKET_MULTICAST`.
const HOST: u32 = 0;
const MULTICAST: u32 = 2;

/// Makes a packet to the host's Ethernet address look as if it had come to a group's: the host takes it
/// if it is addressed to the host, and doesn't forward it (`ip6_forward` wants `PACKET_HOST`).
#[inline(always)]
pub fn keep_from_forwarding(skb: *mut __sk_buff) {
    if field!(skb, pkt_type) == HOST {
        // SAFETY: a plain helper call; it refuses neither type.
        unsafe { bpf_skb_change_type(skb, MULTICAST) };
    }
}

/// Direct packet access, for the linear part: the compare against `end` is what the verifier sees.
pub struct Direct {
    position: *const u8,
    end: *const u8,
}

impl Direct {
    /// At the frame's start.
    #[inline(always)]
    pub fn new(skb: *mut __sk_buff) -> Self {
        Self {
            position: field!(skb, data) as usize as *const u8,
            end: field!(skb, data_end) as usize as *const u8,
        }
    }
}

impl Cursor for Direct {
    #[inline(always)]
    fn take<T: FromBytes + Copy>(&mut self) -> Option<T> {
        let behind = self.position.wrapping_add(size_of::<T>());
        if behind > self.end {
            return None;
        }
        // SAFETY: the bytes up to `behind` are inside of the packet, as the verifier checks too.
        // Packets allow unaligned access on every architecture that has a JIT we support.
        let value = unsafe { *self.position.cast::<T>() };
        self.position = behind;
        Some(value)
    }
}

/// Rewriting through helpers: direct writes would make the kernel unshare every packet at the
/// program's start (`bpf_unclone_prologue`), also those that stay as they are.
pub struct SocketBuffer(pub *mut __sk_buff);

impl FrameBytes for SocketBuffer {
    #[inline(always)]
    fn load<T: FromBytes + IntoBytes + Default>(&self, offset: u32) -> Option<T> {
        let mut value = T::default();
        let size = size_of::<T>() as u32;
        // SAFETY: the buffer is `value`, of `size` bytes; any bytes are a `T`.
        let result =
            unsafe { bpf_skb_load_bytes(self.0.cast(), offset, (&raw mut value).cast(), size) };
        (result == 0).then_some(value)
    }
}

impl Rewrite for SocketBuffer {
    #[inline(always)]
    fn store<T: IntoBytes + Immutable>(&mut self, offset: u32, value: T) -> bool {
        let size = size_of::<T>() as u32;
        // SAFETY: the buffer is `value`, of `size` initialised bytes.
        unsafe { bpf_skb_store_bytes(self.0, offset, (&raw const value).cast(), size, 0) == 0 }
    }
}

/// A packet that becomes its answer. Unlike [`SocketBuffer`]'s, its stores keep a checksum over the whole
/// packet right that the kernel may hold, and forget the packet's hash, which is of the other direction.
pub struct Reshaped(pub *mut __sk_buff);

impl FrameBytes for Reshaped {
    #[inline(always)]
    fn load<T: FromBytes + IntoBytes + Default>(&self, offset: u32) -> Option<T> {
        SocketBuffer(self.0).load(offset)
    }
}

impl Rewrite for Reshaped {
    #[inline(always)]
    fn store<T: IntoBytes + Immutable>(&mut self, offset: u32, value: T) -> bool {
        const FLAGS: u64 = (BPF_F_RECOMPUTE_CSUM | BPF_F_INVALIDATE_HASH) as u64;
        let (from, size) = ((&raw const value).cast(), size_of::<T>() as u32);
        // SAFETY: the buffer is `value`, of `size` initialised bytes.
        unsafe { bpf_skb_store_bytes(self.0, offset, from, size, FLAGS) == 0 }
    }
}

/// Bytes that are summed at once.
const CHUNK: usize = 64;

impl Reshape for Reshaped {
    /// Makes the packet linear, too, and one packet if it was many (GSO).
    #[inline(always)]
    fn set_length(&mut self, bytes: u32) -> bool {
        // SAFETY: a plain helper call.
        unsafe { bpf_skb_change_tail(self.0, bytes, 0) == 0 }
    }

    /// Minimum kernel 5.8 for TC programs.
    #[inline(always)]
    fn push(&mut self, bytes: u32) -> bool {
        // SAFETY: a plain helper call.
        unsafe { bpf_skb_change_head(self.0, bytes, 0) == 0 }
    }

    #[inline(always)]
    fn sum(&self, offset: u32, bytes: u32) -> Option<u16> {
        let (mut sum, mut done) = (0, 0);
        for _ in 0..LONGEST.div_ceil(CHUNK as u32) {
            if done >= bytes {
                break;
            }
            sum = self.sum_of_chunk(offset + done, bytes - done, sum)?;
            done += CHUNK as u32;
        }
        Some(folded(sum))
    }

    /// The kernel leaves the field of a packet alone whose checksum is to be finished
    /// (`CHECKSUM_PARTIAL`), unless the pseudo header changes.
    #[inline(always)]
    fn is_unfinished(&mut self, scratch: u32) -> bool {
        // SAFETY: a plain helper call.
        let result = unsafe { bpf_l4_csum_replace(self.0, scratch, 0, 1, 2) };
        result == 0 && self.load::<u16>(scratch) == Some(0)
    }
}

impl Reshaped {
    /// A sum with that of the next bytes.
    #[inline(always)]
    fn sum_of_chunk(&self, offset: u32, left: u32, sum: u32) -> Option<u32> {
        let mut chunk = [0u64; CHUNK / 8];
        let into = chunk.as_mut_ptr();
        let size = within::<{ CHUNK as u32 }>(left);
        // SAFETY: the buffer has `CHUNK` bytes, and `size` is no more.
        if unsafe { bpf_skb_load_bytes(self.0.cast(), offset, into.cast(), size) } != 0 {
            return None;
        }
        // SAFETY: the buffer has `CHUNK` initialised bytes.
        let sum = unsafe { bpf_csum_diff(ptr::null_mut(), 0, into.cast(), CHUNK as u32, sum) };
        Some(sum as u32)
    }
}

/// The number from 1 to the most that is nearest to a number.
///
/// VERIFIER: LLVM compares one copy and passes another on; the verifier refuses a size that it doesn't
/// know to be bounded. LLVM leaves assembly alone.
#[inline(always)]
fn within<const MOST: u32>(number: u32) -> u32 {
    let mut nearest = u64::from(number);
    // SAFETY: min(number, MOST), then max(that, 1).
    unsafe {
        asm!(
            "if {0} < {1} goto +1",
            "{0} = {1}",
            "if {0} > 0 goto +1",
            "{0} = 1",
            inout(reg) nearest,
            const MOST,
        );
    }
    nearest as u32
}
