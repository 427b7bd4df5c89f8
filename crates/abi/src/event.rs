//! What programs tell user space through the ring buffer, and what they count.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Be16, policy::Judgement};

/// One event about one flow. Written once, by value, into the ring buffer.
///
/// Source and destination are the flow's, not the packet's: the source is the initiator.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Event {
    /// Nanoseconds since boot, suspended time left out, as of the last tick
    /// (`CLOCK_MONOTONIC_COARSE`): events of one tick, 1 to 10 ms, have one time.
    pub timestamp: u64,
    /// One of [`Kind`]'s numbers.
    pub kind: u8,
    /// [`crate::DropReason`]'s number; 0: not denied.
    pub reason: u8,
    /// 4 or 6.
    pub family: u8,
    /// The IP protocol number.
    pub protocol: u8,
    /// One of [`Hook`]'s numbers.
    pub hook: u8,
    /// The packet's TCP flags; 0 for other protocols.
    pub tcp_flags: u8,
    /// The ICMP or ICMPv6 type that opened the flow; 0 for other protocols.
    pub icmp_type: u8,
    /// [`Event::REPLY`] and its like.
    pub flags: u8,
    /// The generation that decided.
    pub generation: u32,
    /// What was decided.
    pub judgement: Judgement,
    /// Slot of the source; [`crate::flow::NO_SLOT`]: it isn't local.
    pub source_slot: u16,
    /// Slot of the destination; [`crate::flow::NO_SLOT`]: it isn't local.
    pub destination_slot: u16,
    /// Numeric identity of the source.
    pub source_identity: u32,
    /// Numeric identity of the destination.
    pub destination_identity: u32,
    /// Port of the source; the identifier of an ICMP query.
    pub source_port: Be16,
    /// Port of the destination; the identifier of an ICMP query.
    pub destination_port: Be16,
    /// Interface index of the host side where the packet was seen; 0: none (the sweep).
    pub ifindex: u32,
    /// Address of the source; an IPv4 address lies in the first word's first four bytes.
    pub source: [u64; 2],
    /// Address of the destination.
    pub destination: [u64; 2],
    /// Packets of each direction, the source's first; of flows that were tracked before.
    pub packets: [u32; 2],
    /// Bytes of each direction, the source's first.
    pub bytes: [u64; 2],
}

impl Event {
    /// The packet ran from the responder to the initiator.
    pub const REPLY: u8 = 1;
    /// At the source it passes only because what denies it is on trial.
    pub const AUDITED_EGRESS: u8 = 2;
    /// At the destination it passes only because what denies it is on trial.
    pub const AUDITED_INGRESS: u8 = 4;
}

const _: () = {
    use crate::policy::{Action, Decision, Direction};
    let audited = Decision::new(Action::Allow, Decision::AUDIT, 0);
    assert!(audited.audited(Direction::Egress) == Event::AUDITED_EGRESS);
    assert!(audited.audited(Direction::Ingress) == Event::AUDITED_INGRESS);
};

/// What happened.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A flow was allowed and is tracked.
    New = 1,
    /// A flow was denied by policy.
    Denied = 2,
    /// A flow ended: reset, closed by both ends, silent for too long, or evicted while opening.
    Closed = 3,
    /// A tracked flow was judged again and is allowed.
    Rejudged = 4,
    /// A tracked flow was judged again, denied, and ended.
    Revoked = 5,
    /// An established flow was judged again, denied, and lives, as its generation keeps what is established.
    Kept = 6,
}

impl Kind {
    /// From its number.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::New,
            2 => Self::Denied,
            3 => Self::Closed,
            4 => Self::Rejudged,
            5 => Self::Revoked,
            6 => Self::Kept,
            _ => return None,
        })
    }
}

/// Where a packet was seen.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hook {
    /// `tc_from_endpoint`: it comes from an endpoint.
    FromEndpoint = 0,
    /// `tc_to_endpoint`: it goes to an endpoint.
    ToEndpoint = 1,
    /// The sweep over the flow table.
    Sweep = 2,
}

