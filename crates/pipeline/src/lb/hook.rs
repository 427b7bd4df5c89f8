//! The steps of the balancer, in their order.
//!
//! Two halves: [`common`] for what nearly every packet is, and [`rare`] for everything else, so that the
//! first stays short.

use flowgate_abi::{
    DropReason,
    lb::{Counter, Frontend, Sources},
};

use super::{
    Action, Balance, Buffer, Request,
    choose::{self, Flow, Missing, Signs},
    find, forward,
    icmp::{self, Answer},
    quic, request, tcp_option,
};
use crate::{
    fragment::{self, Name},
    parse::{Packet, Role},
};

/// Flags of services whose packets [`affine`] has the steps for.
const PARTICULAR: u32 = Frontend::AFFINITY | Frontend::QUIC | Frontend::TCP_OPTION;

/// What [`common`] made of a frame.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Common {
    /// All there is to do.
    Done(Action),
    /// [`rare`] has to look at it.
    Rare,
    /// It is of a service with full NAT, or for a source: [`super::nat::translate`] has the steps.
    Nat,
    /// It is of a service with affinity or server ids, or of a flow that isn't in its first bucket of entries: [`affine`]
    /// has the steps.
    Affine,
}

/// What [`rare`] made of a frame.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rare {
    /// All there is to do.
    Done(Action),
    /// It is an error about a flow with full NAT, or may be: [`super::nat::translate_error`] has the steps.
    NatError,
}

/// The steps for TCP and UDP without options, extension headers, fragments or tags, of services with neither affinity nor
/// server ids: for what was read as [`request::plain`] by whoever looked at the Ethernet header.
#[inline(always)]
pub fn common<F: Answer, B: Buffer, T: Balance>(
    buffer: &mut B,
    request: Option<Request<F>>,
    tables: &T,
) -> Common {
    plain::<F, B, T, false>(buffer, request, tables)
}

/// The steps for such a packet of a service with affinity or server ids, or of a flow whose entry may lie elsewhere. Apart, since such calls would
/// cost the common steps their registers: a tenth of an established packet's time.
#[inline(always)]
pub fn affine<F: Answer, B: Buffer, T: Balance>(buffer: &mut B, tables: &T) -> Action {
    let request = request::plain(buffer);
    match plain::<F, B, T, true>(buffer, request, tables) {
        Common::Done(action) => action,
        // The service has become another one since the common steps.
        Common::Rare | Common::Nat | Common::Affine => {
            tables.count_drop(DropReason::NoBackend, buffer.length());
            Action::Drop(DropReason::NoBackend)
        }
    }
}

#[inline(always)]
fn plain<F: Answer, B: Buffer, T: Balance, const CALLS: bool>(
    buffer: &mut B,
    request: Option<Request<F>>,
    tables: &T,
) -> Common {
    let Some(mut request) = request else { return Common::Rare };
    let Some(frontend) = find::find::<F, T>(tables, &request.target()) else {
        return Common::Done(Action::Pass);
    };
    let flags = frontend.flags.load();
    let nat = Frontend::SNAT | Frontend::SOURCE;
    let apart = if CALLS { nat } else { nat | PARTICULAR };
    if flags & apart != 0 {
        return if flags & nat != 0 { Common::Nat } else { Common::Affine };
    }
    // VERIFIER: UDP's are known to be 0, and everything behind would be verified for them alone.
    let flags = tables.forget(u32::from(request.tcp_flags), u64::from(request.length));
    request.tcp_flags = flags as u8;
    let balanced = match plain_read::<F, B, T, CALLS>(buffer, &request, frontend, tables) {
        Ok(action) => Ok(action),
        Err(Undone::Dropped(reason)) => Err(reason),
        Err(Undone::Calls) => return Common::Affine,
    };
    Common::Done(finish(tables, &request, balanced))
}

/// Why a packet wasn't sent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Undone {
    Dropped(DropReason),
    /// Without calls it can't be ([`choose::Missing::Calls`]).
    Calls,
}

impl From<DropReason> for Undone {
    #[inline(always)]
    fn from(reason: DropReason) -> Self {
        Self::Dropped(reason)
    }
}

