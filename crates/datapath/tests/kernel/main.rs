//! The loaded programs against the host pipeline and the oracle, by `BPF_PROG_TEST_RUN`.
//!
//! Privileged: without the capabilities, each test says so in one line and is skipped.
//! `FLOWGATE_CORPUS` is the number of cases (default 100,000), `FLOWGATE_OBJECT` another object.

mod addresses;
mod agreement;
mod connections;
mod events;
mod joining;
mod rig;
