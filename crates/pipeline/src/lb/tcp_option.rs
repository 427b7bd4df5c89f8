//! Which backend a segment of TCP names: an option has the backend's server id.
//!
//! Kind, a length of six, and the id in 32 bits, its lowest octet first. Clients have it from their backend's SYN-ACK and
//! write it in whatever they send from then on, so their segments go there through any balancer with the same server ids,
//! whatever becomes of the table.
//!
//! Not here: who writes the option (`flowgate-datapath`, `server_id`), and who else gets a segment. One without the option
//! goes by the table, as does a SYN that opens a flow, which has no backend yet, and one whose server isn't listed.
//!
//! Invariant: at most forty octets are read, all of them in the header.
//!
//! Tested by hand-written packets (`flowgate-services`, `tests/tcp_option.rs`), and three ways (`flowgate-datapath`,
//! `tests/kernel_lb/tcp_option.rs`).

use flowgate_abi::lb::{Frontend, NOBODY, TcpOption};

use super::{
    Balance, Balanceable, Buffer, Request,
    server_id::{Bearer, NO_ID, Naming},
};

/// Octets of a header without options, and of all options at most.
const HEADER: u32 = 20;
const MOST: u32 = 40;
/// From a header's start: where its length lies.
const DATA_OFFSET: u32 = 12;
/// The options that have no length.
const END: u8 = 0;
const PADDING: u8 = 1;

/// The number of the backend that a segment names itself; [`NOBODY`]: none, or it opens a flow.
///
/// It is like most ([`super::request::plain`]), of a service whose backends are named so.
#[inline(always)]
pub fn named<F: Balanceable, B: Buffer, T: Balance>(
    buffer: &B,
    (request, frontend): (&Request<F>, &Frontend),
    tables: &T,
) -> u32 {
    if request.opens() {
        return NOBODY;
    }
    let option = TcpOption(frontend.flags.load());
    let id = buffer.server_id(F::TRANSPORT, option.kind());
    tables.named(&Naming::of(frontend, Bearer::Tcp, id))
}

/// The server id in the options of the header that begins there; [`NO_ID`]: there is none, or what comes before it is
/// malformed.
#[inline(always)]
pub fn server_id<B: Buffer>(buffer: &B, header: u32, kind: u8) -> u32 {
    let Some(words) = buffer.load::<u8>(buffer.near(header + DATA_OFFSET)) else { return NO_ID };
    let end = header + u32::from(words >> 4) * 4;
    let mut at = buffer.near(header + HEADER);
    for _ in 0..MOST {
        if at >= end {
            break;
        }
        let Some([found, length]) = buffer.load::<[u8; 2]>(at) else { break };
        let behind = at + u32::from(length);
        if found == PADDING {
            at = buffer.near(at + 1);
            continue;
        }
        if found == END || length < 2 || behind > end {
            break;
        }
        if found == kind {
            let id = buffer.load::<[u8; 4]>(buffer.near(at + 2));
            let is_whole = length == TcpOption::LENGTH;
            return id.filter(|_| is_whole).map_or(NO_ID, u32::from_le_bytes);
        }
        at = buffer.near(behind);
    }
    NO_ID
}
