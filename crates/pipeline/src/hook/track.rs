//! Finds a packet's flow; judges it if it is new or was judged under something older; tells of it.

use flowgate_abi::{
    DropReason,
    endpoint::Endpoint,
    event::{Counter, Event, Hook, Kind},
    flow::{Age, Ends, Flow, Hand, NO_SLOT, Seen, Verdict, Volume, state},
    policy::Response,
};

use super::{Frame, is_node};
use crate::{
    Family, FlowTable, Packet,
    conntrack::{self, Entry, Inserted, Place},
    event,
    family::{Tuple, Way},
    parse::Role,
    policy::{self, Service, Side},
    wire::tcp,
};

/// Passes a packet as part of a flow, and returns the slot of its destination.
///
/// # Errors
/// The reason for which it is dropped.
#[inline(always)]
pub(super) fn track<F: Family, T: FlowTable<F>>(
    tables: &T,
    frame: Frame,
    endpoint: &Endpoint,
    packet: &Packet<F>,
) -> Result<u32, DropReason> {
    let (key, from_second) = F::key(&packet.tuple);
    let place = Place::of(F::hash(&key, tables.settings().hash_seed), tables.bucket_mask());
    let jiffies = tables.jiffies();
    let mut number = 0;
    let bucket = conntrack::find::<F, T>(tables, place, &key, jiffies, &mut number);
    let (mut known, mut reply) = (false, false);
    if let Some(found) = bucket {
        let way = tables.way(found, number);
        let verdict = Verdict(way.flow().verdict.load());
        let generation = tables.generation();
        let age = Age(tables.age(found, number).load());
        let over = verdict.state() & (state::CLOSING | state::REVOKED) != 0;
        let answers = (verdict.state() & state::FROM_SECOND != 0) != from_second;
        let anew = conntrack::expired(tables, age, jiffies)
            || (over && conntrack::opens(packet))
            || crosses(packet, answers);
        // The way may have changed its owner since the look-up: compare the key once more.
        known = way.holds(&key) && !anew;
        if known {
            reply = answers;
            if verdict.generation() == generation
                && slots(way.flow(), reply).own(frame.hook) == endpoint.slot
                && current(tables, way.flow())
            {
                let entry = Found { bucket: found, number, key: &key, verdict };
                return carry_on(tables, frame, packet, &entry, reply, jiffies);
            }
        }
    }
    if !known && packet.role != Role::Any {
        return Err(orphan(packet.role));
    }
    let case = Case { frame, packet, known, reply, key: &key, place, jiffies, from_second };
    judge(tables, endpoint, &case, bucket, number)
}

/// The endpoint is an end of the packet. A group's packets, and what a bridge floods, come to others
/// too.
///
/// VERIFIER: asked where it matters and not before, or everything in between is verified twice.
#[inline(always)]
fn is_end<F: Family>(endpoint: &Endpoint, case: &Case<'_, F>) -> bool {
    let tuple = &case.packet.tuple;
    let end = match case.frame.hook {
        Hook::FromEndpoint => tuple.source,
        _ => tuple.destination,
    };
    F::address(endpoint) == end
}

/// A packet of a flow whose judgement still holds.
#[inline(always)]
fn carry_on<F: Family, T: FlowTable<F>>(
    tables: &T,
    frame: Frame,
    packet: &Packet<F>,
    entry: &Found<'_, F>,
    reply: bool,
    jiffies: u64,
) -> Result<u32, DropReason> {
    let flow = tables.way(entry.bucket, entry.number).flow();
    if entry.verdict.state() & state::REVOKED != 0 {
        tables.note_response(state::response(entry.verdict.state()));
        return Err(DropReason::Revoked);
    }
    if packet.role == Role::Error {
        return Ok(related(tables, flow, reply));
    }
    sent_by_local(tables, frame.hook, slots(flow, reply).sender)?;
    let destination = touch(flow, reply, jiffies, frame.length);
    settle(tables, packet, entry, reply, jiffies);
    Ok(destination)
}

