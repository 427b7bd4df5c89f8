//! Typed services, and their backends.
//!
//! [`model`] says what a service is: addresses that clients know, a protocol and a port, and the
//! backends among which its flows are spread. [`Services`] is a set of them that contradicts itself
//! nowhere.
//!
//! Not here: kernels and maps (`flowgate-datapath`), health checks, configuration files, and any I/O.
#![forbid(unsafe_code)]

mod error;
pub mod model;
mod services;
mod table_size;

pub use error::ServiceError;
pub use services::Services;
pub use table_size::TableSize;
