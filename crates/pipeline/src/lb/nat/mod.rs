//! Full NAT: a client's packet goes to its backend as the balancer's own, from a port of a source address;
//! the backend's answer goes to the client as the service's.
//!
//! [`translate`] names the steps of both directions, [`translate_error`] those for ICMP errors; [`table`] has
//! which port a flow gets, [`rewrite`] puts addresses, ports and checksums into the packet.
//!
//! Not here: which backend a new flow gets ([`super::choose`]), and who gives ports back (user space, by
//! time-outs that nothing here knows).
//!
//! Invariants: no two live flows share a port, since a port's owner is who has set its bit; a live flow's
//! port is never taken from it; a flow keeps its backend as long as that is there. A new flow that finds no
//! port is dropped with a reason. A connection of TCP gets a port by its SYN alone, unless its backend is
//! gone: then whoever gets it instead says so by a RST.
//!
//! Tested beside a model (`flowgate-services`, `tests/nat`), and at the kernel (`flowgate-datapath`).

mod errors;
pub mod rewrite;
pub mod table;

use flowgate_abi::{
    Be16, DropReason,
    flow::state,
    lb::{
        Backend, Counter, Frontend, Kind, Lines, Tail,
        nat::{GROUP, Life, Ports, Translation, Way},
    },
};

use super::{
    Action, Balance, Buffer, Request,
    choose::{self, Flow, Signs},
    find, hook,
    icmp::{self, Answer},
    pin, quic, request,
};
use crate::{family::Tuple, wire::protocol};
pub use errors::translate_error;
use rewrite::Rewritable;
use table::Place;

/// What full NAT needs of a family.
pub trait Nat: Answer + Rewritable {}
impl<F: Answer + Rewritable> Nat for F {}

/// The steps for TCP and UDP of a service with full NAT, and for answers from its backends.
#[inline(always)]
pub fn translate<F: Nat, B: Buffer, T: Balance>(buffer: &mut B, tables: &T) -> Action {
    let Some(mut request) = request::plain::<F, B>(buffer) else { return Action::Pass };
    let Some(frontend) = find::find::<F, T>(tables, &request.target()) else {
        return Action::Pass;
    };
    // VERIFIER: UDP's are known to be 0, and everything behind would be verified for them alone.
    let flags = tables.forget(u32::from(request.tcp_flags), u64::from(request.length));
    request.tcp_flags = flags as u8;
    let result = if frontend.flags.load() & Frontend::SOURCE != 0 {
        answer(buffer, &request, frontend, tables)
    } else {
        ask(buffer, &request, frontend, tables)
    };
    hook::finish(tables, &request, result)
}

/// A client's packet goes on to its backend.
#[inline(always)]
fn ask<F: Nat, B: Buffer, T: Balance>(
    buffer: &mut B,
    request: &Request<F>,
    frontend: &Frontend,
    tables: &T,
) -> Result<Action, DropReason> {
    hook::admit(request, frontend, tables)?;
    let flow = Flow::of::<F>(frontend, &request.tuple);
    let place = Place::of(flow.hash, tables.settings().nat_mask);
    let mut had = false;
    let port = match kept(tables, (request, frontend), &place, &mut had)? {
        Some(port) => {
            pin::seen(tables, frontend, &flow);
            port
        }
        None => opened(buffer, tables, (request, frontend), (&flow, &place, had))?,
    };
    // VERIFIER: looked up again, though both ways have seen it: 6.1 loses the pointer where they meet.
    let (line, tail, to) = hop(tables, frontend, port).ok_or(DropReason::NoBackend)?;
    if request.length > tail.room() {
        icmp::too_big(buffer, request, tables, tail.room())?;
        tables.count(Counter::TooBigAnswered);
        return Ok(Action::Transmit);
    }
    if request.hops <= 1 {
        return Err(DropReason::HopsExceeded);
    }
    tables.count_load(line, request.length, request.opens(), false);
    let ends = to_backend::<F>(port, &request.tuple);
    rewrite::send::<F, B>(buffer, &ends, to).ok_or(DropReason::MalformedPacket)?;
    Ok(Action::Transmit)
}

