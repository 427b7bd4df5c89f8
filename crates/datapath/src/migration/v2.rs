//! The second layout. The present one has the ipcache's networks of both families in nodes of one map, and
//! the budget of answers with settings for them. Two state bits of revoked flows say since then what their
//! senders are told: the old ones' are silence. A decision may say so since then, too, and to old programs
//! one that does is a denial like any other.

use flowgate_abi::{Settings, Timeouts, maps};
use zerocopy::{FromBytes, Immutable, KnownLayout};

use super::{Migration, networks};

pub(super) const MIGRATION: Migration = Migration {
    from: 0xd48c_5d06_c091_68b1,
    fresh: &[maps::IPCACHE.name, maps::ANSWER_BUDGET.name],
    settings_size: size_of::<SettingsV2>(),
    settings,
    networks: networks::read,
};

/// The settings as the second layout has them.
#[repr(C)]
#[derive(FromBytes, Immutable, KnownLayout)]
struct SettingsV2 {
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
    fragment_timeout: u32,
    mark: u32,
    flags: u32,
    fragment_mask: u32,
    _reserved: u32,
}

const _: () = assert!(size_of::<SettingsV2>() == 80);

fn settings(bytes: &[u8], present: Settings) -> Option<Settings> {
    let old = SettingsV2::read_from_bytes(bytes).ok()?;
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
        fragment_timeout: old.fragment_timeout,
        mark: old.mark,
        flags: old.flags,
        fragment_mask: old.fragment_mask,
        ..present
    })
}
