//! The object of tunnels' other ends: the backends' programs, and those of a balancer's own checks.

use crate::Aligned;

/// The object with its programs and maps.
///
/// Aligned to 8 bytes, as ELF parsers want it.
pub const OBJECT: &[u8] = &Aligned::new(include_bytes!("../objects/decap/decap.o")).0;

/// What the object was built from and what is in it: JSON.
pub const MANIFEST: &str = include_str!("../objects/decap/manifest.json");

/// Takes the outer headers off what comes in by an interface: XDP.
pub const XDP_DECAPSULATE: &str = "xdp_decapsulate";
/// The same at TC ingress.
pub const TC_DECAPSULATE: &str = "tc_decapsulate";
/// Takes checks' packets into the tunnels of those who are checked: TC egress.
pub const TC_PROBE_EGRESS: &str = "tc_probe_egress";
/// Takes the answers back: TC ingress.
pub const TC_PROBE_INGRESS: &str = "tc_probe_ingress";

/// All programs of the object.
pub const PROGRAMS: [&str; 4] =
    [XDP_DECAPSULATE, TC_DECAPSULATE, TC_PROBE_EGRESS, TC_PROBE_INGRESS];
