//! The admin API: one JSON object a line, over a Unix socket.
//!
//! A client writes a [`Request`], such as `{"command":"drain","service":"web","backend":"198.18.0.11"}`, and
//! gets a line with `{"ok": ...}` or `{"error": "why"}`. A connection may carry any number of requests.
//! [`answer`] says what is in an answer; what isn't understood is an error, never ignored.
//!
//! Invariant: nobody but root and the balancer's own user is served, whatever the socket's mode.
//! Tested over a real socket in `tests/api.rs`.

pub mod answer;
pub mod client;
mod request;
pub mod server;

use serde::{Deserialize, Serialize};

pub use request::Request;

/// The socket's name in the configured directory.
pub const SOCKET: &str = "api.sock";

/// A line that answers a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reply<T> {
    /// It was done.
    Ok(T),
    /// It wasn't, and nothing has changed.
    Error(String),
}
