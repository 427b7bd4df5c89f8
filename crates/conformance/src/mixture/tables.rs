//! Tables of which some parts are one set's and some the other's.

use std::{cell::Cell, net::IpAddr};

use flowgate_abi::{
    endpoint::{Endpoint, Leaf, Peer},
    policy::{Decision, Direction, EndpointPolicy, Generation},
};
use flowgate_pipeline::Tables;
use flowgate_policy::{host::HostTables, outcome::Flow};

use crate::lookups::{Answering, Lookups, ipcache};

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

/// Look-ups that answer from the new set for some parts and from the old one for the others. Both have the
/// same endpoints in the same slots.
#[derive(Debug)]
pub struct Mixed<'t> {
    old: &'t HostTables,
    new: &'t HostTables,
    parts: Parts,
    source: IpAddr,
    /// The source's slot, if it is local.
    slot: Option<u32>,
    /// The end that is being judged.
    end: Cell<Direction>,
}

impl<'t> Mixed<'t> {
    /// A mixture for one flow, in which `parts` are the new tables'.
    #[must_use]
    pub fn tables(
        old: &'t HostTables,
        new: &'t HostTables,
        parts: Parts,
        flow: &Flow,
    ) -> Answering<Self> {
        let slot = ipcache(old, flow.source).as_endpoint();
        let end = Cell::new(Direction::Ingress);
        Answering::new(Self { old, new, parts, source: flow.source, slot, end })
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

impl Lookups for Mixed<'_> {
    fn host(&self) -> &HostTables {
        self.old
    }

    fn endpoint(&self, ifindex: u32) -> Option<&Endpoint> {
        Tables::endpoint(self.old, ifindex)
    }

    fn slot(&self, slot: u32) -> Option<&Endpoint> {
        self.identity_of(self.slot == Some(slot)).slot(slot)
    }

    fn peer(&self, index: u32) -> Option<&Peer> {
        self.new.peer(index)
    }

    fn ipcache(&self, address: IpAddr) -> Leaf {
        ipcache(self.identity_of(address == self.source), address)
    }

    fn generation(&self) -> u32 {
        Tables::generation(self.of(Part::Generation).0)
    }

    fn generation_head(&self, _slot: u32) -> Option<&Generation> {
        let (tables, slot) = self.of(Part::Generation);
        tables.generation_head(slot)
    }

    fn endpoint_policy(&self, _slot: u32, endpoint: u32) -> Option<&EndpointPolicy> {
        let is_source = self.slot == Some(endpoint);
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
}