/// The line of the backend of a port's flow, its tail, and to whom packets to it are sent: see [`rewrite::send`].
#[inline(always)]
fn hop<T: Balance>(
    tables: &T,
    frontend: &Frontend,
    port: &Translation,
) -> Option<(u32, Tail, Option<u64>)> {
    let line = Lines(frontend.lines.load()).start().wrapping_add(port.number.load() as u32);
    let backend = tables.backend(line)?;
    let tail = Tail(backend.tail.load());
    let to = if tail.has(Tail::TO_SENDER) { None } else { Some(backend.header[0]) };
    Some((line, tail, to))
}

/// The ends of a flow's packets to its backend.
#[inline(always)]
fn to_backend<F: Nat>(port: &Translation, tuple: &Tuple<F::Addr>) -> Tuple<F::Addr> {
    let ports = Ports(port.ports.load());
    Tuple {
        source: F::narrow([port.source[0].load(), port.source[1].load()]),
        destination: F::narrow([port.backend[0].load(), port.backend[1].load()]),
        source_port: Be16::from_raw(ports.source()),
        destination_port: Be16::from_raw(ports.backend()),
        ..*tuple
    }
}

/// The ends of a flow's packets to its client.
#[inline(always)]
fn to_client<F: Nat>(port: &Translation, tuple: &Tuple<F::Addr>) -> Tuple<F::Addr> {
    let ports = Ports(port.ports.load());
    Tuple {
        source: F::narrow([port.service[0].load(), port.service[1].load()]),
        destination: F::narrow([port.client[0].load(), port.client[1].load()]),
        source_port: Be16::from_raw(ports.service()),
        destination_port: Be16::from_raw(ports.client()),
        ..*tuple
    }
}

/// The port that a packet's flow has, if it still does by this packet; `had`: it had one, and its backend
/// is gone.
#[inline(always)]
fn kept<'t, F: Nat, T: Balance>(
    tables: &'t T,
    (request, frontend): (&Request<F>, &Frontend),
    place: &Place,
    had: &mut bool,
) -> Result<Option<&'t Translation>, DropReason> {
    let Some(port) = table::find::<F, T>(tables, place, &request.tuple)? else { return Ok(None) };
    let life = Life(port.life.load());
    let anew = request.opens() && life.state() & state::CLOSING != 0;
    let there = is_there(tables, frontend, port);
    if life.lives() && there && !anew {
        table::touch(tables, port, (request.tuple.protocol, request.tcp_flags), false);
        return Ok(Some(port));
    }
    *had = life.lives() && !there;
    table::end(tables, place, port);
    Ok(None)
}

/// The backend of a port's flow is among its service's.
#[inline(always)]
fn is_there<T: Balance>(tables: &T, frontend: &Frontend, port: &Translation) -> bool {
    let line = Lines(frontend.lines.load()).start().wrapping_add(port.number.load() as u32);
    let Some(backend) = tables.backend(line) else { return false };
    let differs =
        (backend.header[2] ^ port.backend[0].load()) | (backend.header[3] ^ port.backend[1].load());
    let tail = Tail(backend.tail.load());
    let own = tail.port() == 0 || tail.port() == Ports(port.ports.load()).backend();
    tail.kind() == Kind::Snat as u8 && !tail.has(Tail::GONE) && differs == 0 && own
}

/// A port for a flow that has none.
#[inline(always)]
fn opened<'t, F: Nat, B: Buffer, T: Balance>(
    buffer: &B,
    tables: &'t T,
    (request, frontend): (&Request<F>, &Frontend),
    (flow, place, had): (&Flow, &Place, bool),
) -> Result<&'t Translation, DropReason> {
    if request.tuple.protocol == protocol::TCP && !request.opens() && !had {
        return Err(DropReason::InvalidForFlow);
    }
    if F::is_martian_source(request.tuple.source) {
        return Err(DropReason::Martian);
    }
    let named = quic::named::<F, B, T>(buffer, frontend, tables);
    let signs = Signs { named, ..Signs::of(request) };
    let chosen = choose::choose::<T, true>(tables, frontend, flow, signs);
    let chosen = chosen.map_err(|_| DropReason::NoBackend)?;
    if chosen.tail.kind() != Kind::Snat as u8 {
        return Err(DropReason::NoBackend);
    }
    let index = table::take::<F, T>(tables, place).ok_or(DropReason::NoNatPort)?;
    let port = tables.nat_port(index).ok_or(DropReason::NoNatPort)?;
    let number = chosen.line.wrapping_sub(Lines(frontend.lines.load()).start());
    port.number.store(u64::from(number));
    let came: [u64; 2] = buffer.load(0).ok_or(DropReason::MalformedPacket)?;
    let came = came.map(u64::from_le);
    let sender = came[0] >> 48 | (came[1] & 0xffff_ffff) << 16;
    port.way.store(Way::new(sender, request.tuple.protocol).0);
    describe::<F, T>(tables, port, &request.tuple, (chosen.backend, chosen.tail, index))?;
    if table::publish(tables, place, port, (index, request.tcp_flags)) {
        tables.count(Counter::FlowsTranslated);
        Ok(port)
    } else {
        Err(DropReason::NoNatPort)
    }
}

