//! Two policy sets of which no mixture goes unseen, and tables that are such a mixture.
//!
//! A packet that met the port classes of one generation and the peers of another would be decided about
//! by neither. That no packet does is shown by [`Pair`]: in each of its sets every cell of the tables has a cookie
//! of its own, and both sets number everything in another way, so that whatever is read from the wrong
//! one leads to a verdict, cookie or reason that neither set gives. [`Mixed`] mixes them on purpose, part
//! by part: a check that doesn't notice it is none.
//!
//! Not here: running packets while sets are exchanged (`kernel_mixtures` of the benches).
//! Tested by `every_mixture_of_the_two_sets_shows` in `crates/policy/tests/mixtures.rs`.

mod sets;
mod tables;

pub use sets::{Pair, Probe};
pub use tables::{Mixed, Part, Parts};
