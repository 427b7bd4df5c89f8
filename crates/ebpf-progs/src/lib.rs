//! The prebuilt eBPF objects: bytes, program names, and the manifests that say where they come
//! from. The policy datapath's is here, the load balancer's in [`lb`], that of its backends in [`decap`],
//! what samples the load balancer's frames in [`sampler`], and what names servers in TCP's headers in [`server_id`].
//!
//! A dependent needs no eBPF toolchain: the objects are in the package. Their sources lie in
//! `programs/`, `balancer/`, `decapsulator/`, `sampler/` and `server-id/`, which build for BPF alone (`cargo xtask build-ebpf`);
//! `cargo xtask verify-prebuilt` shows that sources and objects belong together.
//!
//! The objects load on Linux 6.1 and later (x86-64 and aarch64, little endian) and carry the
//! licence string `Dual MIT/GPL`.
//!
//! ```
//! assert!(flowgate_ebpf_progs::OBJECT.starts_with(b"\x7fELF"));
//! assert!(flowgate_ebpf_progs::MANIFEST.contains(flowgate_ebpf_progs::TC_FROM_ENDPOINT));
//! ```
#![forbid(unsafe_code)]

pub mod decap;
pub mod lb;
pub mod sampler;
pub mod server_id;

/// The object with all programs and maps.
///
/// Aligned to 8 bytes, as ELF parsers want it.
pub const OBJECT: &[u8] = &Aligned::new(include_bytes!("../objects/flowgate.o")).0;

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

/// ELF parsers want an object at a multiple of 8.
#[repr(C, align(8))]
struct Aligned<const N: usize>([u8; N]);

impl<const N: usize> Aligned<N> {
    const fn new(bytes: &[u8; N]) -> Self {
        Self(*bytes)
    }
}
