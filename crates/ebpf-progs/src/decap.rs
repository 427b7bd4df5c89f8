//! The backends' object.

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

/// All programs of the object.
pub const PROGRAMS: [&str; 2] = [XDP_DECAPSULATE, TC_DECAPSULATE];
