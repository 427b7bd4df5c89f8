//! A frame in its socket buffer as the pipeline's.

use core::ptr;

use aya_ebpf::{
    bindings::{
        __sk_buff, BPF_F_ADJ_ROOM_FIXED_GSO, BPF_F_RECOMPUTE_CSUM, bpf_adj_room_mode,
        bpf_hdr_start_off::BPF_HDR_START_MAC,
    },
    helpers::{
        bpf_skb_adjust_room, bpf_skb_change_head, bpf_skb_change_proto, bpf_skb_load_bytes,
        bpf_skb_load_bytes_relative, bpf_skb_store_bytes,
    },
};
use flowgate_pipeline::{
    decap::Wrapped,
    hook::{FrameBytes, Rewrite},
    parse::Layer3,
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

pub const ETHERNET: u32 = 14;

/// A frame, from its Ethernet header on.
pub struct SocketBuffer {
    pub skb: *mut __sk_buff,
}

impl SocketBuffer {
    #[inline(always)]
    pub const fn new(skb: *mut __sk_buff) -> Self {
        Self { skb }
    }

    /// One that came in. What generic XDP let pass begins at its network header, if the kernel has copied it
    /// to make headroom: the copy has forgotten how long the header before that was (`mac_len`; seen on
    /// Linux 6.18, `skb_pp_cow_data` is there since 6.9). It gets that header back.
    #[inline(always)]
    pub fn incoming(skb: *mut __sk_buff) -> Self {
        let mut first = [0_u64; 2];
        let [data, link] = first.each_mut().map(|word| ptr::from_mut(word).cast());
        // SAFETY: the buffers are words of 8 bytes.
        let read = unsafe {
            bpf_skb_load_bytes(skb.cast(), 0, data, 8)
                | bpf_skb_load_bytes_relative(skb.cast(), 0, link, 8, BPF_HDR_START_MAC)
        };
        if read == 0 && first[0] != first[1] {
            restore_link(skb);
        }
        Self { skb }
    }
}

/// Has a frame begin at its Ethernet header again, which the kernel still has in front of it. Making room for one says how
/// long it is, too. What fails leaves a frame that nobody takes for one of IP's.
#[inline(always)]
fn restore_link(skb: *mut __sk_buff) {
    let mut link = [0_u16; ETHERNET as usize / 2];
    let bytes = (&raw mut link).cast();
    // SAFETY: the buffer is `link`, of as many bytes, and nothing points into the frame.
    unsafe {
        let start = BPF_HDR_START_MAC;
        if bpf_skb_load_bytes_relative(skb.cast(), 0, bytes, ETHERNET, start) == 0
            && bpf_skb_change_head(skb, ETHERNET, 0) == 0
        {
            let _ = bpf_skb_store_bytes(skb, 0, bytes, ETHERNET, 0);
        }
    }
}

impl FrameBytes for SocketBuffer {
    #[inline(always)]
    fn load<T: FromBytes + IntoBytes + Default>(&self, offset: u32) -> Option<T> {
        let mut value = T::default();
        let size = size_of::<T>() as u32;
        // SAFETY: the buffer is `value`, of `size` bytes; any bytes are a `T`.
        let result =
            unsafe { bpf_skb_load_bytes(self.skb.cast(), offset, (&raw mut value).cast(), size) };
        (result == 0).then_some(value)
    }
}

impl Rewrite for SocketBuffer {
    #[inline(always)]
    fn store<T: IntoBytes + Immutable>(&mut self, offset: u32, value: T) -> bool {
        // A checksum over the whole packet, if the kernel has one, stays right.
        let flags = u64::from(BPF_F_RECOMPUTE_CSUM);
        let (from, size) = ((&raw const value).cast(), size_of::<T>() as u32);
        // SAFETY: the buffer is `value`, of `size` initialised bytes.
        unsafe { bpf_skb_store_bytes(self.skb, offset, from, size, flags) == 0 }
    }
}

/// What translating IPv4 to IPv6 adds to the header, and the other way round takes off it.
const TRANSLATED: u32 = 20;

impl Wrapped for SocketBuffer {
    #[inline(always)]
    fn is_super(&self) -> bool {
        // SAFETY: the kernel hands a valid context to the program.
        unsafe { ptr::read_volatile(&raw const (*self.skb).gso_size) != 0 }
    }

    /// The kernel's own idea of the protocol has to change with the frame. `bpf_skb_change_proto` is the only
    /// one that changes it before Linux 6.3; it moves the header's end by the difference of both lengths.
    #[inline(always)]
    fn unwrap(&mut self, bytes: u32, inner: Layer3) -> bool {
        let Some(outer) = self.load(12) else { return false };
        let mut left = bytes;
        if Layer3::of(outer) != inner {
            let protocol = inner.ethertype();
            // SAFETY: a plain helper call.
            if unsafe { bpf_skb_change_proto(self.skb, protocol.raw(), 0) } != 0 {
                return false;
            }
            left = if inner == Layer3::Ipv6 { bytes + TRANSLATED } else { bytes - TRANSLATED };
            if !self.store(12, protocol) {
                return false;
            }
        }
        let mode = bpf_adj_room_mode::BPF_ADJ_ROOM_MAC;
        // What was put together stays so: its packets have the size that they came in.
        let flags = u64::from(BPF_F_ADJ_ROOM_FIXED_GSO);
        // SAFETY: a plain helper call.
        unsafe { bpf_skb_adjust_room(self.skb, -(left as i32), mode, flags) == 0 }
    }
}
