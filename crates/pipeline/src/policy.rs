//! The verdict about a flow: who its ends are, and what the running generation says.
//!
//! Five array loads for each end that is local, six where its rows are narrow, 14 where they are scattered,
//! whatever the number of rules (DESIGN: recursive flow classification). Not here: established
//! flows, which carry their verdict with them.

use flowgate_abi::{
    DropReason,
    endpoint::{Endpoint, Peer},
    event::Event,
    flow::{End, Hand, NO_SLOT},
    policy::{Direction, EndpointPolicy, Generation, NOT_JUDGED, PortTable, Scattered},
};

use crate::{Family, FlowTable, Tables, family::Tuple, wire::protocol};

/// Who an address is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Side {
    /// Its peer, and that peer's epoch.
    pub end: End,
    /// Its slot if it is local, else [`NO_SLOT`].
    pub slot: u32,
    /// In whose hands it is.
    pub hand: Hand,
}

/// What policy calls the port of a flow: one of four tables, and the index into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    /// [`PortTable`]'s number.
    pub table: u32,
    /// Port in host byte order, ICMP type, or protocol.
    pub index: u16,
}

impl Service {
    /// Of a flow's tuple, from the initiator to the responder.
    #[inline(always)]
    #[must_use]
    pub fn of<F: Family>(tuple: &Tuple<F::Addr>) -> Self {
        let port = tuple.destination_port.get();
        let (table, index) = match tuple.protocol {
            protocol::TCP => (PortTable::Tcp, port),
            protocol::UDP => (PortTable::Udp, port),
            protocol::SCTP => (PortTable::Sctp, port),
            p if p == F::ICMP => (PortTable::Other, F::icmp_port(tuple.icmp_type)),
            p => (PortTable::Other, p as u16),
        };
        Self { table: table as u32, index }
    }
}

/// Who a local endpoint is.
///
/// # Errors
/// [`DropReason::UnknownIdentity`]: its peer isn't there.
#[inline(always)]
pub fn local<F: Family, T: Tables>(tables: &T, endpoint: &Endpoint) -> Result<Side, DropReason> {
    let end = End::new(F::peer(endpoint), epoch(tables, F::peer(endpoint))?);
    Ok(Side { end, slot: endpoint.slot, hand: Hand::local(endpoint.incarnation) })
}

/// Who an address is.
///
/// # Errors
/// [`DropReason::UnknownIdentity`]: not even world is known, a defect of the tables.
#[inline(always)]
pub fn identify<F: Family, T: FlowTable<F>>(
    tables: &T,
    address: &F::Addr,
) -> Result<Side, DropReason> {
    let leaf = tables.ipcache(address);
    if let Some(slot) = leaf.as_endpoint() {
        let endpoint = tables.slot(slot).ok_or(DropReason::UnknownIdentity)?;
        return local::<F, T>(tables, endpoint);
    }
    let peer = leaf.as_peer().ok_or(DropReason::UnknownIdentity)?;
    let epoch = epoch(tables, peer)?;
    let hand = if Peer::owner(epoch) == Peer::WORLD { Hand::WORLD } else { Hand::ELSEWHERE };
    Ok(Side { end: End::new(peer, epoch), slot: NO_SLOT, hand })
}

#[inline(always)]
fn epoch<T: Tables>(tables: &T, peer: u32) -> Result<u32, DropReason> {
    let entry = tables.peer(peer).ok_or(DropReason::UnknownIdentity)?;
    Ok(entry.epoch.load())
}

/// The end's address hasn't changed hands since it was judged.
#[inline(always)]
pub fn is_current<T: Tables>(tables: &T, judged: End) -> bool {
    tables
        .peer(judged.peer())
        .is_some_and(|peer| End::new(judged.peer(), peer.epoch.load()) == judged)
}

/// What is elsewhere is who it was when it was judged: no address has been taken away from the peer that it
/// was, and the peer that it is has the same owner.
#[inline(always)]
pub fn same_owner<T: Tables>(tables: &T, judged: End, now: End) -> bool {
    let (Some(then), Some(now)) = (tables.peer(judged.peer()), tables.peer(now.peer())) else {
        return false;
    };
    let (then, now) = (then.epoch.load(), now.epoch.load());
    End::new(judged.peer(), then) == judged && Peer::owner(then) == Peer::owner(now)
}

/// A generation keeps established flows that it denies.
#[inline(always)]
pub fn keeps_established<T: Tables>(tables: &T, generation: u32) -> bool {
    let head = tables.generation_head(generation & 1);
    head.is_some_and(|head| head.flags.load() & Generation::KEEP_ESTABLISHED != 0)
}

/// Judges a flow under a generation, at both ends that are local, and notes in the event what is decided
/// and what of it is on trial; and what the sender is told.
///
/// # Errors
/// The reason of the first end that denies, the initiator's before the responder's.
#[inline(always)]
pub fn judge<T: Tables>(
    tables: &T,
    generation: u32,
    ends: (Side, Side),
    service: Service,
    event: &mut Event,
) -> Result<(), DropReason> {
    let (initiator, responder) = ends;
    if initiator.slot == NO_SLOT && responder.slot == NO_SLOT {
        return Err(DropReason::UnknownIdentity);
    }
    let rows = rows(tables, generation, service)?;
    let mut result = Ok(());
    if responder.slot != NO_SLOT {
        let found = decide(tables, rows, responder.slot, Direction::Ingress, initiator.end);
        result = settle(tables, rows, found, (event, Direction::Ingress));
    }
    if initiator.slot != NO_SLOT {
        let found = decide(tables, rows, initiator.slot, Direction::Egress, responder.end);
        settle(tables, rows, found, (event, Direction::Egress))?;
    }
    result
}

