//! The maps as the pipeline's tables.

use core::{arch::asm, ptr};

use aya_ebpf::{bindings::bpf_spin_lock, helpers};
use flowgate_abi::{
    DropReason, Shared64,
    event::EventBudget,
    fragment::FragmentBucket,
    lb::{
        Backend, Bucket, CELLS, Counter, Frontend, Head, Lines, SLOTS, Settings, SourceNode,
        Sources, Tracked,
        maps::DISPLACEMENTS_EACH,
        nat::{Source, Translation},
    },
};
use flowgate_pipeline::{
    fragment::FragmentTable,
    lb::{
        Balance, Translations,
        choose::Signs,
        pin::{self, Client},
        server_id::{self, Bearer, Naming},
        sources,
        tracking::{self, Entries, Flows, Pins, Place},
    },
};

use crate::maps;

/// All maps.
pub struct Maps;

/// A number of which the bits outside of a mask are cleared.
///
/// VERIFIER: where LLVM knows that a mask changes nothing, it drops the mask, or it masks one copy and
/// uses another; the verifier knows neither and refuses the access. LLVM leaves assembly alone.
#[inline(always)]
pub(crate) fn bounded<const MASK: u32>(value: u32) -> usize {
    let mut bounded = u64::from(value);
    // SAFETY: an AND with a constant.
    unsafe { asm!("{0} &= {1}", inout(reg) bounded, const MASK) };
    bounded as usize
}

/// VERIFIER: a global subprogram of plain numbers, which is verified once, whoever calls it (Linux 5.6). As a
/// static one it was verified for every state in which a packet may come to it: 900,000 instructions on 6.1.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn refuses(sources: u64, first: u64, last: u64) -> u64 {
    u64::from(sources::is_refused(&Maps, Sources(sources), [first, last]))
}

