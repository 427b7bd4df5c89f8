//! A socket buffer as the pipeline's cursor and frame.

use core::{mem::MaybeUninit, ptr};

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::{bpf_skb_change_type, bpf_skb_load_bytes, bpf_skb_store_bytes},
};
use flowgate_abi::event::Hook;
use flowgate_pipeline::{
    Cursor, Skip,
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

/// The packet was judged by `tc_from_endpoint`: takes the mark off.
#[inline(always)]
pub fn take_mark(skb: *mut __sk_buff) -> bool {
    if field!(skb, mark) != maps::settings().mark {
        return false;
    }
    // SAFETY: the mark may be written in TC programs.
    unsafe { ptr::write_volatile(&raw mut (*skb).mark, 0) };
    true
}

/// Tells `tc_to_endpoint` that the packet is judged. An endpoint can't forge it: the kernel clears
/// the mark of what comes out of another network namespace, and `tc_from_endpoint` that of the rest.
#[inline(always)]
pub fn set_mark(skb: *mut __sk_buff) {
    // SAFETY: the mark may be written in TC programs.
    unsafe { ptr::write_volatile(&raw mut (*skb).mark, maps::settings().mark) };
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

/// Every byte of the packet, by copy, wherever the kernel keeps it.
pub struct Copying {
    skb: *mut __sk_buff,
    offset: u32,
    length: u32,
}

impl Copying {
    /// At the frame's start.
    #[inline(always)]
    pub fn new(skb: *mut __sk_buff) -> Self {
        Self { skb, offset: 0, length: field!(skb, len) }
    }
}

impl Cursor for Copying {
    #[inline(always)]
    fn take<T: FromBytes + Copy>(&mut self) -> Option<T> {
        let (mut value, size) = (MaybeUninit::<T>::uninit(), size_of::<T>() as u32);
        let into = value.as_mut_ptr().cast();
        // SAFETY: the buffer is `value`, of `size` bytes.
        if unsafe { bpf_skb_load_bytes(self.skb.cast(), self.offset, into, size) } != 0 {
            return None;
        }
        self.offset += size;
        // SAFETY: the helper has written all of it; any bytes are a `T`.
        Some(unsafe { value.assume_init() })
    }
}

impl Skip for Copying {
    #[inline(always)]
    fn skip(&mut self, bytes: u32) -> Option<()> {
        let behind = self.offset + bytes;
        if behind > self.length {
            return None;
        }
        self.offset = behind;
        Some(())
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
