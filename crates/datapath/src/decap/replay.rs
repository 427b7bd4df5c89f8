//! What becomes of a frame, without a wire.

use flowgate_abi::DropReason;
use flowgate_pipeline::decap;

/// What became of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decapsulated {
    /// What happens to it.
    pub fate: Fate,
    /// The frame as it goes on.
    pub frame: Vec<u8>,
}

/// What happens to a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// On to the host's stack, unchanged: it isn't in a tunnel to this backend.
    Pass,
    /// On to the host's stack, without its outer headers.
    Unwrapped,
    /// Dropped. The kernel doesn't say for what reason; its counters do.
    Drop(Option<DropReason>),
}

impl Fate {
    pub(crate) const fn of(fate: decap::Fate) -> Self {
        match fate {
            decap::Fate::Pass => Self::Pass,
            decap::Fate::Unwrapped => Self::Unwrapped,
            decap::Fate::Drop(reason) => Self::Drop(Some(reason)),
        }
    }
}