/// Writes down what a new flow's packets become.
#[inline(always)]
fn describe<F: Nat, T: Balance>(
    tables: &T,
    port: &Translation,
    tuple: &Tuple<F::Addr>,
    (backend, tail, index): (&Backend, Tail, u32),
) -> Result<(), DropReason> {
    let (number, source_port) = table::source_of(tables.settings(), index);
    let source = tables.nat_source(number).ok_or(DropReason::NoNatPort)?;
    let (client, service) = (F::wide(tuple.source), F::wide(tuple.destination));
    port.client[0].store(client[0]);
    port.client[1].store(client[1]);
    port.service[0].store(service[0]);
    port.service[1].store(service[1]);
    port.backend[0].store(backend.header[2]);
    port.backend[1].store(backend.header[3]);
    port.source[0].store(source.address.first);
    port.source[1].store(source.address.last);
    let service_port = tuple.destination_port.raw();
    let backend_port = if tail.port() == 0 { service_port } else { tail.port() };
    let ports = Ports::new(tuple.source_port.raw(), service_port, backend_port, source_port.raw());
    port.ports.store(ports.0);
    Ok(())
}

/// A backend's packet to a source goes on to the client that has the port. One to a port that is no flow's
/// in any case is the host's.
#[inline(always)]
fn answer<F: Nat, B: Buffer, T: Balance>(
    buffer: &mut B,
    request: &Request<F>,
    source: &Frontend,
    tables: &T,
) -> Result<Action, DropReason> {
    let Some(index) = index_of(tables, source, request.tuple.destination_port) else {
        return Ok(Action::Pass);
    };
    let port = asked::<F, T>(tables, index, &request.tuple).ok_or(DropReason::InvalidForFlow)?;
    if request.hops <= 1 {
        return Err(DropReason::HopsExceeded);
    }
    table::touch(tables, port, (request.tuple.protocol, request.tcp_flags), true);
    let ends = to_client::<F>(port, &request.tuple);
    let to = Way(port.way.load()).mac().to_le();
    rewrite::send::<F, B>(buffer, &ends, Some(to)).ok_or(DropReason::MalformedPacket)?;
    tables.count(Counter::AnswersTranslated);
    Ok(Action::Transmit)
}

/// The index of a source's port among all; `None`: it is no flow's in any case.
#[inline(always)]
fn index_of<T: Balance>(tables: &T, source: &Frontend, port: Be16) -> Option<u32> {
    let settings = tables.settings();
    let place = u32::from(port.get()).wrapping_sub(settings.nat_first_port);
    let is_ours = place < settings.nat_groups_each * GROUP;
    is_ours.then_some(source.slots.wrapping_mul(GROUP).wrapping_add(place))
}

/// The port of this index, if a live flow has it whose backend's packet this is.
#[inline(always)]
fn asked<'t, F: Nat, T: Balance>(
    tables: &'t T,
    index: u32,
    tuple: &Tuple<F::Addr>,
) -> Option<&'t Translation> {
    let port = tables.nat_port(index)?;
    let lives = Life(port.life.load()).lives();
    (lives && is_from_backend::<F>(port, tuple)).then_some(port)
}

/// A packet comes from where the port's flow goes to.
#[inline(always)]
fn is_from_backend<F: Nat>(port: &Translation, tuple: &Tuple<F::Addr>) -> bool {
    let from = F::wide(tuple.source);
    let differs = (from[0] ^ port.backend[0].load()) | (from[1] ^ port.backend[1].load());
    let backend = Ports(port.ports.load()).backend();
    let same = Way(port.way.load()).protocol() == tuple.protocol;
    differs == 0 && backend == tuple.source_port.raw() && same
}
