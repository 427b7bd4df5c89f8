//! Both ends of a connection whose segments name the server, so that a balancer finds it whatever becomes of its tables
//! ([`flowgate_services::model::ServiceOptions::tcp_option`]).
//!
//! [`ServerId::builder`] makes the decisions (who announces which id, who repeats what was announced),
//! [`Builder::attach`] binds them to the sockets of a control group. It ends when the [`ServerId`] is dropped.
//!
//! A server announces its id in an option of each SYN-ACK. A client that has this program, too, finds it there, and repeats
//! it in an option of every segment from then on, the one that answers the SYN-ACK first. A client without it doesn't know
//! of the option and says nothing: its connections are balanced as those of any service.
//!
//! - **Order.** Sockets that listen announce the id if they began to listen after it was attached, connections repeat it if
//!   they were opened after. Whatever was there before goes on as it was.
//! - **Room.** The option takes 8 of the 40 octets that a header has for options. With time stamps (12) and three blocks of
//!   selective acknowledgements (28) there is none: such a segment goes without, and is counted ([`Counter::NoRoom`]).
//!   Segments of payload get 8 octets shorter.
//! - **Without a socket.** What the kernel sends when the socket is gone has no option: resets to strangers, and
//!   acknowledgements in TIME-WAIT.
//! - **When it ends**, clients' connections go on without the option, and so by the balancer's table.
//!
//! Minimum kernel: 6.1. Capabilities: `CAP_BPF`, `CAP_NET_ADMIN` and `CAP_PERFMON`. Nothing is pinned.
//!
//! Not here: who reads the option ([`crate::lb`]).
//!
//! ```no_run
//! use flowgate_datapath::server_id::{Counter, ServerId};
//!
//! // Before the server begins to listen.
//! let named = ServerId::builder().server(11).attach("/sys/fs/cgroup/system.slice/web.service")?;
//! println!("{} connections were told", named.count(Counter::Announced)?);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod error;

use std::path::{Path, PathBuf};

pub use flowgate_abi::server_id::Counter;
use flowgate_abi::server_id::Settings;
use flowgate_services::TcpServers;

pub use error::ServerIdError;

use crate::{
    error::{OpenError, TableError},
    sys::{probe, server_id::Attached},
    verification::Verification,
};

/// The kinds of the options; those of Katran's programs, if nothing is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kinds {
    /// By which servers announce their ids.
    pub announced: u8,
    /// By which clients repeat them: what balancers read ([`TcpServers::kind`]).
    pub repeated: u8,
}

impl Default for Kinds {
    fn default() -> Self {
        Self { announced: 0xb6, repeated: TcpServers::default().kind }
    }
}

/// Who announces and who repeats.
#[must_use]
#[derive(Clone, Copy, Debug, Default)]
pub struct Builder {
    server: Option<u32>,
    client: bool,
    kinds: Kinds,
}

impl Builder {
    /// Whoever listens announces this id: the backend's ([`flowgate_services::model::Backend::server_id`]).
    pub const fn server(mut self, id: u32) -> Self {
        self.server = Some(id);
        self
    }

    /// Whoever connects repeats the id that the other end announces.
    pub const fn client(mut self) -> Self {
        self.client = true;
        self
    }

    /// By options of other kinds, at both ends and at the balancers.
    pub const fn kinds(mut self, kinds: Kinds) -> Self {
        self.kinds = kinds;
        self
    }

    /// Binds it to a control group, by its directory in a file system of cgroup v2: to the sockets that processes
    /// make while they are in it, or below it. Others' programs may be there, too.
    ///
    /// # Errors
    /// See [`ServerIdError`]; nothing is left behind.
    pub fn attach(self, cgroup: impl AsRef<Path>) -> Result<ServerId, ServerIdError> {
        let settings = self.settings()?;
        let _ = probe::probe(probe::MINIMUM)?;
        let cgroup = cgroup.as_ref();
        let refused = |source| ServerIdError::Refused { cgroup: cgroup.to_owned(), source };
        let directory = std::fs::File::open(cgroup)
            .map_err(|source| ServerIdError::Unreadable { cgroup: cgroup.to_owned(), source })?;
        let mut attached = Attached::load(&settings)?;
        attached.attach(&directory).map_err(refused)?;
        Ok(ServerId { attached, cgroup: cgroup.to_owned() })
    }

    /// Has the running kernel's verifier judge the program, and keeps nothing of it; see [`crate::Builder::verify`].
    ///
    /// # Errors
    /// As [`Builder::attach`] has; a program that the kernel refuses is no error.
    pub fn verify(&self) -> Result<Vec<Verification>, ServerIdError> {
        let settings = self.settings()?;
        let _ = probe::permitted()?;
        Ok(Attached::verify(&settings)?)
    }

    fn settings(self) -> Result<Settings, ServerIdError> {
        let Kinds { announced, repeated } = self.kinds;
        if let Some(kind) =
            [announced, repeated].into_iter().find(|kind| !TcpServers::is_kind(*kind))
        {
            return Err(ServerIdError::Kind { kind });
        }
        let server = if self.server.is_some() { Settings::SERVER } else { 0 };
        let client = if self.client { Settings::CLIENT } else { 0 };
        match server | client {
            0 => Err(ServerIdError::NoRole),
            roles => {
                let id = self.server.unwrap_or_default();
                Ok(Settings { id, roles, announced, repeated, padding: 0 })
            }
        }
    }
}

/// A control group whose sockets name servers, until this is dropped.
#[derive(Debug)]
pub struct ServerId {
    attached: Attached,
    cgroup: PathBuf,
}

impl ServerId {
    /// The decisions before it is attached.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The control group.
    #[must_use]
    pub fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// How often something has happened since it was attached.
    ///
    /// # Errors
    /// The kernel doesn't tell.
    pub fn count(&self, counter: Counter) -> Result<u64, TableError> {
        self.attached.counted(counter).map_err(TableError)
    }
}

impl From<OpenError> for ServerIdError {
    fn from(error: OpenError) -> Self {
        Self::Open(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_and_kinds_are_checked_before_anything_is_made() {
        let refused = |builder: Builder| builder.settings().expect_err("it says nothing good");
        assert!(matches!(refused(ServerId::builder()), ServerIdError::NoRole));
        for kind in [0, 8, 34, 69, 253, 254, 255] {
            for kinds in [
                Kinds { announced: kind, ..Kinds::default() },
                Kinds { repeated: kind, ..Kinds::default() },
            ] {
                let error = refused(ServerId::builder().client().kinds(kinds));
                assert!(matches!(error, ServerIdError::Kind { kind: wrong } if wrong == kind));
            }
        }
        let both = ServerId::builder().server(0x102).client().settings().expect("good");
        let (id, roles) = (0x102, Settings::SERVER | Settings::CLIENT);
        assert_eq!(both, Settings { id, roles, announced: 0xb6, repeated: 0xb7, padding: 0 });
    }
}
