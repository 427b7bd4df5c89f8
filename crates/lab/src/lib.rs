//! A node with pods, in network namespaces that an example or a test made itself.
//!
//! [`Node::enter`] moves the calling thread into fresh network and mount namespaces; [`Node::add_pod`]
//! makes a further network namespace, tied to the node by a veth pair and routed there by the
//! node's own stack; a [`Segment`] ties hosts together without a router. [`Pod::run`] runs code in it. [`probe`]
//! and [`Talk`] open connections,
//! [`EchoServers`] answers them, [`Pod::serve_http`] with pages, and a [`Crowd`] is many at once. [`Datagrams`] and [`ByteStream`] are
//! loads in which a lost packet or a cut connection shows. A [`RawSocket`] sends whatever frame it is given. [`ControlGroups`] are for programs that are bound to sockets.
//!
//! Not here: eBPF, policies, and whatever a datapath does with the veth pairs. Linux alone.
//!
//! Invariants: nothing is done before the thread is proven to be in another network namespace than
//! the machine's first process; namespaces are held by file descriptors alone, without names, so
//! they go with the process even if it is killed; the node has no link to the outside.
//! Unsafe code is in `raw.rs` alone. What the lab itself uses is from 198.18.0.0/15 and link-local.
//!
//! Tested with real sockets in `tests/netns.rs`, which needs the privileges that [`available`] names.
//!
//! ```
//! use std::{net::SocketAddr, time::Duration};
//! use flowgate_lab::{Answer, Node, available};
//!
//! if let Err(missing) = available() {
//!     println!("SKIPPED: {missing}");
//!     return Ok(());
//! }
//! let mut node = Node::enter()?;
//! let client = node.add_pod("client", &["198.18.0.1".parse()?])?;
//! let server = node.add_pod("server", &["198.18.0.2".parse()?])?;
//! let _servers = server.serve(&[80], &[53])?;
//!
//! let web = SocketAddr::new(server.addresses()[0], 80);
//! assert_eq!(client.tcp(web, Duration::from_secs(2))?, Answer::Echoed);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![cfg(target_os = "linux")]

mod availability;
mod byte_stream;
mod control_groups;
mod crowd;
mod datagrams;
mod echo;
mod error;
mod http;
mod mac;
mod namespace;
mod netlink;
mod node;
mod pod;
pub mod probe;
mod raw;
mod running;
mod segment;
mod stack;
mod sysctl;
mod talk;

pub use availability::{Unavailable, available};
pub use byte_stream::ByteStream;
pub use control_groups::ControlGroups;
pub use crowd::Crowd;
pub use datagrams::{Datagrams, Delivered, Pace};
pub use echo::EchoServers;
pub use error::LabError;
pub use mac::Mac;
pub use namespace::Namespace;
pub use node::Node;
pub use pod::Pod;
pub use probe::Answer;
pub use raw::RawSocket;
pub use segment::Segment;
pub use stack::StackCounters;
pub use talk::Talk;
