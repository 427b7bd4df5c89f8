//! The maps as the pipeline's tables.

use core::{
    arch::asm,
    cell::Cell,
    ops::{Deref, DerefMut},
    ptr,
};

use aya_ebpf::{
    bindings::{BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP, bpf_spin_lock},
    helpers,
};
use flowgate_abi::{
    Addr4, Addr6, DropReason, Settings, Shared32,
    endpoint::{Endpoint, Leaf, Peer},
    event::{Counter, DROP_REASONS, Event, Hook, Tally},
    flow::{Bucket4, Bucket6, Way4, Way6},
    fragment::FragmentBucket,
    ipcache::Node,
    maps::{CELLS, Cells},
    policy::{Decision, Direction, EndpointPolicy, Generation, PortTable},
};
use flowgate_pipeline::{
    Family, FlowTable, Tables, V4, V6, answer, event,
    fragment::FragmentTable,
    ipcache::{self, Nodes},
    policy,
};

use crate::{headers, maps};

/// All maps, and whether the packet at hand has caused an event.
pub struct Maps {
    pending: Cell<bool>,
}

/// Wakes the reader of events when this much lies unread; it looks by itself now and then.
const WAKE_AT: u64 = 64 * 1024;

/// A number of which the bits outside of a mask are cleared.
///
/// VERIFIER: where LLVM knows that a mask changes nothing, it drops the mask, or it masks one copy and
/// uses another; the verifier knows neither and refuses the access. LLVM leaves assembly alone.
#[inline(always)]
fn bounded<const MASK: u32>(value: u32) -> usize {
    let mut bounded = u64::from(value);
    // SAFETY: an AND with a constant.
    unsafe { asm!("{0} &= {1}", inout(reg) bounded, const MASK) };
    bounded as usize
}

/// The index of a way, by its number.
///
/// VERIFIER: seven isn't a power of two, so the second bound is as needed as the first.
#[inline(always)]
fn way_index(number: u32) -> usize {
    let mut index = u64::from(number.wrapping_sub(1));
    // SAFETY: min(index & 7, 6).
    unsafe { asm!("{0} &= 7", "if {0} < 7 goto +1", "{0} = 6", inout(reg) index) };
    index as usize
}

/// A cell of a table of which each slot has `cells`.
#[inline(always)]
fn cell(element: Option<*const Cells>, index: u32) -> Option<u32> {
    let cells = element?.cast::<u16>();
    // SAFETY: the element has CELLS cells.
    Some(u32::from(unsafe { *cells.add(bounded::<{ CELLS as u32 - 1 }>(index)) }))
}

/// The element that a slot's cell lies in.
#[inline(always)]
fn element(slot: u32, cells: u32, index: u32) -> u32 {
    (slot * cells + index) / CELLS as u32
}

impl FragmentTable for Maps {
    #[inline(always)]
    fn fragment_place(&self) -> (u64, u32) {
        (maps::settings().hash_seed, maps::settings().fragment_mask)
    }

    #[inline(always)]
    fn fragment_timeout(&self) -> u32 {
        maps::settings().fragment_timeout
    }

    #[inline(always)]
    fn jiffies(&self) -> u64 {
        // SAFETY: a plain helper call, inlined by the verifier.
        unsafe { helpers::bpf_jiffies64() }
    }

    #[inline(always)]
    fn fragments(&self, index: u32) -> Option<&FragmentBucket> {
        maps::FRAGMENTS.get(index)
    }

    #[inline(always)]
    fn lock_fragments(&self, bucket: &FragmentBucket) {
        let lock = (&raw const bucket.lock).cast_mut().cast::<bpf_spin_lock>();
        // SAFETY: the lock of a map's value.
        unsafe { helpers::bpf_spin_lock(lock) };
    }

    #[inline(always)]
    fn unlock_fragments(&self, bucket: &FragmentBucket) {
        let lock = (&raw const bucket.lock).cast_mut().cast::<bpf_spin_lock>();
        // SAFETY: the lock of a map's value, taken before.
        unsafe { helpers::bpf_spin_unlock(lock) };
    }
}

impl Tables for Maps {
    type Event = Blank;

    #[inline(always)]
    fn settings(&self) -> &Settings {
        maps::settings()
    }

