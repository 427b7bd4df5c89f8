//! A store with somebody beside it at every write: one who looks ([`Attendant::after`]), or one who kills the
//! process ([`crate::mortal`]).

use flowgate_abi::{Settings, policy::Decision};
use flowgate_policy::install::{EndpointRow, GenerationHead, IpcacheCell, Store};

/// What was done to a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// Something was written.
    Cell,
    /// A grace period has passed.
    Grace,
}

/// Who is there at every write.
pub trait Attendant<S> {
    /// Whether the next write reaches the tables.
    fn admits(&mut self) -> bool {
        true
    }

    /// A write has reached the tables.
    fn after(&mut self, _tables: &S, _write: Write) {}
}

/// A store with an attendant.
#[derive(Debug)]
pub struct Attended<S, A> {
    tables: S,
    /// The attendant.
    pub attendant: A,
}

impl<S, A> Attended<S, A> {
    /// A store with an attendant.
    pub const fn with(tables: S, attendant: A) -> Self {
        Self { tables, attendant }
    }

    /// The tables.
    pub const fn tables(&self) -> &S {
        &self.tables
    }

    /// The tables, to run packets through them.
    pub const fn tables_mut(&mut self) -> &mut S {
        &mut self.tables
    }

    /// The tables, and the attendant.
    pub const fn parts(&mut self) -> (&S, &mut A) {
        (&self.tables, &mut self.attendant)
    }

    /// The tables alone.
    pub fn into_tables(self) -> S {
        self.tables
    }
}

macro_rules! delegate {
    (
        read { $($read:ident($($arg:ident: $ty:ty),*) -> $out:ty;)+ }
        write { $($write:ident($($warg:ident: $wty:ty),*);)+ }
        try { $($try:ident($($targ:ident: $tty:ty),*) $as:ident;)+ }
    ) => {
        impl<S: Store, A: Attendant<S>> Store for Attended<S, A> {
            type Error = S::Error;

            $(fn $read(&self, $($arg: $ty),*) -> $out {
                self.tables.$read($($arg),*)
            })+

            $(fn $write(&mut self, $($warg: $wty),*) {
                if self.attendant.admits() {
                    self.tables.$write($($warg),*);
                    self.attendant.after(&self.tables, Write::Cell);
                }
            })+

            $(fn $try(&mut self, $($targ: $tty),*) -> Result<(), S::Error> {
                if self.attendant.admits() {
                    self.tables.$try($($targ),*)?;
                    self.attendant.after(&self.tables, Write::$as);
                }
                Ok(())
            })+

            fn settings(&self) -> &Settings {
                self.tables.settings()
            }

            fn bump_epoch(&mut self, peer: u32) -> u32 {
                if !self.attendant.admits() {
                    return 1;
                }
                let epoch = self.tables.bump_epoch(peer);
                self.attendant.after(&self.tables, Write::Cell);
                epoch
            }
        }
    };
}

delegate! {
    read {
        ipcache_nodes() -> u32;
        active() -> u32;
        peer_class(slot: u32, peer: u32) -> u16;
        owner(peer: u32) -> u32;
        endpoint(slot: u32) -> EndpointRow;
        ipcache_word(cell: IpcacheCell) -> u32;
        links() -> Result<Vec<(u32, u32)>, S::Error>;
    }
    write {
        set_active(generation: u32);
        set_generation(slot: u32, head: GenerationHead);
        renumber(slot: u32, number: u32);
        set_identity(peer: u32, identity: u32);
        set_owner(peer: u32, owner: u32);
        set_port_class(slot: u32, table: u32, classes: &[u16]);
        set_rows(slot: u32, first: u32, cells: &[u16]);
        set_decision_cells(slot: u32, first: u32, cells: &[u16]);
        set_decisions(slot: u32, first: u32, decisions: &[Decision]);
        set_peer_class(slot: u32, peer: u32, class: u16);
        set_endpoint_policy(slot: u32, endpoint: u32, egress: u32, ingress: u32);
        set_endpoint(slot: u32, row: &EndpointRow);
        set_endpoint_peers(slot: u32, peer4: u32, peer6: u32);
        clear_endpoint(slot: u32);
        set_ipcache_word(cell: IpcacheCell, word: u32);
    }
    try {
        set_link(ifindex: u32, slot: Option<u32>) Cell;
        grace_period() Grace;
    }
}
