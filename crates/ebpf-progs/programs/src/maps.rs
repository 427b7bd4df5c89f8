//! The maps, by the names of `flowgate_abi::maps`; a test compares the object with these.
//!
//! The sizes here are the smallest that work; the loader sets them by its options.

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    btf_maps::{Array, HashMap, PerCpuArray},
    macros::btf_map,
};
use flowgate_abi::{
    Settings, Timeouts,
    endpoint::{Endpoint, Peer},
    event::{Event, EventBudget, Tally, Traffic},
    flow::{Bucket4, Bucket6},
    fragment::FragmentBucket,
    ipcache::{Node, ROOTS},
    maps::{self, Cells},
    policy::{Decision, EndpointPolicy, Generation, PortTable},
};

use crate::ring_buffer::RingBuffer;

const MAPPED: usize = BPF_F_MMAPABLE as usize;
type Mapped<T, const N: usize> = Array<T, N, MAPPED>;

#[btf_map]
pub static FLOWS4: Array<Bucket4, 2> = Array::new();
#[btf_map]
pub static FLOWS6: Array<Bucket6, 2> = Array::new();
#[btf_map]
pub static FRAGMENTS: Array<FragmentBucket, 1> = Array::new();
#[btf_map]
pub static PARSED: PerCpuArray<maps::Parsed, 1> = PerCpuArray::new();
#[btf_map]
pub static ENDPOINTS: Mapped<Endpoint, 2> = Array::new();
#[btf_map]
pub static LINKS: HashMap<u32, u32, 2> = HashMap::new();
#[btf_map]
pub static IPCACHE: Mapped<Node, { ROOTS as usize }> = Array::new();
#[btf_map]
pub static PEERS: Mapped<Peer, 2> = Array::new();
#[btf_map]
pub static ACTIVE: Mapped<u64, 1> = Array::new();
#[btf_map]
pub static GENERATIONS: Mapped<Generation, 2> = Array::new();
#[btf_map]
pub static ENDPOINT_POLICY: Mapped<EndpointPolicy, 2> = Array::new();
#[btf_map]
pub static PEER_CLASS: Mapped<Cells, 2> = Array::new();
#[btf_map]
pub static PORT_CLASS: Mapped<[u16; PortTable::PORTS], { 2 * PortTable::COUNT }> = Array::new();
#[btf_map]
pub static ROW: Mapped<Cells, 2> = Array::new();
#[btf_map]
pub static DECISION: Mapped<Cells, 2> = Array::new();
#[btf_map]
pub static DECISIONS: Mapped<Decision, 2> = Array::new();
#[btf_map]
pub static DROPS: PerCpuArray<Tally, 512> = PerCpuArray::new();
#[btf_map]
pub static TRAFFIC: PerCpuArray<Traffic, 2> = PerCpuArray::new();
#[btf_map]
pub static COUNTERS: PerCpuArray<u64, 32> = PerCpuArray::new();
#[btf_map]
pub static EVENT: PerCpuArray<Event, 1> = PerCpuArray::new();
#[btf_map]
pub static EVENT_BUDGET: PerCpuArray<EventBudget, 1> = PerCpuArray::new();
#[btf_map]
pub static ANSWER_BUDGET: PerCpuArray<EventBudget, 1> = PerCpuArray::new();
#[btf_map]
pub static SWEEP: Array<u64, 1> = Array::new();
#[btf_map]
pub static STATE: Array<Settings, 1> = Array::new();

#[unsafe(link_section = ".maps")]
#[unsafe(no_mangle)]
pub static EVENTS: RingBuffer<4096> = RingBuffer::new();

/// Set by the loader before the programs are verified, so that they are constants to the verifier.
#[unsafe(no_mangle)]
#[used]
static SETTINGS: Settings = Settings {
    hash_seed: 0,
    flow4_mask: 1,
    flow6_mask: 1,
    endpoint_mask: 1,
    peers: 2,
    row_cells: 32,
    decision_cells: 32,
    decisions: 1,
    hz: 1000,
    timeouts: Timeouts([1; 4]),
    events_per_second: 0,
    fragment_timeout: 1,
    mark: 1,
    flags: 0,
    fragment_mask: 0,
    answers_per_second: 0,
    answer_mark: 2,
    reserved: 0,
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

/// The next bucket of the sweep: its table (IPv4?) and index.
#[inline(always)]
pub fn next_bucket() -> (bool, u32) {
    let Some(next) = SWEEP.get_ptr_mut(0) else { return (true, 0) };
    let (buckets4, buckets6) = (settings().flow4_mask + 1, settings().flow6_mask + 1);
    // SAFETY: element 0 exists; one sweep runs at a time.
    let index = unsafe { *next } as u32;
    let following = if index + 1 >= buckets4 + buckets6 { 0 } else { index + 1 };
    // SAFETY: as above.
    unsafe { *next = u64::from(following) };
    if index < buckets4 { (true, index) } else { (false, index - buckets4) }
}
