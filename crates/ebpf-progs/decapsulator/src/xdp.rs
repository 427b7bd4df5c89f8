//! A frame in its XDP buffer as the pipeline's.

use core::ptr;

use aya_ebpf::{bindings::xdp_md, helpers::bpf_xdp_adjust_head};
use flowgate_pipeline::{
    decap::Wrapped,
    hook::{FrameBytes, Rewrite},
    parse::Layer3,
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// A frame.
pub struct Frame(pub *mut xdp_md);

impl Frame {
    /// Where `size` bytes at an offset lie, if all of them are at hand.
    ///
    /// VERIFIER: each context access must be one load of the field's own width, and again after the head has
    /// moved: volatile keeps LLVM from merging or repeating it. Offsets are constants after inlining.
    #[inline(always)]
    fn at(&self, offset: u32, size: usize) -> Option<*mut u8> {
        // SAFETY: the kernel hands a valid context to the program.
        let start = unsafe { ptr::read_volatile(&raw const (*self.0).data) };
        // SAFETY: as above.
        let end = unsafe { ptr::read_volatile(&raw const (*self.0).data_end) };
        let (start, end) = (start as usize as *mut u8, end as usize as *mut u8);
        if start.wrapping_add(offset as usize + size) > end {
            return None;
        }
        Some(start.wrapping_add(offset as usize))
    }
}

impl FrameBytes for Frame {
    #[inline(always)]
    fn load<T: FromBytes + IntoBytes + Default>(&self, offset: u32) -> Option<T> {
        let place = self.at(offset, size_of::<T>())?;
        // SAFETY: these bytes are inside of the packet, as the verifier checks too; any bytes are a `T`.
        // Packets allow unaligned access on every architecture that has a JIT we support.
        Some(unsafe { ptr::read(place.cast::<T>()) })
    }
}

impl Rewrite for Frame {
    #[inline(always)]
    fn store<T: IntoBytes + Immutable>(&mut self, offset: u32, value: T) -> bool {
        let Some(place) = self.at(offset, size_of::<T>()) else { return false };
        // SAFETY: as above; a `T` is nothing but bytes.
        unsafe { ptr::write(place.cast::<T>(), value) };
        true
    }
}

impl Wrapped for Frame {
    /// XDP doesn't say; a super-packet in UDP has another length than its first packet, and is found by that.
    #[inline(always)]
    fn is_super(&self) -> bool {
        false
    }

    #[inline(always)]
    fn unwrap(&mut self, bytes: u32, inner: Layer3) -> bool {
        let Some(addresses) = self.load::<[u16; 6]>(0) else { return false };
        // SAFETY: a plain helper call; pointers into the packet are taken anew behind it.
        if unsafe { bpf_xdp_adjust_head(self.0, bytes as i32) } != 0 {
            return false;
        }
        self.store(0, addresses) && self.store(12, inner.ethertype())
    }
}
