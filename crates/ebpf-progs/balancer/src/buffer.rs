//! A frame in its XDP buffer as the pipeline's.

use core::{mem::MaybeUninit, ptr};

use aya_ebpf::{
    bindings::xdp_md,
    helpers::{bpf_xdp_adjust_head, bpf_xdp_adjust_tail, bpf_xdp_get_buff_len, bpf_xdp_load_bytes},
};
use flowgate_abi::Be16;
use flowgate_pipeline::{
    Cursor, Skip,
    hook::{FrameBytes, Rewrite},
    lb::Buffer,
    parse::Layer3,
    wire::Ethernet,
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Start and end of what lies at hand.
///
/// VERIFIER: each context access must be one load of the field's own width; volatile keeps LLVM from
/// merging or repeating it. They are read again after the head has moved.
#[inline(always)]
fn span(ctx: *mut xdp_md) -> (*mut u8, *mut u8) {
    // SAFETY: the kernel hands a valid context to the program.
    let start = unsafe { ptr::read_volatile(&raw const (*ctx).data) };
    // SAFETY: as above.
    let end = unsafe { ptr::read_volatile(&raw const (*ctx).data_end) };
    (start as usize as *mut u8, end as usize as *mut u8)
}

/// What is inside of the Ethernet frame.
#[inline(always)]
pub fn layer3(ctx: *mut xdp_md) -> Layer3 {
    match Direct::new(ctx).take::<Ethernet>() {
        Some(ethernet) => Layer3::of(ethernet.ethertype),
        None => Layer3::of(Be16::from_raw(0)),
    }
}

/// A frame.
pub struct Frame(*mut xdp_md);

impl Frame {
    #[inline(always)]
    pub fn new(ctx: *mut xdp_md) -> Self {
        Self(ctx)
    }

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
    fn truncate(&mut self, length: u32) -> bool {
        let less = length.wrapping_sub(self.length()) as i32;
        // SAFETY: as above.
        less <= 0 && (less == 0 || unsafe { bpf_xdp_adjust_tail(self.0, less) } == 0)
    }
}

/// Direct packet access: the compare against `end` is what the verifier sees.
pub struct Direct {
    position: *const u8,
    end: *const u8,
}

impl Direct {
    /// At the frame's start.
    #[inline(always)]
    fn new(ctx: *mut xdp_md) -> Self {
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