    #[inline(always)]
    fn timeout(&self, class: u32) -> u32 {
        let first = self.settings().timeouts.0.as_ptr();
        // SAFETY: there are four.
        unsafe { *first.add(bounded::<3>(class)) }
    }

    #[inline(always)]
    fn forget(&self, number: u32, unknown: u64) -> u32 {
        let mut hidden = u64::from(number);
        // SAFETY: does nothing, twice.
        unsafe { asm!("{0} ^= {1}", "{0} ^= {1}", inout(reg) hidden, in(reg) unknown) };
        hidden as u32
    }

    #[inline(always)]
    fn endpoint(&self, ifindex: u32) -> Option<&Endpoint> {
        let endpoint = self.slot(ifindex & self.settings().endpoint_mask)?;
        if endpoint.ifindex.load() == ifindex {
            return Some(endpoint);
        }
        // SAFETY: entries of LINKS are only ever replaced as a whole.
        let slot = unsafe { maps::LINKS.get(&ifindex) }?;
        self.slot(*slot)
    }

    #[inline(always)]
    fn slot(&self, slot: u32) -> Option<&Endpoint> {
        maps::ENDPOINTS.get(slot)
    }

    #[inline(always)]
    fn peer(&self, index: u32) -> Option<&Peer> {
        maps::PEERS.get(index)
    }

    #[inline(always)]
    fn generation(&self) -> u32 {
        // SAFETY: the element is mapped by user space too, so it is read volatile.
        maps::ACTIVE.get_ptr(0).map_or(0, |word| unsafe { ptr::read_volatile(word) } as u32)
    }

    #[inline(always)]
    fn generation_head(&self, slot: u32) -> Option<&Generation> {
        maps::GENERATIONS.get(slot)
    }

    #[inline(always)]
    fn endpoint_policy(&self, slot: u32, endpoint: u32) -> Option<&EndpointPolicy> {
        maps::ENDPOINT_POLICY.get(slot * (self.settings().endpoint_mask + 1) + endpoint)
    }

    #[inline(always)]
    fn peer_class(&self, slot: u32, peer: u32) -> Option<u32> {
        let peers = self.settings().peers;
        if peer >= peers {
            return None;
        }
        cell(maps::PEER_CLASS.get_ptr(element(slot, peers, peer)).map(|p| p as _), peer)
    }

    #[inline(always)]
    fn port_class(&self, slot: u32, table: u32, port: u16) -> Option<u32> {
        let ports = maps::PORT_CLASS.get_ptr(slot * PortTable::COUNT as u32 + table)?.cast::<u16>();
        // SAFETY: the element has 65536 cells.
        Some(u32::from(unsafe { *ports.add(bounded::<0xffff>(u32::from(port))) }))
    }

    #[inline(always)]
    fn row(&self, slot: u32, index: u32) -> Option<u32> {
        let cells = self.settings().row_cells;
        if index >= cells {
            return None;
        }
        cell(maps::ROW.get_ptr(element(slot, cells, index)).map(|p| p as _), index)
    }

    #[inline(always)]
    fn decision_number(&self, slot: u32, index: u32) -> Option<u32> {
        let cells = self.settings().decision_cells;
        if index >= cells {
            return None;
        }
        cell(maps::DECISION.get_ptr(element(slot, cells, index)).map(|p| p as _), index)
    }

    #[inline(always)]
    fn scattered(&self, slot: u32, end: u32, row: u32, column: u32) -> u32 {
        scattered(slot, end, row, column)
    }

    #[inline(always)]
    fn decision(&self, slot: u32, number: u32) -> Option<Decision> {
        let decisions = self.settings().decisions;
        if number >= decisions {
            return None;
        }
        maps::DECISIONS.get(slot * decisions + number).copied()
    }

    #[inline(always)]
    fn count_traffic(&self, slot: u32, direction: Direction, bytes: u32) {
        if let Some(traffic) = maps::TRAFFIC.get_ptr_mut(slot) {
            // SAFETY: this CPU's own element, and nothing else runs on it meanwhile.
            let traffic = unsafe { &mut *traffic };
            match direction {
                Direction::Egress => add(&mut traffic[0], bytes),
                Direction::Ingress => add(&mut traffic[1], bytes),
            }
        }
    }

