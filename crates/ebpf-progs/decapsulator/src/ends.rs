//! The maps as what is configured.

use flowgate_abi::{
    DropReason,
    decap::{Network, Settings},
    event::Tally,
    lb::Target,
    probe::Probe,
};
use flowgate_pipeline::{decap::Ends, probe::Probes};

use crate::maps;

/// All maps.
pub struct Maps;

impl Ends for Maps {
    #[inline(always)]
    fn settings(&self) -> Settings {
        maps::settings()
    }

    #[inline(always)]
    fn role(&self, address: &Target) -> u32 {
        // SAFETY: a word that is replaced as a whole; the entry isn't used again once it is removed
        // while this program runs.
        unsafe { maps::ADDRESSES.get(address) }.copied().unwrap_or(0)
    }

    #[inline(always)]
    fn network(&self, index: u32) -> Option<&Network> {
        maps::BALANCERS.get(index)
    }

    #[inline(always)]
    fn count_drop(&self, reason: DropReason, bytes: u32) {
        count(maps::DROPS.get_ptr_mut(reason as u32), bytes);
    }

    #[inline(always)]
    fn count(&self, counter: u32, bytes: u32) {
        count(maps::COUNTERS.get_ptr_mut(counter), bytes);
    }
}

impl Probes for Maps {
    #[inline(always)]
    fn probe(&self, kind: u64) -> Option<&Probe> {
        // SAFETY: an entry is removed once its socket is closed; whoever runs here meanwhile rewrites
        // packets that nobody waits for.
        unsafe { maps::PROBES.get(&kind) }
    }
}

#[inline(always)]
fn count(tally: Option<*mut Tally>, bytes: u32) {
    let Some(tally) = tally else { return };
    // SAFETY: this CPU's own element, and nothing else runs on it meanwhile.
    let tally = unsafe { &mut *tally };
    tally.packets += 1;
    tally.bytes += u64::from(bytes);
}
