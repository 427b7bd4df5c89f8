//! What becomes of a frame, without a wire.

use flowgate_abi::DropReason;
use flowgate_pipeline::lb::Action;

/// What became of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Balanced {
    /// What happens to it.
    pub fate: Fate,
    /// The frame as it goes on.
    pub frame: Vec<u8>,
}

/// What happens to a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// On to the host's stack: no service has it.
    Pass,
    /// Out of the interface by which it came: to a backend, or as an answer to who sent it.
    Transmit,
    /// Dropped. The kernel doesn't say for what reason; its counters do.
    Drop(Option<DropReason>),
}

impl Fate {
    pub(crate) const fn of(action: Action) -> Self {
        match action {
            Action::Pass => Self::Pass,
            Action::Transmit => Self::Transmit,
            Action::Drop(reason) => Self::Drop(Some(reason)),
        }
    }

    /// `XDP_DROP` is 1, `XDP_PASS` 2, `XDP_TX` 3 (`include/uapi/linux/bpf.h`).
    pub(crate) const fn from_kernel(action: u32) -> Self {
        match action {
            2 => Self::Pass,
            3 => Self::Transmit,
            _ => Self::Drop(None),
        }
    }
}
