//! Any bytes as a frame, at both endpoints and both hooks: nothing panics, and whatever becomes of
//! it, everything that must hold of any frame does ([`World::run`]).

use std::cell::RefCell;

use crate::{ETHERNET, PLACES, World};

thread_local! {
    static WORLD: RefCell<World> = RefCell::new(World::new());
}

/// Takes one input; whether it is worth keeping.
pub fn run(frame: &[u8]) -> bool {
    if frame.len() < ETHERNET {
        return false;
    }
    WORLD.with_borrow_mut(|world| {
        for (hook, party) in PLACES {
            world.begin();
            // A packet that passed finds its flow, one that was dropped left none.
            let first = world.run(frame, hook, party);
            let second = world.run(frame, hook, party);
            assert_eq!(first, second, "the same frame again");
        }
    });
    true
}