/// A query from who was asked, or a reply from who asked: with identifier 0 both ends' queries have
/// one key.
#[inline(always)]
fn crosses<F: Family>(packet: &Packet<F>, reply: bool) -> bool {
    packet.tuple.protocol == F::ICMP
        && packet.role != Role::Error
        && (packet.role == Role::Reply) != reply
}

/// What a packet is dropped for that means nothing without a flow.
#[inline(always)]
fn orphan(role: Role) -> DropReason {
    match role {
        Role::Error => DropReason::UnrelatedIcmpError,
        _ => DropReason::InvalidForFlow,
    }
}

/// Neither end's address has changed hands since the flow was judged.
#[inline(always)]
fn current<T: crate::Tables>(tables: &T, flow: &Flow) -> bool {
    let ends = Ends(flow.ends.load());
    policy::is_current(tables, ends.initiator()) && policy::is_current(tables, ends.responder())
}

/// An error about a flow goes to that end of it which sent the quoted packet.
#[inline(always)]
fn related<T: crate::Tables>(tables: &T, flow: &Flow, reply: bool) -> u32 {
    tables.count(Counter::Related);
    slots(flow, reply).receiver
}

/// The slots of a packet's ends, as they were judged.
struct Slots {
    sender: u32,
    receiver: u32,
}

impl Slots {
    /// The end at which the hook sits. A flow that was judged while that end was another endpoint,
    /// or none, says nothing about this one.
    #[inline(always)]
    fn own(&self, hook: Hook) -> u32 {
        match hook {
            Hook::FromEndpoint => self.sender,
            _ => self.receiver,
        }
    }
}

#[inline(always)]
fn slots(flow: &Flow, reply: bool) -> Slots {
    let (first, second) =
        (Volume(flow.bytes[0].load()).slot(), Volume(flow.bytes[1].load()).slot());
    if reply {
        Slots { sender: second, receiver: first }
    } else {
        Slots { sender: first, receiver: second }
    }
}

/// What a local endpoint has really sent carries a mark and doesn't come to `tc_to_endpoint`: who
/// claims its address there is somebody else. But for the node, which sends from behind the hook.
#[inline(always)]
fn sent_by_local<T: crate::Tables>(tables: &T, hook: Hook, sender: u32) -> Result<(), DropReason> {
    if hook == Hook::ToEndpoint && sender != NO_SLOT && !is_nodes(tables, sender) {
        return Err(DropReason::InvalidSourceAddress);
    }
    Ok(())
}

#[inline(always)]
fn is_nodes<T: crate::Tables>(tables: &T, slot: u32) -> bool {
    tables.slot(slot).is_some_and(is_node)
}

/// Counts a packet of a flow, and returns the slot of its destination.
#[inline(always)]
fn touch(flow: &Flow, reply: bool, jiffies: u64, length: u32) -> u32 {
    let (seen, bytes) =
        if reply { (&flow.seen[1], &flow.bytes[1]) } else { (&flow.seen[0], &flow.bytes[0]) };
    seen.store(Seen(seen.load()).one_more(jiffies as u32).0);
    bytes.store(Volume(bytes.load()).more(length).0);
    slots(flow, reply).receiver
}

/// An entry that was found.
struct Found<'f, F: Family> {
    bucket: &'f F::Bucket,
    number: u32,
    key: &'f F::Key,
    verdict: Verdict,
}

