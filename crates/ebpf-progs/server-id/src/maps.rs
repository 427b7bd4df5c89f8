//! The maps, by the names of `flowgate_abi::server_id::maps`; a test compares the object with these.

use aya_ebpf::{
    btf_maps::{PerCpuArray, SkStorage},
    macros::btf_map,
};
use flowgate_abi::server_id::{Counter, Settings};

#[btf_map]
pub static LEARNED: SkStorage<u32> = SkStorage::new();
#[btf_map]
pub static COUNTERS: PerCpuArray<u64, 8> = PerCpuArray::new();

/// Set by the loader before the program is verified, so that they are constants to the verifier.
#[unsafe(no_mangle)]
#[used]
static SETTINGS: Settings =
    Settings { id: 0, roles: 3, announced: 0xb6, repeated: 0xb7, padding: 0 };

/// The settings that the loader has set.
#[inline(always)]
pub fn settings() -> Settings {
    let mut settings: *const Settings = &raw const SETTINGS;
    // SAFETY: does nothing, but LLVM must believe that the pointer is another one afterwards, or it
    // would take the values above for the last word.
    unsafe { core::arch::asm!("{0} = {0}", inout(reg) settings) };
    // SAFETY: it still points to SETTINGS, which never changes once the program is loaded.
    unsafe { *settings }
}

#[inline(always)]
pub fn count(counter: Counter) {
    let Some(count) = COUNTERS.get_ptr_mut(counter as u32) else { return };
    // SAFETY: this CPU's own element; a count that another program's run in between overtakes is lost, nothing else.
    unsafe { *count += 1 };
}
