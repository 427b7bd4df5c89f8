//! A frame of the host's own in its socket buffer as the pipeline's, for checks.

use core::ptr;

use crate::{
    skb_copying::Copying,
    socket_buffer::{ETHERNET, SocketBuffer},
};
use aya_ebpf::{
    bindings::{
        __sk_buff, BPF_F_ADJ_ROOM_ENCAP_L3_IPV4, BPF_F_ADJ_ROOM_ENCAP_L3_IPV6,
        BPF_F_ADJ_ROOM_ENCAP_L4_UDP, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, BPF_F_RECOMPUTE_CSUM,
        bpf_adj_room_mode,
    },
    helpers::{bpf_l3_csum_replace, bpf_l4_csum_replace, bpf_skb_adjust_room, bpf_skb_store_bytes},
};
use flowgate_abi::Be16;
use flowgate_pipeline::{
    Family,
    lb::Buffer,
    parse::Layer3,
    probe::{End, Own},
    wire::protocol::UDP,
};

impl Buffer for SocketBuffer {
    type Head<'b> = Copying;
    type Whole<'b> = Copying;

    #[inline(always)]
    fn head(&self) -> Copying {
        Copying::new(self.skb)
    }

    #[inline(always)]
    fn whole(&self) -> Copying {
        self.head()
    }

    #[inline(always)]
    fn length(&self) -> u32 {
        // SAFETY: the kernel hands a valid context to the program.
        unsafe { ptr::read_volatile(&raw const (*self.skb).len) }
    }

    /// Behind the Ethernet header, so that the kernel can tell outer from inner headers. What is put there is
    /// told by its length: IPv4 or IPv6, with UDP or without.
    #[inline(always)]
    fn grow(&mut self, bytes: u32) -> bool {
        let flags = match bytes {
            20 => BPF_F_ADJ_ROOM_ENCAP_L3_IPV4,
            28 => BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 | BPF_F_ADJ_ROOM_ENCAP_L4_UDP,
            40 => BPF_F_ADJ_ROOM_ENCAP_L3_IPV6,
            _ => BPF_F_ADJ_ROOM_ENCAP_L3_IPV6 | BPF_F_ADJ_ROOM_ENCAP_L4_UDP,
        };
        let mode = bpf_adj_room_mode::BPF_ADJ_ROOM_MAC;
        // SAFETY: a plain helper call.
        unsafe { bpf_skb_adjust_room(self.skb, bytes as i32, mode, u64::from(flags)) == 0 }
    }

    /// No check's packet is cut.
    #[inline(always)]
    fn truncate(&mut self, _length: u32) -> bool {
        false
    }
}

impl Own for SocketBuffer {
    #[inline(always)]
    fn layer3(&self) -> Layer3 {
        // SAFETY: the kernel hands a valid context to the program.
        let protocol = unsafe { ptr::read_volatile(&raw const (*self.skb).protocol) };
        Layer3::of(Be16::from_raw(protocol as u16))
    }

    #[inline(always)]
    fn network(&self) -> Copying {
        Copying::at(self.skb, ETHERNET)
    }

    #[inline(always)]
    fn readdress<F: Family>(&mut self, end: End, protocol: u8, [old, new]: [[u64; 2]; 2]) -> bool {
        let (at, _) = end.place::<F>();
        let at = ETHERNET + at;
        let (in_header, flags) = match protocol {
            UDP => (6, u64::from(BPF_F_PSEUDO_HDR | BPF_F_MARK_MANGLED_0)),
            _ => (16, u64::from(BPF_F_PSEUDO_HDR)),
        };
        let sum = Sum { skb: self.skb, at: ETHERNET + u32::from(F::HEADER) + in_header, flags };
        if F::NUMBER == 4 {
            let [old, new] = [old[0] as u32, new[0] as u32];
            return sum.replace(old, new)
                && network_sum(self, old, new)
                && store(self.skb, at, &new.to_ne_bytes(), 0);
        }
        let ([a, b], [c, d]) = (halves(old[0]), halves(old[1]));
        let ([e, f], [g, h]) = (halves(new[0]), halves(new[1]));
        // There is no header checksum that would make up for the address in a sum over the whole packet.
        sum.replace(a, e)
            && sum.replace(b, f)
            && sum.replace(c, g)
            && sum.replace(d, h)
            && store(self.skb, at, &new[0].to_ne_bytes(), u64::from(BPF_F_RECOMPUTE_CSUM))
            && store(self.skb, at + 8, &new[1].to_ne_bytes(), u64::from(BPF_F_RECOMPUTE_CSUM))
    }
}

#[inline(always)]
const fn halves(word: u64) -> [u32; 2] {
    [word as u32, (word >> 32) as u32]
}

/// The transport's checksum, which a device may have to finish.
#[derive(Clone, Copy)]
struct Sum {
    skb: *mut __sk_buff,
    at: u32,
    flags: u64,
}

impl Sum {
    #[inline(always)]
    fn replace(self, old: u32, new: u32) -> bool {
        // SAFETY: a plain helper call; the low bits of the flags are the words' size.
        unsafe {
            bpf_l4_csum_replace(self.skb, self.at, u64::from(old), u64::from(new), self.flags | 4)
                == 0
        }
    }
}

/// IPv4's header checksum.
#[inline(always)]
fn network_sum(frame: &SocketBuffer, old: u32, new: u32) -> bool {
    let (at, old, new) = (ETHERNET + 10, u64::from(old), u64::from(new));
    // SAFETY: a plain helper call.
    unsafe { bpf_l3_csum_replace(frame.skb, at, old, new, 4) == 0 }
}

#[inline(always)]
fn store<const N: usize>(skb: *mut __sk_buff, at: u32, bytes: &[u8; N], flags: u64) -> bool {
    // SAFETY: the buffer is `bytes`, of `N` bytes.
    unsafe { bpf_skb_store_bytes(skb, at, bytes.as_ptr().cast(), N as u32, flags) == 0 }
}