// VERIFIER: pins in global subprograms as well; a packet's signs lie above the flags.

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn pinned(hash: u64, slot: u64, lines: u64, flags: u64) -> u64 {
    let client = Client { hash, slot: slot as u32, flags: flags as u32, lines: Lines(lines) };
    let (opens, about) = (flags >> 32 & 1 != 0, flags >> 33 & 1 != 0);
    let signs = Signs { opens, about, ..Signs::default() };
    u64::from(pin::pinned(&Maps, &client, signs))
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn pin_client(hash: u64, slot: u64, flags: u64, number: u64) -> u64 {
    let client = Client { hash, slot: slot as u32, flags: flags as u32, lines: Lines::default() };
    pin::in_first(&Maps, &client, number as u32).map_or(0, |pin| pin.0)
}

// VERIFIER: as pins are, and so that the steps of nearly every flow stay as short as with one bucket.

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn elsewhere(pins: u64, slot: u64, hash: u64) -> u64 {
    let slot = slot as u32;
    let found = if pins != 0 {
        tracking::elsewhere::<Pins, _>(&Maps, &place::<Pins>(slot, hash))
    } else {
        tracking::elsewhere::<Flows, _>(&Maps, &place::<Flows>(slot, hash))
    };
    u64::from(found)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn lodge(pins: u64, entry: u64, hash: u64) -> u64 {
    let entry = Tracked(entry);
    let is_stored = if pins != 0 {
        tracking::lodge::<Pins, _>(&Maps, &place::<Pins>(entry.slot(), hash), entry)
    } else {
        tracking::lodge::<Flows, _>(&Maps, &place::<Flows>(entry.slot(), hash), entry)
    };
    u64::from(is_stored)
}

#[inline(always)]
fn place<E: Entries>(slot: u32, hash: u64) -> Place {
    Place::of(slot, hash, E::mask(&Maps))
}

// VERIFIER: as pins are. Above the server id: what has it; above the word's index: the flags.

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn names(id: u64, words: u64, lines: u64) -> u64 {
    let bearer = match id >> 32 {
        0 => Bearer::QuicShort,
        1 => Bearer::QuicLong,
        _ => Bearer::Tcp,
    };
    let (flags, lines) = ((words >> 32) as u32, Lines(lines));
    let naming = Naming { id: id as u32, bearer, flags, words: words as u32, lines };
    u64::from(server_id::server(&Maps, &naming))
}

/// A word of an element of 16.
#[inline(always)]
fn word(element: Option<*const [u32; 16]>, index: u32) -> Option<u32> {
    let words = element?.cast::<u32>();
    // SAFETY: the element has 16 words; user space writes them, so they are read volatile.
    Some(unsafe { ptr::read_volatile(words.add(bounded::<15>(index))) })
}

const _: () = assert!(SLOTS == 16 && DISPLACEMENTS_EACH == 16);

impl FragmentTable for Maps {
    #[inline(always)]
    fn fragment_place(&self) -> (u64, u32) {
        (maps::settings().fragment_seed, maps::settings().fragment_mask)
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

impl Translations for Maps {
    #[inline(always)]
    fn nat_source(&self, number: u32) -> Option<&Source> {
        maps::NAT_SOURCES.get(number)
    }

    #[inline(always)]
    fn nat_taken(&self, group: u32) -> Option<&Shared64> {
        let word = maps::NAT_TAKEN.get_ptr(group)?;
        // SAFETY: an element of the map, which is an aligned word.
        Some(unsafe { &*word.cast::<Shared64>() })
    }

    #[inline(always)]
    fn nat_port(&self, index: u32) -> Option<&Translation> {
        maps::NAT_PORTS.get(index)
    }

    #[inline(always)]
    fn nat_flows(&self, index: u32) -> Option<&Bucket> {
        maps::NAT_FLOWS.get(index)
    }
}

impl Balance for Maps {
    #[inline(always)]
    fn settings(&self) -> &Settings {
        maps::settings()
    }

    #[inline(always)]
    fn head(&self) -> Option<&Head> {
        maps::HEAD.get(0)
    }

    #[inline(always)]
    fn displacement(&self, bucket: u32) -> u32 {
        word(maps::DISPLACEMENTS.get_ptr(bucket / 16), bucket).unwrap_or(0)
    }

    #[inline(always)]
    fn frontend(&self, index: u32) -> Option<&Frontend> {
        maps::FRONTENDS.get(index)
    }

    #[inline(always)]
    fn slot(&self, index: u32) -> Option<u32> {
        word(maps::SLOTS.get_ptr(index / 16), index)
    }

    #[inline(always)]
    fn backend(&self, index: u32) -> Option<&Backend> {
        maps::BACKENDS.get(index)
    }

    #[inline(always)]
    fn source(&self, index: u32) -> Option<&SourceNode> {
        maps::SOURCES.get(index)
    }

    #[inline(always)]
    fn refuses(&self, sources: Sources, [first, last]: [u64; 2]) -> bool {
        refuses(sources.0, first, last) != 0
    }

    #[inline(always)]
    fn tracked(&self, index: u32) -> Option<&Bucket> {
        maps::TRACKED.get(index)
    }

    #[inline(always)]
    fn pins(&self, index: u32) -> Option<&Bucket> {
        maps::PINS.get(index)
    }

    #[inline(always)]
    fn elsewhere<E: Entries>(&self, place: &Place) -> u32 {
        elsewhere(E::PINS.into(), place.name.slot().into(), place.hash) as u32
    }

    #[inline(always)]
    fn lodge<E: Entries>(&self, place: &Place, entry: Tracked) -> bool {
        lodge(E::PINS.into(), entry.0, place.hash) != 0
    }

    #[inline(always)]
    fn pinned(&self, client: &Client, signs: Signs) -> u32 {
        let signs = u64::from(signs.opens) << 32 | u64::from(signs.about) << 33;
        let flags = u64::from(client.flags) | signs;
        pinned(client.hash, client.slot.into(), client.lines.0, flags) as u32
    }

    #[inline(always)]
    fn pin_in_first(&self, client: &Client, number: u32) -> Option<Tracked> {
        let flags = client.flags.into();
        let left = pin_client(client.hash, client.slot.into(), flags, number.into());
        (left != 0).then_some(Tracked(left))
    }

    #[inline(always)]
    fn named(&self, naming: &Naming) -> u32 {
        let bearer = match naming.bearer {
            Bearer::QuicShort => 0,
            Bearer::QuicLong => 1,
            Bearer::Tcp => 2,
        };
        let id = u64::from(naming.id) | bearer << 32;
        let words = u64::from(naming.words) | u64::from(naming.flags) << 32;
        names(id, words, naming.lines.0) as u32
    }

    #[inline(always)]
    fn cell<'b>(&self, bucket: &'b Bucket, number: u32) -> &'b Shared64 {
        let index = bounded::<{ CELLS as u32 - 1 }>(number.wrapping_sub(1));
        // SAFETY: a bucket has eight cells.
        unsafe { &*bucket.as_ptr().add(index) }
    }

    #[inline(always)]
    fn exchange(&self, cell: &Shared64, old: u64, new: u64) -> bool {
        let mut found = old;
        // SAFETY: a compare-and-exchange of a map's aligned word (`BPF_CMPXCHG`, Linux 5.12): R0 holds what
        // is expected, and afterwards what was there.
        unsafe {
            asm!(
                "r0 = cmpxchg_64({0} + 0, r0, {1})",
                in(reg) ptr::from_ref(cell),
                in(reg) new,
                inout("r0") found,
            );
        }
        found == old
    }

    #[inline(always)]
    fn forget(&self, number: u32, unknown: u64) -> u32 {
        let mut hidden = u64::from(number);
        // SAFETY: does nothing, twice.
        unsafe { asm!("{0} ^= {1}", "{0} ^= {1}", inout(reg) hidden, in(reg) unknown) };
        hidden as u32
    }

    #[inline(always)]
    fn is_some(&self, word: u64) -> u32 {
        let mut some = word;
        // SAFETY: arithmetic: (word | -word) >> 63.
        unsafe {
            asm!(
                "{1} = {0}",
                "{1} = -{1}",
                "{0} |= {1}",
                "{0} >>= 63",
                inout(reg) some,
                out(reg) _,
            );
        }
        some as u32
    }

    #[inline(always)]
    fn count_load(&self, line: u32, bytes: u32, opens: bool, tracked: bool) {
        let Some(load) = maps::LOADS.get_ptr_mut(line) else { return };
        // SAFETY: this CPU's own element, and nothing else runs on it meanwhile.
        let load = unsafe { &mut *load };
        load.packets += 1;
        load.bytes += u64::from(bytes);
        if opens {
            load.opened += 1;
        }
        if tracked {
            load.tracked += 1;
        }
    }

    #[inline(always)]
    fn count_refused(&self, service: u32) {
        let Some(refused) = maps::REFUSED.get_ptr_mut(service) else { return };
        // SAFETY: an atomic addition to a map's aligned word.
        unsafe { asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) refused, in(reg) 1u64) };
    }

    #[inline(always)]
    fn count_drop(&self, reason: DropReason, bytes: u32) {
        let Some(tally) = maps::DROPS.get_ptr_mut(reason as u32) else { return };
        // SAFETY: this CPU's own element, and nothing else runs on it meanwhile.
        let tally = unsafe { &mut *tally };
        tally.packets += 1;
        tally.bytes += u64::from(bytes);
    }

    #[inline(always)]
    fn count(&self, counter: Counter) {
        let Some(count) = maps::COUNTERS.get_ptr_mut(counter as u32) else { return };
        // SAFETY: this CPU's own element, and nothing else runs on it meanwhile.
        unsafe { *count += 1 };
    }

    #[inline(always)]
    fn error_budget(&self) -> Option<EventBudget> {
        // SAFETY: as above.
        maps::ERROR_BUDGET.get_ptr(0).map(|budget| unsafe { *budget })
    }

    #[inline(always)]
    fn set_error_budget(&self, budget: EventBudget) {
        if let Some(place) = maps::ERROR_BUDGET.get_ptr_mut(0) {
            // SAFETY: as above.
            unsafe { *place = budget };
        }
    }
}
