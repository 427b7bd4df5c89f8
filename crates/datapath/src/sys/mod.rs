//! Everything that touches the kernel: system calls, mapped memory, netlink, aya.
//!
//! Unsafe code is allowed in [`syscall`] and [`mapped`] alone. No type of aya leaves this module.

pub(crate) mod attach;
pub(crate) mod carry;
pub(crate) mod decap;
pub(crate) mod health;
pub(crate) mod kernel;
pub(crate) mod lb;
pub(crate) mod link;
mod mapped;
pub(crate) mod object;
pub(crate) mod probe;
pub(crate) mod server_id;
mod store;
#[allow(unsafe_code)]
mod syscall;
mod tc;
pub(crate) mod verify;
