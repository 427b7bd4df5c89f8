//! The flows that are tracked.

use std::net::IpAddr;

use flowgate_abi::flow::{Seen, Verdict, Volume, state};
use flowgate_pipeline::{
    Family,
    family::{Bucket, Way},
};

use crate::events::address_of;

/// A flow that is tracked.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TrackedFlow {
    /// Who opened it.
    pub source: IpAddr,
    /// To whom.
    pub destination: IpAddr,
    /// Port of the source, or the identifier of an ICMP query.
    pub source_port: u16,
    /// Port of the destination, or the identifier of an ICMP query.
    pub destination_port: u16,
    /// The IP protocol number.
    pub protocol: u8,
    /// The type of an ICMP query.
    pub icmp_type: u8,
    /// The generation that allowed it last.
    pub generation: u32,
    /// Both ends have agreed on it: TCP's handshake is complete, or there was an answer.
    pub established: bool,
    /// Closed by both ends, or reset.
    pub closing: bool,
    /// It was allowed once and isn't any more: its packets are dropped.
    pub revoked: bool,
    /// Packets, the source's first.
    pub packets: [u32; 2],
    /// Bytes from the Ethernet header on, the source's first.
    pub bytes: [u64; 2],
}

/// The flows of a bucket.
pub(crate) fn tracked<F: Family>(bucket: &F::Bucket, flows: &mut Vec<TrackedFlow>) {
    for (tag, way) in bucket.tags().iter().zip(bucket.ways()) {
        if tag.load() == 0 {
            continue;
        }
        let tuple = F::tuple(&way.key());
        let flow = way.flow();
        let verdict = Verdict(flow.verdict.load());
        let has = |bit: u32| verdict.state() & bit != 0;
        let tuple = if has(state::FROM_SECOND) { tuple.reversed() } else { tuple };
        flows.push(TrackedFlow {
            source: address_of(F::NUMBER, F::wide(tuple.source)),
            destination: address_of(F::NUMBER, F::wide(tuple.destination)),
            source_port: tuple.source_port.get(),
            destination_port: tuple.destination_port.get(),
            protocol: tuple.protocol,
            icmp_type: tuple.icmp_type,
            generation: verdict.generation(),
            established: has(state::ESTABLISHED),
            closing: has(state::CLOSING),
            revoked: has(state::REVOKED),
            packets: [0, 1].map(|way| Seen(flow.seen[way].load()).packets()),
            bytes: [0, 1].map(|way| Volume(flow.bytes[way].load()).bytes()),
        });
    }
}
