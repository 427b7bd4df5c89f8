//! What can go wrong, and what to do about it.

use std::{io, path::PathBuf};

use thiserror::Error;

use crate::error::OpenError;

/// Why a control group's sockets can't name servers.
#[non_exhaustive]
#[derive(Debug, Error)]
pub enum ServerIdError {
    /// Neither end was asked for.
    #[error("nobody would say anything: name this host's server id, or be a client")]
    NoRole,
    /// The kind means something else.
    #[error("option kind {kind} is taken: 35 to 252 are free, but for 69, 172 and 174")]
    Kind {
        /// Which.
        kind: u8,
    },
    /// The control group's directory can't be opened.
    #[error("{cgroup}: {source}", cgroup = cgroup.display())]
    Unreadable {
        /// The directory.
        cgroup: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The kernel didn't attach the program.
    #[error("{cgroup}: the program couldn't be attached: {source}; is that a directory in a file system of cgroup v2?", cgroup = cgroup.display())]
    Refused {
        /// The directory.
        cgroup: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The program couldn't be loaded.
    #[error(transparent)]
    Open(OpenError),
}