/// What is counted apart from packets and drops; an index into the counters' map.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Counter {
    /// Flows that were allowed and are tracked.
    FlowsNew = 0,
    /// Flows that ended.
    FlowsClosed = 1,
    /// Flows that were judged again and are allowed.
    FlowsRejudged = 2,
    /// Flows that were judged again and ended.
    FlowsRevoked = 3,
    /// Flows that made room for others: opening ones, or ones that were over.
    FlowsEvicted = 4,
    /// Events that the rate limit kept back.
    EventsSuppressed = 5,
    /// Events that found the ring buffer full.
    EventsLost = 6,
    /// ARP and neighbour discovery, passed unjudged.
    NeighbourPassed = 7,
    /// ICMP errors that belong to a tracked flow.
    Related = 8,
    /// Packets that were allowed but couldn't be rewritten for a redirect (the kernel had no memory),
    /// and were dropped.
    RedirectFailed = 9,
    /// Judgements by which a flow passed its source only because what denies it is on trial.
    AuditedEgress = 10,
    /// Judgements by which a flow passed its destination only because what denies it is on trial.
    AuditedIngress = 11,
    /// Denied packets whose sender was told by an ICMP error.
    AnswersIcmp = 12,
    /// Denied packets whose sender was told by a TCP reset.
    AnswersReset = 13,
    /// Denied packets whose sender wasn't told because of the rate limit.
    AnswersSuppressed = 14,
    /// Denied packets whose sender couldn't be told: the kernel had no memory, or couldn't reshape them.
    AnswersFailed = 15,
    /// Established flows that were judged again, denied, and live ([`Kind::Kept`]).
    FlowsKept = 16,
}

impl Counter {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 17] = [
        Self::FlowsNew,
        Self::FlowsClosed,
        Self::FlowsRejudged,
        Self::FlowsRevoked,
        Self::FlowsEvicted,
        Self::EventsSuppressed,
        Self::EventsLost,
        Self::NeighbourPassed,
        Self::Related,
        Self::RedirectFailed,
        Self::AuditedEgress,
        Self::AuditedIngress,
        Self::AnswersIcmp,
        Self::AnswersReset,
        Self::AnswersSuppressed,
        Self::AnswersFailed,
        Self::FlowsKept,
    ];

    /// Its name in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::FlowsNew => "flows_new",
            Self::FlowsClosed => "flows_closed",
            Self::FlowsRejudged => "flows_rejudged",
            Self::FlowsRevoked => "flows_revoked",
            Self::FlowsEvicted => "flows_evicted",
            Self::EventsSuppressed => "events_suppressed",
            Self::EventsLost => "events_lost",
            Self::NeighbourPassed => "neighbour_passed",
            Self::Related => "related",
            Self::RedirectFailed => "redirect_failed",
            Self::AuditedEgress => "audited_egress",
            Self::AuditedIngress => "audited_ingress",
            Self::AnswersIcmp => "answers_icmp",
            Self::AnswersReset => "answers_reset",
            Self::AnswersSuppressed => "answers_suppressed",
            Self::AnswersFailed => "answers_failed",
            Self::FlowsKept => "flows_kept",
        }
    }
}

/// Packets and bytes, as one CPU counted them.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Tally {
    /// Packets; a GSO super-packet counts as one.
    pub packets: u64,
    /// Bytes from the Ethernet header on.
    pub bytes: u64,
}

/// What passed an endpoint, by [`crate::policy::Direction`] of the packet seen from the endpoint.
pub type Traffic = [Tally; 2];

/// Drops are counted at `hook * DROP_REASONS + reason`.
pub const DROP_REASONS: u32 = 256;

/// What one CPU may still do of something that is limited by the second: events, and answers of all kinds.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct EventBudget {
    /// When it was last refilled, in jiffies; 0: never.
    pub refilled: u64,
    /// How many more there may be until it is refilled.
    pub tokens: u64,
}

const _: () = assert!(size_of::<Event>() == 104 && size_of::<Tally>() == 16);