    #[inline(always)]
    fn count_drop(&self, hook: Hook, reason: DropReason, bytes: u32) {
        let index = hook as u32 * DROP_REASONS + reason as u32;
        if let Some(tally) = maps::DROPS.get_ptr_mut(index) {
            // SAFETY: this CPU's own element, and nothing else runs on it meanwhile.
            add(unsafe { &mut *tally }, bytes);
        }
    }

    #[inline(always)]
    fn count(&self, counter: Counter) {
        if let Some(count) = maps::COUNTERS.get_ptr_mut(counter as u32) {
            // SAFETY: this CPU's own element, and nothing else runs on it meanwhile.
            unsafe { *count += 1 };
        }
    }

    #[inline(always)]
    fn note_response(&self, number: u8) {
        headers::note_response(number);
    }

    #[inline(always)]
    fn response(&self) -> u8 {
        headers::response()
    }

    #[inline(always)]
    fn may_answer(&self) -> bool {
        let Some(budget) = maps::ANSWER_BUDGET.get_ptr_mut(0) else { return false };
        // SAFETY: this CPU's own element, and nothing else runs on it meanwhile.
        answer::admit(self, unsafe { &mut *budget })
    }

    #[inline(always)]
    fn blank_event(&self) -> Option<Blank> {
        maps::EVENT.get_ptr_mut(0).map(Blank)
    }

    #[inline(always)]
    fn submit_event(&self, _event: Blank) {
        self.pending.set(true);
    }
}

impl Maps {
    /// Nothing told yet.
    #[inline(always)]
    pub fn new() -> Self {
        Self { pending: Cell::new(false) }
    }

    /// There is an event to hand over.
    #[inline(always)]
    pub fn has_event(&self) -> bool {
        self.pending.get()
    }

    /// Hands the event over, from the entry point: behind the family's subprogram, where nothing is
    /// left of its branches.
    ///
    /// VERIFIER: where the events were written inside of the branches, 6.1 verified more than a
    /// million instructions instead of 280,000.
    #[inline(always)]
    pub fn hand_over_event(&self) {
        let Some(event) = maps::EVENT.get_ptr_mut(0) else { return };
        let Some(budget) = maps::EVENT_BUDGET.get_ptr_mut(0) else { return };
        // SAFETY: this CPU's own element, and nothing else runs on it meanwhile.
        event::count_audited(self, unsafe { &*event });
        // SAFETY: as above.
        if !event::admit(self, unsafe { &mut *budget }) {
            return;
        }
        let ring = (&raw const maps::EVENTS).cast_mut().cast();
        // SAFETY: EVENTS is a ring buffer; `event` is this CPU's own element, of an Event's size.
        let lost = unsafe {
            (*event).timestamp = now();
            let unread = helpers::bpf_ringbuf_query(ring, 0);
            // Once, when the mark is crossed: a reader that lags isn't helped by more.
            let crossed = unread.wrapping_sub(WAKE_AT) < size_of::<Event>() as u64 + 8;
            let wake = if crossed { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP };
            let size = size_of::<Event>() as u64;
            helpers::bpf_ringbuf_output(ring, event.cast(), size, u64::from(wake)) != 0
        };
        if lost {
            self.count(Counter::EventsLost);
        }
    }
}

/// As of the last tick, where the kernel tells it.
///
/// VERIFIER: the flag is a constant, so 5.10 never looks at the helper that it doesn't know.
#[inline(always)]
fn now() -> u64 {
    if maps::settings().flags & Settings::COARSE_CLOCK != 0 {
        // SAFETY: a plain helper call.
        unsafe { helpers::bpf_ktime_get_coarse_ns() }
    } else {
        // SAFETY: as above.
        unsafe { helpers::bpf_ktime_get_ns() }
    }
}

#[inline(always)]
fn add(tally: &mut Tally, bytes: u32) {
    tally.packets += 1;
    tally.bytes += u64::from(bytes);
}

/// This CPU's place for the event of the packet at hand.
pub struct Blank(*mut Event);