impl From<Missing> for Undone {
    #[inline(always)]
    fn from(missing: Missing) -> Self {
        match missing {
            Missing::Backend => Self::Dropped(DropReason::NoBackend),
            Missing::Calls => Self::Calls,
        }
    }
}

impl Undone {
    /// Why it was dropped by whoever has calls.
    #[inline(always)]
    fn reason(self) -> DropReason {
        match self {
            Self::Dropped(reason) => reason,
            Self::Calls => DropReason::NoBackend,
        }
    }
}

/// Such a packet, read.
#[inline(always)]
fn plain_read<F: Answer, B: Buffer, T: Balance, const CALLS: bool>(
    buffer: &mut B,
    request: &Request<F>,
    frontend: &Frontend,
    tables: &T,
) -> Result<Action, Undone> {
    admit(request, frontend, tables)?;
    let mut signs = Signs::of(request);
    if CALLS {
        signs.named = named(buffer, (request, frontend), tables);
    }
    balance::<F, B, T, CALLS>(buffer, request, (frontend, signs), tables)
}

/// The number of the backend that such a packet names itself; [`flowgate_abi::lb::NOBODY`]: none.
#[inline(always)]
fn named<F: Answer, B: Buffer, T: Balance>(
    buffer: &B,
    (request, frontend): (&Request<F>, &Frontend),
    tables: &T,
) -> u32 {
    if frontend.flags.load() & Frontend::TCP_OPTION != 0 {
        return tcp_option::named(buffer, (request, frontend), tables);
    }
    quic::named::<F, B, T>(buffer, frontend, tables)
}

/// The steps for any other packet.
#[inline(always)]
pub fn rare<F: Answer, B: Buffer, T: Balance>(buffer: &mut B, tables: &T) -> Rare {
    let mut request = Request::<F>::unread();
    let mut cursor = buffer.whole();
    let network = request::network(buffer, &mut cursor, &mut request);
    // What can't be read so far has no destination, or one that was read.
    let Some(address) = find::exact::<F, T>(tables, &request.target().of_address()) else {
        return Rare::Done(Action::Pass);
    };
    if address.flags.load() & Frontend::SOURCE != 0 {
        let is_message = network.is_ok() && request.tuple.protocol == F::ICMP;
        return if is_message { Rare::NatError } else { Rare::Done(Action::Pass) };
    }
    let read = match network {
        Ok(()) if request.place.is_later() => recall(tables, &mut request),
        Ok(()) => request::transport(&mut cursor, &mut request),
        Err(reason) => Err(reason),
    };
    drop(cursor);
    let result = match read {
        Ok(()) => rare_read(buffer, &request, tables),
        Err(reason) => Err(reason),
    };
    match result {
        Ok(made) => made,
        Err(reason) => Rare::Done(finish(tables, &request, Err(reason))),
    }
}

/// A rare packet that was read as far as it has to be.
#[inline(always)]
fn rare_read<F: Answer, B: Buffer, T: Balance>(
    buffer: &mut B,
    request: &Request<F>,
    tables: &T,
) -> Result<Rare, DropReason> {
    if request.tuple.protocol == F::ICMP && request.role != Role::Error {
        return echo(buffer, request, tables).map(Rare::Done);
    }
    let Some(frontend) = find::find::<F, T>(tables, &request.target()) else {
        return match request.role {
            Role::Error => Err(DropReason::UnrelatedIcmpError),
            _ => Ok(Rare::Done(Action::Pass)),
        };
    };
    if frontend.flags.load() & Frontend::SNAT != 0 {
        return match (request.place.place, request.role) {
            (0, Role::Error) => Ok(Rare::NatError),
            (0, _) => Err(DropReason::UnsupportedByNat),
            _ => Err(DropReason::UnsupportedFragment),
        };
    }
    if request.place.place != 0 {
        fragmented(tables, request, frontend)?;
    }
    let mut signs = Signs::of(request);
    if request.role == Role::Error {
        signs = Signs { about: true, ..Signs::default() };
        tables.count(Counter::ErrorsSteered);
    }
    admit(request, frontend, tables)?;
    let balanced = balance::<F, B, T, true>(buffer, request, (frontend, signs), tables);
    balanced.map(Rare::Done).map_err(Undone::reason)
}

