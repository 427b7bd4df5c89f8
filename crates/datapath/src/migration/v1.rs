//! The first layout. The second one has the fragment table and the headers' scratch besides, and
//! settings for them. A state bit of closing flows says since then which end has reset them; the old
//! one counts as the initiator's, which is a matter of stragglers alone.

use flowgate_abi::{Settings, Timeouts, maps};
use zerocopy::{FromBytes, Immutable, KnownLayout};

use super::{Migration, networks};

pub(super) const MIGRATION: Migration = Migration {
    from: 0x198b_0e98_0894_9624,
    fresh: &[maps::FRAGMENTS.name, maps::PARSED.name, maps::IPCACHE.name, maps::ANSWER_BUDGET.name],
    settings_size: size_of::<SettingsV1>(),
    settings,
    networks: networks::read,
};

/// The settings as the first layout has them.
#[repr(C)]
#[derive(FromBytes, Immutable, KnownLayout)]
struct SettingsV1 {
    hash_seed: u64,
    flow4_mask: u32,
    flow6_mask: u32,
    endpoint_mask: u32,
    peers: u32,
    row_cells: u32,
    decision_cells: u32,
    decisions: u32,
    hz: u32,
    timeouts: [u32; 4],
    events_per_second: u32,
    _reserved: u32,
    mark: u32,
    flags: u32,
}

const _: () = assert!(size_of::<SettingsV1>() == 72);

fn settings(bytes: &[u8], present: Settings) -> Option<Settings> {
    let old = SettingsV1::read_from_bytes(bytes).ok()?;
    Some(Settings {
        hash_seed: old.hash_seed,
        flow4_mask: old.flow4_mask,
        flow6_mask: old.flow6_mask,
        endpoint_mask: old.endpoint_mask,
        peers: old.peers,
        row_cells: old.row_cells,
        decision_cells: old.decision_cells,
        decisions: old.decisions,
        hz: old.hz,
        timeouts: Timeouts(old.timeouts),
        events_per_second: old.events_per_second,
        mark: old.mark,
        flags: old.flags,
        ..present
    })
}
