//! The balancer's side of the kernel: its object loaded, its maps as tables, its program to attach,
//! with stages in front of it and behind it.

mod attach;
mod chain;
mod dispatcher;
mod hand_on;
mod insn;
mod kernel;
mod nat;
mod sampler;
#[cfg(test)]
mod stack;
mod stage_map;
mod store;
mod verify;

pub(crate) use super::syscall::xdp::program_name;
pub(crate) use attach::{AttachError, Attachment, is_taken};
pub(super) use attach::{attach, forget};
pub(crate) use dispatcher::{components, is_dispatcher};
pub(crate) use kernel::BalancerTables;
pub(crate) use sampler::SampleRing;
pub use stage_map::StageMap;
pub(crate) use verify::verify;
