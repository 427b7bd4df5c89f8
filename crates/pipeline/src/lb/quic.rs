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
//! Tested by hand-written packets (`flowgate-services`, `tests/quic`), and three ways (`flowgate-datapath`,
//! `tests/kernel_lb/quic.rs`).

use flowgate_abi::{
    Be16,
    lb::{Frontend, NOBODY, QuicIds},
};

use super::{
    Balance, Balanceable, Buffer,
    server_id::{Bearer, NO_ID, Naming},
};

/// A long header's first bit (RFC 8999, section 5.1).
const LONG: u32 = 0x80;
/// Octets of a long header before the length of the destination's connection id.
const VERSION: u32 = 5;
/// The first octet of a connection id, and the nonce that follows the server id.
const AROUND: u32 = 1 + 4;

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
    let (id, long) = read::<F, B>(buffer, QuicIds(flags));
    let bearer = if long { Bearer::QuicLong } else { Bearer::QuicShort };
    tables.named(&Naming::of(frontend, bearer, id))
}

/// The server id that a packet has, and whether its header is a long one.
#[inline(always)]
fn read<F: Balanceable, B: Buffer>(buffer: &B, ids: QuicIds) -> (u32, bool) {
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
