//! Any bytes as a frame, at both endpoints and both hooks: nothing panics, and whatever becomes of
//! it, everything that must hold of any frame does ([`World::run`]).
#![no_main]

use std::cell::RefCell;

use flowgate_fuzz::{ETHERNET, PLACES, World};
use libfuzzer_sys::{Corpus, fuzz_target};

thread_local! {
    static WORLD: RefCell<World> = RefCell::new(World::new());
}

fuzz_target!(|frame: &[u8]| -> Corpus {
    if frame.len() < ETHERNET {
        return Corpus::Reject;
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
    Corpus::Keep
});
