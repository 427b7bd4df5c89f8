//! The load balancer's object.

use crate::Aligned;

/// The object with its programs and maps.
///
/// Aligned to 8 bytes, as ELF parsers want it.
pub const OBJECT: &[u8] = &Aligned::new(include_bytes!("../objects/lb/lb.o")).0;

/// What the object was built from and what is in it: JSON.
pub const MANIFEST: &str = include_str!("../objects/lb/manifest.json");

/// Balances what comes in by an interface.
pub const XDP_BALANCE: &str = "xdp_balance";
/// Does nothing: the baseline of benchmarks.
pub const XDP_EMPTY: &str = "xdp_empty";

/// All programs of the object.
pub const PROGRAMS: [&str; 2] = [XDP_BALANCE, XDP_EMPTY];
