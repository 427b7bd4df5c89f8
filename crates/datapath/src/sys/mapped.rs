//! A mapped array: the kernel's memory of a `BPF_F_MMAPABLE` array, as shared words.
//!
//! Elements lie at multiples of their size rounded up to 8 bytes (`kernel/bpf/arraymap.c`).
#![allow(unsafe_code)]

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
    ptr::NonNull,
    sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering},
};

use flowgate_abi::lb::Head;

/// The memory of a mapped array. Every access is an atomic one of a whole word, since programs read
/// it at any time.
#[derive(Debug)]
pub(super) struct Mapped {
    start: NonNull<u8>,
    bytes: usize,
    stride: usize,
}

// SAFETY: the memory belongs to the kernel's map, not to a thread.
unsafe impl Send for Mapped {}
// SAFETY: all access is atomic.
unsafe impl Sync for Mapped {}

impl Mapped {
    /// Maps all elements.
    pub(super) fn new(map: BorrowedFd<'_>, value_size: usize, entries: usize) -> io::Result<Self> {
        let stride = value_size.next_multiple_of(8);
        let bytes = stride * entries;
        // SAFETY: a new shared mapping of a descriptor; nothing else is affected.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                map.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mapped at 0"))?;
        Ok(Self { start, bytes, stride })
    }

    /// How many elements there are.
    pub(super) const fn elements(&self) -> usize {
        self.bytes / self.stride
    }

    fn at<T>(&self, element: usize, offset: usize) -> &T {
        let position = element * self.stride + offset;
        assert!(
            offset + size_of::<T>() <= self.stride && position + size_of::<T>() <= self.bytes,
            "element {element} + {offset} lies outside of the map"
        );
        assert!(position.is_multiple_of(align_of::<T>()));
        // SAFETY: inside of the mapping and aligned, as just checked; the mapping lives as long as
        // `self`; only called with atomic types, for which any bits are a value.
        unsafe { self.start.add(position).cast::<T>().as_ref() }
    }

    pub(super) fn word16(&self, element: usize, offset: usize) -> &AtomicU16 {
        self.at(element, offset)
    }

    pub(super) fn word32(&self, element: usize, offset: usize) -> &AtomicU32 {
        self.at(element, offset)
    }

    /// The balancer's head, which is nothing but shared words.
    pub(super) fn head(&self) -> &Head {
        self.at(0, 0)
    }

    pub(super) fn word64(&self, element: usize, offset: usize) -> &AtomicU64 {
        self.at(element, offset)
    }

    /// Writes bytes in words of 32 bits, in ascending order; not atomic as a whole.
    pub(super) fn write(&self, element: usize, offset: usize, bytes: &[u8]) {
        for (index, word) in bytes.chunks(4).enumerate() {
            let mut whole = [0; 4];
            whole[..word.len()].copy_from_slice(word);
            let target = self.word32(element, offset + index * 4);
            target.store(u32::from_ne_bytes(whole), Ordering::Relaxed);
        }
    }

    /// Reads bytes, not atomic as a whole.
    pub(super) fn read(&self, element: usize, bytes: &mut [u8]) {
        for (index, word) in bytes.chunks_mut(4).enumerate() {
            let whole = self.word32(element, index * 4).load(Ordering::Relaxed).to_ne_bytes();
            word.copy_from_slice(&whole[..word.len()]);
        }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: made by mmap with this length; no reference outlives `self`.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}
