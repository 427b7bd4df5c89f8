//! Tells the sender of a denied packet that it was denied: makes the packet an answer to itself.
//!
//! An ICMP error (administratively prohibited) that quotes the packet, or, for TCP, a reset that ends
//! the sender's attempt or connection at once. Either seems to come from the packet's destination, and
//! either way the frame is turned around where it lies, with its tags: whoever runs the hook sends it
//! back over the link from which it came.
//!
//! Not here: whether the packet is denied, and what its policies say ([`crate::policy`]). Invariants:
//! nothing is answered that must not be (RFC 1122, section 3.2.2; RFC 4443, section 2.4), so no answer
//! is answered; only what policy has denied is answered, and the sender's address was verified before;
//! each CPU's budget bounds how many answers there are. The same bytes on the host and in the kernel.
//! Tested against answers written down from the RFCs (`flowgate-conformance`), and by real sockets.

mod icmp;
mod network;
mod reset;

use flowgate_abi::{
    EtherAddr,
    event::{Counter, EventBudget, Hook},
    policy::Response,
};
pub use network::Answers;

pub use crate::sum::folded;
use crate::{
    Packet, Tables,
    budget::{self, Limit},
    hook::{Frame, Rewrite},
    parse::Role,
    wire::{Tcp, protocol, tcp},
};

/// A packet that was refused, and what its sender is to be told.
#[derive(Clone, Copy)]
pub struct Refused<'p, F: Answers> {
    /// The frame, as the hook has met it.
    pub frame: Frame,
    /// Its headers.
    pub packet: &'p Packet<F>,
    /// What the policies say.
    pub response: Response,
}

/// A frame that may become another one. What fails leaves a frame of which nothing is said.
pub trait Reshape: Rewrite {
    /// Makes it so many bytes long, at the end; `false`: it can't be.
    fn set_length(&mut self, bytes: u32) -> bool;
    /// Makes room of so many zeros in front; `false`: it can't be.
    fn push(&mut self, bytes: u32) -> bool;
    /// The sum of 16-bit words as they lie in memory, folded (RFC 1071), over at most [`LONGEST`]
    /// bytes; an odd one's partner is zero. `None`: the frame ends before.
    fn sum(&self, offset: u32, bytes: u32) -> Option<u16>;
    /// Whoever takes the frame will write a checksum where the sender has left that to its link: over
    /// all from the sender's transport header on. `scratch`: where two zero bytes are, of which nothing
    /// is said afterwards.
    fn is_unfinished(&mut self, scratch: u32) -> bool;
}

/// The most bytes of a packet that an answer quotes.
pub const LONGEST: u32 = 1232;

/// Makes the frame of a refused packet the answer to it. `false`: the packet isn't answered.
#[inline(always)]
pub fn answer<F: Answers, T: Tables, B: Reshape>(
    tables: &T,
    refused: &Refused<'_, F>,
    bytes: &mut B,
) -> bool {
    if !may_be_told(tables, refused) || to_group(bytes) || !tables.may_answer() {
        return false;
    }
    let made = if resets(refused) {
        reset::reset(bytes, refused.packet).map(|()| Counter::AnswersReset)
    } else {
        icmp::icmp(bytes, refused).map(|()| Counter::AnswersIcmp)
    };
    tables.count(made.unwrap_or(Counter::AnswersFailed));
    made.is_some()
}

/// This CPU's budget allows one answer more; if not, counts it.
#[inline(always)]
pub fn admit<T: Tables>(tables: &T, budget: &mut EventBudget) -> bool {
    let settings = tables.settings();
    let limit = Limit { each: settings.answers_per_second, hz: settings.hz };
    let admitted = budget::take(budget, limit, tables.jiffies());
    if !admitted {
        tables.count(Counter::AnswersSuppressed);
    }
    admitted
}

/// Nothing answers a reset, an ICMP error, a later fragment, or what is addressed to a group; nor, at
/// the link of its receiver, what isn't addressed to that one (a bridge floods).
#[inline(always)]
fn may_be_told<F: Answers, T: Tables>(tables: &T, refused: &Refused<'_, F>) -> bool {
    let packet = refused.packet;
    let aimed = match refused.frame.hook {
        Hook::ToEndpoint => tables
            .endpoint(refused.frame.ifindex)
            .is_some_and(|endpoint| F::address(endpoint) == packet.receiver),
        _ => true,
    };
    aimed
        && packet.transport != 0
        && packet.role != Role::Error
        && packet.tcp_flags & tcp::RST == 0
        // What can't be a source can't be an answer's.
        && !F::is_martian_source(packet.receiver)
}

/// It was sent to a group's Ethernet address.
#[inline(always)]
fn to_group<B: Reshape>(bytes: &B) -> bool {
    bytes.load::<u8>(0).unwrap_or(1) & 1 != 0
}

/// Behind IPv6's extension headers and IPv4's options no reset is sent, but an ICMP error.
#[inline(always)]
fn resets<F: Answers>(refused: &Refused<'_, F>) -> bool {
    let packet = refused.packet;
    refused.response == Response::Reset
        && packet.tuple.protocol == protocol::TCP
        && packet.transport == packet.network + F::HEADER
}

/// Hops that an answer has.
const HOPS: u8 = 64;

/// Writes the Ethernet addresses that lie at an offset at the frame's start, turned around.
#[inline(always)]
fn turn_around<B: Reshape>(bytes: &mut B, from: u32) -> Option<()> {
    let [destination, source]: [EtherAddr; 2] = bytes.load(from)?;
    bytes.store(0, [source, destination]).then_some(())
}

const _: () = assert!(size_of::<Tcp>() == 20);
