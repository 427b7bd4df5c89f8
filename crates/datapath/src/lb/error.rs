//! What can go wrong, and what to do about it.

use std::{io, path::PathBuf};

use thiserror::Error;

use crate::error::{OpenError, TableError};

/// Why the balancer couldn't be bound to an interface. Nothing is left of the attempt.
#[non_exhaustive]
#[derive(Debug, Error)]
pub enum XdpError {
    /// There is no such interface in this thread's network namespace.
    #[error("interface {interface}: {source}")]
    UnknownInterface {
        /// Its name.
        interface: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The balancer is bound to it already.
    #[error("interface {interface} has the balancer already: detach it first")]
    Attached {
        /// Its name.
        interface: String,
    },
    /// The host backend has no programs.
    #[error("the host backend has no programs to attach: open the balancer with Backend::Kernel")]
    NoPrograms,
    /// A program of somebody else's is there.
    #[error(
        "interface {interface} has another XDP program, {program} (id {id}): take it off, or make it a stage of the balancer"
    )]
    Occupied {
        /// Its name.
        interface: String,
        /// The other program's name; empty if it has none.
        program: String,
        /// The kernel's number for it.
        id: u32,
    },
    /// libxdp's dispatcher is there, which runs programs of others, and no place in it was asked for.
    #[error(
        "interface {interface} has libxdp's dispatcher (id {id}), which runs {}: take a place in it (Builder::dispatched), or unload it (xdp-loader unload {interface} --all) and give its programs to the balancer as stages",
        named(programs)
    )]
    Dispatcher {
        /// Its name.
        interface: String,
        /// The programs that the dispatcher runs, in their order; none: they aren't pinned where they usually
        /// are.
        programs: Vec<String>,
        /// The kernel's number for the dispatcher.
        id: u32,
    },
    /// A place in a dispatcher couldn't be taken, or left.
    #[error("interface {interface}: a place in its dispatcher: {source}")]
    Dispatched {
        /// Its name.
        interface: String,
        /// Why.
        source: DispatcherError,
    },
    /// The kernel refused.
    #[error("interface {interface}: the program couldn't be attached: {source}")]
    Refused {
        /// Its name.
        interface: String,
        /// What the kernel said.
        source: io::Error,
    },
}

fn named(programs: &[String]) -> String {
    if programs.is_empty() { "programs of others".to_owned() } else { programs.join(", ") }
}

/// Why a place in a dispatcher couldn't be taken, or left. The interface has the dispatcher that it had.
#[non_exhaustive]
#[derive(Debug, Error)]
pub enum DispatcherError {
    /// It isn't of a version of the protocol that is understood (2 and 3).
    #[error(
        "it is of {}, and 2 and 3 are understood: unload its programs, or join them by what loaded them",
        of_version(*version)
    )]
    Version {
        /// Which; `None`: older, or no dispatcher but by its name.
        version: Option<u8>,
    },
    /// It belongs to a device, as do its programs: they can't stand beside others.
    #[error("it belongs to a device: unload its programs")]
    OfDevice,
    /// It runs as many programs as it can.
    #[error("it runs {most} programs already, which is as many as it can: unload one")]
    Full {
        /// How many it can.
        most: usize,
    },
    /// Others hold the lock.
    #[error("somebody else holds the lock of {path} for seconds: see who (fuser {path}), and try again", path = path.display())]
    Locked {
        /// The directory of the dispatchers' pins.
        path: PathBuf,
    },
    /// Its programs aren't pinned there, or nothing can be.
    #[error("{path}: {source}; is the BPF file system mounted there, and LIBXDP_BPFFS set as for the others?", path = path.display())]
    Pins {
        /// Where.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// An earlier process has the interface alone, by a link whose program no program of a place can follow.
    #[error(
        "the balancer of an earlier process has it alone, and can't move into a dispatcher while it runs: remove its pin, {pin}, which takes it off, and attach again", pin = pin.display()
    )]
    Alone {
        /// The link's pin.
        pin: PathBuf,
    },
    /// The kernel permits no programs in the place of functions.
    #[error("the kernel doesn't permit it (lockdown, or no CAP_BPF and CAP_PERFMON): {source}")]
    NotPermitted {
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel refused one of the programs in the new dispatcher.
    #[error("its program {program} can't stand in a new dispatcher: {source}")]
    Component {
        /// Which.
        program: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// Others changed the interface's program each time.
    #[error("others changed the interface's program meanwhile, again and again: try again")]
    Contended,
    /// The kernel refused.
    #[error(transparent)]
    Kernel(#[from] io::Error),
}

fn of_version(version: Option<u8>) -> String {
    version.map_or_else(|| "an unknown version".to_owned(), |number| format!("version {number}"))
}

/// Why a stage can't be used.
#[non_exhaustive]
#[derive(Debug, Error)]
pub enum StageError {
    /// It is no eBPF object, or the kernel refused one of its maps.
    #[error("its object couldn't be loaded: {source}")]
    Object {
        /// What went wrong.
        source: io::Error,
    },
    /// The object has no such program.
    #[error("its object has no XDP program of that name; it has: {}", programs.join(", "))]
    NoProgram {
        /// The XDP programs that it has.
        programs: Vec<String>,
    },
    /// The kernel refused the program; its verifier says why.
    #[error("the kernel refused its program: {source}\nverifier log:\n{log}")]
    Refused {
        /// What the system call said.
        source: io::Error,
        /// The verifier's log; empty if it was never asked.
        log: String,
    },
    /// The directory of its maps couldn't be made.
    #[error("{path}: {source}; is a BPF file system mounted there? (mount -t bpf bpf /sys/fs/bpf)", path = path.display())]
    Pin {
        /// Which.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// Another stage has this name.
    #[error("two stages have this name: give one of the programs another")]
    Twice,
    /// There are more stages on one side of the balancer than fit.
    #[error("no more than {most} stages fit on one side of the balancer")]
    TooMany {
        /// How many fit.
        most: usize,
    },
    /// The host backend runs no programs.
    #[error("the host backend runs no stages: open the balancer with Backend::Kernel")]
    NoPrograms,
}

impl StageError {
    pub(crate) fn object(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Object { source: io::Error::other(error) }
    }

    /// Of a stage.
    pub(crate) fn of(self, stage: &str) -> OpenError {
        OpenError::Stage { stage: stage.to_owned(), source: self }
    }
}

/// Why services couldn't be applied.
pub type ApplyError = flowgate_services::ApplyError<TableError>;

/// Why a frame couldn't be replayed.
#[non_exhaustive]
#[derive(Debug, Error)]
pub enum ReplayError {
    /// The frame has no Ethernet header.
    #[error("a frame of {bytes} bytes has no Ethernet header")]
    TooShort {
        /// Its length.
        bytes: usize,
    },
    /// The kernel refused to run the program.
    #[error(transparent)]
    Tables(#[from] TableError),
}
