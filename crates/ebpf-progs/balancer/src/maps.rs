//! The maps, by the names of `flowgate_abi::lb::maps`; a test compares the object with these.
//!
//! The sizes here are the smallest that work; the loader sets them by its options.

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    btf_maps::{Array, PerCpuArray},
    macros::btf_map,
};
use flowgate_abi::{
    event::{EventBudget, Tally},
    fragment::FragmentBucket,
    lb::{
        self, Backend, Bucket, Frontend, Head, Load, Settings, SourceNode,
        maps::DISPLACEMENTS_EACH,
        nat::{Source, Translation},
    },
};

const MAPPED: usize = BPF_F_MMAPABLE as usize;
type Mapped<T, const N: usize> = Array<T, N, MAPPED>;

#[btf_map]
pub static HEAD: Mapped<Head, 1> = Array::new();
#[btf_map]
pub static DISPLACEMENTS: Mapped<[u32; DISPLACEMENTS_EACH], 1> = Array::new();
#[btf_map]
pub static FRONTENDS: Mapped<Frontend, 2> = Array::new();
#[btf_map]
pub static SLOTS: Mapped<[u32; lb::SLOTS], 1> = Array::new();
#[btf_map]
pub static BACKENDS: Mapped<Backend, 2> = Array::new();
#[btf_map]
pub static SOURCES: Mapped<SourceNode, 1> = Array::new();
#[btf_map]
pub static TRACKED: Mapped<Bucket, 2> = Array::new();
#[btf_map]
pub static NAT_SOURCES: Mapped<Source, 1> = Array::new();
#[btf_map]
pub static NAT_TAKEN: Mapped<u64, 1> = Array::new();
#[btf_map]
pub static NAT_PORTS: Mapped<Translation, 1> = Array::new();
#[btf_map]
pub static NAT_FLOWS: Mapped<Bucket, 2> = Array::new();
#[btf_map]
pub static PINS: Mapped<Bucket, 2> = Array::new();
#[btf_map]
pub static REFUSED: Mapped<u64, 1> = Array::new();
#[btf_map]
pub static FRAGMENTS: Array<FragmentBucket, 1> = Array::new();
#[btf_map]
pub static LOADS: PerCpuArray<Load, 2> = PerCpuArray::new();
#[btf_map]
pub static DROPS: PerCpuArray<Tally, 256> = PerCpuArray::new();
#[btf_map]
pub static COUNTERS: PerCpuArray<u64, 16> = PerCpuArray::new();
#[btf_map]
pub static ERROR_BUDGET: PerCpuArray<EventBudget, 1> = PerCpuArray::new();
#[btf_map]
pub static STATE: Array<Settings, 1> = Array::new();

/// Set by the loader before the programs are verified, so that they are constants to the verifier.
#[unsafe(no_mangle)]
#[used]
static SETTINGS: Settings = Settings {
    fragment_seed: 0,
    displacement_mask: 15,
    frontend_shift: 31,
    tracked_mask: 1,
    fragment_mask: 0,
    fragment_timeout: 1,
    hz: 1000,
    errors_per_second: 0,
    age_length: 1000,
    nat_mask: 1,
    nat_groups: [0; 2],
    nat_groups_each: 0,
    nat_first_port: 1024,
    pin_mask: 1,
};

/// The settings that the loader has set.
#[inline(always)]
pub fn settings() -> &'static Settings {
    let mut settings: *const Settings = &raw const SETTINGS;
    // SAFETY: does nothing, but LLVM must believe that the pointer is another one afterwards, or it
    // would take the values above for the last word.
    unsafe { core::arch::asm!("{0} = {0}", inout(reg) settings) };
    // SAFETY: it still points to SETTINGS, which never changes once a program is loaded.
    unsafe { &*settings }
}
