//! Host tables with room for any generated case, and for changing from one to another.

use flowgate_abi::{Settings, Timeouts};
use flowgate_policy::host::{HostRoom, HostTables};

/// Empty tables: 32 endpoints, 128 peers, and as little else as serves.
#[must_use]
pub fn tables() -> HostTables {
    let settings = Settings {
        hash_seed: 7,
        flow4_mask: 1,
        flow6_mask: 1,
        endpoint_mask: 31,
        peers: 128,
        row_cells: 1 << 13,
        decision_cells: 1 << 13,
        decisions: 1 << 10,
        hz: 250,
        timeouts: Timeouts([60, 8000, 10, 60]),
        events_per_second: 0,
        fragment_timeout: 1250,
        mark: 1,
        flags: 0,
        fragment_mask: 15,
        answers_per_second: u32::MAX,
        answer_mark: 2,
        reserved: 0,
    };
    let room = HostRoom { ipcache_nodes: 1024, events: 1 };
    HostTables::new(settings, room)
}
