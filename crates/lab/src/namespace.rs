//! Network namespaces, held by a file descriptor.
//!
//! A namespace belongs to a thread, not to the process: [`Namespace::run`] uses a thread of its own,
//! so the caller never has to find its way back.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::MetadataExt,
    },
    panic::resume_unwind,
    thread,
};

use nix::sched::{CloneFlags, setns, unshare};

use crate::LabError;

/// The namespace of the calling thread; `/proc/self` would name that of the first thread.
const OWN: &str = "/proc/thread-self/ns/net";
const OF_THE_MACHINE: &str = "/proc/1/ns/net";

/// A network namespace. It lives as long as this, a thread in it, or a link into it does.
#[derive(Debug)]
pub struct Namespace {
    file: File,
}

impl Namespace {
    /// The namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// [`LabError::Namespace`] without `/proc`.
    pub fn current() -> Result<Self, LabError> {
        let file =
            File::open(OWN).map_err(|source| LabError::Namespace { action: "opened", source })?;
        Ok(Self { file })
    }

    /// Moves the calling thread into a new namespace, and proves that it isn't the machine's.
    pub(crate) fn enter_new() -> Result<Self, LabError> {
        unshare(CloneFlags::CLONE_NEWNET)
            .map_err(|error| LabError::Unshare { kind: "network", source: error.into() })?;
        let own = Self::current()?;
        match own.is_the_machines()? {
            true => Err(LabError::MachineNamespace),
            false => Ok(own),
        }
    }

    /// Moves the calling thread into this namespace, for good.
    ///
    /// # Errors
    ///
    /// [`LabError::Namespace`] without `CAP_SYS_ADMIN`.
    pub fn join(&self) -> Result<(), LabError> {
        setns(&self.file, CloneFlags::CLONE_NEWNET)
            .map_err(|error| LabError::Namespace { action: "entered", source: error.into() })
    }

    /// Runs `work` on a thread in this namespace. Threads that it starts are in it too.
    ///
    /// # Errors
    ///
    /// [`LabError::Thread`] and [`LabError::Namespace`] if there is no such thread.
    ///
    /// # Panics
    ///
    /// As `work` does.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, LabError> {
        on_a_thread(|| self.join().map(|()| work()))?
    }

    /// Another handle for the same namespace.
    pub(crate) fn again(&self) -> Result<Self, LabError> {
        let copy = self.file.try_clone();
        let file = copy.map_err(|source| LabError::Namespace { action: "held", source })?;
        Ok(Self { file })
    }

    /// The inode number by which the kernel tells network namespaces apart.
    ///
    /// # Errors
    ///
    /// [`LabError::Namespace`] if the system doesn't say.
    pub fn inode(&self) -> Result<u64, LabError> {
        let metadata = self.file.metadata();
        metadata.map(|m| m.ino()).map_err(|source| LabError::Namespace { action: "named", source })
    }

    /// The machine's is that of process 1. Who may not look at that process is in a sandbox that
    /// hides the machine; a namespace that was just made is another one in any case.
    fn is_the_machines(&self) -> Result<bool, LabError> {
        match std::fs::metadata(OF_THE_MACHINE) {
            Ok(machine) => Ok(machine.ino() == self.inode()?),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(false),
            Err(source) => Err(LabError::Namespace { action: "compared", source }),
        }
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Runs `work` on a thread of its own, whose namespaces it may change.
pub(crate) fn on_a_thread<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, LabError> {
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .spawn_scoped(scope, work)
            .map_err(|source| LabError::Thread { source })?;
        Ok(thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })
}