/// Brings an entry's state and age up to date; writes only what changes.
#[inline(always)]
fn settle<F: Family, T: FlowTable<F>>(
    tables: &T,
    packet: &Packet<F>,
    entry: &Found<'_, F>,
    reply: bool,
    jiffies: u64,
) {
    let protocol = packet.tuple.protocol;
    let state = entry.verdict.state();
    let next = conntrack::advance(state, protocol, packet.tcp_flags, reply);
    let age = Age::new(conntrack::class(next, protocol), jiffies);
    if tables.age(entry.bucket, entry.number).load() != age.0 {
        tables.age(entry.bucket, entry.number).store(age.0);
    }
    if next == state {
        return;
    }
    // Locked, and only over what was read: another CPU may have revoked the flow meanwhile, or given
    // the way to another one.
    let way = tables.way(entry.bucket, entry.number);
    tables.lock(entry.bucket);
    if way.holds(entry.key) && way.flow().verdict.load() == entry.verdict.0 {
        way.flow().verdict.store(Verdict::new(entry.verdict.generation(), next).0);
    }
    tables.unlock(entry.bucket);
}

/// The tuple from the initiator to the responder.
#[inline(always)]
fn opening<F: Family>(packet: &Packet<F>, reply: bool) -> Tuple<F::Addr> {
    if reply { packet.tuple.reversed() } else { packet.tuple }
}

/// Under what a flow is allowed.
struct Fresh {
    generation: u32,
    ends: Ends,
    slots: [u32; 2],
    hands: [Hand; 2],
}

/// A packet that has to be judged.
struct Case<'p, F: Family> {
    frame: Frame,
    packet: &'p Packet<F>,
    /// It belongs to the flow that lies under its key; if not, it opens one there.
    known: bool,
    reply: bool,
    key: &'p F::Key,
    place: Place,
    jiffies: u64,
    from_second: bool,
}

/// Judges a flow in the initiator's direction, whichever way the packet runs.
#[inline(always)]
fn judge<F: Family, T: FlowTable<F>>(
    tables: &T,
    endpoint: &Endpoint,
    case: &Case<'_, F>,
    bucket: Option<&F::Bucket>,
    number: u32,
) -> Result<u32, DropReason> {
    let tuple = opening(case.packet, case.reply);
    // Known flows have been asked already.
    if !case.known {
        not_martian::<F>(&tuple)?;
    }
    let generation = tables.generation();
    if generation == 0 {
        return Err(DropReason::EndpointNotReady);
    }
    let ends = sides(tables, endpoint, case)?;
    let (initiator, responder) = ends;
    let mut event = tables.blank_event().ok_or(DropReason::IncompleteGeneration)?;
    describe(tables, &mut event, case, &tuple, ends);
    event.generation = generation;
    let service = Service::of::<F>(&tuple);
    let result = policy::judge(tables, generation, ends, service, &mut event);
    let fresh = Fresh {
        generation,
        ends: Ends::new(initiator.end, responder.end),
        slots: [initiator.slot, responder.slot],
        hands: [initiator.hand, responder.hand],
    };
    let result = match (result, bucket) {
        (Err(reason), Some(bucket)) if case.known && is_end::<F>(endpoint, case) => {
            keep(tables, tables.way(bucket, number).flow(), &fresh, reason, &mut event)
        }
        (result, _) => result,
    };
    let outcome = match (result, bucket) {
        (Ok(()), Some(bucket)) if case.known => {
            renew(tables, case, bucket, number, &fresh, &mut event)
        }
        (Ok(()), old) => open(tables, case, old, &fresh, &mut event),
        (Err(reason), Some(bucket)) if case.known && is_end::<F>(endpoint, case) => {
            revoke(tables, case, bucket, number, reason, &mut event)
        }
        (Err(reason), _) => deny(reason, &mut event),
    };
    if event.kind != UNTOLD {
        tables.submit_event(event);
    }
    outcome?;
    Ok(if case.reply { initiator.slot } else { responder.slot })
}

#[inline(always)]
fn not_martian<F: Family>(tuple: &Tuple<F::Addr>) -> Result<(), DropReason> {
    if F::is_martian_source(tuple.source) || F::is_martian_destination(tuple.destination) {
        return Err(DropReason::Martian);
    }
    Ok(())
}

/// The kind of an event that isn't worth telling.
const UNTOLD: u8 = 0;

