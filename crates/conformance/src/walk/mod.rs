//! Walks: packets of a few connections in both directions, with time passing and rules changing
//! between them, through the host pipeline and through the reference model beside it.
//!
//! Not here: the model ([`crate::connections`]) and the world ([`crate::trio`]). Invariant: bytes
//! always give the same walk, any bytes give one, and a [`Rig`] meets every walk as if it were its
//! first.

mod rig;
mod step;

pub use rig::{Divergence, Rig};
pub use step::{Conversation, Step, Walk};
