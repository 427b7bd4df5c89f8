//! The prebuilt eBPF objects: bytes, program names, and the manifest that says where they come
//! from.
//!
//! A dependent needs no eBPF toolchain: the object is in the package. Its sources lie in
//! `programs/`, which builds for BPF alone (`cargo xtask build-ebpf`); `cargo xtask
//! verify-prebuilt` shows that both belong together.
//!
//! The object loads on Linux 6.1 and later (x86-64 and aarch64, little endian) and carries the
//! licence string `Dual MIT/GPL`.
//!
//! ```
//! assert!(flowgate_ebpf_progs::OBJECT.starts_with(b"\x7fELF"));
//! assert!(flowgate_ebpf_progs::MANIFEST.contains(flowgate_ebpf_progs::TC_FROM_ENDPOINT));
//! ```
#![forbid(unsafe_code)]

/// The object with all programs and maps.
///
/// Aligned to 8 bytes, as ELF parsers want it.
pub const OBJECT: &[u8] = &ALIGNED.0;

/// What the object was built from and what is in it: JSON.
pub const MANIFEST: &str = include_str!("../objects/manifest.json");

/// A packet comes from an endpoint: TC ingress of its host side.
pub const TC_FROM_ENDPOINT: &str = "tc_from_endpoint";
/// A packet goes to an endpoint: TC egress of its host side.
pub const TC_TO_ENDPOINT: &str = "tc_to_endpoint";
/// Sweeps one bucket of the flow tables; run by `BPF_PROG_TEST_RUN`.
pub const TC_SWEEP: &str = "tc_sweep";
/// Does nothing: the baseline of benchmarks.
pub const TC_EMPTY: &str = "tc_empty";

/// All programs of the object.
pub const PROGRAMS: [&str; 4] = [TC_FROM_ENDPOINT, TC_TO_ENDPOINT, TC_SWEEP, TC_EMPTY];

const BYTES: &[u8] = include_bytes!("../objects/flowgate.o");

#[repr(C, align(8))]
struct Aligned<T>(T);

static ALIGNED: Aligned<[u8; BYTES.len()]> = {
    let mut bytes = [0; BYTES.len()];
    bytes.copy_from_slice(BYTES);
    Aligned(bytes)
};
