//! What was found and chosen: no downgrade is silent.

use std::fmt;

use crate::endpoint::HookKind;

/// What opening a datapath found out and did.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Where the tables lie.
    pub backend: BackendKind,
    /// What became of earlier state.
    pub state: State,
    /// The programs, as the kernel sees them; empty for the host backend.
    pub programs: Vec<ProgramReport>,
    /// The kernel's release; empty for the host backend.
    pub kernel: String,
    /// Bytes of all maps.
    pub memory: usize,
}

/// Where the tables lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackendKind {
    /// In the kernel.
    Kernel,
    /// In this process.
    Host,
}

/// What became of earlier state.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// There was none.
    Fresh,
    /// An earlier process's is carried on.
    Adopted {
        /// The generation that runs; 0: none.
        generation: u32,
        /// Endpoints that wait to be claimed by `attach`.
        endpoints: usize,
    },
    /// An earlier build's is carried on: it had another layout, which is gone.
    Migrated {
        /// The hash of the older layout.
        from: u64,
        /// The generation that runs; 0: none.
        generation: u32,
        /// Endpoints that wait to be claimed by `attach`.
        endpoints: usize,
    },
}

/// A program, as the kernel sees it.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramReport {
    /// Its name.
    pub name: &'static str,
    /// The kernel's number for it, by which other tools find it as long as it is loaded.
    pub id: u32,
    /// Instructions that the verifier walked (Linux 5.16; the limit is a million).
    pub verified_instructions: Option<u32>,
    /// Bytes of machine code.
    pub jited_bytes: u32,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.backend {
            BackendKind::Kernel => write!(f, "kernel {}", self.kernel)?,
            BackendKind::Host => f.write_str("host tables")?,
        }
        match &self.state {
            State::Fresh => f.write_str(", fresh")?,
            State::Adopted { generation, endpoints } => {
                write!(f, ", adopted generation {generation} with {endpoints} endpoints")?;
            }
            State::Migrated { from, generation, endpoints } => write!(
                f,
                ", migrated generation {generation} with {endpoints} endpoints from layout {from:016x}"
            )?,
        }
        write!(f, ", {} KiB", self.memory / 1024)
    }
}

impl fmt::Display for HookKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcx => "TCX",
            Self::Clsact => "clsact",
            Self::None => "none",
        })
    }
}
