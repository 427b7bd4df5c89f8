//! The layout's hash.

use crate::maps::{self, MapSpec};

/// Changes whenever the layout of any map does: FNV-1a over the names and sizes of all maps and
/// over `REVISION`. Part of the pin path.
pub const LAYOUT: u64 = hash(maps::ALL, REVISION);

/// Raised when a layout changes in a way that sizes don't show.
const REVISION: u64 = 3;

/// The hash of a set of maps.
pub(crate) const fn hash(maps: &[MapSpec], revision: u64) -> u64 {
    let mut state = fnv(0xcbf2_9ce4_8422_2325, &revision.to_le_bytes());
    let mut i = 0;
    while i < maps.len() {
        let spec = &maps[i];
        state = fnv(state, spec.name.as_bytes());
        state = fnv(state, &(spec.key as u64).to_le_bytes());
        state = fnv(state, &(spec.value as u64).to_le_bytes());
        i += 1;
    }
    state
}

const fn fnv(mut state: u64, bytes: &[u8]) -> u64 {
    let mut i = 0;
    while i < bytes.len() {
        state = (state ^ bytes[i] as u64).wrapping_mul(0x0000_0100_0000_01b3);
        i += 1;
    }
    state
}