/// What the ends of a flow have in common: the generation's shape and the port's class.
#[derive(Clone, Copy)]
struct Rows {
    slot: u32,
    line: u32,
    step: u32,
    /// The part of narrow groups' lines that isn't rows.
    columns: u32,
    port_class: u32,
}

#[inline(always)]
fn rows<T: Tables>(tables: &T, generation: u32, service: Service) -> Result<Rows, DropReason> {
    const MISS: DropReason = DropReason::IncompleteGeneration;
    let slot = generation & 1;
    let head = tables.generation_head(slot).ok_or(MISS)?;
    if head.number.load() != generation {
        return Err(MISS);
    }
    Ok(Rows {
        slot,
        line: head.line.load(),
        step: head.step.load(),
        columns: Generation::columns(head.flags.load()),
        port_class: tables.port_class(slot, service.table, service.index).ok_or(MISS)?,
    })
}

/// The number of the decision of one endpoint about one peer; [`NOT_JUDGED`]: it has none.
#[inline(always)]
fn decide<T: Tables>(
    tables: &T,
    rows: Rows,
    endpoint: u32,
    direction: Direction,
    peer: End,
) -> Result<u32, DropReason> {
    const MISS: DropReason = DropReason::IncompleteGeneration;
    let policies = tables.endpoint_policy(rows.slot, endpoint).ok_or(MISS)?;
    let policy = match direction {
        Direction::Egress => policies.egress.load(),
        Direction::Ingress => policies.ingress.load(),
    };
    if policy == 0 {
        return Err(DropReason::EndpointNotReady);
    }
    if policy == EndpointPolicy::OPEN {
        return Ok(NOT_JUDGED);
    }
    let class = tables.peer_class(rows.slot, peer.peer()).ok_or(MISS)?;
    if class == 0 {
        return Err(MISS);
    }
    let line = (policy & EndpointPolicy::GROUP).wrapping_mul(rows.line);
    let end = line.wrapping_add(rows.line);
    let row = tables.row(rows.slot, line.wrapping_add(class)).ok_or(MISS)?;
    let mut column = rows.port_class;
    if policy & EndpointPolicy::NARROW != 0 {
        let columns = end.wrapping_sub(rows.columns);
        column = tables.row(rows.slot, columns.wrapping_add(column)).ok_or(MISS)?;
    }
    if policy & EndpointPolicy::SCATTERED != 0 {
        return Ok(tables.scattered(rows.slot, end, row, column));
    }
    tables.decision_number(rows.slot, row.wrapping_mul(rows.step).wrapping_add(column)).ok_or(MISS)
}

/// The number of what a scattered row decides about a column, `end` being that of its group's line; 0, which
/// denies, if the generation isn't complete.
#[inline(always)]
pub fn scattered<T: Tables + ?Sized>(
    tables: &T,
    slot: u32,
    end: u32,
    (row, column): (u32, u32),
) -> u32 {
    let mut told = [0; Scattered::CELLS as usize];
    let first = end.wrapping_sub(u32::from(Scattered::CELLS));
    for (cell, told) in (0..).zip(&mut told) {
        let Some(found) = tables.row(slot, first.wrapping_add(cell)) else { return 0 };
        *told = found;
    }
    let cell = |at| tables.decision_number(slot, at);
    scattered_in(Scattered::from_cells(told), (row, column), cell).unwrap_or(0)
}

/// The same in a plan's cells as in a generation's; row 0 is nobody's.
#[inline(always)]
pub fn scattered_in(
    told: Scattered,
    (row, column): (u32, u32),
    cell: impl Fn(u32) -> Option<u32>,
) -> Option<u32> {
    if row == 0 {
        return None;
    }
    let record = told.record(row);
    let place = cell(record.wrapping_add(1).wrapping_add(told.block(column)))?;
    let pair = told.pair(place, column);
    let own = place != 0 && cell(pair)? == place;
    cell(if own { pair.wrapping_add(1) } else { record })
}

/// Notes a decision, and turns a denial into its reason.
#[inline(always)]
fn settle<T: Tables>(
    tables: &T,
    rows: Rows,
    found: Result<u32, DropReason>,
    (event, direction): (&mut Event, Direction),
) -> Result<(), DropReason> {
    let noted = match direction {
        Direction::Egress => &mut event.judgement.egress,
        Direction::Ingress => &mut event.judgement.ingress,
    };
    *noted = 0;
    let number = found?;
    *noted = number;
    if number == NOT_JUDGED {
        return Ok(());
    }
    let decision = tables.decision(rows.slot, number).ok_or(DropReason::IncompleteGeneration)?;
    event.flags |= decision.audited(direction);
    if decision.allows() {
        return Ok(());
    }
    tables.note_response(decision.response_number());
    if number == 0 {
        Err(DropReason::IncompleteGeneration)
    } else if decision.is_default() {
        Err(DropReason::PolicyDefaultDeny)
    } else {
        Err(DropReason::PolicyDeny)
    }
}
