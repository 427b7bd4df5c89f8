//! What can go wrong, and what to do about it.

use std::{io, net::IpAddr, path::PathBuf};

use flowgate_policy::{
    install::{InstallError, RestoreError},
    simulate::SimulateError,
};
use thiserror::Error;

use crate::lb::StageError;

/// Why a datapath couldn't be opened.
#[non_exhaustive]
#[derive(Debug, Error)]
pub enum OpenError {
    /// Full NAT can't have these sources.
    #[error(transparent)]
    Sources(#[from] flowgate_services::SourcesError),
    /// The process may not do what a datapath needs.
    #[error(
        "{capability} is missing: run as root or give the process that capability; the host backend needs none"
    )]
    MissingCapability {
        /// The capability's name.
        capability: &'static str,
    },
    /// The kernel is older than what the objects need.
    #[error("Linux {release} is too old: {}.{} or later is needed; the host backend needs none", minimum.0, minimum.1)]
    KernelTooOld {
        /// `uname -r`.
        release: String,
        /// Major and minor version that are needed.
        minimum: (u32, u32),
    },
    /// The kernel refused a program; its verifier says why.
    #[error("the kernel refused program {program}: {source}\nverifier log:\n{log}")]
    Program {
        /// The program's name.
        program: &'static str,
        /// What the system call said.
        source: io::Error,
        /// The verifier's log; empty if it was never asked.
        log: String,
    },
    /// The object couldn't be loaded: a map was refused, or it isn't an object of flowgate.
    #[error("the object couldn't be loaded: {source}")]
    Object {
        /// What went wrong.
        source: io::Error,
    },
    /// There is no memory for a table.
    #[error("no memory for table {table}, which takes {} MiB: make it smaller by the options", bytes.div_ceil(1 << 20))]
    Memory {
        /// The map's name.
        table: &'static str,
        /// Bytes of all its elements.
        bytes: u64,
    },
    /// A pin couldn't be read or written.
    #[error("{path}: {source}; is a BPF file system mounted there? (mount -t bpf bpf /sys/fs/bpf)", path = path.display())]
    Pin {
        /// Which.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// Another datapath is open on that directory, in this process or in another one.
    #[error("{path} is in use by another datapath: one at a time may have its pins; end that process, or pin elsewhere", path = path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// State of a layout that this build doesn't know is pinned there: of a newer build, or of one too
    /// old. It was left alone.
    #[error("{path} holds state of layout {found}, this build knows {}: remove it when its datapath is no longer needed, or pin elsewhere", known.join(", "), path = path.display())]
    ForeignLayout {
        /// The directory.
        path: PathBuf,
        /// The layout that is there.
        found: String,
        /// The layouts that this build knows: its own, then those that it carries over.
        known: Vec<String>,
    },
    /// Pinned state isn't what its layout says. It was left alone, and its programs run on.
    #[error("{path}: this state can't be read: {source}; remove it when its datapath is no longer needed, or pin elsewhere", path = path.display())]
    Unreadable {
        /// Its directory.
        path: PathBuf,
        /// What is wrong with it.
        source: io::Error,
    },
    /// The networks of an older layout's state don't fit into the ipcache. It was left alone, and its
    /// programs run on.
    #[error(
        "the state that is to be carried over needs {needed} nodes of the ipcache, there are {have}: raise option ipcache_nodes"
    )]
    Ipcache {
        /// Nodes that they need.
        needed: usize,
        /// Nodes that there are.
        have: usize,
    },
    /// The pinned state counts time in other units than this kernel.
    #[error(
        "the pinned state was made at {pinned} jiffies per second, this kernel has {running}: remove the pins"
    )]
    ForeignClock {
        /// Jiffies per second when it was made.
        pinned: u32,
        /// Jiffies per second now.
        running: u32,
    },
    /// The options contradict themselves or leave no room.
    #[error("option {option}: {value} {problem}")]
    Option {
        /// The option's name.
        option: &'static str,
        /// Its value.
        value: usize,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A stage in front of the balancer or behind it can't be used.
    #[error("stage {stage}: {source}")]
    Stage {
        /// Its name.
        stage: String,
        /// What is wrong with it.
        source: StageError,
    },
    /// A decapsulator can't take what it was told to.
    #[error(transparent)]
    Ends(#[from] crate::decap::EndsError),
    /// A system call failed.
    #[error("the kernel refused: {0}")]
    Kernel(#[source] io::Error),
}

impl OpenError {
    pub(crate) fn object(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Object { source: io::Error::other(error) }
    }

    pub(crate) fn carry_over(error: RestoreError<io::Error>) -> Self {
        match error {
            RestoreError::NoRoom { needed, have } => Self::Ipcache { needed, have },
            RestoreError::Store(error) => Self::Kernel(error),
            other => Self::Kernel(io::Error::other(other)),
        }
    }

    pub(crate) fn program(program: &'static str, error: aya::programs::ProgramError) -> Self {
        match error {
            aya::programs::ProgramError::LoadError { io_error, verifier_log } => {
                Self::Program { program, source: io_error, log: verifier_log.to_string() }
            }
            other => Self::Program { program, source: io::Error::other(other), log: String::new() },
        }
    }
}

/// Why an endpoint couldn't be attached. Nothing is left of the attempt.
#[non_exhaustive]
#[derive(Debug, Error)]
pub enum AttachError {
    /// There is no such interface in this thread's network namespace.
    #[error("interface {interface}: {source}")]
    UnknownInterface {
        /// Its name.
        interface: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The endpoint has no address, so nothing could ever pass it.
    #[error("endpoint of {workload} has neither an IPv4 nor an IPv6 address")]
    NoAddress {
        /// Whose it is.
        workload: String,
    },
    /// No packet from such an address may pass: loopback, unspecified, multicast, reserved, or IPv4
    /// written as IPv6.
    #[error("endpoint of {workload}: {address} can't be an endpoint's address")]
    Address {
        /// Whose it is.
        workload: String,
        /// The address.
        address: IpAddr,
    },
    /// Packets can't be handed over in the way that was asked for.
    #[error(
        "interface {interface}: {delivery} needs a veth or netkit link whose other end lies in another network namespace"
    )]
    Delivery {
        /// Its name.
        interface: String,
        /// What was asked for.
        delivery: &'static str,
    },
    /// The programs couldn't be attached.
    #[error("interface {interface}: the programs couldn't be attached: {source}")]
    Hook {
        /// Its name.
        interface: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The tables have no room, or couldn't be written.
    #[error(transparent)]
    Install(#[from] InstallError<TableError>),
}

/// The tables couldn't be accessed.
#[derive(Debug, Error)]
#[error(transparent)]
pub struct TableError(#[from] pub(crate) io::Error);

/// Why a frame couldn't be replayed.
#[non_exhaustive]
#[derive(Debug, Error)]
pub enum ReplayError {
    /// No endpoint has that slot.
    #[error("no endpoint is attached in slot {slot}")]
    NotAttached {
        /// The slot.
        slot: u32,
    },
    /// The frame has no Ethernet header.
    #[error("a frame of {bytes} bytes has no Ethernet header")]
    TooShort {
        /// Its length.
        bytes: usize,
    },
    /// The kernel replays frames on the loopback interface, and that is another endpoint's.
    #[error(
        "frames are replayed on the loopback interface, to which the endpoint in slot {owner} is bound: detach that one first"
    )]
    LoopbackTaken {
        /// The slot of the endpoint that is bound to it.
        owner: u32,
    },
    /// The host backend has no programs to time.
    #[error("the host backend has no programs")]
    NoPrograms,
    /// The kernel refused to run the program, or the tables couldn't be written.
    #[error(transparent)]
    Tables(#[from] TableError),
}

/// Why a plan couldn't be applied. The running generation is untouched.
pub type ApplyError = InstallError<TableError>;

/// Why a flow couldn't be simulated.
#[non_exhaustive]
#[derive(Debug, Error)]
pub enum AskError {
    /// See [`SimulateError`].
    #[error(transparent)]
    Simulate(#[from] SimulateError),
    /// The plan couldn't be installed for simulation.
    #[error("the plan couldn't be simulated: {0}")]
    Install(String),
}
