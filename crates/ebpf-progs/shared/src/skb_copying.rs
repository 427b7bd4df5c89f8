//! Every byte of a packet in its socket buffer, for the programs of more than one object: each includes this file as a
//! module.

use core::{mem::MaybeUninit, ptr};

use aya_ebpf::{bindings::__sk_buff, helpers::bpf_skb_load_bytes};
use flowgate_pipeline::{Cursor, Skip};
use zerocopy::FromBytes;

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
        Self::at(skb, 0)
    }

    /// At an offset in the frame.
    ///
    /// VERIFIER: a context access must be one load of the field's own width; volatile keeps LLVM from merging or
    /// repeating it.
    #[inline(always)]
    pub fn at(skb: *mut __sk_buff, offset: u32) -> Self {
        // SAFETY: the kernel hands a valid context to the program.
        let length = unsafe { ptr::read_volatile(&raw const (*skb).len) };
        Self { skb, offset, length }
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

    #[inline(always)]
    fn position(&self) -> u32 {
        self.offset
    }
}
