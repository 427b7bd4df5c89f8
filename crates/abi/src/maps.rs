//! The maps: names, kinds, element sizes, and what each holds.
//!
//! The eBPF programs declare maps of these names; a test of `flowgate-ebpf-progs` compares the
//! prebuilt object's maps with [`ALL`].

use crate::{
    endpoint::{Endpoint, Peer},
    event::{Event, EventBudget, Tally, Traffic},
    flow::{Bucket4, Bucket6},
    fragment::FragmentBucket,
    ipcache::Node,
    policy::{Decision, EndpointPolicy, Generation, PortTable},
};

/// The kernel's kind of a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapKind {
    /// `BPF_MAP_TYPE_ARRAY`.
    Array,
    /// `BPF_MAP_TYPE_ARRAY` with `BPF_F_MMAPABLE` (Linux 5.5): user space writes by plain stores.
    MappedArray,
    /// `BPF_MAP_TYPE_PERCPU_ARRAY`.
    PerCpuArray,
    /// `BPF_MAP_TYPE_HASH`.
    Hash,
    /// `BPF_MAP_TYPE_RINGBUF` (Linux 5.8).
    RingBuf,
    /// `BPF_MAP_TYPE_SK_STORAGE` (Linux 5.2).
    SocketStorage,
}

/// A map of the boundary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapSpec {
    /// Its name in the object and in the pin path.
    pub name: &'static str,
    /// Its kind.
    pub kind: MapKind,
    /// Bytes of a key.
    pub key: usize,
    /// Bytes of a value.
    pub value: usize,
}

macro_rules! maps {
    ($($(#[doc = $doc:literal])+ $name:ident: $kind:ident [$key:ty => $value:ty];)+) => {
        $($(#[doc = $doc])+
        pub const $name: $crate::maps::MapSpec = $crate::maps::MapSpec {
            name: stringify!($name),
            kind: $crate::maps::MapKind::$kind,
            key: size_of::<$key>(),
            value: size_of::<$value>(),
        };)+

        /// All maps.
        pub const ALL: &[$crate::maps::MapSpec] = &[$($name),+];
    };
}
pub(crate) use maps;

/// Cells of two bytes lie in elements of this many, since an array rounds its element to 8 bytes.
pub const CELLS: usize = 32;
/// One element of a table of cells.
pub type Cells = [u16; CELLS];
/// The headers of one packet, as the programs' first half leaves them to the second.
pub type Parsed = [u64; 14];

maps! {
    /// IPv4 flows, by the high bits of the flow hash.
    FLOWS4: Array[u32 => Bucket4];
    /// IPv6 flows, by the high bits of the flow hash.
    FLOWS6: Array[u32 => Bucket6];
    /// Datagrams of which the first fragment has passed, of both families.
    FRAGMENTS: Array[u32 => FragmentBucket];
    /// Element 0: the headers of the packet that each CPU has at hand.
    PARSED: PerCpuArray[u32 => Parsed];
    /// Endpoints by slot; a slot is the low bits of the interface index where these are free.
    ENDPOINTS: MappedArray[u32 => Endpoint];
    /// Interface index -> slot, for endpoints that didn't get the slot of their low bits.
    LINKS: Hash[u32 => u32];
    /// The ipcache: networks of both families -> leaf.
    IPCACHE: MappedArray[u32 => Node];
    /// Peers by index.
    PEERS: MappedArray[u32 => Peer];
    /// Element 0: the number of the running generation; 0: none.
    ACTIVE: MappedArray[u32 => u64];
    /// The heads of the two generations, by slot.
    GENERATIONS: MappedArray[u32 => Generation];
    /// `slot * endpoints + endpoint` -> its two policies.
    ENDPOINT_POLICY: MappedArray[u32 => EndpointPolicy];
    /// `slot * peers + peer` -> class, in cells; class 0: none.
    PEER_CLASS: MappedArray[u32 => Cells];
    /// `slot * 4 + port table` -> class by port.
    PORT_CLASS: MappedArray[u32 => [u16; PortTable::PORTS]];
    /// `slot * row cells + endpoint policy * peer classes + peer class` -> row, in cells.
    ROW: MappedArray[u32 => Cells];
    /// `slot * decision cells + row * port classes + port class` -> decision, in cells.
    DECISION: MappedArray[u32 => Cells];
    /// `slot * decisions + number` -> decision.
    DECISIONS: MappedArray[u32 => Decision];
    /// Drops by `hook * 256 + reason`.
    DROPS: PerCpuArray[u32 => Tally];
    /// What passed, by slot.
    TRAFFIC: PerCpuArray[u32 => Traffic];
    /// Everything else that is counted.
    COUNTERS: PerCpuArray[u32 => u64];
    /// Element 0: the event of the packet that each CPU has at hand.
    EVENT: PerCpuArray[u32 => Event];
    /// Element 0: the event budget of each CPU.
    EVENT_BUDGET: PerCpuArray[u32 => EventBudget];
    /// Element 0: how many senders of denied packets each CPU may still tell.
    ANSWER_BUDGET: PerCpuArray[u32 => EventBudget];
    /// Events for user space.
    EVENTS: RingBuf[() => ()];
    /// Element 0: the bucket that the next run of the sweep visits.
    SWEEP: Array[u32 => u64];
    /// Element 0: the settings with which the state was made, for a process that adopts it.
    STATE: Array[u32 => crate::Settings];
}
