//! Where a bench runs, and how it ends.

use std::{error::Error, process::ExitCode};

use flowgate_datapath::OpenError;
use nix::sched::{CloneFlags, unshare};

/// Goes on in a network namespace of its own: nothing may ever attach to an interface of the machine's.
///
/// # Errors
/// What is missing.
pub fn own_network() -> Result<(), String> {
    let own = unshare(CloneFlags::CLONE_NEWNET);
    own.map_err(|error| format!("no network namespace of its own ({error}): run as root"))
}

/// Says that a bench can't run here, which is no failure.
#[must_use]
pub fn skipped(missing: &impl std::fmt::Display) -> ExitCode {
    println!("SKIPPED: {missing}");
    ExitCode::SUCCESS
}

/// The exit status of a bench; a missing capability is no failure.
#[must_use]
pub fn status(result: Result<(), Box<dyn Error>>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    match error.downcast_ref::<OpenError>() {
        Some(missing @ OpenError::MissingCapability { .. }) => skipped(missing),
        _ => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
