//! The maps, by the names of `flowgate_abi::decap::maps`; a test compares the object with these.
//!
//! The sizes here are the smallest that work; the loader sets them by its options.

use aya_ebpf::{
    btf_maps::{Array, HashMap, PerCpuArray},
    macros::btf_map,
};
use flowgate_abi::{
    Be16,
    decap::{NETWORKS, Network, Settings},
    event::Tally,
    lb::Target,
    probe::Probe,
};

#[btf_map]
pub static ADDRESSES: HashMap<Target, u32, 1> = HashMap::new();
#[btf_map]
pub static BALANCERS: Array<Network, { NETWORKS as usize }> = Array::new();
#[btf_map]
pub static PROBES: HashMap<u64, Probe, 1> = HashMap::new();
#[btf_map]
pub static DROPS: PerCpuArray<Tally, 256> = PerCpuArray::new();
#[btf_map]
pub static COUNTERS: PerCpuArray<Tally, 16> = PerCpuArray::new();

/// Set by the loader before the programs are verified, so that they are constants to the verifier.
#[unsafe(no_mangle)]
#[used]
static SETTINGS: Settings = Settings { gue_port: Be16::new(6080), networks: 0 };

/// The settings that the loader has set.
#[inline(always)]
pub fn settings() -> Settings {
    let mut settings: *const Settings = &raw const SETTINGS;
    // SAFETY: does nothing, but LLVM must believe that the pointer is another one afterwards, or it
    // would take the values above for the last word.
    unsafe { core::arch::asm!("{0} = {0}", inout(reg) settings) };
    // SAFETY: it still points to SETTINGS, which never changes once a program is loaded.
    unsafe { *settings }
}
