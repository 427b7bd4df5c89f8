//! What the balancer counts, apart from drops.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::counters::counters;

/// What one CPU counted for one backend of a service.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Load {
    /// Packets sent to it.
    pub packets: u64,
    /// Their bytes, from the client's IP header on.
    pub bytes: u64,
    /// Packets among them that open a flow.
    pub opened: u64,
    /// Entries that were made for its flows.
    pub tracked: u64,
}

counters! {
    /// What is counted apart from backends and drops; an index into the counters' map.
    Counter:
    /// Echo requests to a service's address that were answered.
    EchoesAnswered = 0, "echoes_answered";
    /// Packets too big for the path to their backend, about which the sender was told.
    TooBigAnswered = 1, "too_big_answered";
    /// ICMP errors that were sent on to the backend of the flow that they quote; with full NAT, to its client, too.
    ErrorsSteered = 2, "errors_steered";
    /// Entries that found no room; the flow got the default backend.
    EntriesRefused = 3, "entries_refused";
    /// Packets of flows whose backend is gone, which went to another one.
    FlowsOrphaned = 4, "flows_orphaned";
    /// Later fragments that found the ports of their datagram's first.
    FragmentsFollowed = 5, "fragments_followed";
    /// Flows that got a port of a source: full NAT.
    FlowsTranslated = 6, "flows_translated";
    /// Packets of backends that went on to clients as a service's.
    AnswersTranslated = 7, "answers_translated";
    /// Packets whose clients found no room for a pin at a service with affinity; they went by the table.
    PinsRefused = 8, "pins_refused";
    /// Packets of QUIC that went to the backend that their connection id names.
    QuicNamed = 9, "quic_named";
    /// Packets of QUIC with a long header whose connection id names no backend, a client's first ones among them; they
    /// went by the table.
    QuicOpening = 10, "quic_opening";
    /// Packets of QUIC with a short header whose connection id names no backend; they went by the table.
    QuicUnknown = 11, "quic_unknown";
    /// Packets of TCP that went to the backend that their option names.
    TcpNamed = 12, "tcp_named";
    /// Packets of TCP that open no flow and have no option that names a backend; they went by the table.
    TcpUnnamed = 13, "tcp_unnamed";
    /// Packets of TCP whose option names a backend that isn't there; they went by the table.
    TcpUnknown = 14, "tcp_unknown";
}

const _: () = assert!(size_of::<Load>() == 32);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_numbered_one_after_the_other() {
        for (number, &counter) in Counter::ALL.iter().enumerate() {
            assert_eq!(counter as usize, number);
        }
    }
}
