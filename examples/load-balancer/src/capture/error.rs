//! What is wrong with a capture.

use thiserror::Error;

/// Why a capture can't be read.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CaptureError {
    /// It ends too early.
    #[error("byte {at}: the file ends in the middle of {what}")]
    CutOff {
        /// Where that begins.
        at: usize,
        /// What isn't whole.
        what: &'static str,
    },
    /// A length that can't be.
    #[error("byte {at}: {what} of {length} bytes")]
    Length {
        /// Where it is.
        at: usize,
        /// What has this length.
        what: &'static str,
        /// The length.
        length: usize,
    },
    /// Packets of another kind of link.
    #[error("byte {at}: packets of link type {link_type}, which isn't Ethernet (1)")]
    LinkType {
        /// Where it is.
        at: usize,
        /// The kind (`LINKTYPE_`).
        link_type: u32,
    },
    /// A packet of an interface that wasn't described.
    #[error("byte {at}: a packet of interface {number}, which the file doesn't describe")]
    UnknownInterface {
        /// Where it is.
        at: usize,
        /// Its number.
        number: u32,
    },
    /// What should be text isn't.
    #[error("neither pcap nor pcapng nor text")]
    NotText,
    /// A line isn't hexadecimal digits, or an odd number of them.
    #[error(
        "line {line}: neither pcap nor pcapng, and as text: write two hexadecimal digits for each byte"
    )]
    NotHex {
        /// The line, counted from 1.
        line: usize,
    },
}