/// Chooses the backend of a packet that its service takes, and sends it on; `CALLS`: see [`choose::choose`].
#[inline(always)]
fn balance<F: Answer, B: Buffer, T: Balance, const CALLS: bool>(
    buffer: &mut B,
    request: &Request<F>,
    (frontend, signs): (&Frontend, Signs),
    tables: &T,
) -> Result<Action, Undone> {
    let flow = Flow::of::<F>(frontend, &request.tuple);
    let chosen = choose::choose::<T, CALLS>(tables, frontend, &flow, signs)?;
    if request.length > chosen.tail.room() {
        // No error about an error, nor about a fragment that isn't the first (RFC 1122, section 3.2.2).
        if signs.about || request.place.is_later() {
            return Err(DropReason::TooBig.into());
        }
        icmp::too_big(buffer, request, tables, chosen.tail.room())?;
        tables.count(Counter::TooBigAnswered);
        return Ok(Action::Transmit);
    }
    if request.hops <= 1 {
        return Err(DropReason::HopsExceeded.into());
    }
    tables.count_load(chosen.line, request.length, signs.opens, chosen.tracked);
    forward::forward(buffer, request, (chosen.backend, chosen.tail), flow.hash)?;
    Ok(Action::Transmit)
}

/// A service may not take every client. It is the flow's that is asked about, whoever sends an error about it.
#[inline(always)]
pub(super) fn admit<F: Answer, T: Balance>(
    request: &Request<F>,
    frontend: &Frontend,
    tables: &T,
) -> Result<(), DropReason> {
    let sources = Sources(frontend.sources.load());
    let client = &request.tuple.source;
    if sources != Sources::default()
        && tables.refuses(sources, [F::bits(client, 0), F::bits(client, 64)])
    {
        return Err(DropReason::SourceRefused);
    }
    Ok(())
}

/// An ICMP message that is no error.
#[inline(always)]
fn echo<F: Answer, B: Buffer, T: Balance>(
    buffer: &mut B,
    request: &Request<F>,
    tables: &T,
) -> Result<Action, DropReason> {
    if request.role.stays_on_link() {
        return Ok(Action::Pass);
    }
    if request.place.place != 0 {
        return Err(DropReason::UnsupportedFragment);
    }
    let is_echo = request.role == Role::Any && request.tuple.icmp_type == F::ECHO[0];
    if !is_echo || !request.bare {
        return Err(DropReason::UnsupportedProtocol);
    }
    icmp::echo(buffer, request)?;
    tables.count(Counter::EchoesAnswered);
    Ok(Action::Transmit)
}

/// Gives a later fragment the ports of its datagram's first.
#[inline(always)]
fn recall<F: Answer, T: Balance>(tables: &T, request: &mut Request<F>) -> Result<(), DropReason> {
    let name = name(tables, request);
    let mut packet = Packet::<F>::unread();
    packet.tuple = request.tuple;
    fragment::recall(tables, &name, &mut packet)?;
    request.tuple = packet.tuple;
    tables.count(Counter::FragmentsFollowed);
    Ok(())
}

/// A fragment passes if its service tracks them; a first one is remembered.
#[inline(always)]
fn fragmented<F: Answer, T: Balance>(
    tables: &T,
    request: &Request<F>,
    frontend: &Frontend,
) -> Result<(), DropReason> {
    if frontend.flags.load() & Frontend::FRAGMENTS == 0 {
        return Err(DropReason::UnsupportedFragment);
    }
    if request.place.is_later() {
        return Ok(());
    }
    let mut packet = Packet::<F>::unread();
    packet.tuple = request.tuple;
    fragment::remember(tables, &name(tables, request), &packet, 0)
}

#[inline(always)]
fn name<F: Answer, T: Balance>(tables: &T, request: &Request<F>) -> Name {
    Name::at::<F, T>(tables, 0, (request.tuple.source, request.receiver), request.place)
}

/// Counts a drop.
#[inline(always)]
pub(super) fn finish<F: Answer, T: Balance>(
    tables: &T,
    request: &Request<F>,
    result: Result<Action, DropReason>,
) -> Action {
    match result {
        Ok(action) => action,
        Err(reason) => {
            tables.count_drop(reason, request.length);
            Action::Drop(reason)
        }
    }
}
