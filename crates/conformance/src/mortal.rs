//! A store whose process is killed at a write: nothing that is written afterwards reaches the tables.

use flowgate_abi::{Settings, endpoint::Leaf, policy::Decision};
use flowgate_policy::install::{EndpointRow, Store, Trie4Cell};
use ipnet::Ipv6Net;

/// A store that may die. It counts the writes that reach the tables.
#[derive(Debug)]
pub struct Mortal<S> {
    store: S,
    left: usize,
    writes: usize,
}

impl<S> Mortal<S> {
    /// A store that doesn't die.
    pub const fn new(store: S) -> Self {
        Self { store, left: usize::MAX, writes: 0 }
    }

    /// Dies after so many more writes.
    pub const fn die_after(&mut self, writes: usize) {
        self.left = writes;
    }

    /// Writes that have reached the tables.
    #[must_use]
    pub const fn writes(&self) -> usize {
        self.writes
    }

    /// A write was lost.
    #[must_use]
    pub const fn died(&self) -> bool {
        self.left == 0
    }

    /// The tables.
    pub const fn tables(&self) -> &S {
        &self.store
    }

    /// The tables, to run packets through them.
    pub const fn tables_mut(&mut self) -> &mut S {
        &mut self.store
    }

    /// The tables alone, as the process has left them.
    pub fn into_tables(self) -> S {
        self.store
    }

    /// This write reaches the tables.
    fn alive(&mut self) -> bool {
        let alive = self.left > 0;
        self.left = self.left.saturating_sub(1);
        self.writes += usize::from(alive);
        alive
    }
}

macro_rules! delegate {
    (
        read { $($read:ident($($arg:ident: $ty:ty),*) -> $out:ty;)+ }
        write { $($write:ident($($warg:ident: $wty:ty),*);)+ }
        try { $($try:ident($($targ:ident: $tty:ty),*);)+ }
    ) => {
        impl<S: Store> Store for Mortal<S> {
            type Error = S::Error;

            $(fn $read(&self, $($arg: $ty),*) -> $out {
                self.store.$read($($arg),*)
            })+

            $(fn $write(&mut self, $($warg: $wty),*) {
                if self.alive() {
                    self.store.$write($($warg),*);
                }
            })+

            $(fn $try(&mut self, $($targ: $tty),*) -> Result<(), S::Error> {
                if self.alive() { self.store.$try($($targ),*) } else { Ok(()) }
            })+

            fn settings(&self) -> &Settings {
                self.store.settings()
            }

            fn bump_epoch(&mut self, peer: u32) -> u32 {
                if self.alive() { self.store.bump_epoch(peer) } else { 1 }
            }
        }
    };
}

delegate! {
    read {
        trie4_nodes() -> u32;
        capacity6() -> (usize, usize);
        active() -> u32;
        peer_class(slot: u32, peer: u32) -> u16;
        endpoint(slot: u32) -> EndpointRow;
        trie4_cell(cell: Trie4Cell) -> Leaf;
        prefixes6() -> Result<Vec<(Ipv6Net, Leaf)>, S::Error>;
        links() -> Result<Vec<(u32, u32)>, S::Error>;
    }
    write {
        set_active(generation: u32);
        set_generation(slot: u32, number: u32, peer_classes: u32, port_classes: u32);
        renumber(slot: u32, number: u32);
        set_identity(peer: u32, identity: u32);
        set_port_class(slot: u32, table: u32, classes: &[u16]);
        set_rows(slot: u32, cells: &[u16]);
        set_decision_cells(slot: u32, cells: &[u16]);
        set_decisions(slot: u32, decisions: &[Decision]);
        set_peer_class(slot: u32, peer: u32, class: u16);
        set_endpoint_policy(slot: u32, endpoint: u32, egress: u32, ingress: u32);
        set_endpoint(slot: u32, row: &EndpointRow);
        set_endpoint_peers(slot: u32, peer4: u32, peer6: u32);
        clear_endpoint(slot: u32);
        set_trie4_cell(cell: Trie4Cell, leaf: Leaf);
    }
    try {
        set_link(ifindex: u32, slot: Option<u32>);
        set_prefix6(net: Ipv6Net, leaf: Option<Leaf>);
        grace_period();
    }
}
