//! Tells user space about a flow.

use flowgate_abi::{
    DropReason, Settings,
    event::{Counter, Event, EventBudget, Hook, Kind},
    flow::{Ends, Flow, Seen, Volume},
};

use crate::{Family, Tables, family::Tuple, policy::Judgement};

/// What an event is about.
#[derive(Clone, Copy)]
pub struct Story<'f, F: Family> {
    /// What happened; `None`: nothing worth an event.
    pub kind: Option<Kind>,
    /// Why it was dropped, if it was.
    pub reason: Option<DropReason>,
    /// The flow, from the initiator to the responder.
    pub tuple: Tuple<F::Addr>,
    /// What was decided.
    pub judgement: Judgement,
    /// Under which generation.
    pub generation: u32,
    /// Its ends.
    pub ends: Ends,
    /// The slots of the initiator and of the responder.
    pub slots: [u32; 2],
    /// Where the packet was seen.
    pub hook: Hook,
    /// On which interface.
    pub ifindex: u32,
    /// Its TCP flags.
    pub tcp_flags: u8,
    /// It ran from the responder to the initiator.
    pub reply: bool,
    /// The entry, for its counters.
    pub flow: Option<&'f Flow>,
}

/// Emits an event, if the budget and the ring buffer allow; otherwise counts the loss.
#[inline(always)]
pub fn emit<F: Family, T: Tables>(tables: &T, story: &Story<'_, F>) {
    let Some(kind) = story.kind else { return };
    if !tables.may_emit() {
        tables.count(Counter::EventsSuppressed);
        return;
    }
    let Some(mut event) = tables.reserve_event() else {
        tables.count(Counter::EventsLost);
        return;
    };
    *event = build(tables, kind, story);
    tables.submit_event(event);
}

/// Takes one token of an event budget, refilled once a second.
#[inline(always)]
pub fn take_token(budget: &mut EventBudget, settings: &Settings, jiffies: u64) -> bool {
    let second = u64::from(settings.hz);
    if jiffies.wrapping_sub(budget.refilled) >= second || budget.refilled == 0 {
        budget.refilled = jiffies;
        budget.tokens = u64::from(settings.events_per_second);
    }
    if budget.tokens == 0 {
        return false;
    }
    budget.tokens -= 1;
    true
}

#[inline(always)]
fn build<F: Family, T: Tables>(tables: &T, kind: Kind, story: &Story<'_, F>) -> Event {
    let tuple = &story.tuple;
    let (packets, bytes) = volume(story.flow);
    Event {
        timestamp: tables.nanoseconds(),
        kind: kind as u8,
        reason: match story.reason {
            Some(reason) => reason as u8,
            None => 0,
        },
        family: F::NUMBER,
        protocol: tuple.protocol,
        hook: story.hook as u8,
        tcp_flags: story.tcp_flags,
        icmp_type: tuple.icmp_type,
        reply: story.reply as u8,
        generation: story.generation,
        egress: story.judgement.egress,
        ingress: story.judgement.ingress,
        source_slot: story.slots[0] as u16,
        destination_slot: story.slots[1] as u16,
        source_identity: identity(tables, story.ends.initiator().peer()),
        destination_identity: identity(tables, story.ends.responder().peer()),
        source_port: tuple.source_port,
        destination_port: tuple.destination_port,
        ifindex: story.ifindex,
        source: F::wide(tuple.source),
        destination: F::wide(tuple.destination),
        packets,
        bytes,
    }
}

#[inline(always)]
fn identity<T: Tables>(tables: &T, peer: u32) -> u32 {
    match tables.peer(peer) {
        Some(peer) => peer.identity.load(),
        None => 0,
    }
}

#[inline(always)]
fn volume(flow: Option<&Flow>) -> ([u32; 2], [u64; 2]) {
    let Some(flow) = flow else { return ([0; 2], [0; 2]) };
    (
        [Seen(flow.seen[0].load()).packets(), Seen(flow.seen[1].load()).packets()],
        [Volume(flow.bytes[0].load()).bytes(), Volume(flow.bytes[1].load()).bytes()],
    )
}
