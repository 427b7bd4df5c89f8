//! Packets from files and texts: pcap, pcapng and hexadecimal digits; and pcapng to write.
//!
//! [`frames`] takes whatever it is given and knows its kind by its first bytes. Not here: what becomes of
//! the packets.
//!
//! Invariant: what is read is bounded by what is given: no length in a file makes memory grow, and a
//! wrong one is an error that names its place. Tested by files written by hand; fuzzed as `capture`.

mod cursor;
mod error;
pub mod hex;
mod pcap;
mod pcapng;
pub mod write;

pub use error::CaptureError;

/// A frame: an Ethernet header and what follows, without the checksum at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its bytes, as many as were kept.
    pub bytes: Vec<u8>,
    /// How many it had on the wire.
    pub length: usize,
}

impl Frame {
    /// A frame of which everything is there.
    #[must_use]
    pub fn whole(bytes: Vec<u8>) -> Self {
        Self { length: bytes.len(), bytes }
    }

    /// Whether the capture kept all of it.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.bytes.len() == self.length
    }
}

/// Longer frames don't exist: an IP packet, an Ethernet header and some tags.
pub const LONGEST_FRAME: usize = 65_535 + 64;

/// The frames of a file: pcap, pcapng, or text in which each line is one frame in hexadecimal digits.
///
/// # Errors
///
/// [`CaptureError`] if it is none of these, is cut off, or isn't of Ethernet.
pub fn frames(file: &[u8]) -> Result<Vec<Frame>, CaptureError> {
    match file.first_chunk() {
        Some(magic) if pcap::is_magic(*magic) => pcap::frames(file),
        Some(magic) if *magic == pcapng::MAGIC => pcapng::frames(file),
        _ => hex::frames(file),
    }
}
