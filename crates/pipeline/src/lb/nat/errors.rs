//! ICMP errors about flows of full NAT, in both directions: who gets one finds its own packet quoted
//! (RFC 5508, section 4).
//!
//! An error about an answer comes to the service, and goes on to the backend as from the flow's source; one about
//! a client's packet comes to the source, and goes on to the client as from the service. Outer and quoted
//! addresses, quoted ports and every checksum that is there are rewritten. A flow's life isn't touched: nobody
//! can keep or end a flow by errors.
//!
//! Not here: errors with options, extension headers or fragments, outside or quoted. At a service they are
//! dropped, at a source they are the host's, as is everything that is about no port of full NAT.
//!
//! Tested beside a model (`flowgate-conformance`, `nat/report.rs`), on the host and at the kernel.

use flowgate_abi::{
    DropReason,
    lb::{
        Counter, Frontend,
        nat::{Life, Way},
    },
};

use super::{
    super::{Action, Balance, Buffer, Request, choose::Flow, find, hook},
    Nat, Place, asked, hop, index_of, is_there, rewrite, table, to_backend, to_client,
};
use crate::{
    Cursor,
    family::Tuple,
    parse::{self, Role},
    wire::{Ethernet, Icmp, protocol},
};

/// The steps for an ICMP error to a service with full NAT, and for ICMP to a source.
#[inline(always)]
pub fn translate_error<F: Nat, B: Buffer, T: Balance>(buffer: &mut B, tables: &T) -> Action {
    let mut request = Request::<F>::unread();
    let result = if read(buffer, &mut request) {
        related(buffer, &request, tables)
    } else {
        unread(&request, tables)
    };
    hook::finish(tables, &request, result)
}

/// Reads an error whose headers are where they mostly are; `false`: it isn't one. The request's tuple is that of
/// the quoted packet, reversed.
#[inline(always)]
fn read<F: Nat, B: Buffer>(buffer: &B, request: &mut Request<F>) -> bool {
    let mut cursor = buffer.head();
    if cursor.take::<Ethernet>().is_none() || !F::read_plain(&mut cursor, request) {
        return false;
    }
    request.receiver = request.tuple.destination;
    let is_martian = F::is_martian_source(request.tuple.source);
    let Some(header) = cursor.take::<Icmp>() else { return false };
    let is_error = F::icmp_role(header.icmp_type) == Ok(Role::Error);
    if request.tuple.protocol != F::ICMP || !is_error || is_martian {
        return false;
    }
    let mut quoted = Request::<F>::unread();
    if !F::read_plain(&mut cursor, &mut quoted) || quoted.tuple.source != request.receiver {
        return false;
    }
    if !matches!(quoted.tuple.protocol, protocol::TCP | protocol::UDP) {
        return false;
    }
    let has_ports = parse::ports(&mut cursor, &mut quoted.tuple).is_ok();
    request.tuple = quoted.tuple.reversed();
    has_ports
}

/// What isn't such an error is the host's, if it came to a source.
#[inline(always)]
fn unread<F: Nat, T: Balance>(request: &Request<F>, tables: &T) -> Result<Action, DropReason> {
    let target = F::target(request.receiver, Default::default(), 0).of_address();
    match find::exact::<F, T>(tables, &target) {
        Some(address) if address.flags.load() & Frontend::SOURCE != 0 => Ok(Action::Pass),
        _ => Err(DropReason::UnsupportedByNat),
    }
}

#[inline(always)]
fn related<F: Nat, B: Buffer, T: Balance>(
    buffer: &mut B,
    request: &Request<F>,
    tables: &T,
) -> Result<Action, DropReason> {
    let frontend = find::find::<F, T>(tables, &request.target());
    let frontend = frontend.ok_or(DropReason::UnrelatedIcmpError)?;
    let flags = frontend.flags.load();
    if flags & Frontend::SOURCE != 0 {
        about_question(buffer, request, frontend, tables)
    } else if flags & Frontend::SNAT != 0 {
        about_answer(buffer, request, frontend, tables)
    } else {
        Err(DropReason::UnrelatedIcmpError)
    }
}

/// Somebody on the way to the client couldn't forward an answer: its backend has to know.
#[inline(always)]
fn about_answer<F: Nat, B: Buffer, T: Balance>(
    buffer: &mut B,
    request: &Request<F>,
    frontend: &Frontend,
    tables: &T,
) -> Result<Action, DropReason> {
    hook::admit(request, frontend, tables)?;
    let flow = Flow::of::<F>(frontend, &request.tuple);
    let place = Place::of(flow.hash, tables.settings().nat_mask);
    let found = table::find::<F, T>(tables, &place, &request.tuple).unwrap_or(None);
    let port = found.ok_or(DropReason::UnrelatedIcmpError)?;
    if !Life(port.life.load()).lives() || !is_there(tables, frontend, port) {
        return Err(DropReason::UnrelatedIcmpError);
    }
    let (_, tail, to) = hop(tables, frontend, port).ok_or(DropReason::NoBackend)?;
    if request.length > tail.room() {
        return Err(DropReason::TooBig);
    }
    send(buffer, request, &to_backend::<F>(port, &request.tuple), to)?;
    tables.count(Counter::ErrorsSteered);
    Ok(Action::Transmit)
}

/// Somebody on the way to the backend couldn't forward a client's packet: the client has to know.
#[inline(always)]
fn about_question<F: Nat, B: Buffer, T: Balance>(
    buffer: &mut B,
    request: &Request<F>,
    source: &Frontend,
    tables: &T,
) -> Result<Action, DropReason> {
    let Some(index) = index_of(tables, source, request.tuple.destination_port) else {
        return Ok(Action::Pass);
    };
    let port = asked::<F, T>(tables, index, &request.tuple);
    let port = port.ok_or(DropReason::UnrelatedIcmpError)?;
    let to = Way(port.way.load()).mac().to_le();
    send(buffer, request, &to_client::<F>(port, &request.tuple), Some(to))?;
    tables.count(Counter::ErrorsSteered);
    Ok(Action::Transmit)
}

#[inline(always)]
fn send<F: Nat, B: Buffer>(
    buffer: &mut B,
    request: &Request<F>,
    ends: &Tuple<F::Addr>,
    to: Option<u64>,
) -> Result<(), DropReason> {
    if request.hops <= 1 {
        return Err(DropReason::HopsExceeded);
    }
    let sent = rewrite::send_error::<F, B>(buffer, ends, (to, request.length));
    sent.ok_or(DropReason::MalformedPacket)
}
