//! What must become of the packets of connections: a reference model, written to be checked by eye.
//!
//! It knows no bits, no buckets and no wrapping clock: a connection is a struct with names, time is
//! a number that only grows, and every question is asked anew. It shares nothing with the pipeline.
//! Not here: whether policy allows a new flow; who asks says that ([`crate::trio`]).
//!
//! The rules:
//! 1. A packet without a connection opens one in its own direction, if policy allows. A RST passes
//!    and opens none. An ICMP reply or error never opens one.
//! 2. A connection's packets pass in both directions, until it has been silent for longer than its
//!    state allows. The first packet back answers it. TCP is established by the opener's next
//!    packet without SYN, anything else by the answer.
//! 3. TCP is over after a RST that its end doesn't take back, or a FIN of each end: stragglers pass,
//!    and a SYN opens it anew.
//! 4. After rules have changed, the next packet has the connection judged again, in the opener's
//!    direction. Denied, it is revoked: nothing passes any more, but for a SYN that may open it. If the rules
//!    keep what is established, that lives on instead, unless it was revoked before.
//! 5. An ICMP error passes as far as the connection of the packet that it quotes would, and leaves
//!    no trace in it.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use flowgate_policy::outcome::{Flow, FlowProtocol};

use crate::frames::{Frame, tcp};

/// The jiffies of a unit, in which time-outs are.
pub const UNIT: u64 = 256;

/// After how many units of silence a connection is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Before it is established.
    pub opening: u64,
    /// TCP, established.
    pub established: u64,
    /// TCP, over.
    pub closing: u64,
    /// Anything else, answered.
    pub answered: u64,
}

/// What must become of a packet.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It passes.
    Passes,
    /// Policy denies its flow.
    Denied,
    /// Its connection was revoked before.
    Revoked,
    /// It means nothing without a connection.
    Orphan,
}

/// What has happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Connections that were opened.
    pub opened: u64,
    /// Connections that were judged again and are allowed.
    pub rejudged: u64,
    /// Connections that were judged again, denied, and live.
    pub kept: u64,
    /// Connections that were judged again, denied, and don't.
    pub revoked: u64,
    /// ICMP errors that passed.
    pub related: u64,
}

/// Both ends in order, and what they speak; for a query's connection its type.
type Key = ([SocketAddr; 2], FlowProtocol);

/// A connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Connection {
    opener: SocketAddr,
    answered: bool,
    established: bool,
    /// By [`Connection::end`].
    finished: [bool; 2],
    /// By [`Connection::end`].
    reset: [bool; 2],
    judged_under: u64,
    revoked: bool,
    /// The unit in which its last packet passed, and how many of silence that packet allowed.
    last: u64,
    patience: u64,
}

/// All connections, and the time.
#[derive(Clone, Debug)]
pub struct Connections {
    timeouts: Timeouts,
    /// Jiffies; never wraps.
    now: u64,
    rules: u64,
    /// The rules keep what is established.
    keep: bool,
    known: BTreeMap<Key, Connection>,
    tally: Tally,
}

/// A RST holds until its end sends something else: who really has reset a connection says nothing
/// more of it, so it was forged. A SYN doesn't take it back: it opens the connection anew.
const fn reset_after(reset: bool, flags: u8) -> bool {
    flags & tcp::RST != 0 || (reset && flags & tcp::SYN != 0)
}

impl Connections {
    /// None yet, at a time in jiffies.
    #[must_use]
    pub const fn new(timeouts: Timeouts, now: u64) -> Self {
        let tally = Tally { opened: 0, rejudged: 0, kept: 0, revoked: 0, related: 0 };
        Self { timeouts, now, rules: 0, keep: false, known: BTreeMap::new(), tally }
    }

    /// Time passes, in jiffies.
    pub const fn wait(&mut self, jiffies: u64) {
        self.now += jiffies;
    }

    /// Other rules hold, or the same were made anew; they may keep what is established.
    pub const fn rules_changed(&mut self, keep: bool) {
        self.rules += 1;
        self.keep = keep;
    }

    /// What has happened so far.
    #[must_use]
    pub const fn tally(&self) -> Tally {
        self.tally
    }

    /// A packet comes; `allows` says whether policy lets a flow be opened.
    pub fn packet(&mut self, frame: &Frame, allows: impl Fn(&Flow) -> bool) -> Fate {
        let key = key(frame);
        let Some(mut connection) = self.live(&key) else {
            return self.opening(frame, key, allows);
        };
        let syn = is_tcp(frame) && frame.tcp_flags & (tcp::SYN | tcp::ACK) == tcp::SYN;
        if syn && (connection.over() || connection.revoked) {
            return self.opening(frame, key, allows);
        }
        let fate = self.judge(&mut connection, &key, allows);
        if fate == Fate::Passes {
            connection.packet(frame);
            connection.last = self.now / UNIT;
            connection.patience = self.patience(&connection, is_tcp(frame));
        }
        self.known.insert(key, connection);
        fate
    }

