//! `flowgate-lb demo`: a client, a balancer and backends in network namespaces of their own, real HTTP between
//! them, and everything that an operator fears: a backend is killed, one drained, one added, and the balancer
//! killed and started again.
//!
//! [`stage`] makes the namespaces and starts processes, [`load`] is the client, [`act`] what happens, and
//! [`report`] what came of it.
//!
//! Invariant: no interface of the machine is touched, and nothing is left behind. It waits for what has
//! happened, never for time. Tested by `tests/netns_demo.rs`.

mod act;
mod backend;
mod load;
mod report;
mod stage;

use std::{io, path::PathBuf};

use flowgate_lab::{LabError, Unavailable};
use thiserror::Error;

pub(crate) use backend::serve;

use crate::{
    api::client::ClientError,
    cli::{Demo, Format},
};

/// Why there is no result.
#[non_exhaustive]
#[derive(Debug, Error)]
pub(crate) enum DemoError {
    /// Namespaces can't be made.
    #[error("{0}")]
    Unavailable(#[from] Unavailable),
    /// Something in them can't.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// A file or a process can't be had.
    #[error("{what}: {source}")]
    Io {
        /// What.
        what: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// A process has ended, or isn't ready.
    #[error("{what} isn't ready; it says:\n{said}")]
    NotReady {
        /// Which.
        what: &'static str,
        /// What it wrote.
        said: String,
    },
    /// The balancer refused a command.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Something that should have happened didn't.
    #[error("{what} within {PATIENCE:?}; what the balancer says is in {}", .log.display())]
    Waited {
        /// What.
        what: &'static str,
        /// The balancer's log.
        log: PathBuf,
    },
}

/// Longer than any step takes; what takes longer has failed.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

/// Runs it, and says whether no request failed but those of the killed backend.
///
/// # Errors
///
/// It can't be run here.
pub(crate) fn run(arguments: &Demo) -> Result<bool, DemoError> {
    flowgate_lab::available()?;
    let stage = stage::Stage::set()?;
    let report = act::play(stage, arguments.requests)?;
    match arguments.output {
        Format::Table => print!("{}", report.text()),
        Format::Json => println!("{}", report.json()),
    }
    Ok(report.is_good())
}
