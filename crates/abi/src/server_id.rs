//! Server ids in an option of TCP at both ends of a connection: who writes which option.
//!
//! ABI: kernel and user space share it within one process; it is no pinned state.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::counters::counters;

/// What the program knows from the moment that it is loaded: read-only data, constants to the verifier.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Settings {
    /// What servers here are named by.
    pub id: u32,
    /// [`Settings::SERVER`] and its like.
    pub roles: u8,
    /// The kind of the option in which a server announces its id.
    pub announced: u8,
    /// The kind of the option in which a client repeats it.
    pub repeated: u8,
    /// Zero.
    pub padding: u8,
}

impl Settings {
    /// Who accepts connections here announces the id.
    pub const SERVER: u8 = 1;
    /// Who opens connections here repeats what the other end has announced.
    pub const CLIENT: u8 = 2;
}

counters! {
    /// What is counted; an index into the counters' map.
    Counter:
    /// SYN-ACKs that announced a server's id.
    Announced = 0, "announced";
    /// Connections that were opened from here and learned their server's id.
    Learned = 1, "learned";
    /// Connections that were opened from here to servers that announced none.
    Unannounced = 2, "unannounced";
    /// Segments that repeated it; what the network card cuts up counts once.
    Repeated = 3, "repeated";
    /// Segments that should have had an option, with no room for it: time stamps and selective acknowledgements may fill
    /// the header.
    NoRoom = 4, "no_room";
}

/// The maps: names, kinds, element sizes, and what each holds.
pub mod maps {
    use crate::maps::maps;

    maps! {
        /// By socket: the id of its connection's server.
        LEARNED: SocketStorage[u32 => u32];
        /// What was counted, by [`super::Counter`].
        COUNTERS: PerCpuArray[u32 => u64];
    }
}

const _: () = assert!(size_of::<Settings>() == 8);
