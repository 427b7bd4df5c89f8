//! Older layouts of pinned state, and how each becomes the present one.
//!
//! A map whose element is the same in both layouts, and means the same, is carried on as it is: it is
//! pinned once more, so old programs, which run until their links get the new ones, and new programs
//! work on the same flows, endpoints, peers and generations, and nothing is lost in between. What is
//! different is made anew, from what the older layout's own type reads: bytes are never
//! reinterpreted.
//!
//! To change the layout: raise it in `flowgate-abi`, and add what it was to [`MIGRATIONS`], with a
//! file that says what differs. Tested with real state of every older layout in
//! `tests/kernel_migration.rs` and `tests/netns_migration.rs`.

mod networks;
mod v1;
mod v2;

use std::{io, path::Path};

use flowgate_abi::{Settings, endpoint::Leaf, maps};
use ipnet::IpNet;

use crate::sys::carry;

/// The networks of an ipcache, with their leaves.
pub(crate) type Networks = Vec<(IpNet, Leaf)>;

/// How state of an older layout becomes that of the present one.
#[derive(Debug)]
pub(crate) struct Migration {
    /// The older layout's hash.
    pub(crate) from: u64,
    /// Maps that it doesn't have, or with other elements: they begin empty.
    pub(crate) fresh: &'static [&'static str],
    /// Bytes of its settings.
    pub(crate) settings_size: usize,
    /// Its settings, in the present ones' place; what it doesn't know stays as it is.
    pub(crate) settings: fn(&[u8], Settings) -> Option<Settings>,
    /// The networks of its ipcache, whose maps are pinned in a directory: the present ipcache is made of
    /// them once there is one, before anything else is adopted.
    pub(crate) networks: fn(&Path) -> io::Result<Networks>,
}

/// The older layouts that can be carried over, the oldest first.
pub(crate) const MIGRATIONS: &[Migration] = &[v1::MIGRATION, v2::MIGRATION];

impl Migration {
    /// Pins below `to` what is pinned below `from`, in the present layout. Maps that are missing
    /// afterwards are made when the programs are loaded.
    pub(crate) fn carry_over(&self, from: &Path, to: &Path, settings: Settings) -> io::Result<()> {
        let state = carry::element(&from.join(maps::STATE.name), self.settings_size)?;
        let Some(settings) = (self.settings)(&state, settings) else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "its settings can't be read"));
        };
        let same = |spec: &&maps::MapSpec| {
            spec.name != maps::STATE.name && !self.fresh.contains(&spec.name)
        };
        for spec in maps::ALL.iter().filter(same) {
            carry::share(spec, &from.join(spec.name), &to.join(spec.name))?;
        }
        // Last: with it the state is one.
        carry::make_state(&to.join(maps::STATE.name), &settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_present_layout_is_no_older_one() {
        assert!(MIGRATIONS.iter().all(|migration| migration.from != flowgate_abi::LAYOUT));
    }

    #[test]
    fn what_begins_empty_is_a_map_and_never_what_flows_need() {
        for name in MIGRATIONS.iter().flat_map(|migration| migration.fresh) {
            assert!(maps::ALL.iter().any(|spec| spec.name == *name), "{name}");
            assert!(!["FLOWS4", "FLOWS6", "PEERS", "ENDPOINTS", "ACTIVE"].contains(name));
        }
    }
}
