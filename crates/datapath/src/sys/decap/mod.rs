//! The decapsulator's side of the kernel: its object loaded, its maps written, its programs to attach.

mod attach;
mod kernel;

pub(crate) use attach::Attachment;
pub(crate) use kernel::{KernelEnds, verify};
