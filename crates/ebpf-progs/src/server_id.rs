//! The object of both ends of TCP connections whose segments name the server.

use crate::Aligned;

/// The object with its program and maps.
///
/// Aligned to 8 bytes, as ELF parsers want it.
pub const OBJECT: &[u8] = &Aligned::new(include_bytes!("../objects/server-id/server_id.o")).0;

/// What the object was built from and what is in it: JSON.
pub const MANIFEST: &str = include_str!("../objects/server-id/manifest.json");

/// Announces a server's id, and repeats it; on the sockets of a control group.
pub const SOCK_SERVER_ID: &str = "sock_server_id";

/// All programs of the object.
pub const PROGRAMS: [&str; 1] = [SOCK_SERVER_ID];
