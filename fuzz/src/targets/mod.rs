//! What is done with an input, a module for each target. libFuzzer's entries in `fuzz_targets` call these, and
//! so does the test `corpora`, which needs no engine.

// A target that panics has found something.
#![allow(clippy::missing_panics_doc)]

pub mod balance;
pub mod capture;
pub mod compile;
pub mod conntrack;
pub mod decapsulate;
pub mod events;
pub mod hooks;
pub mod lb_config;
pub mod manifest;
pub mod parse_frame;
mod wire;
