//! Any bytes as a walk: packets of a few connections both ways, with time passing and rules changing
//! between them. What passes and what is tracked is what the reference model says.

use std::cell::RefCell;

use flowgate_conformance::walk::{Rig, Walk};

thread_local! {
    static RIG: RefCell<Rig> = RefCell::new(Rig::new());
}

/// Takes one input.
pub fn run(bytes: &[u8]) {
    RIG.with_borrow_mut(|rig| {
        let walk = Walk::read(bytes, rig.timeouts());
        if let Err(divergence) = rig.walk(&walk) {
            panic!("{divergence}\n{walk}");
        }
    });
}
