//! What runs beside the kernel's programs on a backend: says what was counted, until it is told to end.
//!
//! On SIGUSR1 it goes on after that, on SIGTERM and SIGINT it ends.

use std::io::{self, Write};

use flowgate_datapath::TableError;
use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};

use crate::privileges::{self, PrivilegeError};

/// Why it doesn't go on.
#[non_exhaustive]
#[derive(Debug, Error)]
pub(crate) enum UntoldError {
    #[error(transparent)]
    Privileges(#[from] PrivilegeError),
    #[error(transparent)]
    Table(#[from] TableError),
    #[error("{0}")]
    System(#[from] io::Error),
}

/// Drops the privileges that it doesn't need, and says that it has begun once it hears signals; `counted` is asked on
/// each.
pub(crate) fn until_told(
    begun: &str,
    counted: impl Fn() -> Result<String, TableError>,
) -> Result<(), UntoldError> {
    privileges::drop_all_but_needed(false)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut tell = signal(SignalKind::user_defined1())?;
        say(begun)?;
        loop {
            let ends = tokio::select! {
                _ = terminate.recv() => true,
                _ = interrupt.recv() => true,
                _ = tell.recv() => false,
            };
            say(&counted()?)?;
            if ends {
                return Ok(());
            }
        }
    })
}

/// Nobody has to listen.
fn say(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}
