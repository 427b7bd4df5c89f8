//! The sampler's object: what runs in front of an interface's programs while frames are sampled.

use crate::Aligned;

/// The object.
///
/// Aligned to 8 bytes, as ELF parsers want it.
pub const OBJECT: &[u8] = &Aligned::new(include_bytes!("../objects/sampler/sampler.o")).0;

/// What the object was built from and what is in it: JSON.
pub const MANIFEST: &str = include_str!("../objects/sampler/manifest.json");

/// Runs what is in the first slot of [`STAGES`], and samples what that has left.
pub const XDP_SAMPLE: &str = "xdp_sample";

/// All programs of the object.
pub const PROGRAMS: [&str; 1] = [XDP_SAMPLE];

/// The ring of samples, each a `flowgate_abi::sample::Sample`.
pub const SAMPLES: &str = "SAMPLES";
/// Samples that there was no room for: one number for each CPU.
pub const LOST: &str = "LOST";
/// An array of programs.
pub const STAGES: &str = "STAGES";

/// All maps of the object.
pub const MAPS: [&str; 3] = [SAMPLES, LOST, STAGES];
