//! The balancer's maps: names, kinds, element sizes, and what each holds.

use super::{
    Backend, Bucket, Frontend, Head, Load, Settings, SourceNode,
    nat::{Source, Translation},
};
use crate::{
    event::{EventBudget, Tally},
    fragment::FragmentBucket,
    layout,
    maps::maps,
};

/// Changes whenever the layout of any of the balancer's maps does; part of the pin path.
pub const LAYOUT: u64 = layout::hash(ALL, REVISION);

/// Raised when a layout changes in a way that sizes don't show.
const REVISION: u64 = 3;

/// Displacements lie in elements of this many, since an array rounds its element to 8 bytes.
pub const DISPLACEMENTS_EACH: usize = 16;

maps! {
    /// Element 0: what user space tells programs from time to time.
    HEAD: MappedArray[u32 => Head];
    /// By the hash of a target: the multiplier that leads from the hash to its frontend; 0: no frontend
    /// has such a hash.
    DISPLACEMENTS: MappedArray[u32 => [u32; DISPLACEMENTS_EACH]];
    /// The frontends, each where hash and displacement say.
    FRONTENDS: MappedArray[u32 => Frontend];
    /// The slots of all services' tables.
    SLOTS: MappedArray[u32 => [u32; super::SLOTS]];
    /// The backends of all services.
    BACKENDS: MappedArray[u32 => Backend];
    /// Which clients services take that don't take all.
    SOURCES: MappedArray[u32 => SourceNode];
    /// Flows whose backend isn't known from their slot, by their hash.
    TRACKED: MappedArray[u32 => Bucket];
    /// Places of the addresses from which packets to backends come, IPv4 first.
    NAT_SOURCES: MappedArray[u32 => Source];
    /// By group of ports: a bit for each that is taken.
    NAT_TAKEN: MappedArray[u32 => u64];
    /// By port, all of one place after another: whose it is.
    NAT_PORTS: MappedArray[u32 => Translation];
    /// Clients' flows that have a port, by their hash.
    NAT_FLOWS: MappedArray[u32 => Bucket];
    /// Backends of clients, of services with affinity; entries like those of flows.
    PINS: MappedArray[u32 => Bucket];
    /// By service: how many entries of its flows found no room.
    REFUSED: MappedArray[u32 => u64];
    /// Datagrams of which the first fragment has passed.
    FRAGMENTS: Array[u32 => FragmentBucket];
    /// What each backend got, by its line.
    LOADS: PerCpuArray[u32 => Load];
    /// Drops by reason.
    DROPS: PerCpuArray[u32 => Tally];
    /// Everything else that is counted.
    COUNTERS: PerCpuArray[u32 => u64];
    /// Element 0: the ICMP errors that each CPU may still send.
    ERROR_BUDGET: PerCpuArray[u32 => EventBudget];
    /// Element 0: the settings with which the state was made, for a process that adopts it.
    STATE: Array[u32 => Settings];
}
