//! The decapsulator's programs in the running kernel, beside the host's.
//!
//! Privileged: without the capabilities, each test says so in one line and compares the host alone.
//! `FLOWGATE_OBJECT` names another object, `FLOWGATE_CORPUS` how many frames are compared.

mod agreement;
mod by_hand;
mod from_balancer;
mod oracle;
mod rig;
