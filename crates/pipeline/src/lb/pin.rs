//! Which backend a client has, of a service with affinity: its pin says.
//!
//! A pin is an entry like a flow's, by the client's address instead of the tuple. It wins over slot and flow as
//! long as its backend is there; a packet that opens a flow gives up one whose backend fails. Whoever has none
//! gets one that names the backend of its packet; where there is no room, the packet goes there without.
//!
//! Not here: who removes pins that were silent for too long (user space).
//!
//! Invariant: a pin comes into a free cell or doesn't come at all; none is evicted.

use flowgate_abi::lb::{Counter, Frontend, Lines, NOBODY, Tail, Tracked};

use super::{
    Balance,
    choose::{Flow, Signs, tail_of},
    tracking::{self, Entries, Pins, Place},
};

/// A client of a service.
///
/// VERIFIER: plain numbers, which a global subprogram takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// The hash of its address.
    pub hash: u64,
    /// The index of its slot among all slots.
    pub slot: u32,
    /// The service's flags.
    pub flags: u32,
    /// Where the service's backends lie.
    pub lines: Lines,
}

impl Client {
    /// Whose flow it is.
    #[inline(always)]
    #[must_use]
    pub fn of(frontend: &Frontend, flow: &Flow) -> Self {
        let (flags, lines) = (frontend.flags.load(), Lines(frontend.lines.load()));
        Self { hash: flow.client, slot: flow.slot, flags, lines }
    }

    #[inline(always)]
    fn place<T: Balance>(&self, tables: &T) -> Place {
        Place::of(self.slot, self.hash, tables.settings().pin_mask)
    }

    /// The age that its pin gets now.
    #[inline(always)]
    fn age<T: Balance>(&self, tables: &T) -> u32 {
        let clock = tables.head().map_or(0, |head| head.clock.load());
        Frontend::pin_age(self.flags, clock)
    }
}

/// The number of the backend that a client has; [`NOBODY`]: none that it can go to.
#[inline(always)]
pub fn pinned<T: Balance>(tables: &T, client: &Client, signs: Signs) -> u32 {
    let place = client.place(tables);
    let Some(first) = Pins::bucket(tables, place.buckets[0]) else { return NOBODY };
    let Some((cell, pin)) = tracking::find::<Pins, T, true>(tables, first, &place) else {
        return NOBODY;
    };
    let tail = tail_of(tables, client.lines, pin.backend());
    if tail.has(Tail::GONE) || (signs.opens && tail.has(Tail::FAILS)) {
        return NOBODY;
    }
    let seen = pin.seen(client.age(tables), false);
    if seen != pin && !signs.about {
        // If somebody else was faster, the client was seen all the same.
        let _ = tables.exchange(cell, pin.0, seen.0);
    }
    pin.backend()
}

/// A client was seen, by a packet for which nobody has to be chosen.
#[inline(always)]
pub fn seen<T: Balance>(tables: &T, frontend: &Frontend, flow: &Flow) {
    if frontend.flags.load() & Frontend::AFFINITY != 0 {
        let _ = tables.pinned(&Client::of(frontend, flow), Signs::default());
    }
}

/// Gives a client that has no pin, or one that it can't use, another one.
#[inline(always)]
pub fn pin<T: Balance>(tables: &T, client: &Client, number: u32) {
    // VERIFIER: one subprogram behind the other, not within it: the stacks of those that call one another add up.
    let left = tables.pin_in_first(client, number);
    if left.is_some_and(|pin| !tracking::lodged::<Pins, T>(tables, &client.place(tables), pin)) {
        tables.count(Counter::PinsRefused);
    }
}

/// The same without the buckets behind its first one: the pin, if that has no room.
#[inline(always)]
pub fn in_first<T: Balance>(tables: &T, client: &Client, number: u32) -> Option<Tracked> {
    let place = client.place(tables);
    let pin = place.name.with(number, client.age(tables));
    let first = Pins::bucket(tables, place.buckets[0])?;
    if let Some((cell, old)) = tracking::find::<Pins, T, true>(tables, first, &place) {
        // If somebody else was faster, the client has what it has.
        let _ = tables.exchange(cell, old.0, old.with(pin.backend(), pin.age()).0);
        return None;
    }
    (!tracking::insert::<Pins, T, false>(tables, first, &place, pin)).then_some(pin)
}
