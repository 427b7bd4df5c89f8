//! Which backend a client has, of a service with affinity: its pin says.
//!
//! A pin is an entry like a flow's, by the client's address instead of the tuple. It wins over slot and flow as
//! long as its backend is there; a packet that opens a flow gives up one whose backend fails. Whoever has none
//! gets one that names the backend of its packet; where there is no room, the packet goes there without.
//!
//! Not here: who removes pins that were silent for too long (user space).
//!
//! Invariant: a pin comes into a free cell or doesn't come at all; none is evicted.

use flowgate_abi::lb::{Counter, Frontend, NOBODY, Tail};

use super::{
    Balance,
    choose::{Flow, Signs, tail_of},
    tracking::{self, Pins, Place},
};

/// The number of the backend that a client has; [`NOBODY`]: none that it can go to.
#[inline(always)]
pub fn pinned<T: Balance>(tables: &T, frontend: &Frontend, flow: &Flow, signs: Signs) -> u32 {
    let Some((cell, pin)) = tracking::find::<Pins, T>(tables, &place(tables, flow)) else {
        return NOBODY;
    };
    let tail = tail_of(tables, frontend, pin.backend());
    if tail.has(Tail::GONE) || (signs.opens && tail.has(Tail::FAILS)) {
        return NOBODY;
    }
    let seen = pin.seen(age(tables, frontend), false);
    if seen != pin && !signs.about {
        // If somebody else was faster, the client was seen all the same.
        let _ = tables.exchange(cell, pin.0, seen.0);
    }
    pin.backend()
}

/// Gives a client that has no pin, or one that it can't use, another one.
#[inline(always)]
pub fn pin<T: Balance>(tables: &T, frontend: &Frontend, flow: &Flow, number: u32) {
    let place = place(tables, flow);
    let pin = place.name.with(number, age(tables, frontend));
    if let Some((cell, old)) = tracking::find::<Pins, T>(tables, &place) {
        // If somebody else was faster, the client has what it has.
        let _ = tables.exchange(cell, old.0, pin.0);
    } else if !tracking::insert::<Pins, T>(tables, &place, pin) {
        tables.count(Counter::PinsRefused);
    }
}

#[inline(always)]
fn place<T: Balance>(tables: &T, flow: &Flow) -> Place {
    Place::of(flow.slot, flow.client, tables.settings().pin_mask)
}

/// The age that a pin gets now.
#[inline(always)]
fn age<T: Balance>(tables: &T, frontend: &Frontend) -> u32 {
    let clock = tables.head().map_or(0, |head| head.clock.load());
    Frontend::pin_age(frontend.flags.load(), clock)
}
