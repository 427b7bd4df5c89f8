//! A packet that is under way while tables are written: its first questions were answered at one moment, the
//! others are answered now.
//!
//! A packet waits for nobody, and whoever writes waits for packets only where he says so (a grace period).
//! So between two grace periods any packet may have got some of its answers before any of the writes and the
//! others after it. [`UnderWay::begun`] keeps the answers of a packet, [`UnderWay::resumed`] asks on from
//! any of them.
//!
//! Tested by `a_packet_under_way_sees_one_generation` in `crates/policy/tests/under_way.rs`.

use std::{
    cell::{Cell, RefCell},
    net::IpAddr,
};

use flowgate_abi::{
    Shared32,
    endpoint::{Endpoint, Leaf, Peer},
    policy::{Decision, EndpointPolicy, Generation},
};
use flowgate_pipeline::Tables;
use flowgate_policy::host::HostTables;

use crate::lookups::{Answering, Lookups, ipcache};

/// An answer to a packet's question.
#[derive(Debug)]
pub enum Answer {
    /// An endpoint's row.
    Endpoint(Option<Endpoint>),
    /// A peer.
    Peer(Option<Peer>),
    /// What an address leads to.
    Leaf(Leaf),
    /// A generation's head.
    Head(Option<Generation>),
    /// An endpoint's policies.
    Policies(Option<EndpointPolicy>),
    /// A number: of the generation, of a class, row or decision.
    Number(Option<u32>),
    /// A decision.
    Decision(Option<Decision>),
}

/// Look-ups of a packet.
#[derive(Debug)]
pub struct UnderWay<'t> {
    now: &'t HostTables,
    then: &'t [Answer],
    asked: Cell<usize>,
    answers: RefCell<Vec<Answer>>,
}

impl<'t> UnderWay<'t> {
    /// A packet that begins now; its answers are kept.
    #[must_use]
    pub fn begun(now: &'t HostTables) -> Answering<Self> {
        Self::resumed(now, &[])
    }

    /// A packet that has got these answers before.
    #[must_use]
    pub fn resumed(now: &'t HostTables, then: &'t [Answer]) -> Answering<Self> {
        Answering::new(Self { now, then, asked: Cell::new(0), answers: RefCell::default() })
    }

    /// All its answers, in the order of its questions.
    pub fn answers(&self) -> Vec<Answer> {
        self.answers.take()
    }

    /// The answer of before, if there is one; otherwise the present one is kept.
    fn then(&self, now: impl FnOnce() -> Answer) -> Option<&'t Answer> {
        let asked = self.asked.replace(self.asked.get() + 1);
        let then = self.then.get(asked);
        if then.is_none() {
            self.answers.borrow_mut().push(now());
        }
        then
    }

    fn number(&self, now: Option<u32>) -> Option<u32> {
        match self.then(|| Answer::Number(now)) {
            None => now,
            Some(Answer::Number(then)) => *then,
            Some(other) => panic!("another question than before: {other:?}"),
        }
    }
}

/// A reference answer: that of before, or the present one.
macro_rules! answer {
    ($self:ident, $kind:ident, $now:expr, $copy:ident) => {{
        let now = $now;
        match $self.then(|| Answer::$kind(now.map($copy))) {
            None => now,
            Some(Answer::$kind(then)) => then.as_ref(),
            Some(other) => panic!("another question than before: {other:?}"),
        }
    }};
}

fn word(word: &Shared32) -> Shared32 {
    Shared32::new(word.load())
}

fn endpoint(endpoint: &Endpoint) -> Endpoint {
    Endpoint {
        ifindex: word(&endpoint.ifindex),
        peer4: word(&endpoint.peer4),
        peer6: word(&endpoint.peer6),
        ..*endpoint
    }
}

fn peer(peer: &Peer) -> Peer {
    Peer { identity: word(&peer.identity), epoch: word(&peer.epoch) }
}

fn head(head: &Generation) -> Generation {
    Generation {
        number: word(&head.number),
        line: word(&head.line),
        step: word(&head.step),
        flags: word(&head.flags),
    }
}

fn policies(policies: &EndpointPolicy) -> EndpointPolicy {
    EndpointPolicy { egress: word(&policies.egress), ingress: word(&policies.ingress) }
}

impl Lookups for UnderWay<'_> {
    fn host(&self) -> &HostTables {
        self.now
    }

    fn endpoint(&self, ifindex: u32) -> Option<&Endpoint> {
        answer!(self, Endpoint, Tables::endpoint(self.now, ifindex), endpoint)
    }

    fn slot(&self, slot: u32) -> Option<&Endpoint> {
        answer!(self, Endpoint, self.now.slot(slot), endpoint)
    }

    fn peer(&self, index: u32) -> Option<&Peer> {
        answer!(self, Peer, self.now.peer(index), peer)
    }

    fn ipcache(&self, address: IpAddr) -> Leaf {
        let now = ipcache(self.now, address);
        match self.then(|| Answer::Leaf(now)) {
            None => now,
            Some(Answer::Leaf(then)) => *then,
            Some(other) => panic!("another question than before: {other:?}"),
        }
    }

    fn generation(&self) -> u32 {
        self.number(Some(Tables::generation(self.now))).unwrap_or_default()
    }

    fn generation_head(&self, slot: u32) -> Option<&Generation> {
        answer!(self, Head, self.now.generation_head(slot), head)
    }

    fn endpoint_policy(&self, slot: u32, endpoint: u32) -> Option<&EndpointPolicy> {
        answer!(self, Policies, self.now.endpoint_policy(slot, endpoint), policies)
    }

    fn peer_class(&self, slot: u32, peer: u32) -> Option<u32> {
        self.number(Tables::peer_class(self.now, slot, peer))
    }

    fn port_class(&self, slot: u32, table: u32, port: u16) -> Option<u32> {
        self.number(self.now.port_class(slot, table, port))
    }

    fn row(&self, slot: u32, cell: u32) -> Option<u32> {
        self.number(self.now.row(slot, cell))
    }

    fn decision_number(&self, slot: u32, cell: u32) -> Option<u32> {
        self.number(self.now.decision_number(slot, cell))
    }

    fn decision(&self, slot: u32, number: u32) -> Option<Decision> {
        let now = self.now.decision(slot, number);
        match self.then(|| Answer::Decision(now)) {
            None => now,
            Some(Answer::Decision(then)) => *then,
            Some(other) => panic!("another question than before: {other:?}"),
        }
    }
}
