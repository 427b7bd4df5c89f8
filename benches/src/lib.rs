//! Benchmarks of flowgate: what both of them measure.
//!
//! `cargo bench -p flowgate-benches` measures host code; `cargo run --release -p flowgate-benches
//! --bin kernel` measures the loaded programs, `--bin attach` the attaching of endpoints, both
//! privileged. Not here: a claim about what is fast
//! enough; `docs/measurements.md` has the figures.

pub mod course;
pub mod manifests;
pub mod packets;
pub mod rig;
pub mod sampling;
pub mod spread;
