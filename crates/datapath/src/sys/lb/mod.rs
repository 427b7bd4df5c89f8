//! The balancer's side of the kernel: its object loaded, its maps as tables, its program to attach.

mod attach;
mod kernel;
mod store;
mod verify;

pub(crate) use attach::Attachment;
pub(crate) use kernel::BalancerTables;
pub(crate) use verify::verify;