    /// An ICMP error about a packet comes to its sender.
    pub fn error(&mut self, quoted: &Frame, allows: impl Fn(&Flow) -> bool) -> Fate {
        let key = key(quoted);
        let Some(mut connection) = self.live(&key) else { return Fate::Orphan };
        let fate = self.judge(&mut connection, &key, allows);
        if fate == Fate::Passes {
            self.tally.related += 1;
        }
        self.known.insert(key, connection);
        fate
    }

    /// A connection that hasn't been silent for too long.
    fn live(&self, key: &Key) -> Option<Connection> {
        let connection = self.known.get(key)?;
        let silent = self.now / UNIT - connection.last;
        (silent <= connection.patience).then_some(*connection)
    }

    fn opening(&mut self, frame: &Frame, key: Key, allows: impl Fn(&Flow) -> bool) -> Fate {
        if frame.reply && is_query(frame) {
            return Fate::Orphan;
        }
        let opener = sender(frame);
        if !allows(&flow(&key, opener)) {
            return Fate::Denied;
        }
        if is_tcp(frame) && frame.tcp_flags & tcp::RST != 0 {
            return Fate::Passes;
        }
        let connection = Connection {
            opener,
            answered: false,
            established: false,
            finished: [false; 2],
            reset: [false; 2],
            judged_under: self.rules,
            revoked: false,
            last: self.now / UNIT,
            patience: self.timeouts.opening,
        };
        self.known.insert(key, connection);
        self.tally.opened += 1;
        Fate::Passes
    }

    /// Judges a connection if rules have changed since it was judged last.
    fn judge(
        &mut self,
        connection: &mut Connection,
        key: &Key,
        allows: impl Fn(&Flow) -> bool,
    ) -> Fate {
        if connection.judged_under == self.rules {
            return if connection.revoked { Fate::Revoked } else { Fate::Passes };
        }
        connection.judged_under = self.rules;
        let allowed = allows(&flow(key, connection.opener));
        let kept = !allowed && self.keep && connection.established && !connection.revoked;
        let lives = allowed || kept;
        self.tally.rejudged += u64::from(allowed);
        self.tally.kept += u64::from(kept);
        self.tally.revoked += u64::from(!lives && !connection.revoked);
        connection.revoked = !lives;
        if lives { Fate::Passes } else { Fate::Denied }
    }

    const fn patience(&self, connection: &Connection, tcp: bool) -> u64 {
        if connection.over() {
            self.timeouts.closing
        } else if !connection.established {
            self.timeouts.opening
        } else if tcp {
            self.timeouts.established
        } else {
            self.timeouts.answered
        }
    }
}

impl Connection {
    /// 0: the opener, 1: the other end.
    fn end(&self, sender: SocketAddr) -> usize {
        usize::from(sender != self.opener)
    }

    const fn over(&self) -> bool {
        self.reset[0] || self.reset[1] || (self.finished[0] && self.finished[1])
    }

    fn packet(&mut self, frame: &Frame) {
        let end = self.end(sender(frame));
        let back = end == 1;
        self.answered |= back;
        if !is_tcp(frame) {
            self.established |= back;
            return;
        }
        let flags = frame.tcp_flags;
        self.established |= !back && self.answered && flags & tcp::SYN == 0;
        self.finished[end] |= flags & tcp::FIN != 0;
        self.reset[end] = reset_after(self.reset[end], flags);
    }
}

const fn is_tcp(frame: &Frame) -> bool {
    matches!(frame.flow.protocol, FlowProtocol::Tcp(_))
}

const fn is_query(frame: &Frame) -> bool {
    matches!(frame.flow.protocol, FlowProtocol::Icmp { .. } | FlowProtocol::Icmp6 { .. })
}

/// The frame's flow's ends: the one that a frame without `reply` comes from is the first.
fn ends(frame: &Frame) -> [SocketAddr; 2] {
    let port = frame.flow.protocol.port().map_or(0, |(_, port)| port);
    let at = |address: IpAddr, port| SocketAddr::new(address, port);
    [at(frame.flow.source, frame.source_port), at(frame.flow.destination, port)]
}

fn sender(frame: &Frame) -> SocketAddr {
    ends(frame)[usize::from(frame.reply)]
}

fn key(frame: &Frame) -> Key {
    let mut ends = ends(frame);
    ends.sort();
    (ends, with_port(frame.flow.protocol, 0))
}

/// The flow that an end opens to the other one.
fn flow(key: &Key, opener: SocketAddr) -> Flow {
    let (ends, protocol) = key;
    let other = ends[usize::from(ends[0] == opener)];
    Flow {
        source: opener.ip(),
        destination: other.ip(),
        protocol: with_port(*protocol, other.port()),
    }
}

fn with_port(protocol: FlowProtocol, port: u16) -> FlowProtocol {
    protocol.port().map_or(protocol, |(protocol, _)| FlowProtocol::to_port(protocol, port))
}
