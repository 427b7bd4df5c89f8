//! The second layout. The present one has the ipcache's networks of both families in nodes of one map.

use flowgate_abi::{Settings, maps};
use zerocopy::FromBytes;

use super::{Migration, networks};

pub(super) const MIGRATION: Migration = Migration {
    from: 0xd48c_5d06_c091_68b1,
    fresh: &[maps::IPCACHE.name],
    settings_size: size_of::<Settings>(),
    settings,
    networks: networks::read,
};

fn settings(bytes: &[u8], _present: Settings) -> Option<Settings> {
    Settings::read_from_bytes(bytes).ok()
}
