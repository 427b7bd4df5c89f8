//! A frame in its XDP buffer, for the programs of more than one object: each includes this file as a module.

use core::ptr;

use aya_ebpf::bindings::xdp_md;
use flowgate_pipeline::hook::{FrameBytes, Rewrite};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Start and end of what lies at hand.
///
/// VERIFIER: each context access must be one load of the field's own width; volatile keeps LLVM from
/// merging or repeating it. They are read again after the head has moved.
#[inline(always)]
pub fn span(ctx: *mut xdp_md) -> (*mut u8, *mut u8) {
    // SAFETY: the kernel hands a valid context to the program.
    let start = unsafe { ptr::read_volatile(&raw const (*ctx).data) };
    // SAFETY: as above.
    let end = unsafe { ptr::read_volatile(&raw const (*ctx).data_end) };
    (start as usize as *mut u8, end as usize as *mut u8)
}

/// A frame.
pub struct Frame(pub *mut xdp_md);

impl Frame {
    /// Where `size` bytes at an offset lie, if all of them are at hand.
    ///
    /// VERIFIER: offsets are constants after inlining, so the compare is against a constant distance.
    #[inline(always)]
    fn at(&self, offset: u32, size: usize) -> Option<*mut u8> {
        let (start, end) = span(self.0);
        let behind = start.wrapping_add(offset as usize + size);
        if behind > end {
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

    #[inline(always)]
    fn store_both<T, U>(&mut self, offset: u32, first: T, second: U) -> bool
    where
        T: IntoBytes + Immutable,
        U: IntoBytes + Immutable,
    {
        let Some(place) = self.at(offset, size_of::<T>() + size_of::<U>()) else { return false };
        // SAFETY: as above, one behind the other.
        unsafe {
            ptr::write(place.cast::<T>(), first);
            ptr::write(place.add(size_of::<T>()).cast::<U>(), second);
        }
        true
    }

    #[inline(always)]
    fn change<T>(&mut self, offset: u32, change: impl FnOnce(T) -> T) -> Option<()>
    where
        T: FromBytes + IntoBytes + Immutable + Default,
    {
        let place = self.at(offset, size_of::<T>())?.cast::<T>();
        // SAFETY: as above.
        unsafe { ptr::write(place, change(ptr::read(place))) };
        Some(())
    }
}
