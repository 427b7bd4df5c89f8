//! A backend's end of the tunnels: what a balancer has put into IPv4, IPv6 or GUE comes out again, at XDP or at
//! TC.
//!
//! [`Decapsulator::builder`] makes the decisions (which addresses are the tunnels' ends, which are services',
//! who may send), [`Decapsulator::attach`] binds it to an interface. Everything detaches when the decapsulator
//! is dropped, unless it was pinned and [persisted](Decapsulator::persist).
//!
//! What isn't in a tunnel to one of the ends passes unchanged. What is in one either goes on as a packet to a
//! service's address or is dropped by name, so that nobody can inject packets to other addresses of the host.
//! The service's addresses have to be the host's own, on loopback; its answers go to the client directly. No
//! tunnel device is needed, and reverse path filtering may stay on. Congestion met in the tunnel is told to
//! the receiver (RFC 6040). IPv6 extension headers outside pass: balancers send none.
//!
//! Minimum kernel: 6.1. Capabilities: `CAP_BPF`, `CAP_NET_ADMIN` and `CAP_PERFMON`. Of pinned state there are
//! links alone: whoever opens a decapsulator says all of what it takes, and its counters begin at 0.
//!
//! Not here: the balancer ([`crate::lb`]).
//!
//! The host backend needs no privileges and decides by the same code:
//!
//! ```
//! use flowgate_datapath::{Backend, decap::{Decapsulator, Fate, Hook}};
//!
//! let mut decapsulator = Decapsulator::builder()
//!     .backend(Backend::Host)
//!     .tunnel_end("198.18.0.11".parse()?)
//!     .service("198.51.100.1".parse()?)
//!     .balancers("198.18.255.0/24".parse()?)
//!     .open()?;
//! let arp = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 1, 8, 6], &[0; 28]].concat();
//! assert_eq!(decapsulator.replay(Hook::Tc, &arp)?.fate, Fate::Pass);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod attach;
mod builder;
mod decapsulator;
mod ends;
mod error;
mod host;
mod replay;

pub use attach::{Attached, Hook, Way};
pub use builder::Builder;
pub use decapsulator::{Decapsulator, NotPinned, Report, Stats};
pub use ends::ADDRESSES;
pub use error::{AttachError, EndsError, ServicesError};
pub use replay::{Decapsulated, Fate};

pub(crate) use ends::{Ends, target};
