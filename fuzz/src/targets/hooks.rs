//! Any bytes as what happens at both hooks: packets of flows, errors about them, frames of every
//! shape, spoilt or cut, raw bytes; time, sweeps, new generations and endpoints between them.
//! Everything that must hold of any frame holds of each ([`World::run`]).

use std::cell::RefCell;

use crate::{
    World,
    step::{self, Steps},
};
use flowgate_conformance::shapes::Shape;

thread_local! {
    static WORLD: RefCell<World> = RefCell::new(World::new());
    static SHAPES: Vec<Shape> = step::shapes();
}

/// Takes one input.
pub fn run(bytes: &[u8]) {
    WORLD.with_borrow_mut(|world| {
        world.begin();
        SHAPES.with(|shapes| Steps::read(bytes, shapes).for_each(|step| step.take(world)));
    });
}
