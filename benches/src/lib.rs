//! Benchmarks of flowgate: what they measure, and what they share.
//!
//! | command | what |
//! |---|---|
//! | `cargo bench -p flowgate-benches` | host code |
//! | `cargo run --release -p flowgate-benches --bin kernel` | the loaded programs, by kind of packet |
//! | `... --bin ablation` | pieces of the programs, after `cargo xtask ablate` |
//! | `... --bin wire` | whole ways from pod to pod |
//! | `... --bin attach` | attaching and detaching endpoints |
//! | `... --bin memory` | what the maps take |
//! | `... --bin scale` | what size costs |
//! | `... --bin lb` | the load balancer: kinds of packets, stages, a wire, size |
//! | `... --bin katran` | the same packets to the load balancer and to Katran, of which it needs the objects |
//! | `... --bin networks` | new flows among many networks, beside other schemes |
//!
//! All but the first need root; they work in network namespaces of their own, and where they can't,
//! they print `SKIPPED` and why. Not here: a claim about what is fast enough; `docs/measurements.md`
//! has the figures.

pub mod balanced_rows;
pub mod balancing;
pub mod bouncing;
pub mod course;
pub mod cpus;
pub mod ending;
pub mod katran;
pub mod live;
pub mod manifests;
pub mod packets;
pub mod rig;
pub mod sampling;
pub mod spread;
pub mod way;
