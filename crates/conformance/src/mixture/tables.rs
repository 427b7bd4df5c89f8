//! Tables of which some parts are one set's and some the other's.

use std::{cell::Cell, net::IpAddr};

use flowgate_abi::{
    Addr4, Addr6, Be32, DropReason, Settings, Shared32,
    endpoint::{Endpoint, Leaf, Peer},
    event::{Counter, Hook},
    flow::{Bucket4, Bucket6, Way4, Way6},
    fragment::FragmentBucket,
    policy::{Decision, Direction, EndpointPolicy, Generation},
};
use flowgate_pipeline::{FlowTable, Tables, V4, V6};
use flowgate_policy::{host::HostTables, outcome::Flow};

/// What a flow is judged by, piece by piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Which generation it is, and that one's shape.
    Generation,
    /// The classes of ports.
    Ports,
    /// Which peer the source is: labels and networks.
    Source,
    /// Which peer the destination is.
    Destination,
    /// Which policy the source has for what it opens.
    EgressPolicy,
    /// Which policy the destination has for what is opened to it.
    IngressPolicy,
    /// The classes of peers, asked for the source.
    EgressPeers,
    /// The classes of peers, asked for the destination.
    IngressPeers,
    /// Rows and decisions, read for the source.
    EgressRows,
    /// Rows and decisions, read for the destination.
    IngressRows,
}

/// Some of the [`Part`]s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts(u16);

impl Parts {
    const COUNT: u32 = 10;

    /// Every choice but none and all of them: the true mixtures.
    pub fn mixtures() -> impl Iterator<Item = Self> {
        (1..(1 << Self::COUNT) - 1).map(Self)
    }

    /// None of them.
    pub const NONE: Self = Self(0);
    /// All of them.
    pub const ALL: Self = Self((1 << Self::COUNT) - 1);

    /// It is one of them.
    #[must_use]
    pub const fn contains(self, part: Part) -> bool {
        self.0 & (1 << part as u16) != 0
    }
}

/// Tables that answer from the new set for some parts and from the old one for the others. Both have the
/// same endpoints in the same slots.
#[derive(Debug)]
pub struct Mixed<'t> {
    old: &'t HostTables,
    new: &'t HostTables,
    parts: Parts,
    source: IpAddr,
    /// The slots of source and destination, if they are local.
    slots: [Option<u32>; 2],
    /// The end that is being judged.
    end: Cell<Direction>,
}

impl<'t> Mixed<'t> {
    /// A mixture for one flow, in which `parts` are the new tables'.
    #[must_use]
    pub fn new(old: &'t HostTables, new: &'t HostTables, parts: Parts, flow: &Flow) -> Self {
        let slots = [flow.source, flow.destination].map(|address| slot(old, address));
        let end = Cell::new(Direction::Ingress);
        Self { old, new, parts, source: flow.source, slots, end }
    }

    /// The tables from which a part is, and the slot of their generation.
    fn of(&self, part: Part) -> (&'t HostTables, u32) {
        let tables = if self.parts.contains(part) { self.new } else { self.old };
        (tables, Tables::generation(tables) & 1)
    }

    /// Of two parts that which belongs to the end that is being judged.
    fn at_end(&self, egress: Part, ingress: Part) -> (&'t HostTables, u32) {
        self.of(if self.end.get() == Direction::Egress { egress } else { ingress })
    }

    fn rows(&self) -> (&'t HostTables, u32) {
        self.at_end(Part::EgressRows, Part::IngressRows)
    }

    fn identity_of(&self, is_source: bool) -> &'t HostTables {
        self.of(if is_source { Part::Source } else { Part::Destination }).0
    }
}

fn slot(tables: &HostTables, address: IpAddr) -> Option<u32> {
    let leaf = match address {
        IpAddr::V4(v4) => FlowTable::<V4>::ipcache(tables, &Be32::new(v4.into())),
        IpAddr::V6(v6) => FlowTable::<V6>::ipcache(tables, &Addr6::from_octets(v6.octets())),
    };
    leaf.as_endpoint()
}

