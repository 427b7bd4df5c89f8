//! Tells user space about a flow.

use flowgate_abi::{
    event::{Counter, Event, EventBudget, Kind},
    flow::{Ends, Flow, Seen, Volume},
    policy::Judgement,
};

use crate::{
    Family, Tables,
    budget::{self, Limit},
    family::Tuple,
};

/// Writes what an event about a flow always says; the tuple runs from the initiator to the
/// responder.
///
/// VERIFIER: straight into the event's own memory, as soon as it is known. Carried along on the stack
/// until the end, the parts kept apart what else could have been verified once: more than a million
/// instructions on 6.1 instead of 280,000.
#[inline(always)]
pub fn about<F: Family, T: Tables>(
    tables: &T,
    event: &mut Event,
    tuple: &Tuple<F::Addr>,
    ends: Ends,
    slots: [u32; 2],
) {
    event.timestamp = 0;
    event.family = F::NUMBER;
    event.protocol = tuple.protocol;
    event.icmp_type = tuple.icmp_type;
    event.judgement = Judgement::NONE;
    event.source_slot = slots[0] as u16;
    event.destination_slot = slots[1] as u16;
    event.source_identity = identity(tables, ends.initiator().peer());
    event.destination_identity = identity(tables, ends.responder().peer());
    event.source_port = tuple.source_port;
    event.destination_port = tuple.destination_port;
    event.source = F::wide(tuple.source);
    event.destination = F::wide(tuple.destination);
    event.packets = [0; 2];
    event.bytes = [0; 2];
}

/// Writes what a tracked flow has carried.
#[inline(always)]
pub fn volume(event: &mut Event, flow: &Flow) {
    event.packets = [Seen(flow.seen[0].load()).packets(), Seen(flow.seen[1].load()).packets()];
    event.bytes = [Volume(flow.bytes[0].load()).bytes(), Volume(flow.bytes[1].load()).bytes()];
}

/// Counts what an event tells of policies on trial. Before [`admit`]: what isn't told counts too.
///
/// VERIFIER: where the event is handed over, behind everything else, and not where it is judged.
#[inline(always)]
pub fn count_audited<T: Tables>(tables: &T, event: &Event) {
    if event.kind != Kind::New as u8 && event.kind != Kind::Rejudged as u8 {
        return;
    }
    if event.flags & Event::AUDITED_EGRESS != 0 {
        tables.count(Counter::AuditedEgress);
    }
    if event.flags & Event::AUDITED_INGRESS != 0 {
        tables.count(Counter::AuditedIngress);
    }
}

/// This CPU's budget allows one event more; if not, counts it.
#[inline(always)]
pub fn admit<T: Tables>(tables: &T, budget: &mut EventBudget) -> bool {
    let settings = tables.settings();
    let limit = Limit { each: settings.events_per_second, hz: settings.hz };
    let admitted = budget::take(budget, limit, tables.jiffies());
    if !admitted {
        tables.count(Counter::EventsSuppressed);
    }
    admitted
}

#[inline(always)]
fn identity<T: Tables>(tables: &T, peer: u32) -> u32 {
    match tables.peer(peer) {
        Some(peer) => peer.identity.load(),
        None => 0,
    }
}
