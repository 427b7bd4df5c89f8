//! What can go wrong in the lab.

use std::{io, net::SocketAddr, path::PathBuf};

use thiserror::Error;

/// Why the lab could not do what was asked.
#[non_exhaustive]
#[derive(Debug, Error)]
pub enum LabError {
    /// No namespace could be made: this needs `CAP_SYS_ADMIN`.
    #[error("no {kind} namespace can be made")]
    Unshare {
        /// Which kind of namespace.
        kind: &'static str,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The thread is still in the machine's own network namespace, where nothing is touched.
    #[error("this thread is in the machine's own network namespace: nothing was touched")]
    MachineNamespace,
    /// A namespace could not be named or entered.
    #[error("the network namespace can't be {action}")]
    Namespace {
        /// What was tried.
        action: &'static str,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// A control group can't be made, read or entered.
    #[error("control group {}", .path.display())]
    ControlGroup {
        /// Its directory.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// A mount failed.
    #[error("{what} can't be mounted at {}", .target.display())]
    Mount {
        /// What was to be mounted.
        what: &'static str,
        /// Where.
        target: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// A kernel setting of the namespace can't be written.
    #[error("{path} can't be set to {value:?}")]
    Sysctl {
        /// The setting.
        path: String,
        /// The value.
        value: &'static str,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The kernel refused a netlink request.
    #[error("netlink: {request} failed")]
    Netlink {
        /// What was asked, with its operands.
        request: String,
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
    /// An address that can't be a pod's or a node's.
    #[error("{address} can't be the address of {owner}")]
    Address {
        /// The address.
        address: std::net::IpAddr,
        /// Whose it was to be.
        owner: String,
    },
    /// A server can't listen.
    #[error("{owner} can't listen on {protocol} {address}")]
    Listen {
        /// The pod.
        owner: String,
        /// The protocol.
        protocol: &'static str,
        /// The address and port.
        address: SocketAddr,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// A probe failed in a way that says nothing about the network between.
    #[error("probe to {destination} failed")]
    Probe {
        /// Where to.
        destination: SocketAddr,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Something else than what was sent came back.
    #[error("{destination} answered, but not with what was sent")]
    WrongEcho {
        /// Who answered.
        destination: SocketAddr,
    },
    /// A packet socket failed.
    #[error("a packet socket can't be {action}")]
    Raw {
        /// What was tried.
        action: &'static str,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The counters of a network stack can't be read.
    #[error("{path} can't be read")]
    Counters {
        /// The file.
        path: &'static str,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// No thread could be started.
    #[error("no thread can be started")]
    Thread {
        /// What the system says.
        #[source]
        source: io::Error,
    },
}
