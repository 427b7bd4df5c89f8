//! Which backend a packet of QUIC names: its connection id has the backend's server id.
//!
//! Plaintext ids by draft-ietf-quic-load-balancers: the destination's connection id begins with an octet of which
//! the first three bits say by which configuration it was made, and goes on with the server id. A server that
//! gives its clients such ids gets their packets from any address and port, through any balancer with the same
//! server ids, whatever becomes of the table.
//!
//! Not here: who else gets a packet. One without such an id goes by the table: a client's first packets, whose id
//! the client made up, among them. So does one whose server isn't listed, and one of a handshake whose server fails.
//!
//! Invariant: nothing is stored, and nobody is named who is gone.
//!
//! Tested by hand-written packets (`flowgate-services`, `tests/quic`), and three ways (`flowgate-datapath`,
//! `tests/kernel_lb/quic.rs`).

use flowgate_abi::{
    Be16,
    lb::{Counter, Frontend, Lines, NOBODY, QuicIds, Slot, Tail},
};

use super::{Balance, Balanceable, Buffer, choose::tail_of};

/// A long header's first bit (RFC 8999, section 5.1).
const LONG: u32 = 0x80;
/// Octets of a long header before the length of the destination's connection id.
const VERSION: u32 = 5;
/// The first octet of a connection id, and the nonce that follows the server id.
const AROUND: u32 = 1 + 4;
/// No server has this id.
const NO_ID: u32 = u32::MAX;

/// What a packet says of its server, and the service that it is for.
///
/// VERIFIER: plain numbers, which a global subprogram takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Naming {
    /// The server id, beyond all that there are if the packet has none.
    pub id: u32,
    /// Its header is a long one: it is part of a handshake.
    pub long: bool,
    /// The service's flags.
    pub flags: u32,
    /// The index of the word of server id 0 among all slots.
    pub words: u32,
    /// Where the service's backends lie.
    pub lines: Lines,
}

/// The number of the backend that a packet names itself; [`NOBODY`]: none, or its service has no server ids.
///
/// The packet is like most ([`super::request::plain`]).
#[inline(always)]
pub fn named<F: Balanceable, B: Buffer, T: Balance>(
    buffer: &B,
    frontend: &Frontend,
    tables: &T,
) -> u32 {
    let flags = frontend.flags.load();
    if flags & Frontend::QUIC == 0 {
        return NOBODY;
    }
    let (id, long) = server_id::<F, B>(buffer, QuicIds(flags));
    let words = frontend.slots.wrapping_add(QuicIds::start(frontend.size));
    tables.named(&Naming { id, long, flags, words, lines: Lines(frontend.lines.load()) })
}

/// The server id that a packet has, and whether its header is a long one.
#[inline(always)]
fn server_id<F: Balanceable, B: Buffer>(buffer: &B, ids: QuicIds) -> (u32, bool) {
    // The octet before the connection id, its first, and four more: a short header has one octet before it.
    let Some(mut octets) = buffer.load::<[Be16; 3]>(F::DATAGRAM) else { return (NO_ID, false) };
    let long = u32::from(octets[0].get() >> 8) & LONG != 0;
    if long {
        let Some(after) = buffer.load::<[Be16; 3]>(F::DATAGRAM + VERSION) else {
            return (NO_ID, true);
        };
        if u32::from(after[0].get() >> 8) < AROUND + ids.octets() {
            return (NO_ID, true);
        }
        octets = after;
    }
    (id_in(octets, ids), long)
}

/// The server id that a connection id has, by its first five octets behind another one; beyond all that there are: none.
#[inline(always)]
#[must_use]
pub fn id_in(octets: [Be16; 3], ids: QuicIds) -> u32 {
    let [first, high, low] = octets.map(|word| u32::from(word.get()));
    if first >> 5 & 7 != ids.rotation() {
        return NO_ID;
    }
    (high << 16 | low) >> (32 - 8 * ids.octets())
}

/// The number of the backend that a packet's connection id names, which is counted; [`NOBODY`]: none.
#[inline(always)]
pub fn server<T: Balance>(tables: &T, naming: &Naming) -> u32 {
    let number = listed(tables, naming);
    let tail = tail_of(tables, naming.lines, number);
    let fails = naming.long && tail.has(Tail::FAILS);
    if !fails && !tail.has(Tail::GONE) {
        tables.count(Counter::QuicNamed);
        return number;
    }
    tables.count(if naming.long { Counter::QuicOpening } else { Counter::QuicUnknown });
    NOBODY
}

/// The number that the word of a server id has.
#[inline(always)]
fn listed<T: Balance>(tables: &T, naming: &Naming) -> u32 {
    if naming.id >= QuicIds(naming.flags).count() {
        return NOBODY;
    }
    let word = tables.slot(naming.words.wrapping_add(naming.id));
    word.map_or(NOBODY, |word| Slot(word).default_backend())
}
