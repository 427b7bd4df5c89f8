//! A ring buffer's declaration, for more than one object: each includes this file as a module.

use core::ptr;

use aya_ebpf::bindings::bpf_map_type::BPF_MAP_TYPE_RINGBUF;

/// A ring buffer as libbpf and aya both understand it: in BTF, nothing but type and size.
#[repr(C)]
pub struct RingBuffer<const BYTES: usize> {
    r#type: *const [i32; BPF_MAP_TYPE_RINGBUF as usize],
    max_entries: *const [i32; BYTES],
}

// SAFETY: the pointers are never read; they carry numbers in their types.
unsafe impl<const BYTES: usize> Sync for RingBuffer<BYTES> {}

impl<const BYTES: usize> RingBuffer<BYTES> {
    pub const fn new() -> Self {
        Self { r#type: ptr::null(), max_entries: ptr::null() }
    }
}
