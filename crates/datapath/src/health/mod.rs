//! A balancer's own checks on the way that clients' packets take: to the service's address, in the backend's
//! tunnel, so that a backend whose tunnel or whose service's address is broken fails them.
//!
//! [`Tunnels::open`] loads two TC programs, [`Tunnels::attach`] binds them to the interfaces by which packets go
//! to backends. A check then is an ordinary connection to the backend's own address from a port of its own:
//! bind the socket, have [`Checks::begin`] say what its packets go through, connect, and ask
//! [`UnderWay::sent`] in the end whether any went there. The host finds the way to the backend; the programs make
//! the service's address of the backend's and put the packet into the tunnel, and do the reverse to what the
//! service answers. So it doesn't matter where the host would send packets for the service's address, nor
//! whether it has that address itself.
//!
//! A check's packet that can't go its way (too big, or not TCP or UDP without options) is dropped. What is no
//! check's passes unchanged. Not here: asking, and what answers mean; checks of backends that get packets
//! as they are or by full NAT, which need none of it.
//!
//! Minimum kernel: 6.1. Capabilities: `CAP_BPF`, `CAP_NET_ADMIN` and `CAP_PERFMON`. Nothing is pinned, and all of it
//! goes with [`Tunnels`]; a clsact filter (before Linux 6.6) stays if the process is killed, without effect,
//! until it is replaced by the next one.

mod check;
mod error;
mod tunnels;

pub use check::{Check, Checks, UnderWay};
pub use error::{AttachError, CheckError};
pub use tunnels::Tunnels;