#[inline(always)]
fn describe<F: Family, T: FlowTable<F>>(
    tables: &T,
    event: &mut Event,
    case: &Case<'_, F>,
    tuple: &Tuple<F::Addr>,
    ends: (Side, Side),
) {
    let (initiator, responder) = ends;
    let both = Ends::new(initiator.end, responder.end);
    event::about::<F, T>(tables, event, tuple, both, [initiator.slot, responder.slot]);
    event.kind = UNTOLD;
    event.reason = 0;
    event.hook = case.frame.hook as u8;
    event.ifindex = case.frame.ifindex;
    event.tcp_flags = case.packet.tcp_flags;
    event.flags = if case.reply { Event::REPLY } else { 0 };
}

/// Who initiator and responder are. The hook's own endpoint needs no look-up.
#[inline(always)]
fn sides<F: Family, T: FlowTable<F>>(
    tables: &T,
    endpoint: &Endpoint,
    case: &Case<'_, F>,
) -> Result<(Side, Side), DropReason> {
    let from = case.frame.hook == Hook::FromEndpoint;
    let tuple = &case.packet.tuple;
    let own = policy::local::<F, T>(tables, endpoint)?;
    let address = if from { tuple.destination } else { tuple.source };
    let mut other = policy::identify::<F, T>(tables, &address)?;
    if case.packet.role != Role::Error {
        sent_by_local(tables, case.frame.hook, other.slot)?;
    }
    // What a node opens to its workloads is no matter of its own policies.
    if from == case.reply && other.slot != NO_SLOT && is_nodes(tables, other.slot) {
        other.slot = NO_SLOT;
    }
    Ok(if from == case.reply { (other, own) } else { (own, other) })
}

/// What a state says of a flow's end.
const ENDED: u32 = state::REVOKED | state::TOLD | state::RESPONSE;

/// A denial of a known flow, unless the flow is to live all the same: it was established before, its
/// generation keeps such flows, and both ends are who they were.
#[inline(always)]
fn keep<T: crate::Tables>(
    tables: &T,
    flow: &Flow,
    fresh: &Fresh,
    reason: DropReason,
    event: &mut Event,
) -> Result<(), DropReason> {
    let state = Verdict(flow.verdict.load()).state();
    let (then, now) = (Ends(flow.ends.load()), fresh.ends);
    let slots = flow.bytes.each_ref().map(|bytes| Volume(bytes.load()).slot());
    let [initiator, responder] = fresh.hands;
    if !reason.is_policy()
        || state & (state::ESTABLISHED | state::REVOKED) != state::ESTABLISHED
        || !policy::keeps_established(tables, fresh.generation)
        || slots != fresh.slots
        || state & state::HANDS != state::of_hands(initiator, responder)
        || initiator == Hand::ELSEWHERE
            && !policy::same_owner(tables, then.initiator(), now.initiator())
        || responder == Hand::ELSEWHERE
            && !policy::same_owner(tables, then.responder(), now.responder())
    {
        return Err(reason);
    }
    event.reason = reason as u8;
    tables.note_response(Response::Silence as u8);
    Ok(())
}

