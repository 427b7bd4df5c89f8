//! Whom a server id names: the word of the id says which backend.
//!
//! Not here: how packets have server ids ([`super::quic`], [`super::tcp_option`]).
//!
//! Invariant: nothing is stored, and nobody is named who is gone.

use flowgate_abi::lb::{Counter, Frontend, Lines, NOBODY, ServerIds, Slot, Tail};

use super::{Balance, choose::tail_of};

/// No server has this id.
pub const NO_ID: u32 = u32::MAX;

/// What has a server id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bearer {
    /// A short header of QUIC: part of an open connection.
    QuicShort,
    /// A long header of QUIC: part of a handshake.
    QuicLong,
    /// A segment of TCP that opens nothing.
    Tcp,
}

/// What a packet says of its server, and the service that it is for.
///
/// VERIFIER: plain numbers, which a global subprogram takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Naming {
    /// The server id; [`NO_ID`]: the packet has none.
    pub id: u32,
    /// What has it.
    pub bearer: Bearer,
    /// The service's flags.
    pub flags: u32,
    /// The index of the word of server id 0 among all slots.
    pub words: u32,
    /// Where the service's backends lie.
    pub lines: Lines,
}

impl Naming {
    /// Of a server id in a packet for a service.
    #[inline(always)]
    #[must_use]
    pub fn of(frontend: &Frontend, bearer: Bearer, id: u32) -> Self {
        let words = frontend.slots.wrapping_add(ServerIds::start(frontend.size));
        let (flags, lines) = (frontend.flags.load(), Lines(frontend.lines.load()));
        Self { id, bearer, flags, words, lines }
    }
}

/// The number of the backend that a server id names, which is counted; [`NOBODY`]: none.
#[inline(always)]
pub fn server<T: Balance>(tables: &T, naming: &Naming) -> u32 {
    let number = listed(tables, naming);
    let tail = tail_of(tables, naming.lines, number);
    let fails = naming.bearer == Bearer::QuicLong && tail.has(Tail::FAILS);
    let is_named = !fails && !tail.has(Tail::GONE);
    tables.count(match naming.bearer {
        Bearer::Tcp if is_named => Counter::TcpNamed,
        Bearer::Tcp if naming.id == NO_ID => Counter::TcpUnnamed,
        Bearer::Tcp => Counter::TcpUnknown,
        _ if is_named => Counter::QuicNamed,
        Bearer::QuicLong => Counter::QuicOpening,
        Bearer::QuicShort => Counter::QuicUnknown,
    });
    if is_named { number } else { NOBODY }
}

/// The number that the word of a server id has.
#[inline(always)]
fn listed<T: Balance>(tables: &T, naming: &Naming) -> u32 {
    if naming.id >= ServerIds(naming.flags).count() {
        return NOBODY;
    }
    let word = tables.slot(naming.words.wrapping_add(naming.id));
    word.map_or(NOBODY, |word| Slot(word).default_backend())
}
