//! A socket buffer as the pipeline's cursor and frame.

use core::ptr;

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::{bpf_skb_load_bytes, bpf_skb_pull_data, bpf_skb_store_bytes},
};
use flowgate_abi::event::Hook;
use flowgate_pipeline::{
    Cursor,
    hook::{Frame, FrameBytes},
    wire::protocol,
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

/// The EtherType of what is inside of the outermost header.
#[inline(always)]
pub fn ethertype(skb: *mut __sk_buff) -> EtherType {
    EtherType::from_raw(field!(skb, protocol) as u16)
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

const ETHERNET: usize = 14;
/// Ethernet, IPv4 with all options, ICMP, the quoted packet with all options, its first 8 bytes.
const SPAN4: u32 = 14 + 60 + 8 + 60 + 8;
/// Ethernet, IPv6, ICMPv6, the quoted packet, its first 8 bytes.
const SPAN6: u32 = 14 + 40 + 8 + 40 + 8;

/// The cursor over an IPv4 packet.
#[inline(always)]
pub fn cursor4(skb: *mut __sk_buff, frame: Frame) -> Direct {
    let cursor = Direct::new(skb);
    let plain = match cursor.peek::<[u8; ETHERNET + 20 + 20]>() {
        Some(header) => header[ETHERNET] == 0x45 && header[ETHERNET + 9] != protocol::ICMP,
        None => false,
    };
    cursor.or_pulled(plain, skb, frame, SPAN4)
}

/// The cursor over an IPv6 packet.
#[inline(always)]
pub fn cursor6(skb: *mut __sk_buff, frame: Frame) -> Direct {
    let cursor = Direct::new(skb);
    let plain = match cursor.peek::<[u8; ETHERNET + 40 + 20]>() {
        Some(header) => header[ETHERNET + 6] != protocol::ICMPV6,
        None => false,
    };
    cursor.or_pulled(plain, skb, frame, SPAN6)
}

/// Direct packet access: the compare against `end` is what the verifier sees.
pub struct Direct {
    position: *const u8,
    end: *const u8,
}

impl Direct {
    #[inline(always)]
    fn new(skb: *mut __sk_buff) -> Self {
        Self {
            position: field!(skb, data) as usize as *const u8,
            end: field!(skb, data_end) as usize as *const u8,
        }
    }

    /// This cursor if every header lies in the linear part; else one after pulling them there.
    #[inline(always)]
    fn or_pulled(self, plain: bool, skb: *mut __sk_buff, frame: Frame, span: u32) -> Self {
        let linear = (self.end as usize).wrapping_sub(self.position as usize) as u32;
        let wanted = if frame.length < span { frame.length } else { span };
        if plain || linear >= wanted {
            return self;
        }
        // SAFETY: a plain helper call; the old pointers are dropped with `self`.
        unsafe { bpf_skb_pull_data(skb, wanted) };
        Self::new(skb)
    }

    #[inline(always)]
    fn peek<T>(&self) -> Option<&T> {
        let behind = self.position.wrapping_add(size_of::<T>());
        if behind > self.end {
            return None;
        }
        // SAFETY: the bytes up to `behind` are inside of the packet, as the verifier checks too.
        // Packets allow unaligned access on every architecture that has a JIT we support.
        Some(unsafe { &*self.position.cast::<T>() })
    }
}

impl Cursor for Direct {
    #[inline(always)]
    fn take<T: FromBytes + Copy>(&mut self) -> Option<T> {
        let value = *self.peek::<T>()?;
        self.position = self.position.wrapping_add(size_of::<T>());
        Some(value)
    }

    #[inline(always)]
    fn skip(&mut self, bytes: usize) -> Option<()> {
        let behind = self.position.wrapping_add(bytes & 255);
        if behind > self.end {
            return None;
        }
        self.position = behind;
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

    #[inline(always)]
    fn store<T: IntoBytes + Immutable>(&mut self, offset: u32, value: T) -> bool {
        let size = size_of::<T>() as u32;
        // SAFETY: the buffer is `value`, of `size` initialised bytes.
        unsafe { bpf_skb_store_bytes(self.0, offset, (&raw const value).cast(), size, 0) == 0 }
    }
}
