//! The generator as proptest strategies, so that a failure shrinks.
//!
//! A strategy draws the choices themselves; fewer and smaller choices give a smaller case.

use flowgate_policy::outcome::Flow;
use proptest::{collection::vec, prelude::*};

use crate::generate::{Case, Generator};

/// The choices that a case takes, and then some.
const CHOICES: usize = 600;

/// Generators that replay drawn choices.
pub fn generators() -> impl Strategy<Value = Generator> {
    vec(any::<u32>(), 0..CHOICES).prop_map(Generator::replay)
}

/// Cases.
pub fn cases() -> impl Strategy<Value = Case> {
    generators().prop_map(|mut generator| generator.case())
}

/// Cases with `flows` flows each.
pub fn cases_with_flows(flows: usize) -> impl Strategy<Value = (Case, Vec<Flow>)> {
    (cases(), any::<u64>()).prop_map(move |(case, seed)| {
        let mut generator = Generator::new(seed);
        let flows = (0..flows).map(|_| generator.flow(&case)).collect();
        (case, flows)
    })
}