/// A known flow is still allowed, or kept: it carries on under what it was judged by now.
#[inline(always)]
fn renew<F: Family, T: FlowTable<F>>(
    tables: &T,
    case: &Case<'_, F>,
    bucket: &F::Bucket,
    number: u32,
    fresh: &Fresh,
    event: &mut Event,
) -> Result<(), DropReason> {
    let way = tables.way(bucket, number);
    let flow = way.flow();
    tables.lock(bucket);
    // Only an opening flow can have lost its way meanwhile; its next packet opens it again.
    if way.holds(case.key) {
        let mut state = Verdict(flow.verdict.load()).state() & !(ENDED | state::HANDS);
        state |= state::of_hands(fresh.hands[0], fresh.hands[1]);
        if case.packet.role != Role::Error {
            let protocol = case.packet.tuple.protocol;
            state = conntrack::advance(state, protocol, case.packet.tcp_flags, case.reply);
            let age = Age::new(conntrack::class(state, protocol), case.jiffies);
            tables.age(bucket, number).store(age.0);
        }
        flow.ends.store(fresh.ends.0);
        flow.bytes[0].store(Volume(flow.bytes[0].load()).moved(fresh.slots[0]).0);
        flow.bytes[1].store(Volume(flow.bytes[1].load()).moved(fresh.slots[1]).0);
        flow.verdict.store(Verdict::new(fresh.generation, state).0);
    }
    tables.unlock(bucket);
    let (kind, counter) = match event.reason {
        0 => (Kind::Rejudged, Counter::FlowsRejudged),
        _ => (Kind::Kept, Counter::FlowsKept),
    };
    tables.count(counter);
    event.kind = kind as u8;
    event::volume(event, flow);
    if case.packet.role == Role::Error {
        tables.count(Counter::Related);
    } else {
        touch(flow, case.reply, case.jiffies, case.frame.length);
    }
    Ok(())
}

/// A known flow isn't allowed any more: it ends here. Its ends stay what they were: a CPU that still
/// goes by the old verdict and writes it back leaves an entry that is judged again.
#[inline(always)]
fn revoke<F: Family, T: FlowTable<F>>(
    tables: &T,
    case: &Case<'_, F>,
    bucket: &F::Bucket,
    number: u32,
    reason: DropReason,
    event: &mut Event,
) -> Result<(), DropReason> {
    let way = tables.way(bucket, number);
    let flow = way.flow();
    event::volume(event, flow);
    let generation = event.generation;
    let ended = state::REVOKED | state::TOLD | state::of_response(tables.response());
    let mut told = true;
    tables.lock(bucket);
    if way.holds(case.key) {
        let known = Verdict(flow.verdict.load());
        told = known.state() & state::REVOKED != 0;
        let state = known.state() & !ENDED | ended;
        flow.verdict.store(Verdict::new(generation, state).0);
    }
    tables.unlock(bucket);
    if !told {
        tables.count(Counter::FlowsRevoked);
        event.kind = Kind::Revoked as u8;
        event.reason = reason as u8;
    }
    Err(reason)
}

/// A new flow isn't allowed.
#[inline(always)]
fn deny(reason: DropReason, event: &mut Event) -> Result<(), DropReason> {
    event.kind = if reason.is_policy() { Kind::Denied as u8 } else { UNTOLD };
    event.reason = reason as u8;
    Err(reason)
}

/// A new flow is allowed and gets an entry. A RST opens nothing: it passes and leaves no trace.
#[inline(always)]
fn open<F: Family, T: FlowTable<F>>(
    tables: &T,
    case: &Case<'_, F>,
    old: Option<&F::Bucket>,
    fresh: &Fresh,
    event: &mut Event,
) -> Result<(), DropReason> {
    if case.packet.tcp_flags & tcp::RST != 0 {
        return Ok(());
    }
    let first = if case.from_second { state::FROM_SECOND } else { 0 };
    let hands = state::of_hands(fresh.hands[0], fresh.hands[1]);
    let entry = Entry {
        verdict: Verdict::new(fresh.generation, first | hands),
        ends: fresh.ends,
        seen: Seen(0).one_more(case.jiffies as u32),
        sent: Volume::new(fresh.slots[0], case.frame.length),
        answered: Volume::new(fresh.slots[1], 0),
    };
    match conntrack::insert::<F, T>(tables, case.place, case.key, old, &entry, case.jiffies) {
        Inserted::Full => return Err(DropReason::FlowTableFull),
        Inserted::Evicted => tables.count(Counter::FlowsEvicted),
        Inserted::Stored => {}
    }
    event.kind = Kind::New as u8;
    tables.count(Counter::FlowsNew);
    Ok(())
}
