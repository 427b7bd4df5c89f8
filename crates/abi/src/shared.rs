//! Words that the other side (a CPU, or user space through mmap) may write at any time.
//!
//! On the host they are relaxed atomics. On BPF they are volatile: LLVM's BPF back end can't select
//! atomic loads below cpu=v4, and a volatile access of an aligned word is one plain load or store.

macro_rules! shared_word {
    ($(#[$doc:meta])* $name:ident, $word:ty, $atomic:ty) => {
        $(#[$doc])*
        #[cfg(target_arch = "bpf")]
        #[repr(transparent)]
        pub struct $name(core::cell::UnsafeCell<$word>);

        // SAFETY: every access is volatile and of one aligned word; no reference to it is made.
        #[cfg(target_arch = "bpf")]
        #[allow(unsafe_code)]
        unsafe impl Sync for $name {}

        #[cfg(target_arch = "bpf")]
        #[allow(unsafe_code)]
        impl $name {
            /// A word with a value.
            #[inline(always)]
            #[must_use]
            pub const fn new(value: $word) -> Self {
                Self(core::cell::UnsafeCell::new(value))
            }

            /// Reads it.
            #[inline(always)]
            #[must_use]
            pub fn load(&self) -> $word {
                // SAFETY: the pointer comes from `self`, so it is valid and aligned.
                unsafe { core::ptr::read_volatile(self.0.get()) }
            }

            /// Writes it.
            #[inline(always)]
            pub fn store(&self, value: $word) {
                // SAFETY: the pointer comes from `self`; the cell allows writing through it.
                unsafe { core::ptr::write_volatile(self.0.get(), value) }
            }
        }

        $(#[$doc])*
        #[cfg(not(target_arch = "bpf"))]
        #[repr(transparent)]
        #[derive(Debug, Default)]
        #[derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout)]
        pub struct $name($atomic);

        #[cfg(not(target_arch = "bpf"))]
        impl $name {
            /// A word with a value.
            #[must_use]
            pub const fn new(value: $word) -> Self {
                Self(<$atomic>::new(value))
            }

            /// Reads it.
            #[must_use]
            pub fn load(&self) -> $word {
                self.0.load(core::sync::atomic::Ordering::Relaxed)
            }

            /// Writes it.
            pub fn store(&self, value: $word) {
                self.0.store(value, core::sync::atomic::Ordering::Relaxed);
            }
        }
    };
}

shared_word! {
    /// A 32-bit word that both sides read and write.
    Shared32, u32, core::sync::atomic::AtomicU32
}
shared_word! {
    /// A 64-bit word that both sides read and write.
    Shared64, u64, core::sync::atomic::AtomicU64
}