impl Deref for Blank {
    type Target = Event;
    #[inline(always)]
    fn deref(&self) -> &Event {
        // SAFETY: this CPU's own element, and nothing else runs on it meanwhile.
        unsafe { &*self.0 }
    }
}

impl DerefMut for Blank {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut Event {
        // SAFETY: this CPU's own element, and nothing else runs on it meanwhile.
        unsafe { &mut *self.0 }
    }
}

impl Nodes for Maps {
    #[inline(always)]
    fn node(&self, index: u32) -> Option<&Node> {
        maps::IPCACHE.get(index)
    }

    #[inline(always)]
    fn word(&self, node: &Node, number: u32) -> u32 {
        let words = ptr::from_ref(node).cast::<u32>();
        // SAFETY: a node has 16 words; user space writes them, so they are read volatile.
        unsafe { ptr::read_volatile(words.add(bounded::<15>(number))) }
    }
}

macro_rules! flow_table {
    ($family:ty, $map:ident, $mask:ident, $bucket:ty, $way:ty, |$address:ident| $ipcache:expr) => {
        impl FlowTable<$family> for Maps {
            #[inline(always)]
            fn bucket_mask(&self) -> u32 {
                self.settings().$mask
            }

            #[inline(always)]
            fn bucket(&self, index: u32) -> Option<&$bucket> {
                maps::$map.get(index)
            }

            #[inline(always)]
            fn way<'b>(&self, bucket: &'b $bucket, number: u32) -> &'b $way {
                // SAFETY: a bucket has seven ways.
                unsafe { &*bucket.ways.as_ptr().add(way_index(number)) }
            }

            #[inline(always)]
            fn age<'b>(&self, bucket: &'b $bucket, number: u32) -> &'b Shared32 {
                let first = ptr::from_ref(&bucket.ages).cast::<Shared32>();
                // SAFETY: number 0, which no way has, reads the last tag; 7 is the last age.
                unsafe { &*first.sub(1).add(bounded::<7>(number)) }
            }

            #[inline(always)]
            fn tag<'b>(&self, bucket: &'b $bucket, number: u32) -> &'b Shared32 {
                let first = ptr::from_ref(&bucket.tags).cast::<Shared32>();
                // SAFETY: number 0, which no way has, reads `spilled`; 7 is the last tag.
                unsafe { &*first.sub(1).add(bounded::<7>(number)) }
            }

            #[inline(always)]
            fn lock(&self, bucket: &$bucket) {
                let lock = (&raw const bucket.lock).cast_mut().cast::<bpf_spin_lock>();
                // SAFETY: the lock of a map's value.
                unsafe { helpers::bpf_spin_lock(lock) };
            }

            #[inline(always)]
            fn unlock(&self, bucket: &$bucket) {
                let lock = (&raw const bucket.lock).cast_mut().cast::<bpf_spin_lock>();
                // SAFETY: the lock of a map's value, taken before.
                unsafe { helpers::bpf_spin_unlock(lock) };
            }

            #[inline(always)]
            fn ipcache(&self, $address: &<$family as Family>::Addr) -> Leaf {
                Leaf($ipcache)
            }
        }
    };
}

flow_table!(V4, FLOWS4, flow4_mask, Bucket4, Way4, |address| ipcache_v4(address.raw()));
flow_table!(V6, FLOWS6, flow6_mask, Bucket6, Way6, |address| ipcache_v6(
    address.first,
    address.last
));

// VERIFIER: global functions, which every kernel since 5.6 verifies once and by themselves: walked where
// they are called, the 29 steps of IPv6 doubled what 6.18 verifies of a program. So they take numbers,
// and what they return is any number to who calls them.

/// What a scattered row decides about a column.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn scattered(slot: u32, end: u32, row: u32, column: u32) -> u32 {
    policy::scattered(&Maps::new(), slot, end, (row, column))
}

/// Whose an IPv4 address is.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ipcache_v4(address: u32) -> u32 {
    ipcache::lookup::<V4, _>(&Maps::new(), &Addr4::from_raw(address)).0
}

/// Whose an IPv6 address is.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ipcache_v6(first: u64, last: u64) -> u32 {
    ipcache::lookup::<V6, _>(&Maps::new(), &Addr6 { first, last }).0
}