impl Tables for Mixed<'_> {
    type Event = <HostTables as Tables>::Event;

    fn settings(&self) -> &Settings {
        Tables::settings(self.old)
    }

    fn timeout(&self, class: u32) -> u32 {
        self.old.timeout(class)
    }

    fn jiffies(&self) -> u64 {
        self.old.jiffies()
    }

    fn endpoint(&self, ifindex: u32) -> Option<&Endpoint> {
        Tables::endpoint(self.old, ifindex)
    }

    fn slot(&self, slot: u32) -> Option<&Endpoint> {
        self.identity_of(self.slots[0] == Some(slot)).slot(slot)
    }

    fn fragments(&self, index: u32) -> Option<&FragmentBucket> {
        self.old.fragments(index)
    }

    fn lock_fragments(&self, bucket: &FragmentBucket) {
        self.old.lock_fragments(bucket);
    }

    fn unlock_fragments(&self, bucket: &FragmentBucket) {
        self.old.unlock_fragments(bucket);
    }

    fn peer(&self, index: u32) -> Option<&Peer> {
        self.new.peer(index)
    }

    fn generation(&self) -> u32 {
        Tables::generation(self.of(Part::Generation).0)
    }

    fn generation_head(&self, _slot: u32) -> Option<&Generation> {
        let (tables, slot) = self.of(Part::Generation);
        tables.generation_head(slot)
    }

    fn endpoint_policy(&self, _slot: u32, endpoint: u32) -> Option<&EndpointPolicy> {
        let is_source = self.slots[0] == Some(endpoint);
        self.end.set(if is_source { Direction::Egress } else { Direction::Ingress });
        let (tables, slot) = self.at_end(Part::EgressPolicy, Part::IngressPolicy);
        tables.endpoint_policy(slot, endpoint)
    }

    fn peer_class(&self, _slot: u32, peer: u32) -> Option<u32> {
        let (tables, slot) = self.at_end(Part::EgressPeers, Part::IngressPeers);
        Tables::peer_class(tables, slot, peer)
    }

    fn port_class(&self, _slot: u32, table: u32, port: u16) -> Option<u32> {
        let (tables, slot) = self.of(Part::Ports);
        tables.port_class(slot, table, port)
    }

    fn row(&self, _slot: u32, cell: u32) -> Option<u32> {
        let (tables, slot) = self.rows();
        tables.row(slot, cell)
    }

    fn decision_number(&self, _slot: u32, cell: u32) -> Option<u32> {
        let (tables, slot) = self.rows();
        tables.decision_number(slot, cell)
    }

    fn decision(&self, _slot: u32, number: u32) -> Option<Decision> {
        let (tables, slot) = self.rows();
        tables.decision(slot, number)
    }

    fn count_traffic(&self, slot: u32, direction: Direction, bytes: u32) {
        self.old.count_traffic(slot, direction, bytes);
    }

    fn count_drop(&self, hook: Hook, reason: DropReason, bytes: u32) {
        self.old.count_drop(hook, reason, bytes);
    }

    fn count(&self, counter: Counter) {
        self.old.count(counter);
    }

    fn blank_event(&self) -> Option<Self::Event> {
        self.old.blank_event()
    }

    fn submit_event(&self, event: Self::Event) {
        self.old.submit_event(event);
    }
}

macro_rules! flow_table {
    ($family:ty, $bucket:ty, $way:ty, $address:ty, $ip:expr) => {
        impl FlowTable<$family> for Mixed<'_> {
            fn bucket_mask(&self) -> u32 {
                FlowTable::<$family>::bucket_mask(self.old)
            }

            fn bucket(&self, index: u32) -> Option<&$bucket> {
                FlowTable::<$family>::bucket(self.old, index)
            }

            fn way<'b>(&self, bucket: &'b $bucket, number: u32) -> &'b $way {
                FlowTable::<$family>::way(self.old, bucket, number)
            }

            fn age<'b>(&self, bucket: &'b $bucket, number: u32) -> &'b Shared32 {
                FlowTable::<$family>::age(self.old, bucket, number)
            }

            fn tag<'b>(&self, bucket: &'b $bucket, number: u32) -> &'b Shared32 {
                FlowTable::<$family>::tag(self.old, bucket, number)
            }

            fn lock(&self, bucket: &$bucket) {
                FlowTable::<$family>::lock(self.old, bucket);
            }

            fn unlock(&self, bucket: &$bucket) {
                FlowTable::<$family>::unlock(self.old, bucket);
            }

            fn ipcache(&self, address: &$address) -> Leaf {
                let tables = self.identity_of($ip(address) == self.source);
                FlowTable::<$family>::ipcache(tables, address)
            }
        }
    };
}

flow_table!(V4, Bucket4, Way4, Addr4, |address: &Addr4| IpAddr::from(address.get().to_be_bytes()));
flow_table!(V6, Bucket6, Way6, Addr6, |address: &Addr6| IpAddr::from(address.octets()));
