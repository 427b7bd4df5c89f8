//! A frame in its XDP buffer as the pipeline's.

use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::xdp_md,
    helpers::{bpf_xdp_adjust_head, bpf_xdp_adjust_tail, bpf_xdp_get_buff_len, bpf_xdp_load_bytes},
};
use flowgate_abi::Be16;
use flowgate_pipeline::{
    Cursor, Skip,
    lb::{Buffer, tcp_option},
    parse::Layer3,
    wire::Ethernet,
};
use zerocopy::FromBytes;

use crate::{
    tables::bounded,
    xdp_frame::{Frame, span},
};

/// What is inside of an Ethernet frame; goes to it.
#[inline(always)]
pub fn layer3(head: &mut Direct) -> Layer3 {
    match head.take::<Ethernet>() {
        Some(ethernet) => Layer3::of(ethernet.ethertype),
        None => Layer3::of(Be16::from_raw(0)),
    }
}

impl Buffer for Frame {
    type Head<'b> = Direct;
    type Whole<'b> = Copying;

    #[inline(always)]
    fn head(&self) -> Direct {
        Direct::new(self.0)
    }

    #[inline(always)]
    fn whole(&self) -> Copying {
        Copying { ctx: self.0, offset: 0, length: self.length() }
    }

    #[inline(always)]
    fn length(&self) -> u32 {
        // SAFETY: a plain helper call.
        unsafe { bpf_xdp_get_buff_len(self.0) as u32 }
    }

    #[inline(always)]
    fn grow(&mut self, bytes: u32) -> bool {
        // SAFETY: a plain helper call; pointers into the packet are taken anew behind it.
        unsafe { bpf_xdp_adjust_head(self.0, -(bytes as i32)) == 0 }
    }

    #[inline(always)]
    fn near(&self, offset: u32) -> u32 {
        bounded::<127>(offset) as u32
    }

    #[inline(always)]
    fn server_id(&self, header: u32, kind: u8) -> u32 {
        option_names(self.0, header.into(), kind.into()) as u32
    }

    #[inline(always)]
    fn truncate(&mut self, length: u32) -> bool {
        let less = length.wrapping_sub(self.length()) as i32;
        // SAFETY: as above.
        less <= 0 && (less == 0 || unsafe { bpf_xdp_adjust_tail(self.0, less) } == 0)
    }
}

/// VERIFIER: a global subprogram, as `names` is: the walk over options is verified once.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn option_names(ctx: *mut xdp_md, header: u64, kind: u64) -> u64 {
    u64::from(tcp_option::server_id(&Frame(ctx), header as u32, kind as u8))
}

/// Direct packet access: the compare against `end` is what the verifier sees.
pub struct Direct {
    position: *const u8,
    end: *const u8,
}

impl Direct {
    /// At the frame's start.
    #[inline(always)]
    pub fn new(ctx: *mut xdp_md) -> Self {
        let (position, end) = span(ctx);
        Self { position, end }
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
        let value = unsafe { *self.position.cast::<T>() };
        self.position = behind;
        Some(value)
    }
}

/// Every byte of the frame, by copy, also where it lies in several buffers (Linux 5.18).
pub struct Copying {
    ctx: *mut xdp_md,
    offset: u32,
    length: u32,
}

impl Cursor for Copying {
    #[inline(always)]
    fn take<T: FromBytes + Copy>(&mut self) -> Option<T> {
        let (mut value, size) = (MaybeUninit::<T>::uninit(), size_of::<T>() as u32);
        let into = value.as_mut_ptr().cast();
        // SAFETY: the buffer is `value`, of `size` bytes.
        if unsafe { bpf_xdp_load_bytes(self.ctx, self.offset, into, size) } != 0 {
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

    #[inline(always)]
    fn position(&self) -> u32 {
        self.offset
    }
}
