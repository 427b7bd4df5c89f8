//! The load balancer's program in the running kernel, beside the host's.
//!
//! Privileged: without the capabilities, each test says so in one line and is skipped. `FLOWGATE_OBJECT`
//! names another object, `FLOWGATE_CORPUS` how many frames are compared.

mod agreement;
mod by_hand;
mod naming;
mod nat;
mod oracle;
mod outer;
mod quic;
mod reading;
mod rig;
mod tcp_option;
