//! A slot's life: how it gets from one backend to another without any live flow noticing.
//!
//! *Stable* (no bits) -> *announce* (long enough for handshakes under way to get entries; nothing moves yet)
//! -> *move* (what opens goes to the fresh backend, everything else gets an entry, for as long as a live flow
//! may be silent) -> *settle* (the fresh backend is the default now; older flows live by their entries) ->
//! *stable*, once no entry deviates. The stage is in the slot's bits, so whoever finds a table knows where
//! it stands.
//!
//! Not here: time, entries and capacity (`balancer`); what a packet does ([`flowgate_pipeline::lb::choose`]).
//!
//! Invariant: only `settled` makes a slot stable that tracked.

use flowgate_abi::lb::Slot;

/// Where a slot is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// All of its flows have its default backend.
    Stable,
    /// A change is due: flows that open get entries.
    Announce,
    /// Flows that open go to the fresh backend; all others get entries.
    Move,
    /// The default backend is the fresh one; older flows have entries.
    Settle,
}

impl Stage {
    /// Of a slot, by its bits.
    #[must_use]
    pub const fn of(slot: Slot) -> Self {
        if slot.has(Slot::ANNOUNCE) {
            Self::Announce
        } else if slot.has(Slot::ADOPT) {
            Self::Move
        } else if slot.has(Slot::TRACK) {
            Self::Settle
        } else {
            Self::Stable
        }
    }

    const fn bits(self) -> u32 {
        match self {
            Self::Stable => 0,
            Self::Announce => Slot::TRACK | Slot::ANNOUNCE,
            Self::Move => Slot::TRACK | Slot::ADOPT,
            Self::Settle => Slot::TRACK,
        }
    }
}

/// What a change wants of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// The backend that its flows should have.
    pub(crate) target: u32,
    /// Flows of its protocol say when they open.
    pub(crate) opens: bool,
    /// There is room for the entries of one slot more that moves.
    pub(crate) may_begin: bool,
}

const fn made(default: u32, fresh: u32, stage: Stage) -> Slot {
    Slot::new(default, fresh, stage.bits())
}

/// A slot after its target has changed, or backends have gone. One that would have to begin moving, and may
/// not, stays as it is: its target is another one than its fresh backend.
pub(crate) fn changed(slot: Slot, wanted: Wanted, is_gone: impl Fn(u32) -> bool) -> Slot {
    let was_stable = Stage::of(slot) == Stage::Stable;
    let mut next = slot;
    // No choice: at once.
    if is_gone(next.fresh_backend()) {
        next = refreshed(next, wanted.target);
    }
    // Nobody is left to protect under the default.
    if is_gone(next.default_backend()) {
        let stage = if was_stable { Stage::Stable } else { Stage::Settle };
        next = made(next.fresh_backend(), next.fresh_backend(), stage);
    }
    if next.fresh_backend() == wanted.target {
        return next;
    }
    let stage = Stage::of(next);
    let begins = matches!(stage, Stage::Stable | Stage::Settle);
    if stage == Stage::Announce || (begins && !wanted.may_begin) {
        next
    } else if begins && wanted.opens {
        made(next.default_backend(), next.fresh_backend(), Stage::Announce)
    } else {
        refreshed(next, wanted.target)
    }
}

/// A slot whose fresh backend is another one: the default stays, and the clock. A target that returns to
/// the default leaves flows elsewhere, so it settles.
fn refreshed(slot: Slot, target: u32) -> Slot {
    let default = slot.default_backend();
    let stage = match Stage::of(slot) {
        Stage::Stable if target == default => Stage::Stable,
        _ if target == default => Stage::Settle,
        _ => Stage::Move,
    };
    made(default, target, stage)
}

/// A slot that was announced for long enough.
pub(crate) fn announced(slot: Slot, target: u32) -> Slot {
    refreshed(made(slot.default_backend(), slot.fresh_backend(), Stage::Settle), target)
}

/// A slot that has moved for long enough: every live flow has an entry, or the fresh backend.
pub(crate) fn moved(slot: Slot) -> Slot {
    made(slot.fresh_backend(), slot.fresh_backend(), Stage::Settle)
}

/// A slot that moves and has to wait instead, since its flows' entries find no room: what opens gets the
/// default backend again.
pub(crate) fn put_back(slot: Slot) -> Slot {
    made(slot.default_backend(), slot.default_backend(), Stage::Settle)
}

/// A slot of which no live entry deviates from the default.
pub(crate) fn settled(slot: Slot) -> Slot {
    Slot::stable(slot.default_backend())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TCP: Wanted = Wanted { target: 0, opens: true, may_begin: true };

    fn nobody_is_gone(_number: u32) -> bool {
        false
    }

    fn to(target: u32) -> Wanted {
        Wanted { target, ..TCP }
    }

    #[test]
    fn a_slot_is_announced_moves_settles_and_is_stable() {
        let announced_slot = changed(Slot::stable(1), to(2), nobody_is_gone);
        assert_eq!(announced_slot, made(1, 1, Stage::Announce));
        let moving = announced(announced_slot, 2);
        assert_eq!(moving, made(1, 2, Stage::Move));
        assert_eq!(moved(moving), made(2, 2, Stage::Settle));
        assert_eq!(settled(moved(moving)), Slot::stable(2));
    }

    #[test]
    fn what_never_opens_moves_without_announcement() {
        let udp = Wanted { opens: false, ..to(2) };
        assert_eq!(changed(Slot::stable(1), udp, nobody_is_gone), made(1, 2, Stage::Move));
    }

    #[test]
    fn a_later_change_alters_the_fresh_backend_alone() {
        let moving = made(1, 2, Stage::Move);
        assert_eq!(changed(moving, to(3), nobody_is_gone), made(1, 3, Stage::Move));
        let announced = made(1, 1, Stage::Announce);
        assert_eq!(changed(announced, to(3), nobody_is_gone), announced);
    }

    #[test]
    fn a_target_that_returns_to_the_default_settles_and_is_not_stable() {
        assert_eq!(
            changed(made(1, 2, Stage::Move), to(1), nobody_is_gone),
            made(1, 1, Stage::Settle)
        );
        assert_eq!(announced(made(1, 1, Stage::Announce), 1), made(1, 1, Stage::Settle));
    }

    #[test]
    fn slots_of_a_backend_that_is_gone_take_the_target_at_once() {
        let gone = |number| number == 1;
        assert_eq!(changed(Slot::stable(1), to(2), gone), Slot::stable(2));
        assert_eq!(changed(made(1, 3, Stage::Move), to(2), gone), made(3, 3, Stage::Announce));
        assert_eq!(changed(made(3, 1, Stage::Move), to(2), gone), made(3, 2, Stage::Move));
        assert_eq!(changed(made(3, 1, Stage::Move), to(3), gone), made(3, 3, Stage::Settle));
        assert_eq!(changed(made(1, 1, Stage::Announce), to(2), gone), made(2, 2, Stage::Settle));
    }

    #[test]
    fn without_room_a_slot_waits_as_it_is() {
        let wait = Wanted { may_begin: false, ..to(2) };
        assert_eq!(changed(Slot::stable(1), wait, nobody_is_gone), Slot::stable(1));
        assert_eq!(changed(made(1, 3, Stage::Move), wait, nobody_is_gone), made(1, 2, Stage::Move));
        assert_eq!(put_back(made(1, 2, Stage::Move)), made(1, 1, Stage::Settle));
    }
}
