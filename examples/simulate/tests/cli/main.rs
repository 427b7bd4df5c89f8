//! The binary, run as a user runs it: answers, formats, mistakes, exit status.
//!
//! Not here: whether the verdicts are right; plan and oracle agree in `flowgate-policy`.

mod commands;
mod ends;
mod errors;
mod families;
mod formats;
mod places;
#[path = "../run/mod.rs"]
mod run;
mod scale;
mod scenarios;
mod without_probes;
